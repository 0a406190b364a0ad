"""Backpropagation through a whole sequence: segment by segment against plain autograd, time and memory.

    python benchmarks/full_bptt.py [STEPS ...]

15 series of random numbers, 128 features, the article's network with noise; one update of one chunk that is the whole
sequence. ``auto`` is what segment_length=auto does with segment_memory=auto, ``0 MB`` with segment_memory=0, which
computes every segment twice, and ``500 MB`` with that much. ``autograd`` is the same loop with segment_length=null;
``plain PyTorch`` is that with PyTorch's layers and malloc as it comes. The first update, in which segments are measured
and none keeps its activations, is not timed.

Each way is a process of its own, so that its peak memory is its own: what updates add to what was there before. The
processes take turns: one computes an update while the others wait. Times are of the processor, so that other programs
count less. The last two ways are left out above 20,000 steps,
and ``auto`` alone remains above 200,000. Without arguments: 2,000, 20,000, 200,000 and 1,000,000.
"""

import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence

from machine import machine, spread

STEPS = (2_000, 20_000, 200_000, 1_000_000)
MEMORY = {"auto": "auto", "0 MB": 0, "500 MB": 500}
WAYS = (*MEMORY, "autograd", "plain PyTorch")
MOST_FOR_AUTOGRAD, MOST_FOR_ALL = 20_000, 200_000
BATCH, WINDOW = 15, 128
UPDATES = {2_000: 40, 20_000: 8, 200_000: 2}  # timed; one of the longer ones


def measure(way: str, steps: int) -> None:
    """For each line of the standard input, compute an update, and print as JSON: its processor seconds, memory before
    the first one and at the peak, the loss."""
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
    from tbptt.training.segments import SegmentMemory

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
    segment, memory = ("auto" if way in MEMORY else None), SegmentMemory(MEMORY.get(way, 0))
    before = peak()
    with kernels.torch_only() if way == "plain PyTorch" else nullcontext():
        for _ in sys.stdin:
            began = time.process_time()
            loss = train_pass(
                network, parameters, optimizer, sequences, 1, clip=1.0, segment_length=segment, memory=memory
            ).to_host()[0][0]
            seconds = time.process_time() - began
            print(json.dumps({"seconds": seconds, "before": before, "peak": peak(), "loss": loss}), flush=True)


def peak() -> float:
    """The most memory that this process has had, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def in_turn(steps: int, ways: Sequence[str]) -> dict[str, list[dict[str, float]]]:
    """What each way measured, update by update."""
    command = [sys.executable, __file__, "--measure"]
    running = {
        way: subprocess.Popen([*command, way, str(steps)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for way in ways
    }
    found: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
    for _ in range(1 + UPDATES.get(steps, 1)):
        for way, process in running.items():
            process.stdin.write("\n")
            process.stdin.flush()
            found[way].append(json.loads(process.stdout.readline()))
    for process in running.values():
        process.communicate()
    return {way: updates[1:] for way, updates in found.items()}


def main() -> None:
    print(machine())
    for steps in [int(word) for word in sys.argv[1:]] or STEPS:
        ways = WAYS if steps <= MOST_FOR_AUTOGRAD else tuple(MEMORY) if steps <= MOST_FOR_ALL else WAYS[:1]
        found = in_turn(steps, ways)
        for way, updates in found.items():
            times = spread([1e6 * each["seconds"] / steps for each in updates], "µs a step")
            before, most = updates[-1]["before"], updates[-1]["peak"]
            print(f"{steps:>9,} steps  {way:<14}{times}  +{most - before:,.0f} MB, {most:,.0f} in all")
        if len({tuple(each["loss"] for each in found[way]) for way in MEMORY if way in found}) > 1:
            sys.exit("the losses of segments depend on their memory")
        ours = found.pop("auto")
        for way, other in found.items():
            took = statistics.median(each["seconds"] for each in ours) / statistics.median(e["seconds"] for e in other)
            print(f"{'':>9}        auto, of {way}: {took:.2f} of the time")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        measure(sys.argv[2], int(sys.argv[3]))
    else:
        main()
