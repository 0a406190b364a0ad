"""Backpropagation through a whole sequence: segment by segment against plain autograd, time and memory.

    python benchmarks/full_bptt.py [STEPS ...]

15 series of random numbers, 128 features, the article's network with noise; one update of one chunk that is the whole
sequence. Each measurement is a process of its own, so that its peak memory is its own: what an update adds to what was
there before it. Plain autograd is left out above 20,000 steps. Without arguments: 2,000, 20,000, 200,000 and 1,000,000.
"""

import json
import resource
import subprocess
import sys
import time

from machine import machine, spread

STEPS = (2_000, 20_000, 200_000, 1_000_000)
MOST_FOR_AUTOGRAD = 20_000
BATCH, WINDOW = 15, 128
TIMED_STEPS = 200_000  # about so many are timed at each length, at least one update


def measure(way: str, steps: int) -> None:
    """Print seconds of each update, memory before, at the peak, as JSON."""
    import torch

    from tbptt.bptt import FlatParameters, Sequences, train_pass
    from tbptt.features import LagFeatures, Scaler
    from tbptt.network import QNetwork
    from tbptt.optimizers import build_optimizer
    from tbptt.runtime import keep_freed_memory

    keep_freed_memory()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    one = torch.ones(1, dtype=torch.float64)
    scaler = Scaler(0 * one, one, torch.zeros(1, 2, dtype=torch.float64), one)
    prices = torch.randn(BATCH, WINDOW + steps, dtype=torch.float64)
    features = LagFeatures(prices, scaler, WINDOW, "lagged_change")
    del prices
    sequences = Sequences(features, torch.randn(BATCH, steps, 2), None, [steps] * BATCH)
    network = QNetwork(WINDOW)
    parameters = FlatParameters(network)
    optimizer = build_optimizer([parameters.vector], "adam", lr=0.001)
    before = peak()
    seconds = []
    for _ in range(2 + TIMED_STEPS // steps if steps < TIMED_STEPS else 1):
        began = time.perf_counter()
        segment = "auto" if way == "segments" else None
        train_pass(network, parameters, optimizer, sequences, 1, clip=1.0, segment_length=segment).to_host()
        seconds.append(time.perf_counter() - began)
    print(json.dumps({"seconds": seconds[1:] or seconds, "before": before, "peak": peak()}))


def peak() -> float:
    """The most memory that this process has had, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    lengths = [int(word) for word in sys.argv[1:]] or STEPS
    print(machine())
    for steps in lengths:
        found = {}
        for way in ("segments", "autograd"):
            if way == "autograd" and steps > MOST_FOR_AUTOGRAD:
                continue
            command = [sys.executable, __file__, "--measure", way, str(steps)]
            found[way] = one = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
            us = [1e6 * s / steps for s in one["seconds"]]
            growth = one["peak"] - one["before"]
            print(
                f"{steps:>9,} steps  {way:<9} {spread(us, 'µs a step')}  +{growth:,.0f} MB, {one['peak']:,.0f} in all"
            )
        if len(found) == 2:
            time_ratio = min(found["segments"]["seconds"]) / min(found["autograd"]["seconds"])
            growths = {way: one["peak"] - one["before"] for way, one in found.items()}
            print(
            memory = growths["segments"] / growths["autograd"]
            print(f"{'':>16} ratio     {time_ratio:.2f} of the time, {memory:.2f} of the memory")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        measure(sys.argv[2], int(sys.argv[3]))
    else:
        main()
