"""The optimizers of a pack: the steps of many trials at once, each with settings of its own.

The formulas are those of ``torch.optim``, a row a trial. Nothing waits for the host.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tbptt.models.packed import Place
from tbptt.training import options
from tbptt.training.options import OptimizerConfig

# All settings that are numbers; each optimizer has some of them.
SETTINGS = ("lr", "momentum", "alpha", "beta1", "beta2", "rho", "eps", "weight_decay")
# Muon's Newton-Schulz iteration, as torch.optim.Muon has it (Jordan et al., 2024).
NS_FACTORS, NS_EPS = (3.4445, -4.775, 2.0315), 1e-7


class Kept(NamedTuple):
    """What ``torch.optim`` calls the state of a tensor that is kept in a row's ``first`` and ``second``; None for what
    is not kept. ``counts``: whether it keeps the number of steps too."""

    first: str | None
    second: str | None = None
    counts: bool = True


@dataclass(frozen=True)
class StepRows:
    """What the optimizer of R trials of one kind reads and writes, views of larger matrices.

    Attributes:
        weights, grad, first, second: (R, P).
        steps: (R, 1) float64, with the step that is being made.
        settings: of each of SETTINGS (R, 1) float64; ``lr`` with the schedule's factor.
        places: of the parameters in a row, by their names.
    """

    weights: Tensor
    grad: Tensor
    first: Tensor
    second: Tensor
    steps: Tensor
    settings: Mapping[str, Tensor]
    places: Mapping[str, Place]

    def of(self, name: str) -> Tensor:
        """(R, 1) a setting in the weights' type."""
        return self.settings[name].to(self.weights.dtype)

    def one_minus(self, name: str) -> Tensor:
        """(R, 1) 1 minus a setting, which float32 would round too early."""
        return (1 - self.settings[name]).to(self.weights.dtype)


@dataclass(frozen=True)
class Kind:
    """An optimizer with those of its settings that are no numbers. Trials of the same kind step together.

    Attributes:
        key: what tells kinds apart, to be sorted by.
        step: makes a step of many trials.
        kept: what is kept of a parameter, by its name and shape.
        begin: what ``first`` holds before the first step.
    """

    key: tuple[str | int, ...]
    step: Callable[[StepRows], None]
    kept: Callable[[str, torch.Size], Kept]
    begin: float = 0.0


def settings_of(config: OptimizerConfig) -> dict[str, float]:
    """The SETTINGS of an optimizer that it has."""
    found = {name: float(getattr(config, name)) for name in SETTINGS if hasattr(config, name)}
    if betas := getattr(config, "betas", None):
        found["beta1"], found["beta2"] = map(float, betas)
    return found


def _sgd(rows: StepRows) -> None:
    rows.first.mul_(rows.of("momentum")).add_(rows.grad)
    rows.weights.sub_(rows.first * rows.of("lr"))


def _rmsprop(rows: StepRows) -> None:
    rows.first.mul_(rows.of("alpha")).addcmul_(rows.grad, rows.grad * rows.one_minus("alpha"))
    rows.weights.sub_((rows.grad / rows.first.sqrt().add_(rows.of("eps"))).mul_(rows.of("lr")))


def _adagrad(rows: StepRows) -> None:
    rows.first.addcmul_(rows.grad, rows.grad)
    rows.weights.sub_((rows.grad / rows.first.sqrt().add_(rows.of("eps"))).mul_(rows.of("lr")))


def _adadelta(rows: StepRows) -> None:
    rho, rest, eps = rows.of("rho"), rows.one_minus("rho"), rows.of("eps")
    rows.first.mul_(rho).addcmul_(rows.grad, rows.grad * rest)
    step = rows.second.add(eps).sqrt_().div_(rows.first.add(eps).sqrt_()).mul_(rows.grad)
    rows.second.mul_(rho).addcmul_(step, step * rest)
    rows.weights.sub_(step.mul_(rows.of("lr")))


def _adam(rows: StepRows) -> None:
    rows.first.lerp_(rows.grad, rows.one_minus("beta1"))
    rows.second.mul_(rows.of("beta2")).addcmul_(rows.grad, rows.grad * rows.one_minus("beta2"))
    rows.weights.sub_(_adam_step(rows, rows.first, rows.second))


def _adam_step(rows: StepRows, mean: Tensor, square: Tensor) -> Tensor:
    """Adam's step, as large as the means that it is given, without changing them."""
    corrections = [1 - rows.settings[name] ** rows.steps for name in ("beta1", "beta2")]
    size = (rows.settings["lr"] / corrections[0]).to(mean.dtype)
    divisor = (square.sqrt() / corrections[1].sqrt().to(mean.dtype)).add_(rows.of("eps"))
    return (mean / divisor).mul_(size)


