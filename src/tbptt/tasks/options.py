"""Tasks, the choice of targets in a config: the interface of a task, and the article's own task."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from tbptt.options.option import Option, key
from tbptt.options.takes import list_of, number, one_of, whole

if TYPE_CHECKING:
    from torch import Tensor

Array = NDArray[np.float64]
MOST_HORIZON = 10**6  # steps; targets this far take some ten seconds. With gamma 0.99999, auto is 460,515 steps


@dataclass
class TaskConfig(Option):
    """A task: what the network learns from prices. Your own task defines at least ``outputs``, ``ahead`` and
    ``targets``.

    Attributes:
        common_scale: whether all outputs are divided by one standard deviation, or each by its own. Each output always
            has its own mean. None: the targets are used as they are.
        shortened_by: the key that makes the task look less far ahead. The error about series that are too short names
            it.
        decides: whether the two outputs are the values of being long and of being short, so that one can trade by them.
    """

    group = "task"
    needs = ("outputs", "ahead", "targets")
    reads_its_keys = True
    common_scale: ClassVar[bool | None] = False
    shortened_by: ClassVar[str] = ""
    decides: ClassVar[bool] = False

    @property
    def outputs(self) -> int:
        """Numbers predicted a step, O."""
        raise NotImplementedError  # each task has its own, which Option.unfit sees to

    @property
    def output_names(self) -> list[str]:
        """What the outputs are called in tables, O different words."""
        return [f"output_{i + 1}" for i in range(self.outputs)]

    @property
    def ahead(self) -> int:
        """The number of prices after a step that its targets depend on.

        The last steps of a part lack these prices and are not used.
        """
        raise NotImplementedError  # each task has its own, which Option.unfit sees to

    def targets(self, prices: Array, change_std: Array) -> Array:
        """The targets of every step.

        Args:
            prices: (B, N), one row for each series, padded at its end with its last price.
            change_std: (B,) or (1,), standard deviation of a step's change in each series' training part, in price
                units.

        Returns:
            (B, N - ahead, O) or longer, in price units; [:, t] belongs to the step with the price prices[:, t]. At
            steps that need more prices than their series has, any finite value will do.
        """
        raise NotImplementedError  # each task has its own, which Option.unfit sees to

    def loss(self, y: "Tensor", target: "Tensor", mask: "Tensor | None") -> "Tensor":
        """Sum of the loss over the valid steps of a chunk, a scalar on the device; the squared error by default.

        Args:
            y, target: (B, K, O), mixed as :meth:`mixing` says, and standardised where ``common_scale`` is not None.
            mask: (B, K) of 0 and 1; None where nothing is padded.
        """
        error = y - target
        if mask is not None:
            error = error * mask[:, :, None]
        return error.square().sum()

    def loss_sum(self, y: "Tensor", target: "Tensor", mask: "Tensor | None") -> "Tensor":
        """:meth:`loss`, for training and evaluation. It calls the class's method, because ``task.loss`` of an instance
        may be a key of its config."""
        return type(self).loss(self, y, target, mask)

    def mixing(self) -> Array | None:
        """The mixing of the targets, if the network learns mixtures instead of the targets themselves.

        Returns:
            An (O, O) matrix with an inverse: outputs = targets @ mixing, so column i defines output i. The outputs are
            standardised as ``common_scale`` says, and have the same weight in the loss. ``Scaler.to_price_units`` turns
            predictions back into targets; metrics in price units do so, too. None: the outputs are the targets.
        """
        return None

    def count(self, steps: int) -> int:
        """The divisor that turns :meth:`loss` of ``steps`` valid steps into a mean."""
        return steps * self.outputs

    def baseline(self, target: "Tensor", mask: "Tensor | None") -> "Tensor":
        """The constant prediction to compare the held-out loss with, (O,); by default the training mean.

        Args:
            target: (B, T, O) of the training series, standardised as in :meth:`loss`.
            mask: (B, T); None where nothing is padded.
        """
        if self.common_scale is not None:
            return target.new_zeros(self.outputs)  # the mean of standardised targets
        if mask is None:
            return target.mean((0, 1))
        return (target * mask[:, :, None]).sum((0, 1)) / mask.sum()

    def baselines(self, x: "Tensor") -> "Mapping[str, Tensor]":
        """More predictions that need no network, by name, for a result to be held against; none by default.

        Args:
            x: (B, K, F) the inputs of a chunk, standardised, as the network gets them: the W lags of the price, then
                those of other inputs (:class:`tbptt.data.features.LagFeatures`).

        Returns:
            Of each name (B, K, O), standardised as in :meth:`loss`. The names mean, zero, ridge and clock are taken.
        """
        return {}

    def change_cost(self, change_std: Array) -> Array | None:
        """The cost of one change of side, in price units, (S,) as ``change_std``; None if the task has no such cost."""
        return None

    @property
    def overlap(self) -> float:
        """About how many steps apart two targets are still correlated, as they depend on the same prices."""
        return float(self.ahead)

    def problem(self, length: int) -> tuple[str, str] | None:
        """A key with an absurd value for series of ``length`` steps, and the values that it takes; None if all are
        fine."""
        return None


def default_horizon(gamma: float) -> int:
    """Steps until a reward's weight has fallen to 1 %: ceil(ln 0.01 / ln γ), and 0 for γ = 0.

    The recursion starts from 0 at the last known price, so the targets of the last ``horizon`` steps have not reached
    their level yet. Earlier targets are computed from them, but the network is not trained on them.
    """
    return math.ceil(math.log(0.01) / math.log(gamma)) if gamma > 0 else 0


@dataclass
class QValues(TaskConfig, options=["q_values"], new=True):
    """The article's task: Q-values of buying and of selling.

    With ``loss=split`` the network learns the mean of the two Q-values, and their difference, which decides. The mean
    has 94 to 99.6 % of the variance of the two Q-values, so their joint loss hardly measures the decision. With split,
    mean and difference are each standardised, and have the same weight.
    """

    shortened_by = "task.horizon"
    decides = True
    gamma: float = key(number(0, 1), 0.99)
    fee: float = key(number(0))
    fee_unit: str = key(one_of("price", "change_std"))
    horizon: Any = key(whole(0, "auto"), "auto")
    loss: str = key(one_of("joint", "split"), "joint", new=True, beside_method=True)  # type: ignore[assignment]

    @property
    def outputs(self) -> int:
        return 2

    @property
    def output_names(self) -> list[str]:
        return ["buy", "sell"]

    @property
    def common_scale(self) -> bool | None:  # type: ignore[override]
        return self.loss == "joint"  # with one scale for both, their difference, which decides, keeps its sign

    def mixing(self) -> Array | None:
        return None if self.loss == "joint" else np.array([[0.5, 1.0], [0.5, -1.0]])

    @property
    def steps(self) -> int:
        """``horizon`` with ``auto`` worked out."""
        return default_horizon(self.gamma) if self.horizon == "auto" else int(self.horizon)

    @property
    def ahead(self) -> int:
        return self.steps + 1

    @property
    def overlap(self) -> float:
        return 1 / (1 - self.gamma)

    def targets(self, prices: Array, change_std: Array) -> Array:
        from tbptt.tasks.q_values import q_values  # late: it imports jaxtyping, which --help does without

        return q_values(prices, self.gamma, self.change_cost(change_std))

    def change_cost(self, change_std: Array) -> Array:
        return self.fee * (np.ones_like(change_std) if self.fee_unit == "price" else change_std)

    def problem(self, length: int) -> tuple[str, str] | None:
        """Also refuses a horizon that is far too long, and ``loss=split`` with ``gamma`` 0.

        The targets of the steps within the horizon are computed one by one, about 10 µs each, and are not trained on.
        After ten times ``auto``, the weight of a reward is 1e-20. In float64 the sum of such a reward and the first one
        is the first one, so later rewards change no target. A horizon below the length of the series, or below 10,000
        steps, costs little. It is allowed because one horizon for all lets several gammas be compared on the same
        steps.
        """
        if self.loss == "split" and self.gamma == 0:
            return "loss", "joint where task.gamma is 0: nothing is common to both sides then"
        auto = default_horizon(self.gamma)
        most = min(max(10 * auto, length, 10_000), MOST_HORIZON)
        if self.steps <= most:
            return None
        if self.horizon == "auto":
            return "gamma", f"one whose task.horizon is at most {most} steps (auto: {auto}), or a task.horizon"
        why = "" if most == MOST_HORIZON else ", from where on no target changes with it"
        return "horizon", f"at most {most}{why}"


@dataclass
class Forecast(TaskConfig, options=["forecast"]):
    """How much a price will have changed some steps ahead."""

    shortened_by = "task.horizons"

    horizons: list[int] = key(
        list_of("different whole numbers from 1", whole(1, high=MOST_HORIZON), different=True), [1]
    )

    @property
    def outputs(self) -> int:
        return len(self.horizons)

    @property
    def output_names(self) -> list[str]:
        return [f"h{horizon}" for horizon in self.horizons]

    @property
    def ahead(self) -> int:
        return max(self.horizons)

    def targets(self, prices: Array, change_std: Array) -> Array:
        length = prices.shape[1] - self.ahead
        return np.stack([prices[:, h : h + length] - prices[:, :length] for h in self.horizons], axis=2)
