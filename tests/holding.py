"""A run, or a study's trial, held by a living process of its own."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import tbptt

CLAIMS = "from pathlib import Path; from tbptt.runs.pending import claim_run; claim_run(Path(sys.argv[1])); print('{}')"
LIVES = (
    "from pathlib import Path; from tbptt.system.liveness import holding; print(json.dumps(holding(Path(sys.argv[1]))))"
)


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
