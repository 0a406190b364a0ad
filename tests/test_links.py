"""Nothing is written through a link that lies in a study's or a run's folder: somebody may have sent it with them."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import CONF
from omegaconf import DictConfig

from tbptt.config.compose import ConfigSource
from tbptt.config.schema import TrackingConfig, register
from tbptt.runs import checkpoint
from tbptt.runs.context import RunContext
from tbptt.runs.fit import fit
from tbptt.runs.journal import JOURNAL, OUTCOME, OWNER, deliver_pending
from tbptt.runs.pending import claim_left_run, claim_run, has_living_owner, let_go
from tbptt.runs.tracking import Store
from tbptt.system.claims import of_this_process
from tbptt.system.files import links_in, make_folder, open_own, replaced, write_text
from tbptt.system.stores import locked


@pytest.fixture
def mine(here: Path) -> Path:
    """A file of the user's that links point to."""
    path = here / "mine.txt"
    path.write_text("mine")
    return path


def test_a_file_takes_the_place_of_a_link(mine: Path, here: Path) -> None:
    link = here / "out.txt"
    link.symlink_to(mine)
    (here / f".out.txt.{os.getpid()}").symlink_to(mine)  # also where the new one is written first
    write_text(link, "new")
    assert (link.read_text(), link.is_symlink()) == ("new", False)
    assert mine.read_text() == "mine"
    assert sorted(path.name for path in here.iterdir()) == ["mine.txt", "out.txt"]


def test_a_file_that_is_not_finished_leaves_the_old_one(here: Path) -> None:
    (here / "out.txt").write_text("old")
    with pytest.raises(UnicodeEncodeError), replaced(here / "out.txt") as beside:
        beside.write_text("half" + "\ud800", encoding="utf-8")
    assert {path.name: path.read_text() for path in here.iterdir()} == {"out.txt": "old"}


def test_hydras_record_of_a_trial_is_not_written_through_links(mine: Path, here: Path) -> None:
    register()
    names = ("config.yaml", "hydra.yaml", "overrides.yaml")
    for name in names:
        (here / name).symlink_to(mine)
    source = ConfigSource(CONF)
    with source.opened():
        source.save(here, ["clip=2.0"])
    assert mine.read_text() == "mine"
    assert not any((here / name).is_symlink() for name in names)
    assert "clip: 2.0" in (here / "config.yaml").read_text()
    assert (here / "overrides.yaml").read_text() == "- clip=2.0\n"


def test_a_log_or_lock_that_is_a_link_is_refused(mine: Path, here: Path) -> None:
    (here / "log").symlink_to(mine)
    with pytest.raises(ValueError, match="log is a link, and nothing is written through one"):
        open_own(here / "log", os.O_WRONLY | os.O_APPEND)
    with pytest.raises(ValueError, match="is a link"), locked(here / "log"):
        pass
    assert mine.read_text() == "mine"


def test_the_folder_that_is_given_may_be_a_link_and_none_below_it(here: Path) -> None:
    (here / "disk").mkdir()
    (here / "study").symlink_to(here / "disk")
    assert make_folder(here / "study" / "0" / ".hydra", here / "study").is_dir()
    (here / "disk" / "1").symlink_to(here)
    with pytest.raises(ValueError, match="study/1 is a link"):
        make_folder(here / "study" / "1" / ".hydra", here / "study")
    assert not (here / ".hydra").exists()


def test_links_in_a_studys_folder_are_told_before_anything_is_written(mine: Path, here: Path) -> None:
    study = here / "study"
    (study / "1").mkdir(parents=True)
    assert links_in(study) == []
    (study / "0").symlink_to(here)
    (study / "1" / ".hydra").symlink_to(here)
    (study / "2").symlink_to(here / "nothing")
    (study / "workers.log").symlink_to(mine)
    (study / "report.html").symlink_to(mine)  # a file takes its place
    told = [line.split(" is a link")[0] for line in links_in(study)]
    assert told == [str(study / name) for name in ("0", "1/.hydra", "2", "workers.log")]


