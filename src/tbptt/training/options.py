"""What trains a network, as a config says it: optimizers with their settings, schedules of chunks."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, cast

from tbptt.options.option import Option, key
from tbptt.options.takes import list_of, number, whole
from tbptt.training.schedule import geometric_chunks

if TYPE_CHECKING:
    import torch


@dataclass
class OptimizerConfig(Option):
    """Fields but ``name`` are the arguments of the class that ``kind`` gives."""

    group = "optimizer"
    torch_name: ClassVar[str]
    lr: float = key(number(0, open_low=True))

    @classmethod
    def kind(cls) -> "type[torch.optim.Optimizer]":
        """The class. What it keeps of a parameter has the parameter's shape, or none."""
        import torch

        return cast("type[torch.optim.Optimizer]", getattr(torch.optim, cls.torch_name))


@dataclass
class SGD(OptimizerConfig, options=["sgd", "momentum"]):
    torch_name = "SGD"
    momentum: float = key(number(0, 1), 0.0)


@dataclass
class RMSprop(OptimizerConfig, options=["rmsprop"]):
    torch_name = "RMSprop"
    alpha: float = key(number(0, 1), 0.9)
    eps: float = key(number(0, open_low=True), 1e-7)


@dataclass
class Adam(OptimizerConfig, options=["adam"]):
    torch_name = "Adam"
    betas: list[float] = key(list_of("two numbers from 0 and below 1", number(0, 1), 2, 2), [0.9, 0.999])
    eps: float = key(number(0, open_low=True), 1e-7)


@dataclass
class AdamW(Adam, options=["adamw"]):
    torch_name = "AdamW"
    weight_decay: float = key(number(0), 0.004)


@dataclass
class AdaGrad(OptimizerConfig, options=["adagrad"]):
    torch_name = "Adagrad"
    initial_accumulator_value: float = key(number(0), 0.1)
    eps: float = key(number(0, open_low=True), 1e-7)


@dataclass
class AdaDelta(OptimizerConfig, options=["adadelta"]):
    torch_name = "Adadelta"
    rho: float = key(number(0, 1), 0.95)
    eps: float = key(number(0, open_low=True), 1e-7)


@dataclass
class ScheduleConfig(Option):
    group = "schedule"
    needs = ("as_list",)
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
