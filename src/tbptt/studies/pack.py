"""A pack: one worker trains several trials of its study at once, an epoch of each in turn.

Each trial is a generator (:meth:`tbptt.studies.worker.Worker.trial`) that stops whenever its next epoch is to be
trained. When one ends, pruned, diverged or finished, the next trial takes its place at once.
"""

import os
from collections.abc import Generator
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING, cast

import torch
from omegaconf import OmegaConf

from tbptt.config.schema import Config
from tbptt.runs.lane import REPORT, TURNS, Epochs, Lane, Pace
from tbptt.studies.plan import Plan
from tbptt.system.devices import GpuMemory, gpu_trouble, pick_device
from tbptt.system.runtime import Interrupted
from tbptt.system.trouble import disk_trouble
from tbptt.tasks.prepare import PreparedLast

if TYPE_CHECKING:
    from tbptt.studies.worker import Worker

TINY = 10_000  # steps of training an epoch, of all series together; around more of them a pack saves little on a CPU
OF_TINY = 16  # such trials that one process trains at once
MOST_ON_A_GPU = 128
SHARE = 0.8  # of a GPU's memory


class Pack:
    """Several trials of a worker.

    Args:
        size: how many at once; 1 only where ``grows``.
        grows: whether it is as many as fit into the GPU's memory, which the first trial's first epoch shows.
    """

    def __init__(self, worker: "Worker", size: int, grows: bool):
        self.worker, self.size, self._grows = worker, size, grows
        self.pace, self.epochs = Pace(), Epochs(_cores(worker.plan.settings.workers), size, worker.signals.check)
        self.trials: dict[Generator[Lane], Lane] = {}

    def work(self) -> None:
        """Run trials until none is left."""
        try:
            while self._fill():
                self.epochs.train(list(self.trials.values()))
                self._heed_memory()
                for turn in TURNS:
                    with self.worker.study.together() if turn == REPORT else nullcontext():
                        for trial in list(self.trials):
                            self._go_on(trial)
        except BaseException as error:
            self._stop(error)
            raise
        finally:
            self.epochs.close()

    def _fill(self) -> bool:
        """Begin new trials in the places that are free; returns whether any trial is there."""
        size = 1 if self._grows else self.size
        while len(self.trials) < size and (claimed := self.worker.claim()) is not None:
            self._go_on(self.worker.trial(*claimed, self.pace))
        return bool(self.trials)

    def _go_on(self, trial: Generator[Lane]) -> None:
        """Let a trial do everything until it has to wait for the others, or to its end."""
        self.trials.pop(trial, None)
        with suppress(StopIteration):
            self.trials[trial] = next(trial)

    def _heed_memory(self) -> None:
        """Take half as many trials if the GPU had no room for these, and as many as fit after the first epoch."""
        failed = [lane.failure for lane in self.trials.values() if lane.failure is not None]
        if any(isinstance(gpu_trouble(error), GpuMemory) for error in failed):
            self.size = max(1, len(self.trials) // 2)
        elif self._grows:
            self._grow()
        self._grows = False

    def _grow(self) -> None:
        """Take as many trials as fit beside the one that was measured."""
        device = next(iter(self.trials.values())).device
        free, _ = torch.cuda.mem_get_info(device)
        taken = torch.cuda.max_memory_allocated(device)
        self.size = max(1, min(self.size, int(SHARE * (free + torch.cuda.memory_reserved(device)) / max(taken, 1))))

    def _stop(self, error: BaseException) -> None:
        """Give all trials back to the study, with what they have learnt, as ``error`` ends this worker."""
        trouble = isinstance(error, Exception) and (gpu_trouble(error) or disk_trouble(error))
        signum = error.signum if isinstance(error, Interrupted) else 15
        for trial in list(self.trials):
            with suppress(BaseException):  # each ends as it can; the first error is told
                trial.throw(cast(Exception, error) if trouble else Interrupted(signum))
        self.trials.clear()


def _cores(workers: int) -> int:
    """How many of this machine's cores a worker has to itself."""
    return max(1, len(os.sched_getaffinity(0)) // workers) if hasattr(os, "sched_getaffinity") else 1


def pack_of(plan: Plan, prepare: PreparedLast) -> tuple[int, bool]:
    """How many trials a worker of this plan trains at once, and whether that is only the most of what a GPU's memory
    decides.

    Args:
        prepare: returns the data; it keeps them for the first trial.
    """
    settings = plan.settings
    most = -(-plan.n_trials // settings.workers) if plan.n_trials else MOST_ON_A_GPU
    if settings.pack != "auto":
        return min(int(settings.pack), most), False
    if pick_device(plan.cfg.device) == "cuda":
        return min(MOST_ON_A_GPU, most), most > 1
    # A sampler learns less from trials that run at once, and more of them may fail before a study stops.
    if not plan.is_grid or settings.max_failures is not None:
        return 1, False
    return (min(OF_TINY, most) if _is_tiny(plan, prepare) else 1), False


def _is_tiny(plan: Plan, prepare: PreparedLast) -> bool:
    """Whether the first trial is tiny, as far as its data can be read: if not, its trials say why."""
    try:
        config = cast(Config, OmegaConf.to_object(plan.cfg))
        train = prepare(config.data, config.task).train
    except Exception:
        return False
    return train.batch * train.length <= TINY
