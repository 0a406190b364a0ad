"""Build the optimizers that a config can name: PyTorch's, with Keras's values in conf/optimizer/, and your own."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from inspect import signature
from typing import Any, cast

import torch
from torch import Tensor, nn

from tbptt.models.protocol import Network
from tbptt.options.option import GROUPS
from tbptt.training.flat import FlatParameters
from tbptt.training.options import OptimizerConfig


def optimizer_of(
    config: OptimizerConfig, parameters: FlatParameters, *, capturable: bool = False
) -> torch.optim.Optimizer:
    """The optimizer that a config describes, on the vector of all parameters, or on their tensors where it is not
    element-wise.

    Args:
        capturable: whether a CUDA graph is to hold its step.
    """
    if config.by_tensor():
        return config.build(parameters.named, capturable=capturable)
    return made(config.kind(), [parameters.vector], config.arguments(), capturable)


def build_optimizer(
    parameters: Iterable[nn.Parameter], name: str, *, capturable: bool = False, **settings: Any
) -> torch.optim.Optimizer:
    """The named optimizer, one that is element-wise, on ``parameters``.

    Args:
        capturable: whether a CUDA graph is to hold its step.
        settings: as the config's.
    """
    option = cast(type[OptimizerConfig], GROUPS["optimizer"][name])
    arguments = {key: value for key, value in settings.items() if key not in option.not_arguments}
    return made(option.kind(), list(parameters), arguments, capturable)


def made(
    kind: type[torch.optim.Optimizer],
    parameters: Sequence[nn.Parameter] | Sequence[dict[str, Any]],
    arguments: Mapping[str, Any],
    capturable: bool,
) -> torch.optim.Optimizer:
    """An optimizer of a class, in the form of it that is fastest and, where asked for, that a CUDA graph can hold.

    Args:
        parameters: the parameters, or groups of them.
    """
    extra, takes = dict[str, Any](), signature(kind).parameters
    tensors = [p for each in parameters for p in (each["params"] if isinstance(each, dict) else [each])]
    of_torch = kind.__module__.startswith("torch.optim")
    on_gpu = any(p.is_cuda for p in tensors)
    if of_torch and "fused" in takes and not (on_gpu and kind is torch.optim.Adagrad):  # it has it on the CPU only
        extra["fused"] = True  # one kernel for the whole update
    if capturable and "capturable" in takes:  # the others can be as they are
        extra["capturable"] = True
    return kind(parameters, **arguments, **extra)


class Together(torch.optim.Optimizer):
    """Several optimizers, each of parameters of its own, as one.

    What they keep, and the settings of their groups, are this one's, where schedules and checkpoints find them.
    """

    def __init__(self, parts: Sequence[torch.optim.Optimizer]):
        self._parts = list(parts)
        super().__init__([group for part in parts for group in part.param_groups], {})
        self._share()

    def _share(self) -> None:
        groups = iter(self.param_groups)
        for part in self._parts:
            part.state = self.state
            part.param_groups = [next(groups) for _ in part.param_groups]

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._share()

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part in self._parts:
            part.step()
        return loss


def optimizer_state(optimizer: torch.optim.Optimizer, parameters: FlatParameters) -> dict[str, Any]:
    """The ``state_dict`` of an optimizer on these parameters, in an order that is the same on every device."""
    saved = optimizer.state_dict()
    groups = [{**group, "lr": float(group["lr"])} if "lr" in group else group for group in saved["param_groups"]]
    state = _state(optimizer, parameters, saved["state"], parameters.in_order)
    return {**saved, "state": state, "param_groups": groups}


def load_optimizer(optimizer: torch.optim.Optimizer, parameters: FlatParameters, saved: dict[str, Any]) -> None:
    """Go on from an :func:`optimizer_state`, of whatever device. But for the rates, which may have been changed since,
    settings stay the optimizer's own: some of them belong to a device."""
    groups = optimizer.state_dict()["param_groups"]
    if len(was := saved.get("param_groups", [])) == len(groups):
        for group, before in zip(groups, was, strict=True):
            if "lr" in group and type(before.get("lr")) in (int, float):
                lr = group["lr"]
                group["lr"] = torch.full_like(lr, before["lr"]) if isinstance(lr, Tensor) else before["lr"]
    state = _state(optimizer, parameters, saved["state"], parameters.from_order)
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def rates(optimizer: torch.optim.Optimizer) -> list[float]:
    """The rates of an optimizer now, one for each group of parameters that has one."""
    return [float(group["lr"]) for group in optimizer.param_groups if "lr" in group]


def _state(
    optimizer: torch.optim.Optimizer,
    parameters: FlatParameters,
    state: dict[Any, dict[str, Any]],
    convert: Callable[[Tensor], Tensor],
) -> dict[Any, dict[str, Any]]:
    """Whatever there is for each element of the vector, converted; tensors have the same order everywhere."""
    if not any(p is parameters.vector for group in optimizer.param_groups for p in group["params"]):
        return state
    return {
        number: {k: convert(v) if isinstance(v, Tensor) and v.dim() == 1 else v for k, v in of_one.items()}
        for number, of_one in state.items()
    }


def state_problem(config: OptimizerConfig, network: Network, state: Mapping[int, Mapping[str, Any]]) -> str | None:
    """Why what was kept of an optimizer cannot be of this network's parameters, or None.

    What one of your own keeps of a tensor may have any shape.
    """
    trained = {name: p for name, p in network.named_parameters() if p.requires_grad}
    if config.by_tensor():
        groups = config.build(trained, capturable=False).param_groups
        shapes = [p.shape for group in groups for p in group["params"]]
        what = f"{len(shapes)} trained tensors"
        any_shape = not type(config).__module__.startswith("tbptt.training.")
    else:
        count = sum(p.numel() for p in trained.values())
        shapes, what, any_shape = [torch.Size([count])], f"{count} trained weights", False
    for number, kept in state.items():
        tensors = [v for v in kept.values() if isinstance(v, Tensor) and v.dim()]
        if number >= len(shapes) or not (any_shape or all(v.shape == shapes[number] for v in tensors)):
            return f"what its optimizer keeps is not of its model's {what}"
    return None
