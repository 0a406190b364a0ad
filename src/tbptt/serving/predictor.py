"""Predicting step by step: the network's state and the last prices are carried from block to block.

B series, N new rows of a block, W the window, D other inputs, O outputs.
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from tbptt.data.features import LagFeatures
from tbptt.models.state import batch_dims, leaves, rebuild
from tbptt.runs import checkpoint
from tbptt.serving.trained import Trained
from tbptt.system.runtime import full_float32
from tbptt.tasks.decisions import held

CHUNK = 500  # steps of a forward pass; it changes memory and speed, not the result


@dataclass(frozen=True)
class Predicted:
    """The predictions of a block.

    Attributes:
        scaled: (B, N, O) float32, standardised as the network gives them; NaN where there is none: the price is
            missing, or fewer than W prices came before it.
        values: (B, N, O) float64, in the units of the task's targets; NaN as above.
        side: (B, N) int8: 1 long, -1 short, 0 where there is no prediction. A change of side pays for its cost. None if
            the task decides nothing.
    """

    scaled: Float[Tensor, "B N O"]
    values: Float64[Tensor, "B N O"]
    side: Tensor | None


class Predictor:
    """Predicts the steps of series as their prices come, in blocks of any length. The numbers are those of one pass
    over all of them.

    Each series counts its own prices: at a row where its price is missing, its state stays as it is.

    Args:
        trained: the network.
        series: how many series, B; by default as many as it was trained on. If each series has its own scale, it must
            be as many, in the same order.
        device: where the network computes; prices and predictions are on the CPU.

    Raises:
        ValueError: the network cannot predict so many series.
    """

    def __init__(self, trained: Trained, series: int | None = None, device: str = "cpu"):
        scaler = trained.scaler
        known = len(scaler.input_std)
        count = series or (len(trained.series) if trained.series else known)
        if known not in (1, count):
            raise ValueError(
                f"{trained.source.said} was trained on {known} series, each with its own scale: got {count}"
            )
        self.trained, self.batch = trained, count
        network: Any = trained.network
        self._network, self._task, self._device = network.to(device), trained.task, device
        self._start = self._network.zero_state(count)
        self._dims = batch_dims(self._network)
        self._state = [leaf.detach().clone() for leaf in leaves(self._start)]
        self._past = torch.full((count, trained.window), torch.nan, dtype=torch.float64)
        self._extra = torch.full((count, trained.window, len(trained.inputs)), torch.nan, dtype=torch.float64)
        self._seen = torch.zeros(count, dtype=torch.int64)
        self._side = torch.zeros(count, dtype=torch.int8)

    @torch.no_grad()
    def __call__(self, prices: Float64[Tensor, "B N"], extra: Float64[Tensor, "B N D"] | None = None) -> Predicted:
        """Predict the steps of new prices.

        Args:
            prices: (B, N), N from 0, in price units; what is not finite is missing.
            extra: (B, N, D), the other inputs beside each price; what is not finite is missing. Needed if the run has
                ``data.inputs``.
        """
        count = len(self.trained.inputs)
        if prices.ndim != 2 or len(prices) != self.batch:
            raise ValueError(f"prices: got {tuple(prices.shape)}; takes {self.batch} series of any length")
        beside = (*prices.shape, count)
        if (extra is None and count) or (extra is not None and tuple(extra.shape) != beside):
            got = None if extra is None else tuple(extra.shape)
            raise ValueError(f"extra: got {got}; takes {beside}")
        extra = prices.new_empty(beside) if extra is None else extra
        scaled = prices.new_full((*prices.shape, self._task.outputs), torch.nan, dtype=torch.float32)
        values = scaled.double()
        side = prices.new_zeros(prices.shape, dtype=torch.int8) if self._task.decides else None
        known = prices.isfinite()
        for rows, at in self._alike(known):
            self._predict(rows, at, prices, extra, scaled, values, side)
        return Predicted(scaled, values, side)

    def _alike(self, known: Bool[Tensor, "B N"]) -> list[tuple[Tensor, Tensor]]:
        """The series that can be computed together: they have prices at the same rows, and as many before. Each group
        as the indices of its series and of its rows."""
        groups: dict[tuple[int, bytes], list[int]] = {}
        for i, row in enumerate(known):
            before = min(int(self._seen[i]), self.trained.window)
            groups.setdefault((before, row.numpy().tobytes()), []).append(i)
        return [(torch.tensor(rows), known[rows[0]].nonzero().flatten()) for rows in groups.values()]

    def _predict(
        self,
        rows: Tensor,
        at: Tensor,
        prices: Tensor,
        extra: Tensor,
        scaled: Tensor,
        values: Tensor,
        side: Tensor | None,
    ) -> None:
        """Predict a group of series, and move on their states."""
        window = self.trained.window
        before = min(int(self._seen[rows[0]]), window)
        new = torch.cat([self._past[rows, window - before :], prices[rows][:, at]], dim=1)
        beside = torch.cat([self._extra[rows, window - before :], extra[rows][:, at]], dim=1)
        self._seen[rows] += len(at)
        keep = min(new.shape[1], window)
        self._past[rows, window - keep :] = new[:, -keep:] if keep else new
        self._extra[rows, window - keep :] = beside[:, -keep:] if keep else beside
        if new.shape[1] <= window:
            return
        y = self._forward(rows, new, beside)
        at = at[len(at) - y.shape[1] :]
        scaler = self.trained.scaler.of_series(rows)
        given = scaler.to_price_units(y.double())
        place = rows[:, None], at[None]
        scaled[place], values[place] = y, given
        if side is not None:
            fee = scaler.fee if scaler.fee is not None else given.new_zeros(1)
            gain, start = given[..., 0] - given[..., 1], self._side[rows]
            long = held(gain, 2 * fee[:, None], torch.where(start == 0, gain[:, 0] > 0, start > 0))
            found = (2 * long.int() - 1).to(torch.int8)
            side[place], self._side[rows] = found, found[:, -1]

    def _forward(self, rows: Tensor, prices: Tensor, extra: Tensor) -> Tensor:
        """The network's outputs at all steps of (b, W + n) prices, (b, n, O)."""
        config, whole = self.trained.config, len(rows) == self.batch
        names = self.trained.inputs
        features = LagFeatures(
            prices,
            self.trained.scaler.of_series(rows),
            self.trained.window,
            config.data.features,
            extra=extra if names else None,
            input_window=config.data.input_window if names else 1,
        ).to(self._device)
        state = self._state if whole else [self._of(leaf, dim, rows) for leaf, dim in self._leaves()]
        tree, found = rebuild(self._start, state), []
        with full_float32():
            for begin in range(0, features.length, CHUNK):
                y, tree = self._network(features(begin, min(begin + CHUNK, features.length)), tree)
                found.append(y.cpu())
        for i, (leaf, dim) in enumerate(zip(leaves(tree), self._dims, strict=True)):
            if whole or dim is None:
                self._state[i] = leaf
            else:
                self._state[i] = self._state[i].index_copy(dim, rows.to(leaf.device), leaf)
        return torch.cat(found, dim=1)

    def _leaves(self) -> list[tuple[Tensor, int | None]]:
        return list(zip(self._state, self._dims, strict=True))

    @staticmethod
    def _of(leaf: Tensor, dim: int | None, rows: Tensor) -> Tensor:
        return leaf if dim is None else leaf.index_select(dim, rows.to(leaf.device))

    def state_dict(self) -> dict[str, Any]:
        """All that a later process needs to go on, in plain types and tensors."""
        return {
            "weights": checkpoint.digest(dict(self._network.state_dict())),
            "seen": self._seen,
            "past": self._past,
            "extra": self._extra,
            "side": self._side,
            "state": [leaf.cpu() for leaf in self._state],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from :meth:`state_dict`. Raises ValueError if that is of another network or of other series."""
        own = self.state_dict()
        if state.get("weights") != own["weights"]:
            raise ValueError("is of another network")
        for name in ("seen", "past", "extra", "side"):
            given = state.get(name)
            if not isinstance(given, Tensor) or (given.shape, given.dtype) != (own[name].shape, own[name].dtype):
                raise ValueError(f"is not of {self.batch} series of this network")
        if (state["seen"] < 0).any() or (state["side"].abs() > 1).any():
            raise ValueError("holds numbers that no state has")
        given = state.get("state")
        if not isinstance(given, list) or [_form(leaf) for leaf in given] != [_form(leaf) for leaf in self._state]:
            raise ValueError(f"is not of {self.batch} series of this network")
        self._seen, self._past = state["seen"].clone(), state["past"].clone()
        self._extra, self._side = state["extra"].clone(), state["side"].clone()
        self._state = [leaf.clone().to(self._device) for leaf in state["state"]]


def _form(leaf: Any) -> Any:
    return (leaf.shape, leaf.dtype) if isinstance(leaf, Tensor) else type(leaf)
