"""Everything that N trials have while they train together, a row a trial: weights, optimizer, settings and seeds.

All optimizers keep at most two numbers a weight, so two matrices hold the state of any of them, and a row can be filled
with a trial of another optimizer at any time. All settings are numbers on the device: a CUDA graph reads them anew.
"""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tbptt.models.article import QNetwork
from tbptt.models.packed import places
from tbptt.models.packed_noise import as_signed
from tbptt.training.clip_modes import SHIPPED
from tbptt.training.flat import FlatParameters
from tbptt.training.optimizers import load_optimizer, optimizer_of, optimizer_state, rates, set_rates
from tbptt.training.options import OptimizerConfig
from tbptt.training.packed_optimizers import KINDS, SETTINGS, Kept, Kind, settings_of

COLUMNS = (*SETTINGS, "clip")


@dataclass(frozen=True)
class RowTrial:
    """The settings of a trial that trains in a row.

    Attributes:
        optimizer, clip, clip_mode: as in a config.
        seed: of its noise: the ``seed`` of the network's noise layer.
        noise_std: of its noise.
    """

    optimizer: OptimizerConfig
    clip: float | None = None
    clip_mode: str = "norm"
    seed: int = 0
    noise_std: float = 0.0

    @property
    def kind(self) -> Kind:
        """Trials of the same kind have their optimizers' steps computed together."""
        return KINDS[type(self.optimizer)](self.optimizer)

    @property
    def group(self) -> tuple[Any, ...]:
        """Trials of one group have their whole updates computed together. It tells groups apart, and sorts them."""
        if self.clip is None:
            return (*self.kind.key, "")
        # A mode of your own takes the value as a number, which a CUDA graph would keep.
        return (*self.kind.key, self.clip_mode, 0.0 if self.clip_mode in SHIPPED else self.clip)


