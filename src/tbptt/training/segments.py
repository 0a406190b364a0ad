"""Backpropagation through a chunk that is longer than memory allows: segment by segment, exactly.

First all segments run forward, from the first to the last; then, from the last to the first, they run backward. In
between, the last segments keep their graphs (activations), as many as :class:`SegmentMemory` has room for. The others
run forward without a graph, and each runs forward again, with the same noise, before it runs backward (Chen et al.,
2016, "Training Deep Nets with Sublinear Memory Cost", along time). What is computed is the same to the bit, however
many keep theirs.

Which chunks are too long is asked for (``segment_length``); ``auto`` is :data:`AUTO` on a CPU, and follows from the
size of a GPU's memory (:meth:`SegmentMemory.cut`).
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from tbptt.data.sequences import Sequences
from tbptt.models.protocol import Network
from tbptt.models.state import State, detach, leaves, rebuild
from tbptt.system.memory import free_memory, resident_memory
from tbptt.system.runtime import MOST_KEPT, keep_freed_memory

if TYPE_CHECKING:
    from tbptt.training.chunks import Step

MB = 10**6
SHARE = 0.5  # of the free memory, that auto takes: one segment's backward pass, other programs and holes need the rest


class Cut(NamedTuple):
    """Chunks of more than ``above`` steps are cut into segments of ``length`` steps."""

    above: int
    length: int


# The activations of a segment of so many steps stay in a CPU's cache. Shorter chunks are faster without segments.
AUTO = Cut(2000, 500)
PIECES = 16  # a GPU has room for so many segments: most of a chunk's are then computed once

Asked = int | str | Cut | None  # segment_length, or what follows from it


def segment_of(length: int, asked: Asked) -> int | None:
    """The length of the segments into which a chunk is cut, in steps; None if it is not cut."""
    if asked is None:
        return None
    cut = asked if isinstance(asked, Cut) else AUTO if asked == "auto" else Cut(int(asked), int(asked))
    return cut.length if length > cut.above else None


def memory_of_gpu(device: torch.device) -> int | None:
    """Bytes of a GPU's whole memory; None for another device."""
    return int(torch.cuda.mem_get_info(device)[1]) if device.type == "cuda" else None


