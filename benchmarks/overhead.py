"""What Lightning and MLflow cost: the whole pipeline against the same chunk loop alone, in turn, in one process.

    python benchmarks/overhead.py [EPOCHS] [OVERRIDE ...]

Full size, 100 chunks. Prints the time an update takes in both, evaluation apart, their ratio, the shares of an epoch
that logging and evaluation take, and the peak memory.
"""

import resource
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from machine import machine, spread
from omegaconf import OmegaConf

from tbptt.config.compose import ConfigSource
from tbptt.config.schema import Config, register
from tbptt.models.build import build_network
from tbptt.runs import checkpoint, journal, module
from tbptt.runs.context import RunContext
from tbptt.runs.datamodule import SequenceDataModule
from tbptt.runs.fit import fit
from tbptt.system.runtime import keep_freed_memory
from tbptt.training.chunks import train_pass
from tbptt.training.flat import FlatParameters
from tbptt.training.optimizers import build_optimizer

CONF = Path(__file__).parents[1] / "conf"


def timed(into: list[float], function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function; the seconds of every call are added to the last number of ``into``."""

    def wrapper(*args: Any, **settings: Any) -> Any:
        began = time.perf_counter()
        try:
            return function(*args, **settings)
        finally:
            into[-1] += time.perf_counter() - began

    return wrapper


def bare_loop(config: Config) -> Callable[[], float]:
    """A function that trains one epoch with nothing around it and returns its seconds."""
    torch.manual_seed(config.seed)
    data = SequenceDataModule(config.data, config.task)
    network = build_network(config.model, config.data.input_size, config.task.outputs)
    parameters = FlatParameters(network)
    optimizer = build_optimizer([parameters.vector], **vars(config.optimizer))

    def epoch() -> float:
        began = time.perf_counter()
        record = train_pass(
            network,
            parameters,
            optimizer,
            data.train,
            config.schedule.chunks[0],
            clip=config.clip,  # type: ignore[attr-defined]
        )
        record.to_host()
        return time.perf_counter() - began

    return epoch


def main() -> None:
    epochs = int(sys.argv[1]) if len(sys.argv) > 1 else 8
    register()
    with tempfile.TemporaryDirectory() as folder:
        source = ConfigSource(CONF)
        with source.opened():
            cfg = source.compose(
                [
                    "schedule=fixed",
                    "schedule.chunks=[100]",
                    f"epochs={epochs + 1}",
                    "progress=none",
                    f"tracking.uri=sqlite:///{folder}/mlflow.db",
                    *sys.argv[2:],
                ]
            )
        config = cast(Config, OmegaConf.to_object(cfg))
        torch.set_num_threads(config.threads)
        keep_freed_memory()
        epoch = bare_loop(config)
        epoch()
        bare: list[float] = []
        times: dict[str, list[float]] = defaultdict(lambda: [0.0])
        module.evaluate = timed(times["evaluation"], module.evaluate)
        for name in ("add", "send"):
            setattr(journal.Outbox, name, timed(times["logging"], getattr(journal.Outbox, name)))
        checkpoint.save = timed(times["checkpoints"], checkpoint.save)
        walls: list[float] = []
        began = [0.0]

        def after_epoch(done: module.Epoch) -> bool:
            walls.append(time.perf_counter() - began[0])
            bare.append(epoch())  # in turn with the pipeline's, so that a machine that slows down slows both
            for column in times.values():
                column.append(0.0)
            began[0] = time.perf_counter()
            return False

        began[0] = time.perf_counter()
        fit(cfg, RunContext(after_epoch=after_epoch))
    # The first epoch has the start-up in it.
    walls, bare = walls[1:], bare[1:]
    parts = {name: column[1 : len(walls) + 1] for name, column in times.items()}
    updates = 100
    pipeline = [wall - seconds for wall, seconds in zip(walls, parts["evaluation"], strict=True)]
    ratios = [a / b for a, b in zip(pipeline, bare, strict=True)]
    print(machine())
    print(f"pipeline, an update       {spread([1000 * s / updates for s in pipeline], 'ms')}")
    print(f"chunk loop alone          {spread([1000 * s / updates for s in bare], 'ms')}")
    print(f"ratio, epoch by epoch     {spread(ratios, 'times')}")
    for name, column in parts.items():
        share = statistics.median(100 * s / wall for s, wall in zip(column, walls, strict=True))
        print(f"{name + ', of an epoch':<26}{share:8.2f} %")
    print(f"peak memory               {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:8.0f} MB")


if __name__ == "__main__":
    main()