def test_files_of_others_are_not_removed_where_heartbeats_should_be(mine: Path, here: Path) -> None:
    (here / "sweeps").mkdir()
    (here / "sweeps" / ".alive").symlink_to(here)
    with pytest.raises(ValueError, match="is a link"):
        of_this_process(here / "sweeps" / ".alive")
    assert mine.read_text() == "mine"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(TrackingConfig(uri=f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db"))


def test_a_run_writes_through_no_link(mine: Path, here: Path, small: Callable[..., DictConfig], store: Store) -> None:
    def plant(run_id: str) -> None:
        run = store.run(run_id)
        assert run is not None
        pending = store.folder / "pending" / run_id
        for folder, names in ((run.folder, ["config.yaml", "updates.parquet"]), (pending, [JOURNAL, OUTCOME, OWNER])):
            folder.mkdir(parents=True, exist_ok=True)
            for name in names:
                (folder / name).symlink_to(mine)
        (run.folder / "checkpoints").mkdir()
        for name in ("last.ckpt", "best.ckpt", "last.previous.ckpt"):
            (run.folder / "checkpoints" / name).symlink_to(mine)

    run_id = fit(small(f"tracking.uri='{store.tracking.uri}'"), RunContext(on_start=plant)).run_id
    assert mine.read_text() == "mine"
    run = store.run(run_id)
    assert run is not None
    assert [path for path in run.folder.rglob("*") if path.is_symlink() and path.name != "last.previous.ckpt"] == []
    assert checkpoint.load(run.folder / "checkpoints" / "last.ckpt")["epoch"] == 2
    assert store.client.get_run(run_id).info.status == "FINISHED"


@pytest.mark.parametrize("link", ["RUN", "RUN/artifacts", "RUN/artifacts/checkpoints"])
def test_a_run_with_a_folder_that_is_a_link_is_not_gone_on_with(here: Path, store: Store, link: str) -> None:
    run_id = store.start_run("sent", {}).id
    path = store.folder / "artifacts" / link.replace("RUN", run_id)
    if path.exists():
        path.rename(here / "real")
    (here / "elsewhere").mkdir()
    path.symlink_to(here / "elsewhere")
    with pytest.raises(ValueError, match=f"{path.name} is a link"):
        store.reopen_run(run_id)
    assert list((here / "elsewhere").iterdir()) == []


def test_what_a_run_still_has_to_send_is_not_looked_for_behind_a_link(here: Path, store: Store) -> None:
    (here / "elsewhere").mkdir()
    (here / "elsewhere" / OWNER).write_text("{}")
    (store.folder / "pending").mkdir(exist_ok=True)
    link = store.folder / "pending" / "run"
    link.symlink_to(here / "elsewhere")
    with pytest.raises(ValueError, match="is a link"):
        claim_run(link)
    assert deliver_pending(store, 50) == 0
    assert [path.name for path in (here / "elsewhere").iterdir()] == [OWNER]


@pytest.mark.parametrize("text", ["{}", "[]", "null", '"words"', '{"host": "here"', '{"pid": 1}'])
def test_a_file_that_names_no_process_is_nobody_who_trains_a_run(here: Path, text: str) -> None:
    folder = here / "pending" / "run"
    folder.mkdir(parents=True)
    (folder / OWNER).write_text(text)
    assert not has_living_owner(folder)
    claim_left_run(folder)
    let_go(folder)


def test_a_link_is_not_sent_to_a_server(here: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    run = store.start_run("sent", {})
    (here / "secret").write_text("mine")
    (run.folder / "notes.txt").write_text("of the run")
    (run.folder / "secret").symlink_to(here / "secret")
    sent: list[str] = []
    run.is_local = False
    monkeypatch.setattr(store.client, "log_artifact", lambda run_id, path, folder: sent.append(Path(path).name))
    run.finish("FINISHED")
    assert sent == ["notes.txt"]