def _decayed(rows: StepRows, only: Callable[[str, Place], bool] | None) -> None:
    """Take a share of the weights away, of all parameters or only of some."""
    left = (1 - rows.settings["lr"] * rows.settings["weight_decay"]).to(rows.weights.dtype)
    if only is None:
        rows.weights.mul_(left)
        return
    for start, stop, _ in (place for name, place in rows.places.items() if only(name, place)):
        rows.weights[:, start:stop].mul_(left)


def _is_matrix(name: str, place: Place) -> bool:
    return len(place.shape) > 1


def _is_muons(name: str, shape: torch.Size) -> bool:
    """Whether Muon takes a parameter, and not AdamW; as :class:`tbptt.training.options.Muon` parts them."""
    return len(shape) == 2 and not name.startswith("head.")


def _muon(rows: StepRows, nesterov: bool, iterations: int, decay_biases: bool) -> None:
    _decayed(rows, None if decay_biases else _is_matrix)
    momentum, rest = rows.of("momentum"), rows.one_minus("momentum")
    for name, (start, stop, shape) in rows.places.items():
        grad, first, second = (m[:, start:stop] for m in (rows.grad, rows.first, rows.second))
        weights = rows.weights[:, start:stop]
        if not _is_muons(name, shape):
            first.lerp_(grad, rows.one_minus("beta1"))
            second.mul_(rows.of("beta2")).addcmul_(grad, grad * rows.one_minus("beta2"))
            weights.sub_(_adam_step(rows, first, second))
            continue
        first.lerp_(grad, rest)
        step = torch.lerp(grad, first, momentum) if nesterov else first
        step = orthogonal(step.unflatten(1, shape), iterations).flatten(1)
        size = rows.settings["lr"] * (0.2 * max(shape) ** 0.5)  # scaled to the size of AdamW's steps
        weights.sub_(step * size.to(weights.dtype))


def orthogonal(matrices: Tensor, iterations: int) -> Tensor:
    """(R, A, B) → near the orthogonal factor of each, in bf16: the Newton-Schulz iteration of ``torch.optim.Muon``, of
    all matrices at once."""
    a, b, c = NS_FACTORS
    found = matrices.bfloat16()
    if is_tall := matrices.shape[1] > matrices.shape[2]:
        found = found.transpose(1, 2)
    found = found / torch.linalg.vector_norm(found, dim=(1, 2), keepdim=True).clamp(min=NS_EPS)
    for _ in range(iterations):
        gram = torch.bmm(found, found.transpose(1, 2))
        found = torch.baddbmm(found, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), found, beta=a)
    return found.transpose(1, 2) if is_tall else found


def _all(first: str | None, second: str | None = None, counts: bool = True) -> Callable[[str, torch.Size], Kept]:
    """The same of every parameter."""
    return lambda name, shape: Kept(first, second, counts)


def _sgd_kind(config: Any) -> Kind:
    return Kind(("sgd",), _sgd, _all("momentum_buffer" if config.momentum else None, counts=False))


def _adamw_kind(config: Any) -> Kind:
    only = None if config.decay_biases else _is_matrix

    def step(rows: StepRows) -> None:
        _decayed(rows, only)
        _adam(rows)

    return Kind(("adamw", int(config.decay_biases)), step, _all("exp_avg", "exp_avg_sq"))


def _adagrad_kind(config: Any) -> Kind:
    return Kind(("adagrad",), _adagrad, _all("sum"), begin=config.initial_accumulator_value)


def _muon_kind(config: Any) -> Kind:
    nesterov, iterations, decay_biases = config.nesterov, config.ns_steps, config.decay_biases

    def kept(name: str, shape: torch.Size) -> Kept:
        return Kept("momentum_buffer", counts=False) if _is_muons(name, shape) else Kept("exp_avg", "exp_avg_sq")

    return Kind(
        ("muon", int(nesterov), iterations, int(decay_biases)),
        lambda rows: _muon(rows, nesterov, iterations, decay_biases),
        kept,
    )


KINDS: dict[type[OptimizerConfig], Callable[[Any], Kind]] = {
    options.SGD: _sgd_kind,
    options.RMSprop: lambda _: Kind(("rmsprop",), _rmsprop, _all("square_avg")),
    options.Adam: lambda _: Kind(("adam",), _adam, _all("exp_avg", "exp_avg_sq")),
    options.AdamW: _adamw_kind,
    options.AdaGrad: _adagrad_kind,
    options.AdaDelta: lambda _: Kind(("adadelta",), _adadelta, _all("square_avg", "acc_delta")),
    options.Muon: _muon_kind,
}
