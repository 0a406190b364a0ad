"""What a network must provide so that the chunk loop can train it.

B batch, K steps of a chunk, D features and O outputs a step.
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:  # the user's own files import this module, and --help must not import torch
    from torch import Tensor, nn

    from tbptt.models.state import State


class Network(Protocol):
    """An ``nn.Module`` that carries a state from chunk to chunk.

    The state is any tree of tensors: dicts, lists, tuples, one tensor, or None. It must have the same form, shapes and
    types before and after a chunk. A tensor in it that is not floating-point, such as a counter, gets no gradient. If
    ``zero_state`` depends on parameters, these are trained.

    Random numbers must come from PyTorch's own generators. A long chunk is computed twice, segment by segment; before
    the second time, the generators, the state and the buffers are set back.
    """

    training: bool

    def forward(self, x: "Tensor", state: "State") -> "tuple[Tensor, State]":
        """(B, K, D) and the state before a chunk of any length K → (B, K, O) and the state after it. Must not change
        its arguments."""

    def zero_state(self, batch: int) -> "State":
        """The state at the start of ``batch`` sequences, on the device of the parameters."""

    # The rest is nn.Module's.
    def __call__(self, x: "Tensor", state: "State") -> "tuple[Tensor, State]": ...
    def train(self, mode: bool = True) -> Any: ...
    def to(self, device: Any) -> Any: ...
    def eval(self) -> Any: ...
    def parameters(self) -> "Iterator[nn.Parameter]": ...
    def named_parameters(self) -> "Iterator[tuple[str, nn.Parameter]]": ...
    def buffers(self) -> "Iterator[Tensor]": ...
    def modules(self) -> "Iterator[nn.Module]": ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state_dict: Mapping[str, Any]) -> Any: ...
