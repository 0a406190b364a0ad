"""What the tests share: configs small enough to train in a second, in a folder of their own, on the CPU."""

import gc
import importlib
import os
import shutil
import signal
import sqlite3
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import jaxtyping
import pytest
import sqlalchemy
import torch
from hydra import initialize_config_dir
from omegaconf import DictConfig

# Half a million objects of what is imported live as long as the tests do. To look through them, every few hundred new
# objects, took a sixth of a small run's time; forked processes begin with this too.
gc.set_threshold(10_000, 10, 10)

# Where no bytecode is kept, each process compiles 34,000 lines of ours anew, and of the tests.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# Before they are imported: calls are held against the shapes that these say.
SHAPED = (
    *("tbptt.data.features", "tbptt.data.sequences", "tbptt.tasks.q_values", "tbptt.training.clipping"),
    *("tbptt.models.kernels", "tbptt.models.scan"),
)
with jaxtyping.install_import_hook(list(SHAPED), "beartype.beartype"):
    for name in SHAPED:
        importlib.import_module(name)

from tbptt.config import compose  # noqa: E402
from tbptt.config.compose import ConfigSource  # noqa: E402
from tbptt.config.schema import register  # noqa: E402
from tbptt.options.option import GROUPS  # noqa: E402

for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):  # tests keep to stores of their own
    os.environ.pop(name, None)

# Of a nohup around the tests, or a job in the background: some are about these signals, and others would wait for long.
for stop, usual in ((signal.SIGHUP, signal.SIG_DFL), (signal.SIGINT, signal.default_int_handler)):
    if signal.getsignal(stop) == signal.SIG_IGN:
        signal.signal(stop, usual)


# What a process wrote is there when it is killed, whether it waited for the disk or not; only a power cut would tell. A
# small run waits 60 times, for as long as it computes. Forked processes do without, too, others are as they are.
os.fsync = lambda file: None


@sqlalchemy.event.listens_for(sqlalchemy.Engine, "connect")
def _no_waiting_for_the_disk(connection: Any, _: Any) -> None:
    if type(connection).__module__ == "sqlite3":
        with suppress(sqlite3.DatabaseError):  # of a file that is none, which the test is about
            connection.execute("pragma synchronous = off")


TABLES = "TABLES_OF_THE_TESTS"
ROOT = Path(__file__).parents[1]
CONF = ROOT / "conf"

# A run of these takes well under a second, once Lightning is imported.
SMALL = [
    "data.n_series=3",
    "data.val_series=2",
    "data.length=120",
    "data.window=8",
    "task.gamma=0.9",
    "model.dense=[8]",
    "model.hidden=[8]",
    "schedule.chunks=[10,2,1]",
    "epochs=3",
    "progress=none",
]


# On a GPU small tests take minutes, and have other numbers. So it is hidden from all tests and their processes, but for
# those that use the fixture gpu. pytest-xdist's workers begin with the environment that this leaves.
os.environ.setdefault("GPUS_OF_THE_TESTS", os.environ.get("CUDA_VISIBLE_DEVICES", "all"))
os.environ["CUDA_VISIBLE_DEVICES"] = ""
SEES = {name: getattr(torch.cuda, name) for name in ("is_available", "device_count")}


def pytest_configure(config: pytest.Config) -> None:
    """Where tables.py keeps what all processes of the tests use."""
    if TABLES not in os.environ:
        os.environ[TABLES] = tempfile.mkdtemp()
        config.add_cleanup(lambda: shutil.rmtree(os.environ.pop(TABLES)))


# Files that take longest begin first, so that all processes of the tests end at about the same time.
LONGEST = (
    *("test_own.py", "test_docs.py", "test_kills.py", "test_security.py", "test_resume.py", "test_other_machine.py"),
    *("test_outbox.py", "test_disk.py", "test_study.py", "test_train.py", "test_sweep.py", "test_command_line.py"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))


@pytest.fixture(scope="session", autouse=True)
def _tables_at_once() -> None:
    import tables

    tables.use()


@pytest.fixture(scope="session", autouse=True)
def _shipped_files_are_read_once() -> Iterator[None]:
    """Hydra takes a tenth of a second for the files of a choice, and each command reads them anew, as they may have
    changed. No test changes the shipped ones; what is registered beside them may be another test's."""
    read = compose._chosen

    @lru_cache(maxsize=64)
    def kept(source: ConfigSource, overrides: tuple[str, ...], options: str) -> DictConfig:
        return read(source, overrides)

    def chosen(source: ConfigSource, overrides: tuple[str, ...]) -> DictConfig:
        if source != ConfigSource(CONF):
            return read(source, overrides)
        return kept(source, overrides, str([(group, *map(id, found.values())) for group, found in GROUPS.items()]))

    chosen.cache_clear = read.cache_clear  # type: ignore[attr-defined]
    chosen.__wrapped__ = read  # type: ignore[attr-defined]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compose, "_chosen", chosen)
        yield


@pytest.fixture(scope="session", autouse=True)
def _no_gpu() -> Iterator[None]:
    """Hidden in this process too, where a test of a GPU may have found it before."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: False)
        patch.setattr(torch.cuda, "device_count", lambda: 0)
        yield


@contextmanager
def gpus_seen() -> Iterator[None]:
    """Within, this machine's GPUs are seen as they were before the tests began."""
    with pytest.MonkeyPatch.context() as patch:
        for name, function in SEES.items():
            patch.setattr(torch.cuda, name, function)
        if os.environ["GPUS_OF_THE_TESTS"] == "all":
            patch.delenv("CUDA_VISIBLE_DEVICES")
        else:
            patch.setenv("CUDA_VISIBLE_DEVICES", os.environ["GPUS_OF_THE_TESTS"])
        yield


@pytest.fixture(scope="module")
def gpu() -> Iterator[None]:
    """They are seen; skips where PyTorch can compute on none."""
    from tbptt.system import devices

    with gpus_seen():
        devices._looked.cache_clear()
        if reason := devices.why_no_gpu():
            pytest.skip(f"no GPU that PyTorch can use ({reason})")
        yield
    devices._looked.cache_clear()


@pytest.fixture(autouse=True)
def _nothing_is_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test's config took from the environment is not hidden in the lines of the next test."""
    monkeypatch.setattr("tbptt.system.secrets._hidden", {})


@pytest.fixture(autouse=True)
def _one_trial_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless a test asks for a pack: the data of most are so small that study.pack=auto would train all trials at
    once."""
    monkeypatch.setattr("tbptt.studies.pack.OF_TINY", 1)


@pytest.fixture(autouse=True)
def _each_epoch_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """To the store at its end, however short it was."""
    monkeypatch.setattr("tbptt.runs.journal.SEND_EVERY", 0.0)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder as the working directory, where runs leave what they leave."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def config() -> Callable[..., DictConfig]:
    """Composes the shipped config with overrides, as train.py does; the same files are read once."""

    def composed(*overrides: str) -> DictConfig:
        register()
        with initialize_config_dir(str(CONF), version_base="1.3"):
            return ConfigSource(CONF).compose(overrides)

    return composed


@pytest.fixture
def small(config: Callable[..., DictConfig]) -> Callable[..., DictConfig]:
    """The same, on small data, with a small network."""
    return lambda *overrides: config(*SMALL, *overrides)
