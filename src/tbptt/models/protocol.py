"""What a network brings, so that the chunk loop can train it.

B batch, K steps of a chunk, D features and O outputs a step.
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:  # files of one's own import this, and --help answers without torch
    from torch import Tensor, nn

    from tbptt.models.state import State


class Network(Protocol):
    """An ``nn.Module`` that carries a state from chunk to chunk.

    The state is any tree of tensors (dicts, lists, tuples, one tensor, nothing), of the same form, shapes and types
    before and after a chunk; what is no floating-point number in it, as a counter, gets no gradient. A state that
    depends on parameters at the start of a sequence trains these. Random numbers come from PyTorch's own generators:
    a long chunk is computed twice, segment by segment, and they, the state and the buffers are then put back to what
    they were.
    """

    training: bool

    def forward(self, x: "Tensor", state: "State") -> "tuple[Tensor, State]":
        """(B, K, D) and the state before a chunk of any length K → (B, K, O) and the state after it. What is given is
        left as it is."""

    def zero_state(self, batch: int) -> "State":
        """The state at the start of so many sequences, on the device of the parameters."""

    # The rest is nn.Module's.
    def __call__(self, x: "Tensor", state: "State") -> "tuple[Tensor, State]": ...
    def train(self, mode: bool = True) -> Any: ...
    def eval(self) -> Any: ...
    def parameters(self) -> "Iterator[nn.Parameter]": ...
    def named_parameters(self) -> "Iterator[tuple[str, nn.Parameter]]": ...
    def buffers(self) -> "Iterator[Tensor]": ...
    def modules(self) -> "Iterator[nn.Module]": ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state_dict: Mapping[str, Any]) -> Any: ...