class SegmentMemory:
    """How many segments of a chunk keep their graphs until they run backward. Keep it from pass to pass, for one
    network and one length of segments.

    In the first pass none does. That pass measures what a segment's graph takes: the bytes of all that autograd saves
    for the backward pass, as the sizes of layers would not tell it of every network. And it looks whether each segment
    ends in the same state with a graph as without. oneDNN's LSTM, which PyTorch uses on the CPU in float32, rounds
    otherwise where a gradient is wanted. Such a network keeps no graphs, else free memory would decide what is learnt.
    Neither does a network with buffers: the forward pass of the next segment may change what a graph still needs.

    Args:
        asked: MB of all graphs together; ``auto`` is half of the memory that is free when a pass begins, divided by
            ``workers``, and on a CPU at the most what malloc keeps for the next update (MOST_KEPT).
        workers: processes like this one that share the machine's memory.
    """

    def __init__(self, asked: int | str = "auto", workers: int = 1):
        self.asked, self.workers = asked, workers
        self.graph_bytes: int | None = None  # of one segment
        self.step_bytes: float | None = None  # of one step of a graph, on a GPU
        self.chosen: Cut | None = None  # how the pass under way is cut, if a GPU's memory says it
        self._same: Tensor | None = None  # on the device: whether each segment ended alike, as far as it was compared
        self._usable: bool | None = None  # the same, as it is known on the host; None while the first pass measures
        self._resident, self._room = resident_memory(), 0

    @property
    def measures(self) -> bool:
        """Whether this pass is the one that measures."""
        return self._usable is None

    def begin_pass(
        self,
        network: Network,
        sequences: Sequences,
        asked: int | str | None,
        bounds: Sequence[tuple[int, int]],
        has_graphs: bool,
    ) -> Asked:
        """Decide for the pass that begins. What the device found is read here, outside the chunk loop.

        Args:
            asked: ``segment_length``.
            bounds: of the chunks of the pass, in steps.
            has_graphs: whether CUDA graphs hold those chunks that are not cut.

        Returns which chunks are cut (:meth:`cut`).
        """
        device = sequences.targets.device
        if self._usable is None:
            if self.asked == 0 or any(True for _ in network.buffers()):
                self._usable = False
            elif self.graph_bytes is not None:
                self._usable = bool(self._same)
            else:
                self._same = torch.ones((), dtype=torch.bool, device=device)
        if self._usable:
            self._room = self._free(device) if self.asked == "auto" else int(self.asked) * MB
            if device.type == "cpu" and self._room > MOST_KEPT:
                keep_freed_memory(-1)  # to be given that much anew in each update takes as long as is saved
        lengths = {stop - start for start, stop in bounds}
        return self.cut(asked, network, sequences, max(lengths), held=len(lengths) if has_graphs else 1)

    def kept(self, segments: int) -> int:
        """How many of a chunk's segments keep their graphs. It is the last ones: they run backward first, so that all
        their memory is free again when the first of the others runs forward again."""
        return min(segments, self._room // max(self.graph_bytes or 0, 1)) if self._usable else 0

    @contextmanager
    def measured(self, network: Network, sequences: Sequences) -> Iterator[None]:
        """Within, a segment of full length runs forward with a graph, which is measured if that is due."""
        if not self.measures or self.graph_bytes is not None:
            yield
            return
        with _saved_by_autograd(network, sequences) as sizes:
            yield
        self.graph_bytes = sum(sizes.values())

    def cut(
        self, asked: int | str | None, network: Network, sequences: Sequences, longest: int, held: int = 1
    ) -> Asked:
        """Which chunks to cut, and into what: what is asked for, or for ``auto`` on a GPU what follows from its memory.

        There a chunk is cut only if its activations take more than half (SHARE) of all memory, shared by the workers,
        as a forward pass over its first steps tells. How much is free does not count: cut otherwise, the noise of a GPU
        is drawn in another order, and what is learnt would depend on what else runs there.

        Args:
            longest: the longest chunk, in steps.
            held: how many chunks have their activations in memory at a time: each CUDA graph keeps its own.
        """
        self.chosen = None
        if asked != "auto" or longest <= AUTO.length or (whole := memory_of_gpu(sequences.targets.device)) is None:
            return asked
        if self.step_bytes is None:
            self.step_bytes = _bytes_of_a_step(network, sequences, AUTO.length)
        fit = int(SHARE * whole / self.workers / max(self.step_bytes, 1))
        self.chosen = Cut(fit // held, max(fit // PIECES, AUTO.length))  # one length of segments for all stages
        return self.chosen

    def compare(self, found: Sequence[Tensor], expected: Sequence[Tensor]) -> None:
        """Compare what a segment left with a graph with what it left without one."""
        assert self._same is not None
        for one, other in zip(found, expected, strict=True):
            self._same.logical_and_((one.detach() == other).all())

    def _free(self, device: torch.device) -> int:
        """Bytes that ``auto`` allows now."""
        if device.type == "cuda":
            unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
            return int(SHARE * (torch.cuda.mem_get_info(device)[0] + unused)) // self.workers
        # What this process has grown by is what earlier passes used: malloc keeps it for the next one.
        free = (free_memory() or 0) + max(0, resident_memory() - self._resident)
        return min(int(SHARE * free) // self.workers, MOST_KEPT)


@dataclass(frozen=True)
class _Graph:
    """A segment that ran forward with a graph: the leaves of the state before it, the state after it, its loss."""

    before: list[Tensor]
    end: State
    loss: Tensor


class _Chunk:
    """A chunk and the start of each of its segments: the state, the network's buffers, the random generators."""

    def __init__(
        self,
        step: "Step",
        sequences: Sequences,
        start: int,
        stop: int,
        state: State,
        count: Tensor | int,
        length: int,
    ):
        self.step, self.sequences, self.count = step, sequences, count
        self.pieces = list(pairwise([*range(start, stop, length), stop]))
        self.form, self.given = state, leaves(state)
        self.random = RandomState(sequences.targets.device)
        segments = len(self.pieces)
        # One tensor for all segments: small tensors that outlive the large ones around them would leave holes in the
        # heap.
        self.states = [_rows(leaf, segments) for leaf in self.given]
        self.buffers = [_rows(buffer, segments) for buffer in step.network.buffers()]
        self.randoms = [first.new_empty(segments, len(first)) for first in self.random.get()]

    def keep(self, i: int, state: State) -> None:
        """Keep what is there before segment ``i``."""
        _keep(i, self.states, leaves(state))
        _keep(i, self.buffers, self.step.network.buffers())
        _keep(i, self.randoms, self.random.get())

    def kept(self, i: int) -> list[Tensor]:
        """The state and the random generators before segment ``i``."""
        return [rows[i] for rows in (*self.states, *self.randoms)]

    def without_graph(self, i: int, state: State) -> State:
        """Run segment ``i`` forward; the state after it."""
        with torch.no_grad():
            return self._forward(i, state)[1]

    def with_graph(self, i: int) -> _Graph:
        """Run segment ``i`` forward from the state that was kept."""
        before = [
            # A copy: autograd counts a change of any row as one of all rows.
            rows[i].clone().requires_grad_(rows.is_floating_point() and (i > 0 or leaf.requires_grad))
            for rows, leaf in zip(self.states, self.given, strict=True)
        ]
        y, end = self._forward(i, rebuild(self.form, before))
        return _Graph(before, end, self.sequences.loss(y, *self.pieces[i]) / self.count)

    def again(self, i: int) -> _Graph:
        """The same after later segments have run."""
        self.random.set([rows[i].clone() for rows in self.randoms])  # PyTorch crashes on a view
        _put_back(self.step.network, [rows[i] for rows in self.buffers])
        return self.with_graph(i)

    def _forward(self, i: int, state: State) -> tuple[Tensor, State]:
        a, b = self.pieces[i]
        self.step.begin(self.step.update, a - self.pieces[0][0])
        y, end = self.step.network(self.sequences.features(a, b), state)
        return y, end


def by_segments(
    step: "Step",
    sequences: Sequences,
    start: int,
    stop: int,
    state: State,
    count: Tensor | int,
    length: int,
    after_chunk: Callable[[], None],
    memory: SegmentMemory,
) -> tuple[Tensor, State]:
    """Compute the same loss, state and gradient as :meth:`Step.backward`, in segments of ``length`` steps. Calls
    ``after_chunk`` twice for each segment. The gradient of a segment's end state is the one that the later segment
    computed."""
    step.parameters.grad.zero_()
    network, device = step.network, sequences.targets.device
    chunk = _Chunk(step, sequences, start, stop, state, count, length)
    segments = len(chunk.pieces)
    recomputed = segments - memory.kept(segments)
    graphs: list[_Graph] = []
    for i in range(segments):
        chunk.keep(i, state)
        if i < recomputed:
            state = chunk.without_graph(i, state)
        else:
            graphs.append(chunk.with_graph(i))
            state = detach(graphs[-1].end)
        after_chunk()
    after, buffers_after = chunk.random.get(), [buffer.clone() for buffer in network.buffers()]
    total = torch.zeros((), device=device, dtype=sequences.targets.dtype)
    handed_over: list[Tensor | None] = [None] * len(chunk.given)  # gradients of the state's tensors, or None
    for i in reversed(range(segments)):
        if graphs:
            graph = graphs.pop()
        else:
            is_last = i + 1 == segments  # which may be shorter
            with nullcontext() if is_last else memory.measured(network, sequences):
                graph = chunk.again(i)
            if memory.measures:
                left = [*leaves(state), *after] if is_last else chunk.kept(i + 1)
                memory.compare([*leaves(graph.end), *chunk.random.get()], left)
        ends, gradients = _with_gradient(leaves(graph.end), handed_over)
        torch.autograd.backward([graph.loss, *ends], [None, *gradients])
        handed_over = [leaf.grad for leaf in graph.before]
        total += graph.loss.detach()
        after_chunk()
    if any(gradient is not None for gradient in handed_over):
        torch.autograd.backward(*_with_gradient(chunk.given, handed_over))
    chunk.random.set(after)
    _put_back(network, buffers_after)
    return total, detach(state)


@contextmanager
def _saved_by_autograd(network: Network, sequences: Sequences) -> Iterator[dict[int, int]]:
    """Within, the bytes of all that autograd saves for a backward pass, by where they are; not of weights or data."""
    there = (*network.parameters(), *_tensors(sequences), *_tensors(sequences.features))
    before = {tensor.untyped_storage().data_ptr() for tensor in there}
    sizes: dict[int, int] = {}  # a tensor that is saved twice, or as two views, counts once

    def count(saved: Tensor) -> Tensor:
        storage = saved.untyped_storage()
        if storage.data_ptr() not in before:
            sizes[storage.data_ptr()] = storage.nbytes()
        return saved

    with torch.autograd.graph.saved_tensors_hooks(count, lambda saved: saved):
        yield sizes


def _bytes_of_a_step(network: Network, sequences: Sequences, steps: int) -> float:
    """What autograd saves of a step, from a forward pass over some. Random generators and buffers are put back."""
    random, buffers = RandomState(sequences.targets.device), [buffer.clone() for buffer in network.buffers()]
    before = random.get()
    with _saved_by_autograd(network, sequences) as sizes, torch.enable_grad():
        y, _ = network(sequences.features(0, steps), network.zero_state(sequences.batch))
        kept = sequences.loss(y, 0, steps)  # what it saved is counted while it lives
    taken = sum(sizes.values()) / steps
    del y, kept
    random.set(before)
    _put_back(network, buffers)
    return taken


def _tensors(holder: object) -> list[Tensor]:
    return [value for value in vars(holder).values() if isinstance(value, Tensor)]


def _rows(tensor: Tensor, count: int) -> Tensor:
    """An empty tensor with room for ``count`` tensors like this one."""
    return tensor.new_empty(count, *tensor.shape)


@torch.no_grad()
def _keep(row: int, kept: list[Tensor], tensors: Iterable[Tensor]) -> None:
    for rows, tensor in zip(kept, tensors, strict=True):
        rows[row] = tensor


@torch.no_grad()
def _put_back(network: Network, values: list[Tensor]) -> None:
    """Set the network's buffers to the given values."""
    for buffer, value in zip(network.buffers(), values, strict=True):
        buffer.copy_(value)


def _with_gradient(tensors: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> tuple[list[Tensor], list[Tensor]]:
    """The tensors to backpropagate from, and their gradients. Leaves out tensors that nothing used, which have no
    gradient, and tensors that depend on no parameter."""
    pairs = [(t, g) for t, g in zip(tensors, gradients, strict=True) if t.requires_grad and g is not None]
    return [t for t, _ in pairs], [g for _, g in pairs]


class RandomState:
    """The states of the random generators that a network may use: the CPU's, and its GPU's if it is on one."""

    def __init__(self, device: torch.device):
        self.device = device if device.type == "cuda" else None

    def get(self) -> list[Tensor]:
        of_gpu = [torch.cuda.get_rng_state(self.device)] if self.device else []
        return [torch.get_rng_state(), *of_gpu]

    def set(self, states: list[Tensor]) -> None:
        torch.set_rng_state(states[0])
        if self.device and len(states) > 1:  # those of a run on a CPU go on with this GPU's generator as it is
            torch.cuda.set_rng_state(states[1], self.device)
