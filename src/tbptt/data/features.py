"""The network's inputs: lag windows of a price series and of other inputs, made chunk by chunk, and their scaling."""

import math
from copy import copy
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

KINDS = ("lagged_change", "one_step_change")
# Other inputs that are further from their training mean than this many standard deviations are taken to be this far.
# No value of up to 100 million training steps can be further; a held-out one may be, and the network stays finite.
MOST_DEVIATIONS = 1e4


@dataclass(frozen=True)
class Scaler:
    """Means and standard deviations of the training part; S is 1 (shared by all series) or B (one a series).

    Attributes:
        input_mean, input_std: (S,) of the lag features, in price units.
        target_mean: (S, O), each output's mean, in price units.
        target_std: (S,) common to all outputs, or (S, O), about those means.
        fee: (S,) in price units, the fee in the targets; a change of side costs twice the fee. None if the task has no
            fee, or if the checkpoint is older than this field.
        mixing: (O, O) float64, outputs = targets @ mixing. The network then predicts mixtures of the targets, and the
            target moments above are those of the mixtures. None if the network predicts the targets themselves, or if
            the checkpoint is older than this field.
        extra_mean, extra_std: (S, D) float64 of the other inputs, each in its own unit, over the steps at which it is
            known. The deviation of an input that never changes or is never known is infinite: it is 0 at all steps,
            also where it does change later, as the network could learn nothing of it. None if the run has no other
            inputs, or if the checkpoint is older than this field.
    """

    input_mean: Tensor
    input_std: Tensor
    target_mean: Tensor
    target_std: Tensor
    fee: Tensor | None = None
    mixing: Tensor | None = None
    extra_mean: Tensor | None = None
    extra_std: Tensor | None = None

    @classmethod
    def fit(
        cls,
        prices: Float64[Tensor, "B WT"],
        steps: Int64[Tensor, " B"],
        targets: Float64[Tensor, "B T O"],
        window: int,
        kind: str,
        shared: bool,
        common_scale: bool | None = True,
        mixing: Float64[Tensor, "O O"] | None = None,
    ) -> "Scaler":
        """Population moments over the trained steps.

        Args:
            prices: (B, W + T) float64, W = ``window``; prices[:, W + t] belongs to step t.
            steps: (B,) how many steps of each series count; the rest is padding.
            targets: (B, T, O) in price units.
            shared: one scale for all series (the article's), or one for each.
            common_scale: one standard deviation for all outputs, or one for each; None leaves the targets as they are.
            mixing: (O, O), outputs = targets @ mixing; the moments are then those of the outputs. None: the outputs
                are the targets.

        Raises:
            ValueError: a series' inputs, targets or outputs never change, so they cannot be standardised.
        """
        valid = (torch.arange(targets.shape[1]) < steps[:, None]).double()  # (B, T)
        count, total, squares = steps.double() * window, torch.zeros(len(prices)), torch.zeros(len(prices))
        total, squares = total.double(), squares.double()
        now = prices[:, window:]
        for k in range(1, window + 1):  # one lag at a time: (B, T), never (B, T, W)
            end = prices.shape[1] - k
            recent = now if kind == "lagged_change" else prices[:, window - k + 1 : end + 1]
            change = (recent - prices[:, window - k : end]) * valid
            total += change.sum(1)
            squares += change.square().sum(1)
        if shared:
            count, total, squares = (v.sum(0, keepdim=True) for v in (count, total, squares))
        mean = total / count
        variance = squares / count - mean.square()
        rounding = 1e-12 * squares / count
        outputs = targets if mixing is None else _mixed(targets, mixing)
        if mixing is not None and (same := _constant(outputs, targets, valid, shared)):
            where = "the same at every step of the training part of a series, so it cannot be standardised"
            raise ValueError(f"output {same[0]} of what is learnt, a mixture of the targets, is {where}")
        target_mean, spread = _moments(outputs, valid, shared, common_scale)
        if not (variance > rounding).all() or not (spread > 0).all():
            raise ValueError("the training part of a series never changes, so it cannot be standardised")
        return cls(mean, variance.sqrt(), target_mean, spread.sqrt(), mixing=mixing)

    def with_extra(
        self, extra: Float64[Tensor, "B WT D"], steps: Int64[Tensor, " B"], window: int, shared: bool
    ) -> "Scaler":
        """The scaler of a run with other inputs too: population moments over the trained steps at which each is known.

        Args:
            extra: (B, W + T, D), W = ``window``; extra[:, W + t] belongs to step t. What is not finite is missing.
            steps, shared: as in :meth:`fit`.
        """
        trained = torch.arange(extra.shape[1] - window) < steps[:, None]  # (B, T)
        moments = [_moments_of_known(values, trained, shared) for values in extra[:, window:].unbind(-1)]
        means, stds = zip(*moments, strict=True)
        return replace(self, extra_mean=torch.stack(means, 1), extra_std=torch.stack(stds, 1))

    def scale_targets(self, targets: Float[Tensor, "B T O"]) -> Float[Tensor, "B T O"]:
        """Targets (B, T, O) in price units → standardised (and mixed) as the network is to predict them."""
        if self.mixing is not None:
            targets = _mixed(targets, self.mixing)
        return (targets - self.target_mean[:, None]) / self._std()

    def to_price_units(self, predictions: Float[Tensor, "B T O"]) -> Float[Tensor, "B T O"]:
        """Predictions (B, T, O), standardised, as the network makes them → targets in price units."""
        return self._targets(self._outputs(predictions))

    def targets_in_prices(self, targets: Float[Tensor, "B T O"]) -> Float[Tensor, "B T O"]:
        """:meth:`to_price_units` for targets. Scaling in float32 turns a zero into a tiny number; here it becomes zero
        again. With a mixing, this holds for zeros of the mixed outputs."""
        found = self._outputs(targets)
        return self._targets(torch.where(found.abs() < 1e-6 * self._std().to(found), 0.0, found))

    def _outputs(self, standardised: Tensor) -> Tensor:
        """Predictions (B, T, O), standardised → outputs in price units, still mixed."""
        return standardised * self._std().to(standardised) + self.target_mean.to(standardised)[:, None]

    def _targets(self, outputs: Tensor) -> Tensor:
        """Mixed outputs (B, T, O) in price units → targets in price units."""
        return outputs if self.mixing is None else _mixed(outputs, torch.linalg.inv(self.mixing))

    def _std(self) -> Tensor:
        """(S, 1, 1) or (S, 1, O)."""
        std = self.target_std
        return std[:, None, None] if std.dim() == 1 else std[:, None]

    def of_series(self, rows: Int64[Tensor, " R"]) -> "Scaler":
        """The scaler of some of the series alone, in this order. A scale that all series share stays as it is."""
        if len(self.input_std) == 1:
            return self
        own = {name: value[rows] for name, value in vars(self).items() if value is not None and name != "mixing"}
        return replace(self, **own)

    def state_dict(self) -> dict[str, Any]:
        return dict(vars(self))


