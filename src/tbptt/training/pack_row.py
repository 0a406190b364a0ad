"""A run in a pack, as the backends of a pack take it."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from tbptt.models.protocol import Network
from tbptt.training.cuda_graphs import FixedSteps
from tbptt.training.flat import FlatParameters
from tbptt.training.options import OptimizerConfig

Record = list[list[float]]  # of a pass, as PassRecord.to_host() gives it


@dataclass
class Row:
    """A run in a pack; see :func:`tbptt.training.chunks.train_pass` for what is not said here.

    Attributes:
        at_work: gives a context within which the process's random generators are this run's.
        compiled: whether the compiled layers may compute it.
        config: of the optimizer; None where only the optimizer itself is known.
        lr: the learning rate without its schedule.
        factor: of the schedule on the learning rate of each update of the pass, by its number; None: 1.
    """

    network: Network
    parameters: FlatParameters
    optimizer: torch.optim.Optimizer
    clip: float | None = None
    clip_mode: str = "norm"
    first_update: int = 0
    before_update: Callable[[int], None] | None = None
    share: Tensor | None = None
    fixed: FixedSteps | None = None
    at_work: Callable[[], AbstractContextManager[None]] = nullcontext
    compiled: bool = True
    config: OptimizerConfig | None = None
    lr: float | None = None
    factor: Callable[[int], float] | None = None
