"""Learning-rate schedules: a factor on ``optimizer.lr`` for every update.

PyTorch's schedulers count their own steps and must know how many will come. Here a stage of the schedule of chunks may
end early and has as many updates an epoch as it has chunks. So the factor is a function of how far training has come
(:class:`Moment`): a resumed run needs nothing but its epoch to go on with the same rates. Where a schedule looks at the
losses, it is PyTorch's (:class:`Plateau`).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tbptt.options.metrics import TRAIN_LOSS, VAL_LOSS
from tbptt.options.option import Option, key
from tbptt.options.takes import number, one_of, whole


@dataclass(frozen=True)
class Moment:
    """How far training has come before an update.

    Attributes:
        update: the number of the update since training began, from 0.
        epoch: the number of its epoch, from 0.
        chunks: the chunks per sequence of its stage, which are the updates of its epoch.
        of_run: the share of the run's epochs that is done, from 0 and below 1.
        of_stage: the share of its stage's epochs that is done, from 0 and below 1. A stage without a limit lasts until
            the run's end.
    """

    update: int
    epoch: int
    chunks: int
    of_run: float
    of_stage: float


class LrSchedule:
    """A schedule at work in one run. This one has no memory."""

    def __init__(self, config: "LrScheduleConfig"):
        self.config = config

    def factor(self, at: Moment) -> float:
        """The factor on the learning rate of an update, a number from 0."""
        return self.config.factor(at)

    def end_epoch(self, metrics: Mapping[str, float]) -> None:
        """Called with the losses and the task's metrics of every finished epoch, by name."""

    def state_dict(self) -> dict[str, Any]:
        """What cannot be computed from a :class:`Moment`, in plain types; it is kept in checkpoints."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a :meth:`state_dict`."""


@dataclass
class LrScheduleConfig(Option):
    """One option of ``lr_schedule``. Its fields are the settings, and ``factor`` reads them.

    Attributes:
        changes: whether the factor is ever another than 1.
    """

    group = "lr_schedule"
    needs = ("factor",)
    reads_its_keys = True
    changes = True

    def factor(self, at: Moment) -> float:
        """The factor on ``optimizer.lr`` at an update: a finite number from 0. It must depend on ``at`` and the
        settings alone; a schedule with a memory returns an :class:`LrSchedule` of its own from ``begin``."""
        raise NotImplementedError  # each option has its own

    def begin(self) -> LrSchedule:
        """The schedule of one run."""
        return LrSchedule(self)


@dataclass
class Constant(LrScheduleConfig, options=["constant"], new=True):
    changes = False

    def factor(self, at: Moment) -> float:
        return 1.0


@dataclass
class Warmed(LrScheduleConfig):
    """The base of schedules that may begin with a warm-up: in the first ``warmup`` updates the rate rises in equal
    steps, from one ``warmup``-th of itself to all of it."""

    warmup: int = key(whole(0), 0)

    def warm(self, at: Moment) -> float:
        return min(1.0, (at.update + 1) / self.warmup) if self.warmup else 1.0


@dataclass
class Warmup(Warmed, options=["warmup"]):
    """A constant rate after a warm-up."""

    warmup: int = key(whole(0), 100)

    def factor(self, at: Moment) -> float:
        return self.warm(at)


@dataclass
class Cosine(Warmed, options=["cosine"]):
    """Half a cosine from 1 down to ``end``, over the run or anew in each stage."""

    over: str = key(one_of("run", "stage"), "run")
    end: float = key(number(0, 1), 0.0)

    def factor(self, at: Moment) -> float:
        done = at.of_run if self.over == "run" else at.of_stage
        return self.warm(at) * (self.end + (1 - self.end) * (1 + math.cos(math.pi * done)) / 2)


@dataclass
class ByChunk(Warmed, options=["by_chunk"]):
    """min(``cap``, chunks^-``power``): many small chunks, so many updates an epoch, get a lower rate."""

    power: float = key(number(0), 1.0)
    cap: float | None = key(number(0, 1, open_low=True, closed_high=True, null=True), None)

    def factor(self, at: Moment) -> float:
        return self.warm(at) * min(1.0 if self.cap is None else self.cap, float(at.chunks) ** -self.power)


@dataclass
class Plateau(Warmed, options=["plateau"]):
    """PyTorch's ``ReduceLROnPlateau``: after ``patience`` epochs without a loss that is lower by a ``threshold``-th,
    the rate is multiplied by ``reduce``; then ``cooldown`` epochs do not count. It stops at the factor ``end``."""

    metric: str = key(one_of(VAL_LOSS, TRAIN_LOSS), VAL_LOSS)
    reduce: float = key(number(0, 1, open_low=True), 0.5)
    patience: int = key(whole(0), 5)
    threshold: float = key(number(0, 1), 1e-4)
    cooldown: int = key(whole(0), 0)
    end: float = key(number(0, 1), 0.0)

    def factor(self, at: Moment) -> float:
        """The factor as long as nothing was reduced."""
        return self.warm(at)

    def begin(self) -> LrSchedule:
        return _OnPlateau(self)


class _OnPlateau(LrSchedule):
    def __init__(self, config: Plateau):
        from torch import nn, optim

        super().__init__(config)
        self._metric = config.metric
        # PyTorch's scheduler sets the rate of an optimizer: here one of nothing, whose rate is the factor.
        self._optimizer = optim.SGD([nn.Parameter()], lr=1.0)
        self._scheduler = optim.lr_scheduler.ReduceLROnPlateau(
            self._optimizer,
            factor=config.reduce,
            patience=config.patience,
            threshold=config.threshold,
            cooldown=config.cooldown,
            min_lr=config.end,
            eps=0,
        )

    def factor(self, at: Moment) -> float:
        return float(super().factor(at) * self._group["lr"])

    @property
    def _group(self) -> dict[str, Any]:
        return self._optimizer.param_groups[0]

    def end_epoch(self, metrics: Mapping[str, float]) -> None:
        self._scheduler.step(metrics[self._metric])

    def state_dict(self) -> dict[str, Any]:
        kept = self._scheduler
        return {
            "factor": float(self._group["lr"]),
            "best": float(kept.best),
            "bad_epochs": kept.num_bad_epochs,
            "cooldown": kept.cooldown_counter,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._group["lr"] = float(state["factor"])
        self._scheduler.best = float(state["best"])
        self._scheduler.num_bad_epochs = int(state["bad_epochs"])
        self._scheduler.cooldown_counter = int(state["cooldown"])
