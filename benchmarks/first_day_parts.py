"""The parts of first_day.py; one a process. Each prints its findings, a line of JSON each, with every repetition.

python benchmarks/first_day_parts.py PART [--device DEVICE] [--small]
"""

import argparse
import gc
import json
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from gpu import Trial, article, plain_loop, prepare, processes_rate, ways
from torch import Tensor, nn
from turns import STEPS

from tbptt.data.sequences import Sequences
from tbptt.models.article import QNetwork
from tbptt.models.build import build_network
from tbptt.system.runtime import set_precision
from tbptt.training.chunks import train_pass
from tbptt.training.cuda_graphs import FixedSteps
from tbptt.training.cudnn_blocks import blocks, is_copied
from tbptt.training.flat import FlatParameters
from tbptt.training.optimizers import optimizer_of
from tbptt.training.pack import Together
from tbptt.training.pack_on_gpu import why_not
from tbptt.training.pack_row import Row

warnings.filterwarnings("ignore", message=".*capturable=True.*")  # the warm-up's steps are not captured
OPTIMIZERS = ("adam", "adamw", "sgd", "momentum", "rmsprop", "adagrad", "adadelta", "muon")


def say(what: str, **facts: Any) -> None:
    """Print a finding."""
    print(json.dumps({"what": what, **facts}), flush=True)


@dataclass
class Here:
    """Where and how large it is measured.

    Attributes:
        device: ``cuda`` or ``cpu``.
        small: only to see that a part works.
    """

    device: str
    small: bool

    @property
    def gpu(self) -> bool:
        return self.device == "cuda"

    def size(self, full: int, small: int) -> int:
        return small if self.small else full

    def wait(self) -> None:
        """Until the device has done all."""
        if self.gpu:
            torch.cuda.synchronize()

    def ms(self, do: Callable[[], object], times: int = 5) -> list[float]:
        """Milliseconds of each of some calls, after one that does not count."""
        do()
        found = []
        for _ in range(1 if self.small else times):
            self.wait()
            began = time.perf_counter()
            do()
            self.wait()
            found.append(1000 * (time.perf_counter() - began))
        return found

    def data(self, chunks: int) -> Sequences:
        """The article's training series, so many times 200 steps long."""
        config = article(self.size(chunks, 1))
        return prepare(config.data, config.task).train.to(self.device)

    def trial(self, data: Sequences, chunks: int, graphs: bool, seed: int = 0) -> Trial:
        return Trial(data, self.size(chunks, 1), self.device, "32", graphs, seed)


def layouts(here: Here) -> None:
    """What cuDNN wants a layer's weights to lie like, and whether ours do, so that none are copied at a call."""
    for cell, inputs, hidden in (
        *(("lstm", 64, 64), ("gru", 64, 64), ("lstm", 6, 4), ("lstm", 4, 3)),
        *(("gru", 5, 33), ("lstm", 64, 50), ("lstm", 64, 200), ("lstm", 64, 256)),
    ):
        network = QNetwork(inputs, dense=[], hidden=[hidden], cell=cell).to(here.device)
        (block,) = blocks(network)
        starts, ends = list(block.starts.values()), 0
        in_order = True
        for p, start in block.starts.items():
            in_order, ends = in_order and start == ends, ends + p.numel()
        FlatParameters(network, blocks=True)
        facts = {"elements": block.size, "of_parameters": ends, "starts": starts, "one_after_the_other": in_order}
        say("a layer's weights", cell=cell, inputs=inputs, hidden=hidden, **facts, copied=is_copied(block.layer))


def dtypes(here: Here) -> None:
    """What each layer computes in under precision=bf16; float16 in a recurrent one is the defect."""
    network, seen = QNetwork(128).to(here.device), {}

    def note(name: str) -> Callable[..., None]:
        def hook(layer: nn.Module, given: Any, got: Any) -> None:
            seen[name] = str((got[0] if isinstance(got, tuple) else got).dtype)

        return hook

    for name, layer in network.named_modules():
        if isinstance(layer, nn.RNNBase | nn.Linear):
            layer.register_forward_hook(note(name))
    with torch.autocast(here.device, torch.bfloat16):
        network(torch.randn(15, 20, 128, device=here.device), network.zero_state(15))
    say("types under precision=bf16", **seen)


@contextmanager
def no_waiting(here: Here) -> Iterator[None]:
    """Whatever makes the host wait for the GPU raises."""
    here.wait()
    if here.gpu:
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        if here.gpu:
            torch.cuda.set_sync_debug_mode("default")


