"""Segments that keep their graphs: the same to the bit for any memory, and no more memory than there is."""

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from test_bptt import CELLS, LENGTH, WINDOW, Problem, make
from test_models import NETWORKS, Bare, Levelled
from torch import Tensor, nn

from tbptt.config.checks import problems
from tbptt.models import kernels
from tbptt.runs.module import SequenceModule
from tbptt.training import segments
from tbptt.training.chunks import parts_of, train_pass
from tbptt.training.cuda_graphs import FixedSteps
from tbptt.training.flat import FlatParameters
from tbptt.training.optimizers import build_optimizer
from tbptt.training.schedule import ChunkSchedule
from tbptt.training.segments import SegmentMemory

PIECE = 5
SEGMENTS = 5  # of one chunk of 23 steps, the last one shorter
PASSES = 3
PLENTY = 10**9


class Fickle(Bare):
    """It rounds otherwise where a gradient is wanted, as PyTorch's LSTM on the CPU does in float32."""

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        return super().forward(x, state * (1 + 1e-15 * torch.is_grad_enabled()) + 1e-15 * torch.is_grad_enabled())


class Found(NamedTuple):
    weights: Tensor
    losses: list[list[float]]
    random: Tensor
    forwards: list[int]  # of each pass
    calls: list[int]  # of after_chunk, of each pass
    memory: SegmentMemory


@pytest.fixture(autouse=True)
def bytes_instead_of_mb(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "MB", 1)


def trained(network: Any, memory: SegmentMemory, chunks: int = 1, dtype: torch.dtype = torch.float64) -> Found:
    """A copy of a network, trained for some passes."""
    network = copy.deepcopy(network)
    parameters = FlatParameters(network)
    optimizer = build_optimizer([parameters.vector], "adam", lr=0.05)
    sequences, count, called = Problem().sequences(dtype), [0], [0]

    def ran(*_: Any) -> None:
        count[-1] += 1

    def after_chunk() -> None:
        called[-1] += 1

    network.register_forward_hook(ran)
    torch.manual_seed(5)
    losses = []
    for number in range(PASSES):
        record = train_pass(
            network,
            parameters,
            optimizer,
            sequences,
            chunks,
            segment_length=PIECE,
            after_chunk=after_chunk,
            first_update=number * chunks,
            memory=memory,
        )
        losses.append(record.to_host()[0])
        count.append(0)
        called.append(0)
    weights = torch.cat([parameters.vector, *(buffer.flatten() for buffer in network.buffers())]).detach()
    return Found(weights, losses, torch.get_rng_state(), count[:-1], called[:-1], memory)


def same_bits(one: Found, other: Found) -> None:
    assert torch.equal(one.weights, other.weights)
    assert one.losses == other.losses
    assert torch.equal(one.random, other.random)


def with_noise(cell: str) -> nn.Module:
    return make(cell, noise_std=0.3)


def with_dropout(kind: type[Any]) -> nn.Module:
    network = kind()
    network.drop.p = 0.5
    return network


MAKERS: list[tuple[Callable[[Any], nn.Module], Any]] = [
    *((with_dropout, kind) for kind in NETWORKS),
    *((with_noise, cell) for cell in CELLS),
]


@pytest.mark.parametrize("chunks", [1, 2])
@pytest.mark.parametrize(("maker", "what"), MAKERS, ids=lambda v: getattr(v, "__name__", v))
def test_any_number_of_kept_segments_trains_the_same_to_the_bit(maker: Any, what: Any, chunks: int) -> None:
    network = maker(what)
    none = trained(network, SegmentMemory(0), chunks)
    everything = trained(network, SegmentMemory(PLENTY), chunks)
    pieces = 5 if chunks == 1 else 6  # 12 and 11 steps
    assert none.forwards == [2 * pieces] * PASSES
    assert everything.forwards == [2 * pieces, *[pieces] * (PASSES - 1)], "the first pass measures"
    same_bits(none, everything)
    graph = everything.memory.graph_bytes
    assert graph
    if chunks == 1:
        for kept in (1, 3):
            some = trained(network, SegmentMemory((kept + 1) * graph - 1), chunks)
            assert some.forwards == [2 * pieces, *[2 * pieces - kept] * (PASSES - 1)]
            same_bits(none, some)
    assert none.calls == everything.calls == [parts_of(LENGTH, chunks, PIECE)] * PASSES


