"""What trains a network, as a config says it: optimizers with their settings, schedules of chunks."""

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
    """Fields but ``name`` are the arguments of the class that ``kind`` gives.

    Attributes:
        elementwise: whether it treats each element alike, whatever tensor that is of. Then it gets all parameters as
            one vector, and what it keeps has that vector's shape, or none. Else it gets the tensors by their names,
            see ``build``.
        capturable: whether a CUDA graph can hold its step: nothing in it waits for the device, and what it does is the
            same at every step. Else ``cuda_graphs=true`` is refused.
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
        """The class."""
        import torch

        return cast("type[torch.optim.Optimizer]", getattr(torch.optim, cls.torch_name))

    def arguments(self) -> dict[str, Any]:
        """What its class takes beside the parameters."""
        return {name: value for name, value in vars(self).items() if name not in self.not_arguments}

    def by_tensor(self) -> bool:
        """Whether it gets the tensors, and not the vector: also where settings differ between them."""
        return not self.elementwise

    def build(self, parameters: "Mapping[str, torch.nn.Parameter]", *, capturable: bool) -> "torch.optim.Optimizer":
        """The optimizer of tensors.

        Args:
            parameters: what is trained, by the names that the network has for them (``recurrent.0.weight_hh_l0``).
            capturable: whether a CUDA graph is to hold its step.
        """
        from tbptt.training.optimizers import made

        return made(self.kind(), list(parameters.values()), self.arguments(), capturable)


def without_biases(parameters: "Mapping[str, torch.nn.Parameter]") -> list[dict[str, Any]]:
    """Two groups of parameters, of which only the first, the matrices, gets the optimizer's weight decay."""
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
    """Matrices by Muon, all else, and the network's head, by AdamW."""

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
        # Scaled so that a step is as large as one of AdamW's, and one rate serves both (Liu et al., 2025).
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
        """Chunks a sequence, one entry a stage."""
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
