"""What is learnt of a series, as a config says it: what a task brings, and the article's own."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from tbptt.options.option import Option, key
from tbptt.options.takes import list_of, number, one_of, whole
from tbptt.tasks.q_values import default_horizon, q_values

if TYPE_CHECKING:
    from torch import Tensor

Array = NDArray[np.float64]
MOST_HORIZON = 10**6  # steps, whose targets take some ten seconds; auto is 460,515 of them where gamma is 0.99999


@dataclass
class TaskConfig(Option):
    """What is learnt of prices. A task of your own says at least ``outputs``, ``ahead`` and ``targets``.

    Attributes:
        common_scale: whether all outputs are divided by one standard deviation, or each by its own; their means are
            each its own. None: the targets are used as they are.
        shortened_by: the key that makes it look less far ahead, for the line about series that are too short.
        decides: whether its two outputs are what being long and being short are worth, so that one can trade by them.
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
    def ahead(self) -> int:
        """How many prices after a step its targets know of. The last steps of a part lack them, and are not used."""
        raise NotImplementedError  # each task has its own, which Option.unfit sees to

    def targets(self, prices: Array, change_std: Array) -> Array:
        """What a step's outputs are to be.

        Args:
            prices: (B, N) one row a series, each padded at its end with its last price.
            change_std: (B,) or (1,), standard deviation of a step's change in each series' training part, in price
                units.

        Returns:
            (B, N - ahead, O) or longer, in price units; [:, t] belongs to the step whose price is prices[:, t]. What is
            at a step whose targets would need more prices than its series has does not matter, but is finite.
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
        """:meth:`loss`, as training and evaluation call it: of the class, as ``task.loss`` of an instance may be a key
        of its config."""
        return type(self).loss(self, y, target, mask)

    def mixing(self) -> Array | None:
        """What the network learns of the targets, where it is not the targets themselves.

        Returns:
            (O, O) with an inverse: outputs = targets @ mixing, so that column i says what output i is. They are
            standardised as ``common_scale`` says, and weigh the same in the loss; ``Scaler.to_price_units`` brings
            predictions back to targets, and so do metrics in price units. None: the outputs are the targets.
        """
        return None

    def count(self, steps: int) -> int:
        """What :meth:`loss` of so many valid steps is divided by, to be a mean."""
        return steps * self.outputs

    def baseline(self, target: "Tensor", mask: "Tensor | None") -> "Tensor":
        """The constant prediction that the held-out loss is held against, (O,): by default the training mean.

        Args:
            target: (B, T, O) of the training series, standardised as in :meth:`loss`.
            mask: (B, T); None where nothing is padded.
        """
        if self.common_scale is not None:
            return target.new_zeros(self.outputs)  # the mean of what is standardised
        if mask is None:
            return target.mean((0, 1))
        return (target * mask[:, :, None]).sum((0, 1)) / mask.sum()

    def change_cost(self, change_std: Array) -> Array | None:
        """Of one change of side, in price units, (S,) as ``change_std``; None where the task knows of none."""
        return None

    @property
    def overlap(self) -> float:
        """For how many steps about the targets of two steps hang together, as they know of the same prices."""
        return float(self.ahead)

    def problem(self, length: int) -> tuple[str, str] | None:
        """The key that is absurd for series of so many steps, and what it takes; None where none is."""
        return None


@dataclass
class QValues(TaskConfig, options=["q_values"], new=True):
    """The article's: Q-values of buying and of selling.

    With ``loss`` split the network learns what is common to both, their mean, and their difference, which decides. Of
    the variance of the two Q-values 94 to 99.6 % is the common part's, so that their joint loss hardly measures the
    decision; split, each is standardised by itself, and they weigh the same.
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
    def common_scale(self) -> bool | None:  # type: ignore[override]
        return self.loss == "joint"  # where both have one scale, their difference, which decides, keeps its sign

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
        return q_values(prices, self.gamma, self.change_cost(change_std))

    def change_cost(self, change_std: Array) -> Array:
        return self.fee * (np.ones_like(change_std) if self.fee_unit == "price" else change_std)

    def problem(self, length: int) -> tuple[str, str] | None:
        """The targets of the steps within the horizon are computed one after the other, about 10 µs each, and are not
        trained on. Ten times ``auto`` the weight of a reward is 1e-20: beside the first one float64 has no room for it,
        so that no target changes with what comes later. Below a series' own length, or 10,000 steps, a horizon costs
        little, and one for all is what several gammas are compared with on the same steps."""
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
    def ahead(self) -> int:
        return max(self.horizons)

    def targets(self, prices: Array, change_std: Array) -> Array:
        length = prices.shape[1] - self.ahead
        return np.stack([prices[:, h : h + length] - prices[:, :length] for h in self.horizons], axis=2)
