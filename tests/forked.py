"""The command, whole, as real processes that can be killed; forked from one that has made the imports already."""

import json
import logging
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from conftest import CONF, ROOT

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    [
        *("conftest", "tables", "hydra", "tbptt.studies.sweep", "tbptt.studies.worker", "tbptt.cli.main"),
        *("pytorch_lightning", "mlflow.store.tracking.sqlalchemy_store", "plotly.graph_objects"),
    ]
)


class ForkedWorker:
    """A pool.WorkerProcess, forked when its spec comes."""

    def __init__(self, slot: int):
        self.returncode: int | None = None
        self.pid = 0

    def give(self, spec: Any, log: Path) -> None:
        reader, writer = os.pipe()
        os.write(writer, json.dumps({**asdict(spec), "log": str(log.absolute())}).encode() + b"\n")
        self.pid = os.fork()
        if not self.pid:
            try:
                os.setsid()
                from tbptt.studies import worker

                logging.getLogger().handlers.clear()
                for each in (signal.SIGINT, signal.SIGTERM):
                    signal.signal(each, signal.SIG_DFL if each == signal.SIGTERM else signal.default_int_handler)
                os.dup2(reader, 0)
                os.close(writer)
                os._exit(worker.main())
            except BaseException as error:
                logging.exception(error)
                os._exit(1)
        os.close(reader)
        os.close(writer)

    def poll(self) -> int | None:
        if self.returncode is None and self.pid:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def wait(self) -> int:
        if self.returncode is None:
            self.returncode = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1]) if self.pid else 0
        return self.returncode

    def terminate(self) -> None:
        if self.returncode is None and self.pid:
            os.kill(self.pid, signal.SIGTERM)


def _command(
    folder: str, outputs: str, words: list[str], environment: dict[str, str], before: Callable[[], None] | None
) -> None:
    os.environ.clear()  # what it was forked from has that of whichever test began it
    os.environ.update(environment)
    import hydra
    import tables

    import tbptt.studies.pool
    from tbptt.cli.main import job, run

    tables.use()
    os.chdir(folder)
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(Path(outputs, name), os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    tbptt.studies.pool.WorkerProcess = ForkedWorker  # type: ignore[assignment, misc]
    sys.argv = ["train.py", *words]
    if before:
        before()
    main = hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(job)
    os._exit(run(main, CONF))


def command(folder: Path, *words: str, outputs: Path | None = None, before: Callable[[], None] | None = None) -> Any:
    """``python train.py WORDS`` in a folder: a multiprocessing.Process. It leaves ``out`` and ``err`` there, or in
    ``outputs``. ``before``, a function of a module, breaks what is to be broken in it and its workers."""
    process = CONTEXT.Process(
        target=_command, args=(str(folder), str(outputs or folder), list(words), dict(os.environ), before)
    )
    process.start()
    return process


def python(
    *words: str, cwd: Path, path: str | None = None, workers_forked: bool = True, timeout: float = 400
) -> "subprocess.CompletedProcess[str]":
    """What ``python WORDS`` does in a folder: a script or ``-c``, with a PYTHONPATH, and with no bytecode kept.

    It imports all of tbptt anew, from where a new process would; only libraries are there already. A study's workers
    are forked from the command, unless they are to be processes that find everything by themselves.
    """
    with tempfile.TemporaryDirectory() as outputs:
        environment = {"PYTHONPATH": "", **os.environ} if path is None else {**os.environ, "PYTHONPATH": path}
        process = CONTEXT.Process(target=_python, args=(str(cwd), outputs, list(words), environment, workers_forked))
        process.start()
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            raise subprocess.TimeoutExpired(list(words), timeout)
        out, err = (Path(outputs, name).read_text() for name in ("out", "err"))
        return subprocess.CompletedProcess(list(words), process.exitcode, out, err)


def _python(folder: str, outputs: str, words: list[str], environment: dict[str, str], workers_forked: bool) -> None:
    os.environ.clear()
    os.environ.update(environment)
    import tables

    tables.use()
    for name in [name for name in sys.modules if name.split(".")[0] in ("tbptt", "hydra_plugins", "conftest")]:
        del sys.modules[name]
    os.chdir(folder)
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(Path(outputs, name), os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    tests = str(ROOT / "tests")
    sys.path = [*filter(None, environment["PYTHONPATH"].split(os.pathsep)), *(p for p in sys.path if p != tests)]
    sys.dont_write_bytecode = True  # files are changed within the second that bytecode is told apart by
    sys.argv, sys.orig_argv = words, [sys.executable, *words]
    if workers_forked:
        import tbptt.studies.pool

        tbptt.studies.pool.WorkerProcess = ForkedWorker  # type: ignore[assignment, misc]
    if words[0] == "-c":
        sys.argv, code = ["-c", *words[2:]], words[1]
        sys.path.insert(0, "")
        exec(compile(code, "<string>", "exec"), {"__name__": "__main__"})
    else:
        sys.path.insert(0, str(Path(words[0]).resolve().parent))
        runpy.run_path(words[0], run_name="__main__")
