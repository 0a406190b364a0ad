"""Building the optimizers that a config can name: PyTorch's (conf/optimizer/ has Keras's values), and your own."""

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
    """Build the optimizer that a config describes: on the vector of all parameters, or, if it is not element-wise, on
    their tensors.

    Args:
        capturable: whether a CUDA graph will capture its step.
    """
    if config.by_tensor():
        return config.build(parameters.named, capturable=capturable)
    return made(config.kind(), [parameters.vector], config.arguments(), capturable)


def build_optimizer(
    parameters: Iterable[nn.Parameter], name: str, *, capturable: bool = False, **settings: Any
) -> torch.optim.Optimizer:
    """Build the element-wise optimizer ``name`` on ``parameters``.

    Args:
        capturable: whether a CUDA graph will capture its step.
        settings: the keys of the config and their values.
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
    """Build an optimizer of a class, in its fused form if there is one.

    Args:
        parameters: the parameters, or groups of them.
        arguments: of the class.
        capturable: whether a CUDA graph will capture its step.
    """
    extra, takes = dict[str, Any](), signature(kind).parameters
    tensors = [p for each in parameters for p in (each["params"] if isinstance(each, dict) else [each])]
    of_torch = kind.__module__.startswith("torch.optim")
    on_gpu = any(p.is_cuda for p in tensors)
    if of_torch and "fused" in takes and not (on_gpu and kind is torch.optim.Adagrad):  # fused on the CPU only
        extra["fused"] = True  # one kernel for the whole update
    if capturable and "capturable" in takes:  # a class without this argument needs none
        extra["capturable"] = True
    return kind(parameters, **arguments, **extra)


class Together(torch.optim.Optimizer):
    """Several optimizers as one, each for its own parameters.

    They share this optimizer's state and groups, so that schedules and checkpoints find all of them here.
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
    """The ``state_dict`` of an optimizer on these parameters, with its elements in an order that is the same on every
    device."""
    saved = optimizer.state_dict()
    groups = [{**group, "lr": float(group["lr"])} if "lr" in group else group for group in saved["param_groups"]]
    state = _state(optimizer, parameters, saved["state"], parameters.in_order)
    return {**saved, "state": state, "param_groups": groups}


def load_optimizer(optimizer: torch.optim.Optimizer, parameters: FlatParameters, saved: dict[str, Any]) -> None:
    """Load an :func:`optimizer_state`, from any device. Of the settings, only the learning rates are loaded, as a
    schedule may have changed them. The others stay as they are: some of them depend on the device."""
    groups = optimizer.state_dict()["param_groups"]
    if len(was := saved.get("param_groups", [])) == len(groups):
        for group, before in zip(groups, was, strict=True):
            if "lr" in group and type(before.get("lr")) in (int, float):
                lr = group["lr"]
                group["lr"] = torch.full_like(lr, before["lr"]) if isinstance(lr, Tensor) else before["lr"]
    state = _state(optimizer, parameters, saved["state"], parameters.from_order)
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def rates(optimizer: torch.optim.Optimizer) -> list[float]:
    """The present learning rates of an optimizer, one for each group of parameters that has one."""
    return [float(group["lr"]) for group in optimizer.param_groups if "lr" in group]


def set_rates(optimizer: torch.optim.Optimizer, values: Sequence[float]) -> None:
    """Set the learning rates that :func:`rates` gives."""
    groups = [group for group in optimizer.param_groups if "lr" in group]
    for group, value in zip(groups, values, strict=True):
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(value)
        else:
            group["lr"] = value


def _state(
    optimizer: torch.optim.Optimizer,
    parameters: FlatParameters,
    state: dict[Any, dict[str, Any]],
    convert: Callable[[Tensor], Tensor],
) -> dict[Any, dict[str, Any]]:
    """The state, with ``convert`` applied to each tensor that has one number per element of the vector. An optimizer on
    separate tensors has none of these: its state is returned unchanged, in the same order on every device."""
    if not any(p is parameters.vector for group in optimizer.param_groups for p in group["params"]):
        return state
    return {
        number: {k: convert(v) if isinstance(v, Tensor) and v.dim() == 1 else v for k, v in of_one.items()}
        for number, of_one in state.items()
    }


def state_problem(config: OptimizerConfig, network: Network, state: Mapping[int, Mapping[str, Any]]) -> str | None:
    """Why the saved state of an optimizer does not fit this network's parameters, or None.

    An optimizer of your own, on separate tensors, may keep tensors of any shape.
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
            return f"its optimizer's state does not fit its model's {what}"
    return None