class PackedRows:
    """Room for ``count`` trials of one network's shape, on the network's device and in its type.

    Args:
        network: one of that shape; it is not changed.

    Attributes:
        tensors: what a row has: ``weights`` (N, P), laid out as :func:`tbptt.models.packed.places` says; ``first`` and
            ``second`` (N, P), what its optimizer keeps; ``steps`` (N,) float64, its optimizer's steps; ``settings``
            (N, C) float64, by COLUMNS; ``factors`` (N,) float64, on its learning rate; ``seeds`` and ``updates`` (N,)
            int64, for its noise.
        trials: of each row; None where it is free.
    """

    def __init__(self, network: QNetwork, count: int):
        self.network, self.places = network, places(network)
        weight = network.head.weight.detach()
        size = max(place.stop for place in self.places.values())
        matrices = {name: weight.new_zeros(count, size) for name in ("weights", "first", "second")}
        exact = torch.zeros(count, len(COLUMNS), dtype=torch.float64, device=weight.device)
        whole = torch.zeros(count, dtype=torch.int64, device=weight.device)
        self.tensors = {
            **matrices,
            "steps": torch.zeros_like(exact[:, 0]),
            "settings": exact,
            "factors": torch.ones_like(exact[:, 0]),
            "seeds": whole,
            "updates": whole.clone(),
        }
        self.trials: list[RowTrial | None] = [None] * count
        self._single = FlatParameters(deepcopy(network).cpu(), blocks=False)

    def __len__(self) -> int:
        return len(self.trials)

    def fill(
        self,
        row: int,
        trial: RowTrial,
        network: QNetwork,
        *,
        update: int = 0,
        optimizer: dict[str, Any] | None = None,
        lr: float | None = None,
    ) -> None:
        """Put a trial into a row.

        Args:
            network: has the trial's weights.
            update: the number of updates that it has behind it.
            optimizer: the :func:`tbptt.training.optimizers.optimizer_state` to go on with; None to begin.
            lr: its learning rate without the schedule's factor; by default the config's.
        """
        config, rows = trial.optimizer, self.tensors
        self.trials[row] = trial
        _copy_weights(network, rows["weights"][row], self.places, to_row=True)
        settings = {**settings_of(config), "clip": trial.clip or 0.0}
        if lr is not None:
            settings["lr"] = lr
        rows["settings"][row] = torch.tensor([settings.get(name, 0.0) for name in COLUMNS], dtype=torch.float64)
        rows["factors"][row], rows["steps"][row] = 1.0, 0.0
        rows["seeds"][row], rows["updates"][row] = as_signed(trial.seed), update
        rows["first"][row], rows["second"][row] = trial.kind.begin, 0.0
        if optimizer is not None and optimizer["state"]:
            self._load(row, trial, optimizer)

    def free(self, row: int) -> None:
        """Say that a row's trial has ended."""
        self.trials[row] = None

    def trial(self, row: int) -> RowTrial:
        """The trial of a row that has one."""
        trial = self.trials[row]
        if trial is None:
            raise ValueError(f"row {row} has no trial")
        return trial

    def to_network(self, row: int, network: QNetwork) -> None:
        """Copy a row's weights into a network of the same shape, on any device."""
        _copy_weights(network, self.tensors["weights"][row], self.places, to_row=False)

    def optimizer_state(self, row: int) -> dict[str, Any]:
        """The state of a row's optimizer as :func:`tbptt.training.optimizers.optimizer_state` gives it of a run alone:
        a run on any device can go on with it. A schedule's factor is in its learning rates."""
        trial = self.trial(row)
        optimizer = optimizer_of(trial.optimizer, self._single)
        lr = float(self.tensors["settings"][row, COLUMNS.index("lr")] * self.tensors["factors"][row])
        set_rates(optimizer, [lr] * len(rates(optimizer)))
        if steps := float(self.tensors["steps"][row]):
            for p, start, stop, kept in self._kept(optimizer, trial.kind):
                mine = {name: self.tensors[which][row, start:stop] for which, name in _named(kept)}
                state: dict[str, Any] = {name: w.view_as(p).to(p.device, copy=True) for name, w in mine.items()}
                if kept.counts:
                    state["step"] = torch.tensor(steps, dtype=torch.float32)
                if state:
                    optimizer.state[p] = state
        return optimizer_state(optimizer, self._single)

    def _load(self, row: int, trial: RowTrial, saved: dict[str, Any]) -> None:
        optimizer = optimizer_of(trial.optimizer, self._single)
        load_optimizer(optimizer, self._single, saved)
        self.tensors["steps"][row] = 1.0  # of an optimizer that does not count them
        for p, start, stop, kept in self._kept(optimizer, trial.kind):
            state = optimizer.state[p]
            for which, name in _named(kept):
                if state.get(name) is not None:
                    self.tensors[which][row, start:stop] = state[name].flatten().to(self.tensors[which].device)
            if kept.counts:
                self.tensors["steps"][row] = float(state["step"])

    def _kept(self, optimizer: torch.optim.Optimizer, kind: Kind) -> list[tuple[Tensor, int, int, Kept]]:
        """For each tensor of an optimizer on one trial's parameters: the tensor, where it lies in a row, what is kept
        of it."""
        by_id = {id(p): name for name, p in self._single.named.items()}
        found: list[tuple[Tensor, int, int, Kept]] = []
        for p in (p for group in optimizer.param_groups for p in group["params"]):
            if p is self._single.vector:
                found.append((p, 0, p.numel(), kind.kept("", p.shape)))
            else:
                name = by_id[id(p)]
                found.append((p, *self.places[name][:2], kind.kept(name, p.shape)))
        return found


def why_no_row(optimizer: OptimizerConfig) -> str | None:
    """Why an optimizer cannot train in a row of a pack; None if it can."""
    if type(optimizer) in KINDS:
        return None
    return f"optimizer={optimizer.name} has no form for many trials at once"


def _named(kept: Kept) -> list[tuple[str, str]]:
    return [(which, name) for which, name in (("first", kept.first), ("second", kept.second)) if name]


@torch.no_grad()
def _copy_weights(network: QNetwork, row: Tensor, at: Mapping[str, Any], *, to_row: bool) -> None:
    for name, p in network.named_parameters():
        if name in at:
            start, stop, shape = at[name]
            if to_row:
                row[start:stop].copy_(p.detach().flatten())
            else:
                p.copy_(row[start:stop].view(shape))
