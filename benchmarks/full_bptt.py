"""Backpropagation through a whole sequence: segment by segment against plain autograd, time and memory.

    python benchmarks/full_bptt.py [STEPS ...]

15 series of random numbers, 128 features, the article's network with noise; one update of one chunk that is the whole
sequence. ``segments`` is what segment_length=auto does. ``autograd`` is the same loop with segment_length=null;
``plain PyTorch`` is that with PyTorch's layers and malloc as it comes. Each measurement is a process of its own, so
that its peak memory is its own: what an update adds to what was there before it. The last two are left out above
20,000 steps. Without arguments: 2,000, 20,000, 200,000 and 1,000,000.
"""

import json
import resource
import statistics
import subprocess
import sys
import time

from machine import machine, spread

STEPS = (2_000, 20_000, 200_000, 1_000_000)
WAYS = ("segments", "autograd", "plain PyTorch")
MOST_FOR_AUTOGRAD = 20_000
BATCH, WINDOW = 15, 128
UPDATES = {2_000: 40, 20_000: 6}  # timed; one of the longer ones


def measure(way: str, steps: int) -> None:
    """Print seconds of each update, memory before and at the peak, as JSON."""
    from contextlib import nullcontext

    import torch

    from tbptt.data.features import LagFeatures, Scaler
    from tbptt.data.sequences import Sequences
    from tbptt.models import kernels
    from tbptt.models.article import QNetwork
    from tbptt.system.runtime import keep_freed_memory
    from tbptt.tasks.options import QValues
    from tbptt.training.chunks import train_pass
    from tbptt.training.flat import FlatParameters
    from tbptt.training.optimizers import build_optimizer

    if way != "plain PyTorch":
        keep_freed_memory()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    one = torch.ones(1, dtype=torch.float64)
    scaler = Scaler(0 * one, one, torch.zeros(1, 2, dtype=torch.float64), one)
    features = LagFeatures(torch.randn(BATCH, WINDOW + steps, dtype=torch.float64), scaler, WINDOW, "lagged_change")
    task = QValues(name="q_values", fee=0.02, fee_unit="price")
    sequences = Sequences(features, torch.randn(BATCH, steps, 2), None, [steps] * BATCH, task)
    network = QNetwork(WINDOW)
    parameters = FlatParameters(network)
    optimizer = build_optimizer([parameters.vector], "adam", lr=0.001)
    before = peak()
    seconds = []
    with kernels.torch_only() if way == "plain PyTorch" else nullcontext():
        for _ in range(1 + UPDATES[steps] if steps in UPDATES else 1):
            began = time.perf_counter()
            segment = "auto" if way == "segments" else None
            train_pass(network, parameters, optimizer, sequences, 1, clip=1.0, segment_length=segment).to_host()
            seconds.append(time.perf_counter() - began)
    print(json.dumps({"seconds": seconds[1:] or seconds, "before": before, "peak": peak()}))


def peak() -> float:
    """The most memory that this process has had, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    print(machine())
    for steps in [int(word) for word in sys.argv[1:]] or STEPS:
        found = {}
        for way in WAYS if steps <= MOST_FOR_AUTOGRAD else WAYS[:1]:
            command = [sys.executable, __file__, "--measure", way, str(steps)]
            found[way] = one = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
            times = spread([1e6 * s / steps for s in one["seconds"]], "µs a step")
            memory = f"+{one['peak'] - one['before']:,.0f} MB, {one['peak']:,.0f} in all"
            print(f"{steps:>9,} steps  {way:<14}{times}  {memory}")
        ours = found.pop("segments")
        for way, other in found.items():
            took = statistics.median(ours["seconds"]) / statistics.median(other["seconds"])
            grew = (ours["peak"] - ours["before"]) / (other["peak"] - other["before"])
            print(f"{'':>9}        segments, of {way}: {took:.2f} of the time, {grew:.2f} of the memory")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        measure(sys.argv[2], int(sys.argv[3]))
    else:
        main()
