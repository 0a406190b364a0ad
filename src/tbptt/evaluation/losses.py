"""Losses of frozen weights."""

import torch
from torch import Tensor

from tbptt.data.sequences import Sequences
from tbptt.models.protocol import Network
from tbptt.system.runtime import full_float32


@torch.no_grad()
def evaluate(network: Network, sequences: Sequences, chunk_length: int = 500) -> Tensor:
    """Mean squared error over all valid steps and both actions with the weights frozen and the noise off: one pass,
    state zero at the start and carried, never in less than float32. A scalar on the device; the network's mode is left
    as it was.

    ``chunk_length`` changes memory and speed, not the result.
    """
    training = network.training
    network.eval()
    total = torch.zeros((), dtype=torch.float64, device=sequences.targets.device)
    state = network.zero_state(sequences.batch)
    with torch.autocast(sequences.targets.device.type, enabled=False), full_float32():
        for start in range(0, sequences.length, chunk_length):
            stop = min(start + chunk_length, sequences.length)
            y, state = network(sequences.features(start, stop), state)
            total += sequences.squared_error(y, start, stop)
    network.train(training)
    return total / (2 * sequences.valid_steps)
