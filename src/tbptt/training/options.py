"""The optimizers and the schedules of chunks that a config can name, with their settings."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, cast

from tbptt.options.option import Option, key
from tbptt.options.takes import list_of, number, one_of, whole
from tbptt.training.schedule import geometric_chunks

if TYPE_CHECKING:
    import torch


@dataclass
class OptimizerConfig(Option):
    """An optimizer. All fields except ``not_arguments`` are arguments of the class that ``kind`` returns.

    Attributes:
        torch_name: the name of the class in ``torch.optim``.
        elementwise: whether it updates each element in the same way, whatever tensor the element belongs to. Then it
            gets all parameters as one vector, and each tensor of its state has the vector's shape or is a scalar. If
            not, it gets the tensors by their names; see ``build``.
        capturable: whether a CUDA graph can capture its step: it never waits for the device and does the same at every
            step. If not, ``cuda_graphs=true`` is refused, and ``auto`` is off.
        not_arguments: the fields that its class does not take.
    """

    group = "optimizer"
    torch_name: ClassVar[str]
    elementwise: ClassVar[bool] = True
    capturable: ClassVar[bool] = False
    not_arguments: ClassVar[tuple[str, ...]] = ("name",)
    lr: float = key(number(0, open_low=True))

    @classmethod
    def kind(cls) -> "type[torch.optim.Optimizer]":
        """The optimizer's class."""
        import torch

        return cast("type[torch.optim.Optimizer]", getattr(torch.optim, cls.torch_name))

    def arguments(self) -> dict[str, Any]:
        """The arguments of the class besides the parameters."""
        return {name: value for name, value in vars(self).items() if name not in self.not_arguments}

    def by_tensor(self) -> bool:
        """Whether it gets the separate tensors and not the vector. An element-wise optimizer needs them too if tensors
        have different settings."""
        return not self.elementwise

    def build(self, parameters: "Mapping[str, torch.nn.Parameter]", *, capturable: bool) -> "torch.optim.Optimizer":
        """Build the optimizer on separate tensors; called if ``by_tensor`` is true.

        Args:
            parameters: the trained parameters by their names in the network (``recurrent.0.weight_hh_l0``).
            capturable: whether a CUDA graph will capture its step.
        """
        from tbptt.training.optimizers import made

        return made(self.kind(), list(parameters.values()), self.arguments(), capturable)


def without_biases(parameters: "Mapping[str, torch.nn.Parameter]") -> list[dict[str, Any]]:
    """Two groups of parameters: the matrices, with the optimizer's weight decay, and all others, without it."""
    matrices = [p for p in parameters.values() if p.dim() > 1]
    others = [p for p in parameters.values() if p.dim() <= 1]
    return [{"params": matrices}, {"params": others, "weight_decay": 0.0}]


@dataclass
class SGD(OptimizerConfig, options=["sgd", "momentum"]):
    capturable = True
    torch_name = "SGD"
    momentum: float = key(number(0, 1), 0.0)


@dataclass
class RMSprop(OptimizerConfig, options=["rmsprop"]):
    capturable = True
    torch_name = "RMSprop"
    alpha: float = key(number(0, 1), 0.9)
    eps: float = key(number(0, open_low=True), 1e-7)


@dataclass
class Adam(OptimizerConfig, options=["adam"]):
    capturable = True
    torch_name = "Adam"
    betas: list[float] = key(list_of("two numbers from 0 and below 1", number(0, 1), 2, 2), [0.9, 0.999])
    eps: float = key(number(0, open_low=True), 1e-7)


@dataclass
class AdamW(Adam, options=["adamw"]):
    torch_name = "AdamW"
    not_arguments = ("name", "decay_biases")
    weight_decay: float = key(number(0), 0.004)
    decay_biases: bool = key(one_of(True, False), True, new=True)

    def by_tensor(self) -> bool:
        return not self.decay_biases

    def build(self, parameters: "Mapping[str, torch.nn.Parameter]", *, capturable: bool) -> "torch.optim.Optimizer":
        from tbptt.training.optimizers import made

        return made(self.kind(), without_biases(parameters), self.arguments(), capturable)


@dataclass
class AdaGrad(OptimizerConfig, options=["adagrad"]):
    capturable = True
    torch_name = "Adagrad"
    initial_accumulator_value: float = key(number(0), 0.1)
    eps: float = key(number(0, open_low=True), 1e-7)


@dataclass
class AdaDelta(OptimizerConfig, options=["adadelta"]):
    capturable = True
    torch_name = "Adadelta"
    rho: float = key(number(0, 1), 0.95)
    eps: float = key(number(0, open_low=True), 1e-7)


@dataclass
class Muon(OptimizerConfig, options=["muon"]):
    """Muon for matrices; AdamW for all other parameters and for the network's head."""

    elementwise = False
    capturable = True
    torch_name = "Muon"
    momentum: float = key(number(0, 1), 0.95)
    nesterov: bool = key(one_of(True, False), True)
    ns_steps: int = key(whole(1, high=99), 5)
    betas: list[float] = key(list_of("two numbers from 0 and below 1", number(0, 1), 2, 2), [0.9, 0.999])
    eps: float = key(number(0, open_low=True), 1e-7)
    weight_decay: float = key(number(0), 0.0)
    decay_biases: bool = key(one_of(True, False), True)

    def build(self, parameters: "Mapping[str, torch.nn.Parameter]", *, capturable: bool) -> "torch.optim.Optimizer":
        import torch

        from tbptt.training.optimizers import Together, made

        matrices = [p for name, p in parameters.items() if p.dim() == 2 and not name.startswith("head.")]
        others = {name: p for name, p in parameters.items() if p.dim() != 2 or name.startswith("head.")}
        both = {"lr": self.lr, "weight_decay": self.weight_decay}
        # Muon's steps are scaled to the size of AdamW's, so that one learning rate suits both (Liu et al., 2025).
        of_muon = {"momentum": self.momentum, "nesterov": self.nesterov, "ns_steps": self.ns_steps}
        of_adamw = {"betas": self.betas, "eps": self.eps}
        rest = list(others.values()) if self.decay_biases else without_biases(others)
        parts: list[tuple[Any, list[Any], dict[str, Any]]] = [
            (self.kind(), matrices, {**both, **of_muon, "adjust_lr_fn": "match_rms_adamw"}),
            (torch.optim.AdamW, rest, {**both, **of_adamw}),
        ]
        return Together([made(kind, some, settings, capturable) for kind, some, settings in parts if some])


@dataclass
class ScheduleConfig(Option):
    group = "schedule"
    needs = ("as_list",)
    reads_its_keys = True
    patience: int | None = key(whole(1, None), 20)
    stage_epochs: Any = key(whole(1, "auto", None), "auto")

    def as_list(self) -> list[int]:
        """The number of chunks per sequence in each stage."""
        raise NotImplementedError  # each option has its own


@dataclass
class ChunksSchedule(ScheduleConfig, options=["article", "full", "fixed"]):
    chunks: list[int] = key(list_of("whole numbers from 1", whole(1)))

    def as_list(self) -> list[int]:
        return list(self.chunks)


@dataclass
class GeometricSchedule(ScheduleConfig, options=["geometric"]):
    start: int = key(whole(1), 100)
    stages: int = key(whole(1, high=1000), 5)

    def as_list(self) -> list[int]:
        return geometric_chunks(self.start, self.stages)
