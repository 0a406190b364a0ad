"""A full disk, a read-only one, a folder taken away: one clear line, no damaged file, and on when it is mended.

Where Linux lets us make one, the tests in it run once more in a process that has a small disk of its own.
"""

import errno
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from io import RawIOBase
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import SMALL
from forked import command
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from omegaconf import DictConfig

from tbptt.runs import checkpoint
from tbptt.runs.context import RunContext
from tbptt.runs.epoch import Epoch
from tbptt.runs.fit import fit
from tbptt.system.trouble import DiskTrouble, disk_trouble, fullest

DISK = os.environ.get("SMALL_DISK")
MEGABYTES = 32  # the report alone has 5, and is kept twice
NAMESPACE = ["unshare", "--user", "--map-root-user", "--mount"]
on_small_disk = pytest.mark.skipif(DISK is None, reason="runs on a disk of its own, by test_on_a_small_disk")
RUN = ["epochs=12", "schedule.patience=null", "model.noise_std=0.1"]


def has_namespaces() -> bool:
    mounts = [*NAMESPACE, "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    return shutil.which("unshare") is not None and subprocess.run(mounts, capture_output=True).returncode == 0


@pytest.mark.skipif(DISK is not None, reason="this is the small disk")
def test_on_a_small_disk(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    if not has_namespaces():
        pytest.skip("this system lets nobody mount a disk of his own")
    mount = f"mount -t tmpfs -o size={MEGABYTES}m tmpfs {tmp_path}"
    tests = f"{sys.executable} -m pytest -n 0 -p no:cacheprovider {__file__} -k on_disk"
    env = {**os.environ, "SMALL_DISK": str(tmp_path), "TMPDIR": str(tmp_path_factory.mktemp("beside"))}
    env = {name: value for name, value in env.items() if not name.startswith("PYTEST_")}
    done = subprocess.run([*NAMESPACE, "sh", "-c", f"{mount} && {tests}"], capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stdout
    assert f"{ON_DISK} passed" in done.stdout
    assert "skipped" not in done.stdout


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A folder on the small disk, which has nothing else; of another name each, as MLflow remembers stores by it."""
    assert DISK
    folder = Path(DISK) / str(hash(request.node.name) % 1000)
    folder.mkdir()
    monkeypatch.chdir(folder)
    yield folder
    shutil.rmtree(folder)


def fill(disk: Path) -> None:
    def write(filler: RawIOBase) -> None:
        while True:
            filler.write(b"x" * 4096)

    with (disk / "filler").open("ab", buffering=0) as filler, pytest.raises(OSError, match="No space"):
        write(filler)


def make_room(disk: Path) -> None:
    (disk / "filler").unlink()


def assert_whole(disk: Path) -> None:
    """Every checkpoint and database can be read to its end."""
    for path in (*disk.rglob("*.ckpt"), *disk.rglob("*.db")):
        if path.suffix == ".ckpt":
            checkpoint.load(path)
        else:
            with closing(sqlite3.connect(path)) as database:
                assert database.execute("pragma integrity_check").fetchall() == [("ok",)]


def curve(run_id: str, name: str = "val/loss") -> list[tuple[int, float]]:
    return sorted((m.step, m.value) for m in client().get_metric_history(run_id, name))


def client() -> MlflowClient:
    return MlflowClient(f"sqlite:///{Path.cwd()}/mlruns/mlflow.db")


@on_small_disk
def test_on_disk_a_run_that_fills_it_ends_with_a_line_and_goes_on_when_there_is_room(
    disk: Path, small: Callable[..., DictConfig], caplog: pytest.LogCaptureFixture
) -> None:
    cfg = small(*RUN)
    whole = fit(cfg).run_id
    ids: list[str] = []

    def after_epoch(epoch: Epoch) -> bool:
        if epoch.number == 5:
            fill(disk)
        return False

    with pytest.raises(DiskTrouble) as caught:
        fit(cfg, RunContext(after_epoch=after_epoch, on_start=ids.append))
    (run_id,) = ids
    assert str(caught.value).startswith(f"no room is left on the disk ({disk}/mlruns/artifacts/{run_id}")
    assert str(caught.value).endswith(f"go on with it: python train.py resume={run_id}")
    assert not caplog.records  # that line says it all
    make_room(disk)
    assert_whole(disk)
    fit(cfg, RunContext(resume=run_id))
    assert curve(run_id) == curve(whole)
    assert len(curve(run_id)) == 12
    assert client().get_run(run_id).info.status == "FINISHED"
    assert_whole(disk)


@on_small_disk
def test_on_disk_that_is_full_at_the_start_nothing_breaks(disk: Path, small: Callable[..., DictConfig]) -> None:
    fit(small("epochs=2"))
    fill(disk)
    with pytest.raises(MlflowException) as caught:
        fit(small("epochs=2"))
    assert str(disk_trouble(caught.value)).startswith("no room is left on the disk")
    make_room(disk)
    assert_whole(disk)
    assert client().get_run(fit(small("epochs=2")).run_id).info.status == "FINISHED"


@on_small_disk
def test_on_disk_a_study_that_fills_it_goes_on_when_there_is_room(disk: Path, tmp_path: Path) -> None:
    words = ["-m", *SMALL, "epochs=40", "schedule.patience=null", "clip=1,2,3", "study.workers=2", "study.name=full"]
    head = command(disk, *words, outputs=tmp_path)
    first = disk / "sweeps" / "full" / "0"
    while not first.exists():
        assert head.is_alive(), (tmp_path / "err").read_text()
    fill(disk)
    head.join()
    assert head.exitcode == 1
    (line,) = (tmp_path / "err").read_text().splitlines()
    assert line.startswith("no room is left on the disk (")
    assert line.endswith("give the same command again to go on")
    make_room(disk)
    assert_whole(disk)
    head = command(disk, *words, outputs=tmp_path)
    head.join()
    assert head.exitcode == 0, (tmp_path / "err").read_text()
    assert_whole(disk)
    with closing(sqlite3.connect("sweeps/optuna.db")) as database:
        states = dict(database.execute("select state, count(*) from trials group by 1"))
    assert states.pop("COMPLETE") == 3
    assert set(states) <= {"FAIL"}  # what was stopped, and gone on with
    runs = client().search_runs([e.experiment_id for e in client().search_experiments()])
    trials = [r for r in runs if "trial.number" in r.data.tags and r.info.status == "FINISHED"]
    assert sorted(r.data.params["clip"] for r in trials) == ["1.0", "2.0", "3.0"]
    assert [len(curve(r.info.run_id)) for r in trials] == [40, 40, 40]
    assert "RUNNING" not in {r.info.status for r in runs}


@on_small_disk
def test_on_disk_that_is_read_only_nothing_is_begun(disk: Path) -> None:
    (disk / "here").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(disk / "here")], check=True)
    try:
        train = [sys.executable, str(Path(__file__).parents[1] / "train.py")]
        done = subprocess.run(
            [*train, "-m", *SMALL, "clip=1,2"], capture_output=True, text=True, cwd=disk / "here", check=False
        )
    finally:
        subprocess.run(["umount", str(disk / "here")], check=True)
    assert done.returncode == 2
    lines = done.stderr.splitlines()
    assert [line.split(":")[0] for line in lines] == ["tracking.uri", "study.storage"]
    assert all("cannot be written (Read-only file system)" in line for line in lines)


ON_DISK = sum(name.startswith("test_on_disk") for name in globals())


# --- anywhere -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("folder", ["mlruns", "mlruns/pending"])
def test_a_folder_taken_away_ends_a_run_with_a_line(here: Path, small: Callable[..., DictConfig], folder: str) -> None:
    ids: list[str] = []

    def after_epoch(epoch: Epoch) -> bool:
        if epoch.number == 5:
            Path(folder).rename("away")
        return False

    with pytest.raises(DiskTrouble) as caught:
        fit(small(*RUN), RunContext(after_epoch=after_epoch, on_start=ids.append))
    assert "what was finished is kept" in str(caught.value)
    assert "\n" not in str(caught.value)
    shutil.rmtree(folder, ignore_errors=True)
    Path("away").rename(folder)
    assert_whole(here)
    fit(small(*RUN), RunContext(resume=ids[0]))
    assert curve(ids[0]) == curve(fit(small(*RUN)).run_id)


@pytest.mark.parametrize(
    ("number", "says"),
    [
        (errno.ENOSPC, "no room is left on the disk"),
        (errno.EDQUOT, "the disk quota is used up"),
        (errno.EROFS, "the disk can only be read"),
        (errno.EIO, "the disk does not work"),
    ],
)
def test_a_disk_that_fails_at_a_checkpoint_loses_nothing(
    here: Path, small: Callable[..., DictConfig], monkeypatch: pytest.MonkeyPatch, number: int, says: str
) -> None:
    ids: list[str] = []
    fsync, calls = os.fsync, iter(range(10**6))

    def failing(file: int) -> None:
        if next(calls) > 14:
            raise OSError(number, os.strerror(number))
        fsync(file)

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", failing)
        with pytest.raises(DiskTrouble) as caught:
            fit(small(*RUN), RunContext(on_start=ids.append))
    assert str(caught.value).startswith(f"{says} ")
    assert_whole(here)
    info = client().get_run(ids[0])
    assert (info.info.status, info.data.tags["stop.reason"]) == ("FAILED", "error")
    assert not list(here.rglob(".*.ckpt.*"))
    fit(small(*RUN), RunContext(resume=ids[0]))
    assert curve(ids[0]) == curve(fit(small(*RUN)).run_id)


def test_other_errors_are_not_taken_for_the_disks() -> None:
    assert disk_trouble(ValueError("disk is full")) is None
    assert disk_trouble(FileNotFoundError("nothing opened")) is None
    assert disk_trouble(TimeoutError(errno.ETIMEDOUT, "slow")) is None
    with closing(sqlite3.connect(":memory:")) as database, pytest.raises(sqlite3.OperationalError) as caught:
        database.execute("select nothing")
    assert disk_trouble(caught.value) is None


def test_the_disk_is_seen_below_other_errors(here: Path) -> None:
    try:
        try:
            sqlite3.connect(here / "nowhere" / "x.db")
        except sqlite3.Error as error:
            raise RuntimeError("the commit failed") from error
    except RuntimeError as error:
        trouble = disk_trouble(error)
    assert trouble is not None
    assert trouble.number == errno.ENOENT


def test_what_is_full_is_named_by_its_folder(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trouble = disk_trouble(OSError(errno.ENOSPC, "full", str(here / "runs" / ".last.ckpt.123")))
    assert trouble is not None
    assert trouble.where == str(here / "runs")
    for name in ("sweeps", "mlruns"):
        Path(name).mkdir()
    free = {"sweeps": 10**9, "mlruns": 4096}
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=free[folder.name]))
    assert fullest([Path("sweeps"), Path("mlruns"), Path("away")]) == str(here / "mlruns")


@pytest.mark.parametrize("says_so", [False, True])
def test_an_error_while_another_is_handled_came_from_it_only_if_it_says_so(here: Path, says_so: bool) -> None:
    def look() -> None:
        try:
            (here / "optional").read_text()
        except FileNotFoundError as missing:
            if says_so:
                raise RuntimeError("needed it") from missing
            raise RuntimeError("a bug in what to do without")  # noqa: B904

    with pytest.raises(RuntimeError) as caught:
        look()
    assert isinstance(caught.value.__context__, FileNotFoundError)
    assert (disk_trouble(caught.value) is not None) == says_so
