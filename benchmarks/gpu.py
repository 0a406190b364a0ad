"""A GPU: ms a chunk against a plain cuDNN loop, how many trials it trains at once, and the loss at other precisions.

    python benchmarks/gpu.py [--minutes M] [--chunks N] [--rounds N] [--seconds S] [--at-once N ...] [--epochs N]
                             [--device DEVICE]
    python benchmarks/gpu.py --first-day [--minutes M] [--only PART ...] [--device DEVICE] [--small] [--json FILE]

``--first-day`` measures, part by part, what was decided without a GPU, in 8 minutes: see first_day.py.
Without it three tables are measured in this one command on one GPU, the most telling first; what does not fit into
``--minutes`` (5) any more is left out, which is said:

- a chunk of 200 steps of the article's network, forward to optimizer: the plain PyTorch loop as one writes it, and
  ours, with and without CUDA graphs, in float32, TF32 and bf16; all take turns, a pass of ``--chunks`` (100) updates
  each, ``--rounds`` (3) times: 2,800 updates, with one untimed pass each. The plain loop has what PyTorch does by
  itself: TF32 inside cuDNN, float32 outside.
- updates a second with 1, 8, 32, 4, 16 and 2 trials at once, as processes, which ``study.workers=N device=cuda``
  starts, and as threads of one process with a CUDA stream each, ``--seconds`` (5) long; trials an hour follow for 50
  epochs of 100 chunks.
- the held-out loss after ``--epochs`` (10) epochs at each precision, over four seeds: 12,000 updates.

``--device cpu`` runs all of it small, without graphs and TF32, to see that the command works.

Nothing has run on a GPU yet. What was decided without one, and tests/test_cuda.py has to show too:

- that a tiny sum tells a GPU that works from one that is only counted, and that its context is left to nobody;
- which errors mean that the context is lost, and which that memory is short (devices.gpu_trouble); that Lightning's own
  clearing up on a lost context raises no other; that memory is free again for the next trial;
- that recurrent layers stay in float32 under ``precision=bf16``, and frozen weights under ``precision=tf32``;
- that a pass waits for nothing, its new switches of autocast included; that a graph trains as the plain loop does, also
  under autocast, and leaves no memory behind;
- that cuDNN reads the weights in place, with no copy and no warning;
- that a run goes on on the other device;
- that a GPU hidden by an empty CUDA_VISIBLE_DEVICES is not seen by PyTorch's optimizers on the CPU.

By hand only: that a worker whose GPU failed is replaced and the study completed; a GPU that is too old, in exclusive
use, or whose driver is.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from first_day import LIMITS, first_day
from machine import machine, spread

sys.path.insert(0, str(Path(__file__).parent / "peers"))
from article import article
from plain_torch import Network, adam, detached
from turns import STEPS

from tbptt.data.sequences import Sequences
from tbptt.evaluation.losses import evaluate
from tbptt.models.build import build_network
from tbptt.system.devices import why_no_gpu
from tbptt.system.runtime import set_precision
from tbptt.tasks.prepare import prepare
from tbptt.training.chunks import PassRecord, train_pass
from tbptt.training.cuda_graphs import FixedSteps
from tbptt.training.flat import FlatParameters
from tbptt.training.optimizers import build_optimizer

AN_ARTICLES_TRIAL = 50 * 100  # updates
warnings.filterwarnings("ignore", message=".*capturable=True.*")  # the warm-up's steps are not captured


class Trial:
    """A network in training, as a run has it.

    Attributes:
        losses: of the last pass.
    """

    def __init__(self, data: Sequences, chunks: int, device: str, precision: str, graphs: bool, seed: int = 0):
        config = article(chunks)
        torch.manual_seed(seed)
        self.data, self.chunks, self.device, self.precision = data, chunks, device, precision
        self.network = build_network(config.model, config.data.input_size, config.task.outputs).to(device)
        self.parameters = FlatParameters(self.network)
        self.optimizer = build_optimizer([self.parameters.vector], **vars(config.optimizer), capturable=graphs)
        self.clip = config.clip
        self.fixed = FixedSteps() if graphs else None
        self.losses: list[float] = []

    def launch(self, **settings: Any) -> PassRecord:
        """Train once on all data; comes back when all is launched. ``settings`` are those of ``train_pass``."""
        set_precision(self.precision)
        bf16 = self.precision == "bf16"
        with torch.autocast(self.device, torch.bfloat16) if bf16 else nullcontext():
            return train_pass(
                self.network,
                self.parameters,
                self.optimizer,
                self.data,
                self.chunks,
                clip=self.clip,
                fixed=self.fixed,
                **settings,
            )

    def one_pass(self) -> None:
        """Train once on all data; comes back when the device is done."""
        self.losses = self.launch().to_host()[0]


def plain_loop(data: Sequences, chunks: int, device: str) -> Callable[[], None]:
    """A pass of the loop that one writes."""
    inputs = data.features(0, chunks * STEPS).contiguous().split(STEPS, dim=1)
    targets = data.targets[:, : chunks * STEPS].split(STEPS, dim=1)
    torch.manual_seed(0)
    network = Network(inputs[0].shape[2]).to(device)
    optimizer = adam(network)

    def one_pass() -> None:
        if device == "cuda":  # as PyTorch comes
            torch.set_float32_matmul_precision("highest")
            torch.backends.cudnn.rnn.fp32_precision = "tf32"  # type: ignore[attr-defined]
        state = None
        for x, y in zip(inputs, targets, strict=True):
            optimizer.zero_grad()
            prediction, state = network(x, state)
            loss = torch.nn.functional.mse_loss(prediction, y)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            state = detached(state)
            loss.item()

    return one_pass


def ways(device: str) -> list[tuple[str, bool]]:
    """Precisions, with and without graphs."""
    if device == "cpu":
        return [("32", False), ("bf16", False)]
    return [(precision, graphs) for precision in ("32", "tf32", "bf16") for graphs in (False, True)]


class Clock:
    """The time that is left."""

    def __init__(self, minutes: float):
        self._end = time.monotonic() + 60 * minutes

    @property
    def left(self) -> float:
        """Seconds."""
        return self._end - time.monotonic()

    def allows(self, seconds: float, what: str) -> bool:
        """Whether so much is left; else says what is left out."""
        if self.left >= seconds:
            return True
        print(
            f"left out: {what}, about {seconds:.0f} s of {max(self.left, 0):.0f} that are left of --minutes", flush=True
        )
        return False


def chunk_table(data: Sequences, chunks: int, rounds: int, device: str, clock: Clock) -> dict[str, float]:
    """Returns the seconds of a pass without graphs at each precision."""
    contenders: dict[str, Callable[[], None]] = {"plain PyTorch loop": plain_loop(data, chunks, device)}
    for precision, graphs in ways(device):
        name = f"ours, precision={precision}" + (", CUDA graphs" if graphs else "")
        contenders[name] = Trial(data, chunks, device, precision, graphs).one_pass
    times: dict[str, list[float]] = {name: [] for name in contenders}
    began = time.monotonic()
    for one_pass in contenders.values():  # untimed
        one_pass()
    a_round = time.monotonic() - began
    print(f"\na chunk of {STEPS} steps, up to {rounds} passes of {chunks}, about {rounds * a_round:.0f} s", flush=True)
    for i in range(rounds):
        if i and not clock.allows(a_round, f"passes from the {i + 1}. on"):
            break
        for name, one_pass in contenders.items():
            began = time.perf_counter()
            one_pass()
            times[name].append(1000 * (time.perf_counter() - began) / chunks)
    first = statistics.median(times["plain PyTorch loop"])
    for name, values in times.items():
        print(f"{name:<36}{spread(values, 'ms')}  plain / this {first / statistics.median(values):6.2f}", flush=True)
    precisions = dict.fromkeys(precision for precision, _ in ways(device))
    return {p: chunks * statistics.median(times[f"ours, precision={p}"]) / 1000 for p in precisions}


def precision_table(
    data: Sequences, held_out: Sequences, chunks: int, epochs: int, device: str, clock: Clock, passes: dict[str, float]
) -> None:
    """``passes``: what :func:`chunk_table` returned."""
    a_seed = epochs * sum(passes.values())
    print(
        f"\nheld-out loss after {epochs} epochs of {chunks} chunks, seeds 0 to 3, about {4 * a_seed:.0f} s", flush=True
    )
    losses: dict[str, list[float]] = {precision: [] for precision in passes}
    for seed in range(4):
        if not clock.allows(a_seed, f"seeds from {seed} on"):
            break
        for precision, found in losses.items():
            trial = Trial(data, chunks, device, precision, False, seed)
            for _ in range(epochs):
                trial.one_pass()
            found.append(evaluate(trial.network, held_out).item())
    for precision, found in losses.items():
        if found:
            print(f"precision={precision:<6}{spread(found, '')}  {' '.join(f'{loss:.3f}' for loss in found)}")


def rate(trials: list[Trial], seconds: float, go: Callable[[], Any]) -> float:
    """Updates a second of trials in threads of this process, a stream each; ``go`` returns when time begins."""
    done = [0] * len(trials)
    started, stop = threading.Barrier(len(trials) + 1), threading.Event()

    def work(i: int) -> None:
        with torch.cuda.stream(torch.cuda.Stream()) if trials[i].device == "cuda" else nullcontext():
            trials[i].one_pass()
            started.wait()
            while not stop.is_set():
                trials[i].one_pass()
                done[i] += trials[i].chunks

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(trials))]
    for thread in threads:
        thread.start()
    go()
    started.wait()
    began = time.perf_counter()
    time.sleep(seconds)
    updates, took = sum(done), time.perf_counter() - began
    stop.set()
    for thread in threads:
        thread.join()
    return updates / took


def processes_rate(at_once: int, chunks: int, seconds: float, device: str, graphs: bool) -> float:
    """Updates a second of so many processes together."""
    options = json.dumps({"chunks": chunks, "seconds": seconds, "device": device, "graphs": graphs})
    command = [sys.executable, __file__, "--one-of-many", options]
    started = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(at_once)
    ]
    for process in started:
        assert process.stdout is not None
        assert process.stdout.readline(), "a process did not start"
    for process in started:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    return sum(float(process.communicate()[0]) for process in started)


def one_of_many(chunks: int, seconds: float, device: str, graphs: bool) -> None:
    """A process of :func:`processes_rate`: says that it is ready, waits for a line, prints its rate."""
    torch.set_num_threads(1)
    data = prepare(article(chunks).data, article(chunks).task).train.to(device)
    trial = Trial(data, chunks, device, "32", graphs)
    trial.one_pass()

    def go() -> None:
        print("ready", flush=True)
        sys.stdin.readline()

    print(rate([trial], seconds, go), flush=True)


def many_table(data: Sequences, chunks: int, numbers: list[int], seconds: float, device: str, clock: Clock) -> None:
    print(f"\ntrials at once on one device, {seconds:g} s each: updates a second (trials an hour)")
    print(f"{'':>8}{'processes':>24}{'with graphs':>24}{'streams of one process':>28}", flush=True)
    columns = 3 if device == "cuda" else 2
    base, starting = None, 10.0  # seconds until a number of processes has begun, those of each core one after the other
    for n in numbers:
        turns = max(1, n / (os.cpu_count() or 1))
        if not clock.allows(columns * seconds + (columns - 1) * starting * turns, f"{n} at once"):
            continue
        began = time.monotonic()
        found = [processes_rate(n, chunks, seconds, device, False)]
        starting = (time.monotonic() - began - seconds) / turns
        found += [processes_rate(n, chunks, seconds, device, True)] if device == "cuda" else []
        streams = [Trial(data, chunks, device, "32", False, seed) for seed in range(n)]
        found.append(rate(streams, seconds, lambda: None))
        base = base or found[0]
        shown = [f"{r:10.0f} ({3600 * r / AN_ARTICLES_TRIAL:7.0f}) {r / base:4.1f}x" for r in found]
        print(f"{n:>8}" + "".join(f"{column:>26}" for column in shown), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, help="that all of it may take (5; --first-day: 8)")
    parser.add_argument("--chunks", type=int, default=100, help="updates a pass (100)")
    parser.add_argument("--rounds", type=int, default=3, help="timed passes of each (3)")
    parser.add_argument("--epochs", type=int, default=10, help="of the table of precisions (10)")
    parser.add_argument("--at-once", type=int, nargs="+", default=[1, 8, 32, 4, 16, 2])
    parser.add_argument("--seconds", type=float, default=5, help="of each number of trials at once (5)")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--first-day", action="store_true", help="the parts of first_day.py instead of the tables")
    parser.add_argument("--only", nargs="+", choices=LIMITS, help="of the parts of the first day")
    parser.add_argument("--small", action="store_true", help="the first day's parts, only to see that they work")
    parser.add_argument("--json", type=Path, help="where the first day's findings go")
    parser.add_argument("--one-of-many", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one_of_many:
        one_of_many(**json.loads(options.one_of_many))
        return
    if options.device == "cuda" and (reason := why_no_gpu()):
        sys.exit(f"no GPU that PyTorch can use ({reason}); --device cpu tries the command without one")
    options.minutes = options.minutes or (8 if options.first_day else 5)
    if options.first_day:
        sys.exit(first_day(options))
    clock = Clock(options.minutes)
    torch.set_num_threads(1)
    print(machine())
    if options.device == "cuda":
        print(f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}")
    found = prepare(article(options.chunks).data, article(options.chunks).task)
    data, held_out = found.train.to(options.device), found.val.to(options.device)
    passes = chunk_table(data, options.chunks, options.rounds, options.device, clock)
    many_table(data, options.chunks, options.at_once, options.seconds, options.device, clock)
    precision_table(data, held_out, options.chunks, options.epochs, options.device, clock, passes)


if __name__ == "__main__":
    main()
