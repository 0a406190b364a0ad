"""How much disk a study will take, for ``study.dry_run=true``."""

from collections.abc import Iterator
from typing import Any, cast

from omegaconf import OmegaConf

from tbptt.config.schema import Config
from tbptt.studies.listed import in_bytes
from tbptt.studies.plan import Plan

CHECKPOINTS = 3  # of a run: the best epoch's, the last one's, the one before
OVERHEAD = 16_000  # bytes of a checkpoint besides its tensors: names, config, states of random numbers
A_POINT = 261  # bytes that a point of a curve takes in MLflow's SQLite file
BY_EPOCH, BY_UPDATE = 19, 2  # curves, with task=q_values


def disk_line(plan: Plan, trials: int, runs: int) -> str:
    """About how much ``runs`` runs of ``trials`` trials will leave, and what ``tracking.keep`` makes of it."""
    config = cast(Config, OmegaConf.to_object(plan.cfg))
    each, last = _bytes_a_run(config)
    points = config.epochs * (BY_EPOCH + BY_UPDATE * _updates_an_epoch(config))
    curves = in_bytes(runs * points * A_POINT)
    best = in_bytes(each * runs // trials)
    left = {
        "all": f"{in_bytes(runs * each)} of checkpoints and models; tracking.keep=best would leave {best}",
        "last": f"{in_bytes((runs - runs // trials) * last + each * runs // trials)} of checkpoints and models",
        "best": f"{best} of checkpoints and models",
    }
    return f"  on disk about {curves} of curves and {left[config.tracking.keep]}; besides, twice the report and tables"


def _bytes_a_run(config: Config) -> tuple[int, int]:
    """The bytes of a run's checkpoints and model, and of its last two checkpoints alone."""
    import torch

    from tbptt.models.build import build_network
    from tbptt.training.flat import FlatParameters
    from tbptt.training.optimizers import optimizer_of, optimizer_state

    network = build_network(config.model, config.data.input_size, config.task.outputs)
    parameters = FlatParameters(network)
    optimizer = optimizer_of(config.optimizer, parameters)
    parameters.vector.grad = torch.zeros_like(parameters.vector)
    optimizer.step()
    weights = sum(tensor.nbytes for tensor in network.state_dict().values())
    state = sum(tensor.nbytes for tensor in _tensors(optimizer_state(optimizer, parameters)))
    checkpoint = weights + state + OVERHEAD
    return CHECKPOINTS * checkpoint + weights + OVERHEAD, (CHECKPOINTS - 1) * checkpoint


def _tensors(content: Any) -> Iterator[Any]:
    if hasattr(content, "nbytes"):
        yield content
    for item in content.values() if isinstance(content, dict) else content if isinstance(content, list | tuple) else ():
        yield from _tensors(item)


def _updates_an_epoch(config: Config) -> float:
    """The points of an epoch that each curve by update has, as the mean over the stages of the schedule."""
    stages = config.schedule.as_list()
    return sum(min(chunks, config.tracking.update_points) for chunks in stages) / len(stages)