@pytest.mark.parametrize("kind", [Levelled, Fickle])
def test_a_network_that_would_not_train_the_same_keeps_nothing(kind: type[Any]) -> None:
    """One whose buffers change, and one whose state depends on whether there is a graph."""
    none, plenty = (trained(kind(), SegmentMemory(asked)) for asked in (0, PLENTY))
    assert plenty.forwards == [2 * SEGMENTS] * PASSES
    same_bits(none, plenty)


@pytest.mark.parametrize("cell", CELLS)
def test_pytorchs_own_layers_in_float32_train_the_same(cell: str) -> None:
    """Whether oneDNN's LSTM rounds otherwise depends on the processor; what is learnt must not."""
    network = make(cell, noise_std=0.1).float()
    with kernels.torch_only():
        none, plenty = (trained(network, SegmentMemory(asked), dtype=torch.float32) for asked in (0, PLENTY))
    same_bits(none, plenty)


def test_what_a_graph_takes_is_what_autograd_saves_for_it() -> None:
    """The inputs, the hidden layer and a few tensors of the outputs' size; neither weights nor targets."""
    hidden, batch = 64, 3

    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.head = nn.Linear(WINDOW, hidden).double(), nn.Linear(hidden, 2).double()

        def forward(self, x: Tensor, state: tuple[()]) -> tuple[Tensor, tuple[()]]:
            return self.head(self.layer(x).tanh()), state

        def zero_state(self, batch: int) -> tuple[()]:
            return ()

    found = trained(Plain(), SegmentMemory(PLENTY)).memory.graph_bytes
    step = 8 * batch * PIECE
    assert found
    assert step * (WINDOW + hidden + 2) <= found <= step * (WINDOW + hidden + 4 * 2)


def test_auto_is_half_of_what_is_free_shared_by_the_workers_and_no_more_than_malloc_keeps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    network = Bare()
    graph = trained(network, SegmentMemory(PLENTY)).memory.graph_bytes or 0
    monkeypatch.setattr(segments, "resident_memory", lambda: 1000)
    for free, workers, kept in ((8 * graph, 1, 4), (8 * graph - 1, 1, 3), (8 * graph, 2, 2), (0, 1, 0), (None, 1, 0)):
        monkeypatch.setattr(segments, "free_memory", lambda free=free: free)
        found = trained(network, SegmentMemory("auto", workers))
        assert found.forwards[1:] == [2 * SEGMENTS - kept] * (PASSES - 1)
    with monkeypatch.context() as patch:
        patch.setattr(segments, "free_memory", lambda: 100 * graph)
        patch.setattr(segments, "MOST_KEPT", 2 * graph)
        assert trained(network, SegmentMemory("auto")).forwards[1:] == [2 * SEGMENTS - 2] * (PASSES - 1)
    memory = SegmentMemory("auto")
    monkeypatch.setattr(segments, "free_memory", lambda: 4 * graph)
    monkeypatch.setattr(segments, "resident_memory", lambda: 1000 + 2 * graph)  # malloc keeps the rest for it
    assert trained(network, memory).forwards[1:] == [2 * SEGMENTS - 3] * (PASSES - 1)


def test_a_run_has_the_memory_of_its_config(config: Callable[..., DictConfig]) -> None:
    def memory(*words: str) -> tuple[int | str, int]:
        schedule = ChunkSchedule.plan([1], epochs=1)
        module = SequenceModule(make(), OmegaConf.to_object(config(*words)), schedule)  # type: ignore[arg-type]
        return module._memory.asked, module._memory.workers

    assert memory() == ("auto", 1)
    assert memory("segment_memory=300", "study.workers=2") == (300, 2)


@pytest.mark.parametrize("value", ["-1", "0.5", "null", "all"])
def test_what_is_no_memory_is_a_line(value: str, config: Callable[..., DictConfig]) -> None:
    (line,) = problems(config(f"segment_memory={value}"))
    assert line.startswith("segment_memory: got ")
    assert line.endswith("; takes a whole number from 0 to 1000000000, or auto")


# --- auto, by the memory of a GPU -------------------------------------------------------------------------------------


