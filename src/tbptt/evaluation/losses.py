"""Losses, and other metrics, of frozen weights."""

from collections.abc import Sequence

import torch
from torch import Tensor

from tbptt.data.sequences import Sequences
from tbptt.models.protocol import Network
from tbptt.options.metrics import Metric
from tbptt.options.own import is_own
from tbptt.system.runtime import full_float32
from tbptt.tasks.try_out import measured


def evaluate(network: Network, sequences: Sequences, chunk_length: int = 500) -> Tensor:
    """The mean loss over all valid steps; see :func:`measure`."""
    return measure(network, sequences, (), chunk_length)["loss"]


def measure(
    network: Network, sequences: Sequences, metrics: Sequence[Metric], chunk_length: int = 500
) -> dict[str, Tensor]:
    """The mean loss over all valid steps and outputs, and each metric by its name; see :func:`measure_and_predict`."""
    return measure_and_predict(network, sequences, metrics, chunk_length)[0]


@torch.no_grad()
def measure_and_predict(
    network: Network, sequences: Sequences, metrics: Sequence[Metric], chunk_length: int = 500
) -> tuple[dict[str, Tensor], Tensor]:
    """The mean loss, each metric and all predictions, with the weights frozen and the noise off.

    One pass carries the state, which is zero at the start, and never computes in less than float32. The network keeps
    its mode. ``chunk_length`` changes memory and speed, not the result.

    Returns:
        ``loss`` and each metric by its name, scalars on the device; and the predictions, (B, T, O) standardised.
    """
    training = network.training
    network.eval()
    device = sequences.targets.device
    total = torch.zeros((), dtype=torch.float64, device=device)
    sums = {metric.name: torch.zeros(2, dtype=torch.float64, device=device) for metric in metrics}
    every = torch.empty_like(sequences.targets)
    state = network.zero_state(sequences.batch)
    with torch.autocast(device.type, enabled=False), full_float32():
        for start in range(0, sequences.length, chunk_length):
            stop = min(start + chunk_length, sequences.length)
            y, state = network(sequences.features(start, stop), state)
            every[:, start:stop] = y
            total += sequences.loss(y, start, stop)
            for metric in metrics:
                if metric.measure is not None:
                    _add(sums[metric.name], metric, sequences, y, start, stop)
        for metric in metrics:
            if metric.at_once is not None:
                given = every.clone() if is_own(metric.at_once) else every
                _take(sums[metric.name], measured(metric, given, sequences))
    network.train(training)
    means = {name: both[0] / both[1] for name, both in sums.items()}
    return {"loss": total / sequences.count(0, sequences.length), **means}, every


@torch.no_grad()
def measure_predicted(
    every: Tensor, sequences: Sequences, metrics: Sequence[Metric], chunk_length: int = 500
) -> dict[str, Tensor]:
    """The mean loss and each metric, by name, of predictions that are there already, (B, T, O) standardised. They are
    those of :func:`measure_and_predict`, but for rounding."""
    total = torch.zeros((), dtype=torch.float64)
    sums = {metric.name: torch.zeros(2, dtype=torch.float64) for metric in metrics}
    for start in range(0, sequences.length, chunk_length):
        stop = min(start + chunk_length, sequences.length)
        y = every[:, start:stop]
        total += sequences.loss(y, start, stop)
        for metric in metrics:
            if metric.measure is not None:
                _add(sums[metric.name], metric, sequences, y, start, stop)
    for metric in metrics:
        if metric.at_once is not None:
            _take(sums[metric.name], measured(metric, every.clone(), sequences))
    return {"loss": total / sequences.count(0, sequences.length), **{n: both[0] / both[1] for n, both in sums.items()}}


def _add(both: Tensor, metric: Metric, sequences: Sequences, y: Tensor, start: int, stop: int) -> None:
    """Add a chunk to a metric's sum and count, (2,)."""
    target = sequences.targets[:, start:stop]
    if metric.in_prices and (scaler := sequences.scaler) is not None:
        if scaler.mixing is not None:  # float32 could lose the sign of a small difference between large values
            y, target = y.double(), target.double()
        y, target = scaler.to_price_units(y), scaler.targets_in_prices(target)
    elif is_own(metric.measure):  # the user's code may change its arguments
        y, target = y.clone(), target.clone()
    mask = None if sequences.mask is None else sequences.mask[:, start:stop]
    _take(both, measured(metric, y, target, mask))


def _take(both: Tensor, given: tuple[Tensor | float, Tensor | float]) -> None:
    both[0] += given[0]
    both[1] += given[1]