def waits(here: Here) -> None:
    """Whether a pass over the data waits for the GPU, with each optimizer."""
    data = here.data(10)
    for name in OPTIMIZERS:
        for graphs in (False, True):
            trial = of_optimizer(here, data, name, graphs)
            try:
                for _ in range(here.size(4, 1)):
                    trial()
                with no_waiting(here):
                    trial()
                waited = None
            except Exception as error:  # each is a finding, and the next optimizer is tried
                waited = f"{type(error).__name__}: {error}"[:300]
            say("a pass without waiting", optimizer=name, graphs=graphs, waited=waited)


def of_optimizer(here: Here, data: Sequences, name: str, graphs: bool) -> Callable[[], list[float]]:
    """A pass with this optimizer, without noise; it gives a table of losses on the device."""
    torch.manual_seed(0)
    network = QNetwork(128, noise_std=0.0).to(here.device)
    parameters = FlatParameters(network)
    optimizer = optimizer_of(article(1, optimizer=name).optimizer, parameters, capturable=graphs and here.gpu)
    fixed = FixedSteps() if graphs else None
    chunks = here.size(10, 2)
    return lambda: train_pass(network, parameters, optimizer, data, chunks, clip=1.0, fixed=fixed).losses


def graphs(here: Here) -> None:
    """Whether a graph trains as the plain loop does, with each optimizer."""
    data = here.data(10)
    for name in OPTIMIZERS:
        try:
            eager, graph = (of_optimizer(here, data, name, on) for on in (False, True))
            pairs = [(eager().tolist(), graph().tolist()) for _ in range(here.size(5, 1))]
            worst = max(abs(a - b) / abs(a) for one, other in pairs for a, b in zip(one, other, strict=True))
            say("a graph's losses against the plain loop's", optimizer=name, largest_relative_difference=worst)
        except Exception as error:
            say("a graph's losses against the plain loop's", optimizer=name, failed=f"{error}"[:300])


def steps(here: Here) -> None:
    """Microseconds a step of one recurrent layer of PyTorch's, forward, and with its backward pass."""
    for precision in ("32", "tf32"):
        set_precision(precision)
        for length, batch, hidden in ((200, 15, 64), (2000, 15, 64), (2000, 16, 64), (2000, 15, 128), (2000, 15, 256)):
            layer, length = nn.LSTM(hidden, hidden).to(here.device), here.size(length, 5)
            x = torch.randn(length, batch, hidden, device=here.device, requires_grad=True)
            forward = here.ms(lambda layer=layer, x=x: layer(x))
            both = here.ms(lambda layer=layer, x=x: layer(x)[0].sum().backward())
            facts = {"precision": precision, "steps": length, "batch": batch, "hidden": hidden}
            us = [[1000 * ms / length for ms in each] for each in (forward, both)]
            say("nn.LSTM", **facts, forward_us_a_step=us[0], both_us_a_step=us[1])


