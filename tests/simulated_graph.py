"""CUDA graphs without a GPU: what a captured step would do to memory, computed on the CPU.

Within :func:`simulated`, a capture notes every operation of PyTorch with the very tensors that it reads and writes, and
leaves all memory as it was. A replay runs the operations again into the same memory. So everything that Python decides
in a step is frozen, as in a graph: its numbers, its branches, the tensors that it chose. What reads a tensor's content
on the host, or makes a tensor whose shape depends on a content, fails the capture, as on a GPU.

Not told: tensors that are on the host on purpose, as everything is here; memory that the caching allocator would give
to something else; streams.
"""

import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tbptt.models import kernels
from tbptt.models.noise import GaussianNoise
from tbptt.training import cuda_graphs

WAITS = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}


def _tensors(value: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


class Graph(TorchDispatchMode):
    """The operations of one capture, in their order.

    Attributes:
        captured: how many operations there are.
        replays: how often they ran again.
    """

    def __init__(self) -> None:
        super().__init__()
        self._operations: list[tuple[Any, Any, dict[str, Any], list[Tensor]]] = []
        self._own: set[int] = set()  # the memory that the step itself takes
        self._before: dict[int, tuple[torch.UntypedStorage, torch.UntypedStorage]] = {}
        self.replays = 0

    @property
    def captured(self) -> int:
        return len(self._operations)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if WAITS & set(func.tags):
            raise RuntimeError(f"operation not permitted when stream is capturing: {func}\nin more lines")
        read = {_memory(tensor) for tensor in _tensors((args, kwargs))}
        for place, argument in enumerate(func._schema.arguments):
            if argument.alias_info is not None and argument.alias_info.is_write:
                self._keep(_tensors(args[place] if place < len(args) else kwargs.get(argument.name)))
        result = func(*args, **kwargs)
        results = _tensors(result)  # kept: what has a place in memory here is not given to others
        self._own |= {_memory(tensor) for tensor in results} - read
        self._operations.append((func, args, kwargs, results))
        return result

    def _keep(self, written: list[Tensor]) -> None:
        """Remember memory of others before the first operation that writes to it."""
        for tensor in written:
            if _memory(tensor) not in self._own and _memory(tensor) not in self._before:
                storage = tensor.untyped_storage()
                self._before[_memory(tensor)] = (storage, storage.clone())

    def put_back(self) -> None:
        """All memory as it was before. The last change first, as two storages may be of the same memory."""
        for storage, content in reversed(self._before.values()):
            storage.copy_(content)

    def replay(self) -> None:
        self.replays += 1
        with torch.no_grad():
            for func, args, kwargs, results in self._operations:
                for place, new in zip(results, _tensors(func(*args, **kwargs)), strict=True):
                    if _memory(place) != _memory(new):
                        place.detach().copy_(new)

    def reset(self) -> None:
        self._operations.clear()


class _Stream:
    def __init__(self, *_: Any):
        pass

    def wait_stream(self, other: Any) -> None:
        pass


@contextmanager
def _capture(graph: Graph, **_: Any) -> Iterator[None]:
    random = torch.get_rng_state()
    try:
        with graph:
            yield
    finally:
        graph.put_back()
        torch.set_rng_state(random)


def _noise_of_a_gpu(self: GaussianNoise, x: Tensor) -> Tensor:
    return torch.add(x, torch.randn_like(x), alpha=self.std) if self.std else x


@contextmanager
def simulated(gpu_works: bool = True) -> Iterator[list[Graph]]:
    """Within, steps of ``FixedSteps(captures=True)`` are captured and replayed. Yields the graphs that are made.

    Args:
        gpu_works: whether the GPU does that this stands in for, when a capture has failed.
    """
    graphs: list[Graph] = []

    def made() -> Graph:
        graphs.append(Graph())
        return graphs[-1]

    # The optimizers' own check that a step is captured on a device that can.
    capturable = [f"torch.optim.{name}._get_capturable_supported_devices" for name in ("adam", "rmsprop", "adadelta")]
    with ExitStack() as held:
        held.enter_context(kernels.torch_only())
        # oneDNN's LSTM is one operation, which computes otherwise where no gradient is wanted.
        held.enter_context(warnings.catch_warnings())
        warnings.filterwarnings("ignore", message="TF32 acceleration")
        held.enter_context(torch.backends.mkldnn.flags(enabled=False))
        for name, value in {
            "torch.cuda.Stream": _Stream,
            "torch.cuda.current_stream": _Stream,
            "torch.cuda.stream": lambda stream: nullcontext(),
            "torch.cuda.CUDAGraph": made,
            "torch.cuda.graph": _capture,
            **dict.fromkeys(capturable, lambda *_, **__: ["cpu"]),
        }.items():
            held.enter_context(mock.patch(name, value))
        held.enter_context(mock.patch.object(cuda_graphs, "look", return_value=None if gpu_works else "it is gone"))
        held.enter_context(mock.patch.object(GaussianNoise, "forward", _noise_of_a_gpu))
        yield graphs
