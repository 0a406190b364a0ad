"""The chunk step in memory of its own, so that a CUDA graph can hold it.

A small network leaves a large GPU waiting for the host, which starts some hundred kernels a chunk; a captured step is
one call.
"""

import torch
from torch import Tensor

from tbptt.data.sequences import Sequences
from tbptt.models.state import State, copy_into, leaves, rebuild
from tbptt.training.chunks import Step


class FixedStep:
    """One update on a chunk of fixed length: everything that it reads or writes has its place.

    Args:
        step: what one update does.
        sequences: like those that it will train on.
        length: of its chunk, in steps.
    """

    WARM = 3  # updates until a capture: cuDNN, cuBLAS and the optimizer make what they need

    def __init__(self, step: Step, sequences: Sequences, length: int):
        self.step, self.length = step, length
        self.buffer = sequences.buffer(length)
        targets = self.buffer.targets
        state = step.network.zero_state(sequences.batch)
        self._places = [leaf.detach().clone() for leaf in leaves(state)]  # zero_state may give views, or parameters
        self.state = rebuild(state, self._places)
        self.count = torch.ones((), dtype=targets.dtype, device=targets.device)
        self.finite = torch.ones((), dtype=torch.bool, device=targets.device)
        self.seen = torch.zeros(4, device=targets.device)
        self.updates = 0
        self._graph: torch.cuda.CUDAGraph | None = None
        # Warm-up, capture and replay on one stream: autograd runs each kernel on its forward's.
        self._stream = torch.cuda.Stream(targets.device) if targets.is_cuda else None

    def run(self, sequences: Sequences, start: int, state: State, count: int, finite: Tensor, seen: Tensor) -> State:
        """Update on the chunk that begins at ``start``; ``finite`` and ``seen`` as in :meth:`Step.apply`. Returns the
        state after it, which the next call overwrites."""
        self.buffer.copy_from(sequences, start)
        self.count.fill_(count)
        self.finite.copy_(finite)
        copy_into(self._places, leaves(state))
        self._compute()
        finite.copy_(self.finite)
        seen.copy_(self.seen)
        return self.state

    def _update(self) -> None:
        loss, state = self.step.backward(self.buffer, 0, self.length, self.state, self.count)
        self.step.apply(loss, self.finite, self.seen)
        copy_into(self._places, leaves(state))

    def _compute(self) -> None:
        if self._stream is None:
            self._update()
            return
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            if self.updates < self.WARM:
                self._update()
            else:
                if self._graph is None:
                    self._graph = torch.cuda.CUDAGraph()
                    # Thread-local: another thread's calls, a profiler's or a logger's, are no part of it.
                    with torch.cuda.graph(self._graph, stream=self._stream, capture_error_mode="thread_local"):
                        self._update()
                self._graph.replay()
        torch.cuda.current_stream().wait_stream(self._stream)
        self.updates += 1


class FixedSteps:
    """A :class:`FixedStep` for each length of chunk; a schedule's stage has at most two."""

    def __init__(self) -> None:
        self._steps: dict[int, FixedStep] = {}

    def clear(self) -> None:
        """Give their memory back: the next stage has other lengths."""
        self._steps.clear()

    def run(
        self,
        step: Step,
        sequences: Sequences,
        start: int,
        stop: int,
        state: State,
        count: int,
        finite: Tensor,
        seen: Tensor,
    ) -> State:
        """Update on the chunk [start, stop); see :meth:`FixedStep.run`."""
        length = stop - start
        if length not in self._steps:
            self._steps[length] = FixedStep(step, sequences, length)
        return self._steps[length].run(sequences, start, state, count, finite, seen)
