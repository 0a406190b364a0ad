"""The profit of following the predictions of ``task=q_values``: being long or short at every step."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jaxtyping import Bool, Float
    from torch import Tensor

    from tbptt.data.sequences import Sequences


@dataclass(frozen=True)
class Decisions:
    """The decision at every step; each field is (B, T), and 0 at steps that are not scored.

    Attributes:
        side: 1 long, -1 short.
        changed: 1 if the side differs from that of the step before.
        profit: in price units, after costs.
    """

    side: "Tensor"
    changed: "Tensor"
    profit: "Tensor"


def decisions(y: "Float[Tensor, 'B T 2']", sequences: "Sequences") -> Decisions:
    """The decisions that follow from predictions.

    The first side is the one with the larger Q-value; taking it is free. A change of side costs 2·fee, so the side
    changes only if Q(other) - 2·fee > Q(same). A step earns side_t·Δ_t, less 2·fee if the side changed; Δ_t is the
    change of the price to the next step.

    Args:
        y: standardised predictions, as the network gives them.
        sequences: of ``val`` or ``test``.
    """
    import torch

    scaler, change = sequences.scaler, sequences.changes
    assert scaler is not None
    assert change is not None
    q = scaler.to_price_units(y.double())
    cost = 2 * (scaler.fee[:, None].to(change) if scaler.fee is not None else change.new_zeros(1, 1))  # (S, 1)
    scored = scored_steps(sequences)
    gain = torch.where(scored, (q[..., 0] - q[..., 1]).to(change), 0.0)
    first = scored.to(torch.int8).argmax(1, keepdim=True)  # (B, 1)
    long = held(gain, cost, gain.gather(1, first)[:, 0] > 0)
    side = (2 * long.to(change) - 1) * scored
    changed = (side * side.roll(1, dims=1) < 0).to(change)
    changed[:, 0] = 0  # the roll has put the last side there
    return Decisions(side, changed, side * change - cost * changed)


def held(gain: "Float[Tensor, 'B T']", cost: "Float[Tensor, 'S 1']", start: "Bool[Tensor, ' B']") -> "Tensor":
    """The side held at each step, (B, T) bool: True is long.

    It is the side that was last worth more than the other by over ``cost``, or ``start`` before the first such step. So
    no loop over time is needed.

    Args:
        gain: the value of being long minus that of being short.
        cost: the cost of a change of side, in the same unit; S is 1 or B.
        start: the side held before the first step.
    """
    import torch

    moves = (gain > cost).int() - (gain < -cost).int()  # 0 where no change is worth its cost
    moves = torch.cat([2 * start[:, None].int() - 1, moves], dim=1)  # (B, 1 + T)
    latest = torch.where(moves != 0, torch.arange(moves.shape[1], device=gain.device), 0).cummax(dim=1).values
    return moves.gather(1, latest)[:, 1:] > 0


def scored_steps(sequences: "Sequences") -> "Bool[Tensor, 'B T']":
    """Which steps are scored: neither warm-up nor padding."""
    if sequences.mask is None:
        return sequences.targets.new_ones(sequences.batch, sequences.length).bool()
    return sequences.mask.bool()
