"""The update on a chunk, with all its tensors at fixed addresses, so that a CUDA graph can capture it.

With a small network, a large GPU mostly waits for the host, which launches some hundred kernels per chunk. A captured
update is one launch.
"""

import logging
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from tbptt.data.sequences import Sequences
from tbptt.models.state import State, copy_into, leaves, rebuild
from tbptt.options.own import is_own
from tbptt.system.devices import GpuMemory, gpu_trouble, look
from tbptt.training.chunks import Step
from tbptt.training.clip_modes import SHIPPED
from tbptt.training.options import OptimizerConfig

log = logging.getLogger("tbptt")


def holds(optimizer: OptimizerConfig, clip_mode: str, others: Iterable[object]) -> bool:
    """Whether it is known that a graph computes what the plain loop does.

    A graph repeats what the GPU did when it was captured; what Python does in a step is not repeated. Of the user's own
    code only an optimizer can say that this changes nothing (``capturable = True``).

    Args:
        others: the options whose code runs in a step, or may change what is computed there.
    """
    return optimizer.capturable and clip_mode in SHIPPED and not any(is_own(type(each)) for each in others)


@dataclass
class Capturing:
    """Whether and how the steps of one run are captured.

    Attributes:
        required: whether a step that cannot be captured is an error. If not, a line says so, and all steps run as they
            are from then on.
        given_up: whether they do.
    """

    required: bool = True
    given_up: bool = False


class Replayed:
    """Calls a function whose work on a GPU is captured as a CUDA graph, once, and replayed.

    It does not keep the function: that is a method of whoever keeps this, and memory in a circle of references would be
    free at the next garbage collection only.

    Args:
        device: the GPU.
    """

    WARM = 3  # calls before the capture, in which cuDNN, cuBLAS and the optimizer allocate their memory

    def __init__(self, device: torch.device, capturing: Capturing):
        self._capturing = capturing
        self._graph: torch.cuda.CUDAGraph | None = None
        self._calls = 0
        # Warm-up, capture and replay share a stream, as autograd runs a backward kernel on the stream of its forward.
        self._stream = torch.cuda.Stream(device)

    def call(self, function: Callable[[], None]) -> None:
        """Do what the function does: always the same one, and what it reads and writes has fixed places in memory.

        Raises:
            ValueError: it cannot be captured, and has to be.
        """
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            if self._graph is None and self._calls >= self.WARM and not self._capturing.given_up:
                self._graph = self._captured(function)
            if self._graph is None:
                function()
            else:
                self._graph.replay()
        torch.cuda.current_stream().wait_stream(self._stream)
        self._calls += 1

    def _captured(self, function: Callable[[], None]) -> torch.cuda.CUDAGraph | None:
        """The graph; None if there can be none."""
        graph = torch.cuda.CUDAGraph()
        # A capture that fails leaves a random generator waiting for its end: then it gets this state instead.
        generators = [(generator, generator.clone_state()) for generator in torch.cuda.default_generators]
        try:
            # Thread-local: the capture ignores the calls of other threads, such as a profiler or a logger.
            with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
                function()
        except Exception as error:
            for generator, state in generators:
                generator.graphsafe_set_state(state)
            with suppress(RuntimeError):
                graph.reset()
            if (self._capturing.required and isinstance(gpu_trouble(error), GpuMemory)) or look() is not None:
                raise  # the memory is short, or the GPU does not work at all
            why = _first_line(error)
            if self._capturing.required:
                raise ValueError(
                    f"cuda_graphs: got true; a step of this run cannot be captured as a graph ({why}); takes false, or "
                    "auto, which then does without"
                ) from None
            _say_that_there_is_none(why)
            self._capturing.given_up = True
            return None
        return graph


def _first_line(error: BaseException) -> str:
    """Of the error that came first: the end of a capture that failed raises another one."""
    while error.__context__ is not None:
        error = error.__context__
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


@cache
def _say_that_there_is_none(why: str) -> None:
    log.warning("cuda_graphs=auto: training goes on without, as a step cannot be captured as a graph (%s)", why)


class FixedStep:
    """One update on a chunk of fixed length. Everything that it reads or writes has a fixed place in memory.

    Args:
        step: computes the update.
        sequences: sequences of the shapes and types that it will train on.
        length: of the chunk, in steps.
        capturing: how it is captured; None: it is not.
    """

    def __init__(self, step: Step, sequences: Sequences, length: int, capturing: Capturing | None = None):
        self.step, self.length = step, length
        self.buffer = sequences.buffer(length)
        targets = self.buffer.targets
        state = step.network.zero_state(sequences.batch)
        self._places = [leaf.detach().clone() for leaf in leaves(state)]  # zero_state may give views, or parameters
        self.state = rebuild(state, self._places)
        self.count = torch.ones((), dtype=targets.dtype, device=targets.device)
        self.finite = torch.ones((), dtype=torch.bool, device=targets.device)
        self.seen = torch.zeros(4, device=targets.device)
        self._replayed = Replayed(targets.device, capturing) if capturing else None

    def run(self, sequences: Sequences, start: int, state: State, count: int, finite: Tensor, seen: Tensor) -> State:
        """Update on the chunk that begins at ``start``. See :meth:`Step.apply` for ``finite`` and ``seen``. Returns the
        state after the chunk; the next call overwrites it."""
        self.buffer.copy_from(sequences, start)
        self.count.fill_(count)
        self.finite.copy_(finite)
        copy_into(self._places, leaves(state))
        if self._replayed:
            self._replayed.call(self._update)
        else:
            self._update()
        finite.copy_(self.finite)
        seen.copy_(self.seen)
        return self.state

    def _update(self) -> None:
        loss, state = self.step.backward(self.buffer, 0, self.length, self.state, self.count)
        self.step.apply(loss, self.finite, self.seen)
        copy_into(self._places, leaves(state))


class FixedSteps:
    """A :class:`FixedStep` for each chunk length. A stage of the schedule has at most two lengths.

    Args:
        required: see :class:`Capturing`.
        captures: whether steps are captured. By default they are on a GPU only.
    """

    def __init__(self, *, required: bool = True, captures: bool | None = None) -> None:
        self._steps: dict[int, FixedStep] = {}
        self._captures, self._capturing = captures, Capturing(required)

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
            captures = sequences.targets.is_cuda if self._captures is None else self._captures
            self._steps[length] = FixedStep(step, sequences, length, self._capturing if captures else None)
        return self._steps[length].run(sequences, start, state, count, finite, seen)