def _mixed(values: Tensor, mixing: Tensor) -> Tensor:
    """values @ mixing, (B, T, O), summed row by row of the mixing.

    A GPU may round a matrix product to TF32. That is too coarse here, as a small difference of large numbers counts.
    """
    rows = mixing.to(values)
    found = values[..., :1] * rows[0]
    for i in range(1, len(rows)):
        found = found + values[..., i : i + 1] * rows[i]
    return found


def _constant(outputs: Tensor, targets: Tensor, valid: Tensor, shared: bool) -> list[int]:
    """The indices of the (B, T, O) outputs that never change.

    A change that is no larger than the rounding error of the mixed targets does not count.
    """
    largest = (targets * valid[..., None]).abs().amax((0, 1, 2) if shared else (1, 2))
    _, spread = _moments(outputs, valid, shared, False)
    return [i for i, of_one in enumerate(spread.T) if not (of_one > (1e-12 * largest).square()).all()]


def _moments(targets: Tensor, valid: Tensor, shared: bool, common_scale: bool | None) -> tuple[Tensor, Tensor]:
    """Means, (S, O), and variances, (S,) or (S, O), of (B, T, O) targets over the steps at which (B, T) is 1."""
    outputs, mask = targets.shape[2], valid[..., None]
    over = (0, 1) if shared else (1,)  # which the sums go over
    if common_scale is None:
        rows = 1 if shared else len(targets)
        return targets.new_zeros(rows, outputs), targets.new_ones(rows)
    count = mask.sum() if shared else mask.sum(1)
    mean = (targets * mask).sum(over) / count
    mean = mean[None] if shared else mean
    squares = ((targets - mean[:, None]) * mask).square()
    if common_scale:
        count = mask.sum() if shared else mask.sum((1, 2))
        spread = squares.sum() if shared else squares.sum((1, 2))
        spread = spread / (outputs * count)
        return mean, spread[None] if shared else spread
    spread = squares.sum(over) / count
    return mean, spread[None] if shared else spread


def _moments_of_known(values: Tensor, trained: Tensor, shared: bool) -> tuple[Tensor, Tensor]:
    """The mean and the standard deviation, (S,) each, of one input (B, T) where it is known and (B, T) is true."""
    known = values.isfinite() & trained
    values = torch.where(known, values, 0.0)
    if shared:
        values, known = values.reshape(1, -1), known.reshape(1, -1)
    count = known.sum(1).clamp(min=1)
    largest = values.abs().amax(1).clamp(min=torch.finfo(values.dtype).tiny)
    values = values / largest[:, None]  # the squares of numbers such as 1e200 overflow
    mean = values.sum(1) / count
    std = (((values - mean[:, None]) * known).square().sum(1) / count).sqrt()
    return mean * largest, torch.where(std > 1e-14, std * largest, math.inf)  # less than that is rounding


