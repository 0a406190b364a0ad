"""Runs with files, without the training; and runs and trials held by a living process of its own."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mlflow.entities import LoggedModelOutput

import tbptt
from tbptt.runs.tracking import Run, Store

ALL = ("best.ckpt", "last.ckpt", "last.previous.ckpt")

CLAIMS = "from pathlib import Path; from tbptt.runs.pending import claim_run; claim_run(Path(sys.argv[1])); print('{}')"
LIVES = (
    "from pathlib import Path; from tbptt.system.liveness import holding; print(json.dumps(holding(Path(sys.argv[1]))))"
)


def run_with_files(store: Store, status: str | None = "FINISHED", model: bool = False, study: str = "a-study") -> str:
    """A run of 10 bytes a checkpoint, and a model of 30."""
    run = store.start_run("a run", {"study.name": study})
    folder = run.folder / "checkpoints"
    folder.mkdir()
    for name in ALL:
        (folder / name).write_bytes(b"0123456789")
    if model:
        made_model(store, run)
    if status:
        run.finish(status)
    return run.id


def made_model(store: Store, run: Run) -> str:
    """A logged model of a run, as its end makes one."""
    made = store.client.create_logged_model(run.experiment, "model", source_run_id=run.id)
    Path("model").mkdir()
    Path("model/MLmodel").write_bytes(b"0" * 30)
    store.client.log_model_artifacts(made.model_id, "model")
    store.client.finalize_logged_model(made.model_id, "READY")
    store.client.log_outputs(run.id, [LoggedModelOutput(made.model_id, 0)])
    shutil.rmtree("model")
    return str(made.model_id)


@contextmanager
def _process(code: str, folder: Path) -> Iterator[str]:
    """The line that the process prints; it lives as long as the context."""
    script = f"import json, sys; {code}; sys.stdout.flush(); sys.stdin.read()"
    path = str(Path(tbptt.__file__).parents[1])
    with subprocess.Popen(
        [sys.executable, "-c", script, str(folder.absolute())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    ) as process:
        assert process.stdout
        yield process.stdout.readline()
        process.communicate()


@contextmanager
def held_elsewhere(pending: Path) -> Iterator[None]:
    """Another process trains the run of this ``pending/RUN``."""
    with _process(CLAIMS, pending) as line:
        assert line == "{}\n"
        yield


@contextmanager
def worker_elsewhere(folder: Path) -> Iterator[str]:
    """Another process is a worker of the studies whose storage is in this folder: what it is, as JSON."""
    with _process(LIVES, folder) as line:
        yield line
