"""Trying a config's network, optimizer, task and metrics before a run begins with them."""

import math
from functools import lru_cache
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from tbptt.data.options import DataConfig
from tbptt.models.options import ModelConfig
from tbptt.options.metrics import METRICS, measured
from tbptt.options.option import Option
from tbptt.options.own import is_own, said_of
from tbptt.options.takes import wrong_value
from tbptt.system.memory import too_large
from tbptt.tasks.options import TaskConfig
from tbptt.training.lr_schedules import LrScheduleConfig, Moment
from tbptt.training.options import OptimizerConfig

BYTES = 16  # per trained number: the number, its gradient, and two averages of an optimizer, 4 bytes each


def network_problem(cfg: DictConfig, outputs: int) -> str | None:
    """The line about a network that is too large or cannot be trained; None if it is right.

    A model of the user's own is built and computes two short chunks; this imports torch. The shipped models have tests.
    """
    try:
        model = cast(ModelConfig, OmegaConf.to_object(cfg.model))
    except (ValueError, TypeError) as error:  # the user's own class may refuse a combination of values
        return f"model: {(str(error).splitlines() or [''])[0]}"
    try:
        inputs = input_size(cfg)
    except ValueError as error:
        return str(error)
    if problem := size_problem(model, inputs, outputs):
        return problem
    if not is_own(type(model)):
        return None
    return _tried(_Same(model), inputs, outputs)


def input_size(cfg: DictConfig) -> int:
    """Inputs of a step of a config's network. Raises ValueError if the config's data cannot be made."""
    try:
        return cast(DataConfig, OmegaConf.to_object(cfg.data)).input_size
    except (ValueError, TypeError, OmegaConfBaseException) as error:  # a class of one's own may refuse its values
        raise ValueError(f"data: {(str(error).splitlines() or [''])[0]}") from None


def size_problem(model: ModelConfig, inputs: int, outputs: int) -> str | None:
    """The line about a network whose weights do not fit into memory; else None. Allocates no memory for them."""
    count = model.parameters_estimate(inputs, outputs)
    if not count or not (problem := too_large(BYTES * count)):
        return None
    sizes = [f"{name} {value}" for name, value in vars(model).items() if isinstance(value, list) or type(value) is int]
    return wrong_value("model", ", ".join(sizes), f"what fits: it {problem}")


def optimizer_problem(cfg: DictConfig, outputs: int) -> str | None:
    """The line about an optimizer of one's own that cannot step; None where there is nothing to say. It is tried on the
    network that it would train, which takes the import of torch; ours are tested."""
    if not is_own(OmegaConf.get_type(cfg.optimizer)):
        return None
    try:
        optimizer = cast(OptimizerConfig, OmegaConf.to_object(cfg.optimizer))
    except (ValueError, TypeError) as error:  # a class of one's own may look at its values together
        return f"optimizer: {(str(error).splitlines() or [''])[0]}"
    model = cast(ModelConfig, OmegaConf.to_object(cfg.model))
    return _tried_optimizer(_Same(optimizer), _Same(model), input_size(cfg), outputs)


@lru_cache(maxsize=1000)
def _tried_optimizer(optimizer: "_Same", model: "_Same", inputs: int, outputs: int) -> str | None:
    import torch

    from tbptt.models.build import build_network
    from tbptt.training.try_out import try_optimizer

    given: Any = optimizer.option
    try:
        with torch.random.fork_rng(devices=[]):
            try_optimizer(given, build_network(cast(ModelConfig, model.option), inputs, outputs))
    except ValueError as error:
        return str(error)
    return None


def lr_schedule_problem(cfg: DictConfig) -> str | None:
    """The line about a learning-rate schedule of one's own whose factor is no number from 0; None where there is
    nothing to say. It is asked for the first update of a run, one halfway and the last one."""
    if not is_own(kind := OmegaConf.get_type(cfg.lr_schedule)):
        return None
    name = f"lr_schedule={cfg.lr_schedule.name}"
    asked = {"the first update": (0, 0.0), "one halfway": (50, 0.5), "the last one": (99, 0.99)}
    try:
        with said_of(kind, f"{name}: factor"):
            schedule = cast(LrScheduleConfig, OmegaConf.to_object(cfg.lr_schedule)).begin()
            factors = {
                when: schedule.factor(
                    Moment(update=update, epoch=update // 10, chunks=10, of_run=share, of_stage=share)
                )
                for when, (update, share) in asked.items()
            }
    except ValueError as error:
        return str(error)
    for when, factor in factors.items():
        if isinstance(factor, bool) or not isinstance(factor, int | float) or not 0 <= factor < math.inf:
            return f"{name}: factor gives {factor!r} at {when}; takes a finite number from 0"
    return None


def task_problem(task: TaskConfig) -> str | None:
    """The line about a task, or one of its metrics, that does not return what it declares; None if all do. Tasks and
    metrics of the user's own are tried on a few numbers; this imports torch. The shipped ones have tests."""
    metrics = [each.name for each in measured(task.name) if each.measure and is_own(each.measure)]
    return _tried_task(_Same(task), tuple(metrics)) if metrics or is_own(type(task)) else None


@lru_cache(maxsize=1000)
def _tried_task(same: "_Same", metrics: tuple[str, ...]) -> str | None:
    from tbptt.tasks.try_out import try_metric, try_task

    task: Any = same.option
    try:
        if is_own(type(task)):
            try_task(task)
        for name in metrics:
            try_metric(METRICS[name], task.outputs)
    except ValueError as error:
        return str(error)
    return None


class _Same:
    """An option that equals others of its class with the same values, as a key for the cache: a study's points mostly
    have the same model and task."""

    def __init__(self, option: Option):
        self.option, self._key = option, (type(option), repr(option))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)


@lru_cache(maxsize=1000)
def _tried(same: _Same, inputs: int, outputs: int) -> str | None:
    from tbptt.models.build import outline
    from tbptt.models.try_out import try_out
    from tbptt.training.flat import why_not_flat

    model: Any = same.option
    try:
        if (shapes := outline(model, inputs, outputs)) is not None:
            count = sum(p.numel() for p in shapes.parameters())
            if problem := too_large(BYTES * count):
                return f"model: {model.name} {problem}"
        problem = why_not_flat(try_out(model, inputs, outputs))
    except ValueError as error:
        return str(error)
    return problem and f"model={model.name}: {problem}"