def updates(here: Here) -> None:
    """Milliseconds an update at each precision, with and without graphs; evaluation; a whole series as one chunk."""
    data, short = here.data(100), here.data(10)
    for of, chunks in ((data, 100), (short, 100), (data, 10)):  # of 200, 20 and 2,000 steps
        chunks = here.size(chunks, 1)
        if chunks * STEPS == of.length:
            plain = here.ms(plain_loop(of, chunks, here.device), 3)
            say("an update", steps=STEPS, way="plain PyTorch loop", ms=[ms / chunks for ms in plain])
        for precision, with_graphs in ways(here.device):
            trial = Trial(of, chunks, here.device, precision, with_graphs)
            facts = {"steps": of.length // chunks, "precision": precision, "graphs": with_graphs}
            say("an update", **facts, ms=[ms / chunks for ms in here.ms(trial.one_pass, 3)])
    trial = here.trial(data, 1, False)
    for segment in ("auto", None, 5000):
        if here.gpu:
            torch.cuda.reset_peak_memory_stats()
        seconds = [ms / 1000 for ms in here.ms(lambda segment=segment: trial.launch(segment_length=segment), 2)]
        peak = torch.cuda.max_memory_allocated() if here.gpu else None
        say("all steps as one chunk", segment_length=segment, seconds=seconds, peak_bytes=peak)


def packed(here: Here) -> None:
    """A layer of N trials at once, by the packed kernel, and by cuDNN in turn; the inputs' products are in both."""
    from tbptt.models import packed_triton

    length, batch, hidden = here.size(200, 3), 15, 64
    for n in (1, 8, 32, 128) if not here.small else (1, 2):
        layers = [nn.LSTM(hidden, hidden).to(here.device) for _ in range(n)]
        x = torch.randn(n, length, batch, hidden, device=here.device)
        w_ih, w_hh = (torch.stack([getattr(m, f"weight_{k}_l0").detach() for m in layers]) for k in ("ih", "hh"))
        bias = torch.stack([(m.bias_ih_l0 + m.bias_hh_l0).detach() for m in layers])
        weights = [w.requires_grad_() for w in (w_ih, w_hh, bias)]
        zero = x.new_zeros(n, batch, hidden)
        lengths = torch.full((n,), length, dtype=torch.int32, device=here.device)

        def by_kernel(x: Tensor = x, weights: Any = weights, zero: Tensor = zero, lengths: Tensor = lengths) -> Tensor:
            w_ih, w_hh, bias = weights
            xg = torch.baddbmm(bias[:, None], x.flatten(1, 2), w_ih.mT).view(*x.shape[:3], -1)
            return packed_triton.lstm(xg, w_hh, zero, zero, lengths)[0]

        def by_cudnn(x: Tensor = x, layers: Any = layers) -> Tensor:
            return torch.stack([layer(each)[0] for layer, each in zip(layers, x, strict=True)])

        set_precision("32")
        found = by_kernel()
        with torch.no_grad():
            worst = (found - by_cudnn()).abs().max().item()
        for name, way in (("packed", by_kernel), ("cuDNN", by_cudnn)):
            facts = {"trials": n, "way": name, "largest_difference": worst}
            forward = here.ms(lambda way=way: way().detach())
            both = here.ms(lambda way=way: way().sum().backward())
            say("a layer of each trial", **facts, forward_ms=forward, both_ms=both)


def packs(here: Here) -> None:
    """Updates of N trials at once, as a pack makes them (study.pack), each with its own weights and clip value."""
    chunks = here.size(10, 2)
    data = here.data(chunks)
    for n in (1, 8, 32, 128) if not here.small else (1, 2):
        rows = []
        for i in range(n):
            config = article(1)
            torch.manual_seed(i)
            network = build_network(config.model, config.data.input_size, config.task.outputs).to(here.device)
            parameters = FlatParameters(network)
            optimizer = optimizer_of(config.optimizer, parameters)
            rows.append(Row(network, parameters, optimizer, 0.5 + i, config=config.optimizer))
        together = Together(most=n, on_gpu=why_not(rows[0]) is None)
        together.keep(rows)
        for _ in range(1 if here.small else 2):  # the first updates allocate memory and are captured
            together.train(rows, data, chunks)
        took = here.ms(lambda rows=rows, together=together: together.train(rows, data, chunks))
        say("a pack", trials=n, updates=chunks, ms_an_update=[each / chunks for each in took])


def processes(here: Here) -> None:
    """Updates a second of several processes that share the GPU, a trial each."""
    for n in (1, 8, 32) if not here.small else (1,):
        for with_graphs in (False, True) if here.gpu else (False,):
            seconds = here.size(4, 1)
            rate = processes_rate(n, here.size(100, 1), seconds, here.device, with_graphs)
            say("processes", at_once=n, graphs=with_graphs, updates_a_second=rate)


def streams(here: Here) -> None:
    """Updates a second of several trials in one process and thread, their graphs on a stream each."""
    data = here.data(10)
    for n in (1, 4, 16, 32) if not here.small else (1, 2):
        trials = [here.trial(data, 10, True, seed) for seed in range(n)]
        of_each = [torch.cuda.stream(torch.cuda.Stream()) if here.gpu else nullcontext() for _ in trials]

        def launch(of_each: Any = of_each, trials: Any = trials) -> None:
            for stream, trial in zip(of_each, trials, strict=True):
                with stream:
                    trial.launch()

        launch()  # captures
        passes = here.ms(launch, 8)
        updates_of_all = n * trials[0].chunks
        say("streams", at_once=n, updates_a_second=[1000 * updates_of_all / ms for ms in passes])


def leaks(here: Here) -> None:
    """Bytes that the GPU still holds after each of some trials; they have to stay the same."""
    data, held = here.data(10), []

    def allocated() -> int:
        here.wait()
        return torch.cuda.memory_allocated() if here.gpu else 0

    for seed in range(here.size(6, 2)):
        here.trial(data, 10, True, seed).one_pass()
        held.append(allocated())
    gc.collect()
    say("held after each trial", bytes=held, after_collecting=allocated())


PARTS = {
    part.__name__: part
    for part in (layouts, dtypes, waits, graphs, steps, updates, packed, packs, processes, streams, leaks)
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--small", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.device == "cuda":
        facts = {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
        say("machine", gpu=torch.cuda.get_device_name(), **facts, bytes=torch.cuda.mem_get_info()[1])
    PARTS[options.part](Here(options.device, options.small))


if __name__ == "__main__":
    main()
