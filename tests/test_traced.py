"""While PyTorch writes a network down as a graph the compiled layers step aside, and the numbers stay the same."""

import inspect
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from tbptt.models import kernels
from tbptt.models.article import GRU, LSTM, QNetwork
from tbptt.models.layers import Dense
from tbptt.models.minlstm import MinLSTMNetwork
from tbptt.models.scan import scan, sequential
from tbptt.models.state import batch_dims, leaves, rebuild
from tbptt.serving.exported import Flat

NETWORKS: dict[str, Callable[[], Any]] = {
    "lstm": lambda: QNetwork(6, [5], [4, 7]),
    "gru": lambda: QNetwork(6, [5], [4], cell="gru"),
    "minlstm": lambda: MinLSTMNetwork(6, 2, [5], [4]),
}
SIZES = [(1, 1), (2, 9), (5, 40)]


@pytest.fixture
def _quiet() -> Iterator[None]:
    """PyTorch's warnings are about its own parts."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def made(kind: str) -> Any:
    torch.manual_seed(0)
    return NETWORKS[kind]().eval()


def given(network: Any, batch: int, steps: int) -> tuple[Tensor, Any]:
    """A random chunk and a random state before it."""
    random = torch.Generator().manual_seed(steps)
    state = network.zero_state(batch)
    x = torch.randn(batch, steps, 6, generator=random)
    return x, rebuild(state, [torch.randn(leaf.shape, generator=random) for leaf in leaves(state)])


def same(found: Any, expected: Any) -> None:
    for a, b in zip(leaves(list(found)), leaves(list(expected)), strict=True):
        torch.testing.assert_close(a, b, atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("kind", NETWORKS)
def test_an_exported_network_takes_chunks_of_any_size(kind: str) -> None:
    """Without a warning: those are errors here."""
    network, some = made(kind), torch.export.Dim.DYNAMIC
    x, state = given(network, 3, 4)
    sizes = ({0: some, 1: some}, rebuild(state, [{dim: some} for dim in batch_dims(network)]))  # type: ignore[misc]
    program = torch.export.export(network, (x, state), dynamic_shapes=sizes)
    with torch.no_grad():
        for size in SIZES:
            same(program.module()(*given(network, *size)), network(*given(network, *size)))


@pytest.mark.usefixtures("_quiet")
@pytest.mark.parametrize("kind", NETWORKS)
def test_a_traced_network_gives_the_same_numbers(kind: str) -> None:
    network = made(kind)
    x, state = given(network, 3, 9)
    with torch.no_grad():
        program = torch.jit.trace(Flat(network).eval(), (x, *leaves(state)))
        for size in [(2, 9)] if kind == "minlstm" else SIZES:  # whose steps are written down one by one
            x, state = given(network, *size)
            y, after = network(x, state)
            same(program(x, *leaves(state)), [y, *leaves(after)])  # type: ignore[arg-type]


@pytest.mark.usefixtures("_quiet")
@pytest.mark.parametrize("kind", NETWORKS)
def test_a_compiled_network_gives_the_same_numbers(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "tbptt.models.minlstm.scan", inspect.unwrap(scan)
    )  # torch.compile cannot read beartype's checks
    network = made(kind)
    program = torch.compile(network, backend="eager")
    with torch.no_grad():
        for size in SIZES[1:]:
            same(program(*given(network, *size)), network(*given(network, *size)))


@pytest.mark.parametrize("kind", NETWORKS)
def test_shapes_are_found_without_numbers(kind: str) -> None:
    network = made(kind)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        x, state = given(network, 3, 4)
        x, state = mode.from_tensor(x), rebuild(state, [mode.from_tensor(leaf) for leaf in leaves(state)])
        y, _ = network(x, state)
    assert y.shape == (3, 4, 2)


@pytest.mark.skipif(kernels.library() is None, reason="no compiler when the package was installed")
@pytest.mark.parametrize("wrap", [torch.Tensor, nn.Parameter])
def test_training_uses_the_compiled_layers(wrap: Callable[[Tensor], Tensor]) -> None:
    x = wrap(torch.randn(3, 2, 6))
    y, _ = LSTM(6, 4)(x, (torch.zeros(1, 2, 4), torch.zeros(1, 2, 4)))
    assert type(y.grad_fn).__name__ == "_LSTMBackward"
    assert type(Dense(6, 4)(x).grad_fn).__name__ == "_DenseBackward"


def test_the_gru_is_pytorchs_to_the_bit_without_the_compiled_layers() -> None:
    ours, theirs = GRU(6, 4), nn.GRU(6, 4)
    theirs.load_state_dict(ours.state_dict())
    x, h = torch.randn(5, 2, 6), torch.randn(1, 2, 4)
    with kernels.torch_only():
        outputs = ours(x, h)
    for found, expected in zip(outputs, theirs(x, h), strict=True):
        assert torch.equal(found, expected)


def test_a_scan_is_one_operation_outside_of_graphs() -> None:
    f, b, h = torch.rand(50, 2, requires_grad=True), torch.randn(50, 2), torch.zeros(2)
    found = scan(f, b, h)
    assert type(found.grad_fn).__name__ == "_ScanBackward"
    torch.testing.assert_close(found, sequential(f, b, h))