class LagFeatures:
    """The standardised inputs of every step, computed for one chunk at a time; nothing of size (B, T, W) is kept.

    First come the lags of the price. ``lagged_change``: x_t[k] = p_t - p_{t-k}; ``one_step_change``:
    x_t[k] = p_{t-k+1} - p_{t-k}; k = 1..W.

    A run with D other inputs has 2·D·J more, J = ``input_window``: for each input in order, its values at the steps t,
    t - 1, …, t - J + 1, standardised and within ±``MOST_DEVIATIONS``, 0 where it is missing; then for each input in
    order, at the same steps, 1 where it is known and 0 where it is missing. Before the first price it is missing.
    """

    def __init__(
        self,
        prices: Tensor,
        scaler: Scaler,
        window: int,
        kind: str,
        dtype: torch.dtype = torch.float32,
        extra: Tensor | None = None,
        input_window: int = 1,
    ):
        """Standardises prices and other inputs.

        Args:
            prices: (B, W + T) float64, prices[:, W + t] belonging to step t.
            dtype: of what is given out.
            extra: (B, W + T, D) float64, the other inputs beside each price; what is not finite is missing. The scaler
                then has their moments.
            input_window: the lags J of each of them.
        """
        if kind not in KINDS:
            raise ValueError(f"features {kind!r} is not one of {', '.join(KINDS)}")
        self.window = window
        self.batch, self.length = prices.shape[0], prices.shape[1] - window
        std, mean = scaler.input_std[:, None], scaler.input_mean[:, None] / scaler.input_std[:, None]
        # Centred and scaled in float64 first: a price of 100 that moves by 0.01 keeps its digits in float32.
        level = (prices - prices[:, :1]) / std
        self.now: Tensor | None = None  # (T, B)
        if kind == "lagged_change":
            self.now = (level[:, window:] - mean).T.to(dtype).contiguous()
            past = level[:, :-1]
        else:
            past = level.diff(dim=1) - mean
        # (B, W + T - 1), so that a window's numbers lie side by side.
        self.past = past.to(dtype).contiguous()
        self.input_window = input_window
        self.extra = None if extra is None else self._of_extra(extra, scaler, dtype)  # (J - 1 + T, B, 2·D)

    def _of_extra(self, extra: Tensor, scaler: Scaler, dtype: torch.dtype) -> Tensor:
        """The other inputs, standardised, and after them whether each is known; from J - 1 steps before step 0 on."""
        assert scaler.extra_mean is not None
        assert scaler.extra_std is not None
        count, before = extra.shape[2], self.input_window - 1
        found = extra.new_zeros(before + self.length, self.batch, 2 * count, dtype=dtype)
        there = min(before, self.window) + self.length  # the rows that the prices have; none is known before them
        for i in range(count):  # one at a time, as each takes float64
            values, mean, std = extra[:, -there:, i], scaler.extra_mean[:, i, None], scaler.extra_std[:, i, None]
            known = values.isfinite()
            scaled = torch.where(known, (values - mean) / std, 0.0).nan_to_num(0.0)  # ∞ / ∞
            found[-there:, :, i] = scaled.clamp(-MOST_DEVIATIONS, MOST_DEVIATIONS).T
            found[-there:, :, count + i] = known.T
        return found

    def to(self, device: torch.device | str) -> "LagFeatures":
        """Move, in place, to a device."""
        self.past = self.past.to(device)
        self.now = None if self.now is None else self.now.to(device)
        self.extra = None if self.extra is None else self.extra.to(device)
        return self

    def buffer(self, length: int) -> "LagFeatures":
        """A buffer for ``length`` steps. :meth:`copy_from` fills it; the buffer then has steps [0, length)."""
        room = copy(self)
        room.length = length
        room.past = self.past.new_empty(self.batch, length + self.window - 1)
        room.now = None if self.now is None else self.now.new_empty(length, self.batch)
        if self.extra is not None:
            room.extra = self.extra.new_empty(length + self.input_window - 1, *self.extra.shape[1:])
        return room

    def copy_from(self, other: "LagFeatures", start: int) -> None:
        """Copy the steps of ``other`` from ``start`` on into this buffer, in place, as many as it has room for."""
        self.past.copy_(other.past[:, start : start + self.past.shape[1]])
        if self.now is not None and other.now is not None:
            self.now.copy_(other.now[start : start + self.length])
        if self.extra is not None and other.extra is not None:
            self.extra.copy_(other.extra[start : start + len(self.extra)])

    def __call__(self, start: int, stop: int) -> Float[Tensor, "B K F"]:
        """Inputs of steps [start, stop): (B, K, W + 2·D·J), laid out time-major in memory, as the layers want them."""
        newest_first = self.past[:, start : stop + self.window - 1].flip(1)
        lags = newest_first.unfold(1, self.window, 1).transpose(0, 1).flip(0)  # (K, B, W), k = 1 first
        extra = 0 if self.extra is None else self.extra.shape[2] * self.input_window
        found = lags.new_empty(*lags.shape[:2], self.window + extra)
        if self.now is None:
            found[..., : self.window] = lags
        else:
            torch.sub(self.now[start:stop, :, None], lags, out=found[..., : self.window])
        if self.extra is not None:
            values = self.extra[start : stop + self.input_window - 1].unfold(0, self.input_window, 1)  # (K, B, 2·D, J)
            found[..., self.window :].unflatten(-1, (-1, self.input_window)).copy_(values.flip(-1))  # the step first
        return found.transpose(0, 1)
