"""The update on a chunk, with all its tensors at fixed addresses, so that a CUDA graph can capture it.

With a small network, a large GPU mostly waits for the host, which launches some hundred kernels per chunk. A captured
update is one launch.
"""

import torch
from torch import Tensor

from tbptt.data.sequences import Sequences
from tbptt.models.state import State, copy_into, leaves, rebuild
from tbptt.training.chunks import Step


class FixedStep:
    """One update on a chunk of fixed length. Everything that it reads or writes has a fixed place in memory.

    Args:
        step: computes the update.
        sequences: sequences of the shapes and types that it will train on.
        length: of the chunk, in steps.
    """

    WARM = 3  # updates before the capture, in which cuDNN, cuBLAS and the optimizer allocate their memory

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
        # Warm-up, capture and replay share a stream, as autograd runs a backward kernel on the stream of its forward.
        self._stream = torch.cuda.Stream(targets.device) if targets.is_cuda else None

    def run(self, sequences: Sequences, start: int, state: State, count: int, finite: Tensor, seen: Tensor) -> State:
        """Update on the chunk that begins at ``start``. See :meth:`Step.apply` for ``finite`` and ``seen``. Returns the
        state after the chunk; the next call overwrites it."""
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
                    # Thread-local: the capture ignores the calls of other threads, such as a profiler or a logger.
                    with torch.cuda.graph(self._graph, stream=self._stream, capture_error_mode="thread_local"):
                        self._update()
                self._graph.replay()
        torch.cuda.current_stream().wait_stream(self._stream)
        self.updates += 1


class FixedSteps:
    """A :class:`FixedStep` for each chunk length. A stage of the schedule has at most two lengths."""

    def __init__(self) -> None:
        self._steps: dict[int, FixedStep] = {}

    def clear(self) -> None:
        """Release their memory, as the next stage has other lengths."""
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
