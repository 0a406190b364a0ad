"""Which epoch of a run was its best."""

import math
from dataclasses import dataclass

from tbptt.options.metrics import sign
from tbptt.runs.epoch import Epoch


@dataclass
class Best:
    """The epoch at which the leading objective was best so far.

    Attributes:
        values: the values of all objectives at that epoch; nan for an objective that was not measured then.
    """

    objectives: list[str]
    epoch: int | None = None
    values: tuple[float, ...] = ()

    @property
    def value(self) -> float | None:
        """The value of the leading objective; None before the first measurement."""
        return self.values[0] if self.values else None

    def take(self, epoch: Epoch) -> bool:
        """Record this epoch if it is the best so far; returns whether it is."""
        value = epoch.metrics.get(self.objectives[0])
        factor = sign(self.objectives[0])
        if value is None or (self.values and factor * value >= factor * self.values[0]):
            return False
        self.epoch = epoch.number
        self.values = tuple(epoch.metrics.get(name, math.nan) for name in self.objectives)
        return True
