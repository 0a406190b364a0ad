"""Describe what a sweep would run, and about how long it would take. Nothing is created."""

import time
from collections.abc import Mapping, Sequence
from typing import cast

from omegaconf import OmegaConf

from tbptt.config.schema import Config
from tbptt.options.values import Value
from tbptt.studies.disk import disk_line
from tbptt.studies.folds import fold_data
from tbptt.studies.plan import Plan

SHOWN = 20  # points
STEPS, CHUNK = 1000, 200  # of the timed training


def describe(plan: Plan, points: Sequence[Mapping[str, Value]], about: Sequence[str] = ()) -> str:
    """The text of ``study.dry_run=true``. ``points`` are the points that are known beforehand, ``about`` the lines on
    the data."""
    seeds, folds = len(plan.settings.seeds or [0]), plan.settings.folds or 1
    lines = [f"study {plan.name}", *(f"  {line}" for line in about)]
    lines += [f"  {name}: {words}" for name, words in plan.space.describe().items()]
    if plan.is_grid:
        of, placebo_of = plan.settings.best_of, plan.settings.placebo_of
        said = f"the best of study {of}" if of else f"every one of its {len(points)} points"
        if placebo_of:
            said = f"the best of study {placebo_of} on {len(points)} surrogates ({plan.cfg.data.surrogate})"
        lines.append(f"  {said}:")
        lines += ["    " + " ".join(plan.space.overrides(point)) for point in points[:SHOWN]]
        if len(points) > SHOWN:
            lines.append(f"    … {len(points) - SHOWN} more")
    else:
        lines.append(f"  sampler {plan.settings.sampler.name}, pruner {plan.settings.pruner.name}")
    if plan.n_trials is None:
        return "\n".join([*lines, f"  trials until {plan.settings.timeout:g} s have passed; nothing was created"])
    trials = len(points) if plan.is_grid else plan.n_trials
    runs, epochs = trials * seeds * folds, plan.cfg.epochs
    hours = runs * epochs * _seconds_an_epoch(plan) / plan.settings.workers / 3600
    lines.append(disk_line(plan, trials, runs))
    lines.append(
        f"  {trials} trials × {seeds} seed{'s' if seeds > 1 else ''} × "
        + (f"{folds} folds × " if folds > 1 else "")
        + f"{epochs} epochs, "
        f"{plan.settings.workers} at once: at least {hours:.2g} hours of training"
        + ("" if plan.is_grid else " where none is pruned")
        + "; nothing was created"
    )
    return "\n".join(lines)


def _seconds_an_epoch(plan: Plan) -> float:
    """Time an epoch on a short part of the first point's training, and scale it to the full length. With folds, scale
    it to the mean length of the folds.

    The estimate leaves out the time to start a run and to record an epoch, so short runs take many times as long.
    """
    import numpy as np
    import torch

    from tbptt.data.features import LagFeatures, Scaler
    from tbptt.data.options import SplitData
    from tbptt.data.sequences import Sequences
    from tbptt.data.split import load_split
    from tbptt.models.build import build_network
    from tbptt.system.runtime import keep_freed_memory
    from tbptt.tasks.try_out import targets_of
    from tbptt.training.chunks import train_pass
    from tbptt.training.flat import FlatParameters
    from tbptt.training.optimizers import optimizer_of

    keep_freed_memory()
    config = cast(Config, OmegaConf.to_object(plan.cfg))
    torch.set_num_threads(config.threads)
    splits = [load_split(data, config.task) for data in fold_data(config.data, plan.settings)]
    split, length = splits[0], sum(s.length for s in splits) / len(splits)
    series, steps = len(split.train), min(STEPS, split.length)
    torch.manual_seed(0)
    walks = torch.randn(series, split.window + steps + split.ahead, dtype=torch.float64).cumsum(1).numpy()
    targets = torch.from_numpy(targets_of(config.task, walks[:, split.window :], np.ones(1), steps))
    prices, kind = torch.from_numpy(walks[:, : split.window + steps]), config.data.features
    scale = config.task.common_scale
    counts = torch.full((series,), steps)
    scaler = Scaler.fit(prices, counts, targets, split.window, kind, True, scale)
    extra, lags = None, 1
    if isinstance(config.data, SplitData) and config.data.inputs:
        extra, lags = torch.randn(*prices.shape, len(config.data.inputs), dtype=torch.float64), config.data.input_window
        scaler = scaler.with_extra(extra, counts, split.window, True)
    features = LagFeatures(prices, scaler, split.window, kind, extra=extra, input_window=lags)
    sequences = Sequences(features, scaler.scale_targets(targets).float(), None, [steps] * series, config.task)
    network = build_network(config.model, config.data.input_size, config.task.outputs)
    parameters = FlatParameters(network)
    optimizer = optimizer_of(config.optimizer, parameters)
    chunks = max(1, steps // CHUNK)
    train_pass(network, parameters, optimizer, sequences, chunks)
    began = time.perf_counter()
    train_pass(network, parameters, optimizer, sequences, chunks)
    evaluation = 1.2  # the held-out pass after every epoch, and the frozen pass over the training series now and then
    return (time.perf_counter() - began) * length / steps * evaluation
