"""What is measured of predictions on held-out series, beside the loss."""

from typing import TYPE_CHECKING

from tbptt.options.metrics import metric

if TYPE_CHECKING:
    from torch import Tensor


@metric("val/mae", direction="minimize", label="held-out, mean absolute error", drawn=False)
def absolute_error(y: "Tensor", target: "Tensor", mask: "Tensor | None") -> "tuple[Tensor, Tensor | float]":
    """Of all outputs, in their standard deviations."""
    return _mean_over_valid((y - target).abs(), mask)


@metric(
    "val/right_side", direction="maximize", label="held-out, right side", in_prices=True, task="q_values", drawn=False
)
def right_side(y: "Tensor", target: "Tensor", mask: "Tensor | None") -> "tuple[Tensor, Tensor | float]":
    """Share of steps at which the larger Q-value is that of the side which is worth more."""
    right = (y[..., 0] > y[..., 1]) == (target[..., 0] > target[..., 1])
    return _mean_over_valid(right[..., None].to(y.dtype), mask)


@metric(
    "val/right_sign", direction="maximize", label="held-out, right sign", in_prices=True, task="forecast", drawn=False
)
def right_sign(y: "Tensor", target: "Tensor", mask: "Tensor | None") -> "tuple[Tensor, Tensor | float]":
    """Share of the changes ahead whose sign is predicted; one that is zero counts as wrong."""
    return _mean_over_valid((y * target > 0).to(y.dtype), mask)


def _mean_over_valid(values: "Tensor", mask: "Tensor | None") -> "tuple[Tensor, Tensor | float]":
    """(B, K, O) as a sum and a count."""
    if mask is None:
        return values.sum(), float(values.numel())
    return (values * mask[:, :, None]).sum(), mask.sum() * values.shape[2]
