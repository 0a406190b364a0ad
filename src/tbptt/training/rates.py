"""The learning rates of an optimizer while a schedule moves them."""

from collections.abc import Sequence

import torch
from torch import Tensor

from tbptt.training.lr_schedules import LrSchedule, Moment
from tbptt.training.optimizers import rates, set_rates


class Rates:
    """Sets an optimizer's learning rates before each update, as a schedule says.

    A CUDA graph keeps the rate that it captured. There the rates stay, and the steps are cut to a share.

    If something else changes a rate, such as a callback, it meant the one that it found: the full rate changes by the
    same factor.

    Args:
        optimizer: with its full rates, before a checkpoint is loaded into it.
        schedule: gives the factor.
        in_graph: whether a CUDA graph holds the optimizer's step.

    Attributes:
        full: the rates without the schedule, one for each group of parameters that has one.
        share: scalar tensor, see :meth:`tbptt.training.flat.FlatParameters.guarded_step`; None without a graph.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, schedule: LrSchedule, in_graph: bool):
        self._optimizer, self._schedule = optimizer, schedule
        self.full = self._last = rates(optimizer)
        parameter: Tensor = optimizer.param_groups[0]["params"][0]
        self.share: Tensor | None = parameter.detach().new_ones(()) if in_graph else None
        self._factor = 1.0

    def go_on(self, full: Sequence[float] | None) -> None:
        """Go on after a checkpoint was loaded into the optimizer, whose full rates were these."""
        self.full = self._last = list(full) if full and len(full) == len(self.full) else self.full
        set_rates(self._optimizer, self.full)

    def before(self, at: Moment) -> None:
        """Set the rates of the update that comes."""
        self.factor(at)
        if self.share is not None:
            self.share.fill_(self._factor)
        else:
            self._last = [rate * self._factor for rate in self.full]
            set_rates(self._optimizer, self._last)

    def factor(self, at: Moment) -> float:
        """The schedule's factor on the rates of the update that comes; what makes the update must apply it."""
        self._factor = self._schedule.factor(at)
        return self._factor

    def heed_changes(self) -> None:
        """Take over what something else has changed since the last update."""
        now = rates(self._optimizer)
        self.full = [
            full if rate == last else full * rate / last if last else rate
            for full, rate, last in zip(self.full, now, self._last, strict=True)
        ]
        self._last = now

    def of_the_last_update(self) -> list[float]:
        """The rates of the update that was made last."""
        return [rate * self._factor for rate in self.full]
