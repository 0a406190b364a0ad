"""Metrics of predictions on held-out series, besides the loss."""

from typing import TYPE_CHECKING

from tbptt.options.metrics import metric
from tbptt.tasks.decisions import decisions, scored_steps

if TYPE_CHECKING:
    from torch import Tensor

    from tbptt.data.sequences import Sequences


@metric("val/mae", direction="minimize", label="held-out, mean absolute error", drawn=False)
def absolute_error(y: "Tensor", target: "Tensor", mask: "Tensor | None") -> "tuple[Tensor, Tensor | float]":
    """The absolute error of all outputs, in units of their standard deviations."""
    return _mean_over_valid((y - target).abs(), mask)


@metric(
    "val/right_side", direction="maximize", label="held-out, right side", in_prices=True, task="q_values", drawn=False
)
def right_side(y: "Tensor", target: "Tensor", mask: "Tensor | None") -> "tuple[Tensor, Tensor | float]":
    """Share of steps at which the better side has the larger predicted Q-value."""
    right = (y[..., 0] > y[..., 1]) == (target[..., 0] > target[..., 1])
    return _mean_over_valid(right[..., None].to(y.dtype), mask)


@metric(
    "val/right_sign", direction="maximize", label="held-out, right sign", in_prices=True, task="forecast", drawn=False
)
def right_sign(y: "Tensor", target: "Tensor", mask: "Tensor | None") -> "tuple[Tensor, Tensor | float]":
    """Share of the changes ahead with the right predicted sign; a change of zero counts as wrong."""
    return _mean_over_valid((y * target > 0).to(y.dtype), mask)


@metric("val/skill", direction="maximize", label="held-out, skill", at_once=True, drawn=False)
def skill(y: "Tensor", sequences: "Sequences") -> "tuple[Tensor, Tensor | float]":
    """1 - loss / loss of the task's constant prediction, by default the training mean; 0 if both losses are equal."""
    loss = sequences.loss(y, 0, sequences.length).double() / sequences.count(0, sequences.length)
    return sequences.baseline - loss, abs(sequences.baseline)


@metric("val/value", direction="maximize", label="held-out, profit a step", at_once=True, task="q_values", drawn=False)
def value(y: "Tensor", sequences: "Sequences") -> "tuple[Tensor, Tensor | float]":
    """Mean profit per step of following the predictions (decisions.py).

    The unit is the standard deviation of the price change in a training step.
    """
    assert sequences.change_std is not None
    profit = decisions(y, sequences).profit / sequences.change_std[:, None]
    return profit.sum(), float(sequences.valid_steps)


@metric(
    "val/turnover", direction="minimize", label="held-out, changes a step", at_once=True, task="q_values", drawn=False
)
def turnover(y: "Tensor", sequences: "Sequences") -> "tuple[Tensor, Tensor | float]":
    """Share of steps at which following the predictions changes the side."""
    return decisions(y, sequences).changed.sum(), float(sequences.valid_steps)


@metric(
    "val/advantage_r2",
    direction="maximize",
    label="held-out, R² of buying over selling",
    at_once=True,
    task="q_values",
    drawn=False,
)
def advantage_r2(y: "Tensor", sequences: "Sequences") -> "tuple[Tensor, Tensor | float]":
    """R² of Q(buy) - Q(sell), the difference that decides: 1 - squared error / squared deviation from its training
    mean."""
    scaler, std = sequences.scaler, sequences.change_std
    assert scaler is not None
    assert std is not None

    def advantage(of: "Tensor") -> "Tensor":
        in_prices = scaler.to_price_units(of.double())
        return (in_prices[..., 0] - in_prices[..., 1]) / std[:, None]

    true, scored = advantage(sequences.targets), scored_steps(sequences)
    of_mean = advantage(y.new_zeros(1, 1, 2).expand(sequences.batch, 1, 2))  # standardised values have a mean of 0
    spread = ((true - of_mean).square() * scored).sum()
    return spread - ((true - advantage(y)).square() * scored).sum(), spread


def _mean_over_valid(values: "Tensor", mask: "Tensor | None") -> "tuple[Tensor, Tensor | float]":
    """(B, K, O) as a sum and a count."""
    if mask is None:
        return values.sum(), float(values.numel())
    return (values * mask[:, :, None]).sum(), mask.sum() * values.shape[2]
