"""Worker processes on this machine. They start early, because their imports take seconds: meanwhile the command
prepares the study.

The command imports this module early too, so it imports no optuna, torch or MLflow.
"""

import json
import logging
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from tbptt import compat
from tbptt.config.hydra_node import LAUNCHERS
from tbptt.system.devices import GPU_FAILED, NO_GPU, NoGpu
from tbptt.system.runtime import stop_as_the_terminal_asks
from tbptt.system.trouble import WHAT, WORKER_STATUS, DiskTrouble

if TYPE_CHECKING:
    from tbptt.studies.study import Study
    from tbptt.studies.worker_spec import WorkerSpec

log = logging.getLogger("tbptt")

PAUSED, GOES_ON = b"p", b"g"  # what the head process tells its workers after their spec
STRIKES = 3  # the sweep gives up after so many workers in a row ended before they took a trial


class WorkerProcess:
    """``python -m tbptt.studies.worker_process``. It waits on stdin for its :class:`WorkerSpec`, and later for requests
    to pause.

    Args:
        slot: the worker's index; workers take the machine's GPUs in turn.
    """

    def __init__(self, slot: int):
        env, gpus = dict(os.environ), visible_gpus()
        if len(gpus) > 1:
            env["CUDA_VISIBLE_DEVICES"] = gpus[slot % len(gpus)]
        # A session of its own: Ctrl-C reaches the command only, which then asks the workers to stop.
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tbptt.studies.worker_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
            env=env,
        )

    def give(self, spec: "WorkerSpec", log: Path) -> None:
        """Let the worker begin; from now on it writes to ``log``. The return code shows whether a worker has died."""
        self._say(json.dumps({**asdict(spec), "log": str(log.absolute())}).encode() + b"\n")

    def pause(self) -> None:
        """Make the worker wait between two chunks until :meth:`go_on`, or until this process is gone. Its heartbeat
        goes on. A stop by the system would hold the worker and its resources for ever if this process were killed."""
        self._say(PAUSED)  # first: the signal makes the worker read it
        self._process.send_signal(signal.SIGTSTP)

    def go_on(self) -> None:
        self._say(GOES_ON)

    def poll(self) -> int | None:
        """Its exit status, in the form of :mod:`subprocess`; None while it runs."""
        status = self._process.poll()
        if status is not None:
            self._close()
        return status

    def terminate(self) -> None:
        self._process.terminate()

    def wait(self) -> int:
        self._close()
        return self._process.wait()

    def _say(self, what: bytes) -> None:
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.write(what)
            self._process.stdin.flush()

    def _close(self) -> None:
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()


def wait_while_paused() -> None:
    """In a worker: wait while the last message of the head process on stdin is ``PAUSED``, and the head is there."""
    said = b""
    while said == PAUSED or select.select([0], [], [], 0)[0]:
        said = os.read(0, 4096)[-1:]
        if not said:  # the head is gone
            return


class Ends:
    """Decide what the end of a worker means: another worker takes its place, or the study is given up.

    Args:
        log: the file that says why a worker ended.
        how_to_go_on: advice for the user if the study is given up because of its GPU.
    """

    def __init__(self, study: "Study", retries: int, workers: int, log: str, how_to_go_on: str):
        self.study, self.retries, self.log, self.how_to_go_on = study, retries, log, how_to_go_on
        # More failures than faulty trials alone can cause, one after the other.
        self.most_gpu_failures = (retries + 1) * max(workers, STRIKES) + 1
        self.strikes, self.gpu_failures, self.done, self.begun = 0, 0, -1, self._begun()
        self.any_ended_well = self.lacks_gpu = False

    def take(self, status: int) -> bool:
        """Whether another worker takes the place of a worker that ended with ``status``. Raises the error that ends the
        study."""
        if status == 0:
            self.any_ended_well = True
            return False
        if status - WORKER_STATUS in WHAT:
            raise DiskTrouble(status - WORKER_STATUS)
        if status == NO_GPU:
            self.lacks_gpu = True
            return False
        if status == GPU_FAILED:
            self.gpu_failed()
            return True
        # Another worker may have reaped the ended worker's trial before this process looks.
        took = bool(self.study.reap(self.retries)) or self._begun() > self.begun
        self.begun = self._begun()
        self.strikes = 0 if took else self.strikes + 1
        if self.strikes == STRIKES:
            raise RuntimeError(f"{STRIKES} workers ended before they took a trial; {self.log} says why")
        return True

    def _begun(self) -> int:
        """How many trials were ever taken from the queue."""
        return sum(trial.state.name != "WAITING" for trial in self.study.trials())

    def gpu_failed(self) -> None:
        """Count a GPU failure. The worker gave its trial back, which it can do as often as the trial has retries."""
        counts = self.study.counts()
        if counts.complete + counts.pruned > self.done:
            self.done, self.gpu_failures = counts.complete + counts.pruned, 0
        self.gpu_failures += 1
        log.warning("the GPU failed in a worker, and another takes its place; %s says how", self.log)
        if self.gpu_failures == self.most_gpu_failures:
            raise self._no_gpu(f"the GPU failed {self.gpu_failures} times without a trial done")

    def all_taken(self) -> None:
        """Call it when all workers have ended. Raises NoGpu if they ended for want of a GPU."""
        if self.lacks_gpu and not self.any_ended_well:
            raise self._no_gpu("the GPU cannot be used any more")

    def _no_gpu(self, what: str) -> NoGpu:
        return NoGpu(what, f"; {self.log} says why; when that is mended, {self.how_to_go_on}")


def pause(processes: Iterable[WorkerProcess]) -> None:
    """Pause all workers together with this process, as Ctrl-Z asks, and resume them when this process resumes. The
    terminal does not reach the workers, because they have sessions of their own."""
    paused = list(processes)
    for process in paused:
        process.pause()
    stop_as_the_terminal_asks()
    for process in paused:
        process.go_on()


def stop(processes: Iterable[WorkerProcess]) -> None:
    """Ask all to stop, and wait until they have."""
    stopped = list(processes)
    for process in stopped:
        process.terminate()
    for process in stopped:
        process.wait()


def end_joblib(stop: bool) -> None:
    """End the processes of Hydra's joblib launcher, if there are any. Otherwise they would outlive the command by
    minutes and hold its output open. With ``stop``, processes that train give their trials back first, as after
    Ctrl-C."""
    executor = compat.joblib_executor()
    if executor is None:
        return
    if stop:
        for process in compat.process_ids(executor):
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGINT)
    executor.shutdown(wait=True)


def early(config: DictConfig) -> list[WorkerProcess]:
    """Start workers for a checked ``-m`` command, if the command will run them on this machine."""
    if config.study.dry_run or config.hydra.launcher._target_ != LAUNCHERS["basic"]:
        return []
    most = min(config.study.workers, config.study.n_trials or config.study.workers, os.cpu_count() or 1)
    return [WorkerProcess(slot) for slot in range(most)]


def visible_gpus() -> list[str]:
    """The GPUs of this machine, as CUDA_VISIBLE_DEVICES names them; without importing torch."""
    if (named := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [gpu for gpu in named.split(",") if gpu]
    return [str(i) for i, _ in enumerate(Path("/proc/driver/nvidia/gpus").glob("*"))]