def fake_gpu(monkeypatch: pytest.MonkeyPatch, memory: int) -> None:
    """The CPU has memory of its own, as a GPU has; the first steps that are tried are few."""
    monkeypatch.setattr(segments, "memory_of_gpu", lambda device: memory)
    monkeypatch.setattr(segments, "AUTO", segments.Cut(4, 3))


def passed(network: Any, memory: SegmentMemory, chunks: int, asked: Any = "auto", fixed: Any = None) -> Found:
    network = copy.deepcopy(network)
    parameters = FlatParameters(network)
    optimizer = build_optimizer([parameters.vector], "adam", lr=0.05)
    lengths: list[int] = []
    network.register_forward_pre_hook(lambda module, given: lengths.append(given[0].shape[1]))
    torch.manual_seed(5)
    settings: dict[str, Any] = {"segment_length": asked, "memory": memory, "fixed": fixed}
    losses = [
        train_pass(network, parameters, optimizer, Problem().sequences(), chunks, **settings).to_host()[0]
        for _ in range(2)
    ]
    weights = torch.cat([parameters.vector, *(b.flatten() for b in network.buffers())]).detach()
    return Found(weights, losses, torch.get_rng_state(), lengths, [], memory)


@pytest.mark.parametrize(("maker", "what"), MAKERS, ids=lambda v: getattr(v, "__name__", v))
def test_what_tells_a_gpus_segments_changes_nothing_that_is_learnt(
    maker: Any, what: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It runs once, over the first steps, and puts random numbers back. What is cut trains as if asked for."""
    network = maker(what)
    plain = passed(network, SegmentMemory(0), 1, None)
    fake_gpu(monkeypatch, 10**9)
    whole = passed(network, SegmentMemory(0), 1)
    assert whole.forwards == [3, LENGTH, LENGTH]
    same_bits(whole, plain)
    of_a_step = whole.memory.step_bytes
    assert of_a_step
    fake_gpu(monkeypatch, int(2 * of_a_step * 22.5))  # half of it has room for 22 of 23 steps
    tight = passed(network, SegmentMemory(0), 1)
    threes = [3] * 7
    assert tight.forwards == [3, *threes, 2, 2, *threes, *threes, 2, 2, *threes]
    monkeypatch.undo()
    same_bits(tight, passed(network, SegmentMemory(0), 1, 3))


def test_a_chunk_is_cut_where_half_of_a_gpus_memory_has_no_room_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shared by the workers, and by the graphs that are kept; never by what happens to be free."""
    monkeypatch.setattr(segments, "free_memory", lambda: 0)
    network, sequences = Bare(), Problem().sequences()

    def cut(memory: int, longest: int = LENGTH, asked: Any = "auto", workers: int = 1, held: int = 1) -> Any:
        fake_gpu(monkeypatch, memory)
        return SegmentMemory("auto", workers).cut(asked, network, sequences, longest, held)

    fake_gpu(monkeypatch, 1)
    measured = SegmentMemory()
    measured.cut("auto", network, sequences, LENGTH)
    step = int(measured.step_bytes or 0)
    assert cut(2 * 1600 * step) == (1600, 100)
    assert cut(2 * 1600 * step - 1) == (1599, 99)
    assert cut(2 * 1600 * step, workers=4) == (400, 25)
    assert cut(2 * 1600 * step, held=2) == (800, 100), "segments have one length whatever the stage"
    assert cut(1) == (0, 3), "no shorter ones than on a CPU"
    assert [cut(1, longest=3), cut(1, asked=7), cut(1, asked=None)] == ["auto", 7, None]


def test_a_graph_for_each_length_of_chunks_has_room(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_gpu(monkeypatch, 10**9)
    step = passed(Bare(), SegmentMemory(0), 2).memory.step_bytes
    fake_gpu(monkeypatch, int(2 * step * 13))  # chunks of 12 and 11 steps
    one, two = (passed(Bare(), SegmentMemory(0), 2, fixed=fixed) for fixed in (None, FixedSteps()))
    assert one.forwards == [3, *[12, 11] * 2]
    assert max(two.forwards) == 3
    assert one.memory.chosen == (13, 3)
    assert two.memory.chosen == (6, 3)
    assert parts_of(LENGTH, 2, two.memory.chosen) == 2 + 2 * (4 + 4)
