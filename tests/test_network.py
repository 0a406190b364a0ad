"""The network against cells written out in NumPy; Keras's initialisation by its properties; noise by its statistics."""

import math
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tbptt.models.article import GaussianNoise, QNetwork, State, leave_autocast
from tbptt.models.state import detach

Arrays = dict[str, np.ndarray]


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def lstm_step(w: Arrays, x: np.ndarray, state: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
    """PyTorch's gate order: input, forget, cell, output."""
    h, c = state
    gates = x @ w["weight_ih_l0"].T + w["bias_ih_l0"] + h @ w["weight_hh_l0"].T + w["bias_hh_l0"]
    i, f, g, o = np.split(gates, 4, axis=1)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(c), c


def gru_step(w: Arrays, x: np.ndarray, state: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
    """PyTorch's gate order: reset, update, new; the reset gate acts after the recurrent kernel."""
    (h,) = state
    xr, xz, xn = np.split(x @ w["weight_ih_l0"].T + w["bias_ih_l0"], 3, axis=1)
    hr, hz, hn = np.split(h @ w["weight_hh_l0"].T + w["bias_hh_l0"], 3, axis=1)
    r, z = sigmoid(xr + hr), sigmoid(xz + hz)
    n = np.tanh(xn + r * hn)
    return ((1 - z) * n + z * h,)


def layer(weights: Arrays, name: str) -> Arrays:
    return {key.removeprefix(f"{name}."): value for key, value in weights.items() if key.startswith(f"{name}.")}


def in_numpy(
    network: QNetwork, x: np.ndarray, state: list[tuple[np.ndarray, ...]], noise: Iterator[np.ndarray] | None = None
) -> tuple[np.ndarray, list[tuple[np.ndarray, ...]]]:
    """(B, T, D) → (B, T, 2), step by step; ``noise`` gives (B, T, H) for each noise layer in turn."""
    weights = {name: value.detach().numpy() for name, value in network.named_parameters()}
    step = lstm_step if network.cell == "lstm" else gru_step
    for i in range(len(network.dense)):
        w = layer(weights, f"dense.{i}")
        x = np.tanh(x @ w["weight"].T + w["bias"])
        x = x if noise is None else x + next(noise)
    after = []
    for i in range(len(network.recurrent)):
        if i and noise is not None:
            x = x + next(noise)
        now, outputs = state[i], []
        for t in range(x.shape[1]):
            now = step(layer(weights, f"recurrent.{i}"), x[:, t], now)
            outputs.append(now[0])
        x = np.stack(outputs, axis=1)
        after.append(now)
    return x @ weights["head.weight"].T + weights["head.bias"], after


def make(cell: str = "lstm", init: str = "keras", noise_std: float = 0.0, seed: int = 0) -> QNetwork:
    torch.manual_seed(seed)
    return QNetwork(5, dense=[7, 6], hidden=[4, 3], cell=cell, noise_std=noise_std, init=init).double()


def inputs(batch: int = 3, steps: int = 11) -> Tensor:
    return torch.randn(batch, steps, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def some_state(network: QNetwork, batch: int) -> State:
    random = torch.Generator().manual_seed(2)
    return [tuple(torch.randn(p.shape, generator=random, dtype=p.dtype) for p in s) for s in network.zero_state(batch)]


def as_arrays(state: State) -> list[tuple[np.ndarray, ...]]:
    return [tuple(part[0].detach().numpy() for part in layer) for layer in state]


# --- forward --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("start", ["zero", "other"])
@pytest.mark.parametrize("init", ["keras", "torch"])
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_forward_equals_the_cells_written_out(cell: str, init: str, start: str) -> None:
    network, x = make(cell, init), inputs()
    state = network.zero_state(3) if start == "zero" else some_state(network, 3)
    y, after = network(x, state)
    expected, expected_state = in_numpy(network, x.numpy(), as_arrays(state))
    assert y.shape == (3, 11, 2)
    np.testing.assert_allclose(y.detach(), expected, rtol=0, atol=1e-10)
    for got, wanted in zip(as_arrays(after), expected_state, strict=True):
        for a, b in zip(got, wanted, strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-10)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_chunks_with_the_state_carried_equal_the_whole(cell: str) -> None:
    network, x = make(cell), inputs()
    whole, end = network(x, network.zero_state(3))
    state, pieces = network.zero_state(3), []
    for a, b in [(0, 1), (1, 5), (5, 11)]:
        y, state = network(x[:, a:b], state)
        pieces.append(y)
    torch.testing.assert_close(torch.cat(pieces, dim=1), whole, rtol=0, atol=1e-10)
    for a, b in zip(as_arrays(state), as_arrays(end), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-10)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_forward_leaves_the_state_it_was_given(cell: str) -> None:
    network = make(cell)
    state = some_state(network, 3)
    before = as_arrays(state)
    before = [tuple(part.copy() for part in layer) for layer in before]
    network(inputs(), state)
    for a, b in zip(as_arrays(state), before, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("dense", "hidden"), [([], [4]), ([3], [5, 4, 6]), ([8, 2, 3], [1])], ids=["no-dense", "three-lstm", "three-dense"]
)
def test_sizes_are_lists_of_any_length(dense: list[int], hidden: list[int]) -> None:
    network = QNetwork(5, dense=dense, hidden=hidden).double()
    assert [tuple(d.weight.shape) for d in network.dense] == list(zip(dense, [5, *dense], strict=False))
    assert [r.hidden_size for r in network.recurrent] == hidden
    state = network.zero_state(2)
    assert [[tuple(part.shape) for part in layer] for layer in state] == [[(1, 2, h)] * 2 for h in hidden]
    network.eval()
    y, _ = network(inputs(2, 4), state)
    expected, _ = in_numpy(network, inputs(2, 4).numpy(), as_arrays(state))
    np.testing.assert_allclose(y.detach(), expected, rtol=0, atol=1e-10)


def test_default_sizes_are_those_of_the_specification() -> None:
    network = QNetwork(128)
    assert [tuple(d.weight.shape) for d in network.dense] == [(64, 128), (64, 64)]
    assert [(type(r).__name__, r.input_size, r.hidden_size) for r in network.recurrent] == [("LSTM", 64, 64)] * 2
    assert tuple(network.head.weight.shape) == (2, 64)
    assert network.noise.std == 0.01


def test_zero_state_is_zero_and_of_the_weights_type() -> None:
    for network in (make("lstm"), make("gru").float()):
        for part in (part for layer in network.zero_state(4) for part in layer):
            assert not part.any()
            assert part.dtype == network.head.weight.dtype


def test_detached_state_is_the_same_and_passes_no_gradient() -> None:
    network = make()
    _, state = network(inputs(), network.zero_state(3))
    assert all(part.requires_grad for layer in state for part in layer)
    cut = detach(state)
    assert not any(part.requires_grad for layer in cut for part in layer)
    for a, b in zip(as_arrays(cut), as_arrays(state), strict=True):
        np.testing.assert_array_equal(a, b)


# --- initialisation -------------------------------------------------------------------------------------------


def large(cell: str, init: str = "keras") -> QNetwork:
    torch.manual_seed(3)
    return QNetwork(128, dense=[64, 64], hidden=[64, 48], cell=cell, init=init)


@pytest.mark.parametrize(("cell", "gates"), [("lstm", 4), ("gru", 3)])
def test_keras_kernels_are_glorot_uniform_over_all_gates_together(cell: str, gates: int) -> None:
    network = large(cell)
    kernels = [(layer.weight, sum(layer.weight.shape)) for layer in (*network.dense, network.head)]
    kernels += [(r.weight_ih_l0, r.input_size + gates * r.hidden_size) for r in network.recurrent]
    for kernel, fans in kernels:
        limit = math.sqrt(6 / fans)
        assert kernel.abs().max().item() <= limit
        assert kernel.abs().max().item() > 0.97 * limit
        assert kernel.std().item() == pytest.approx(limit / math.sqrt(3), rel=0.1)  # of a uniform distribution


@pytest.mark.parametrize(("cell", "gates"), [("lstm", 4), ("gru", 3)])
def test_keras_recurrent_kernels_are_orthogonal_over_all_gates_together(cell: str, gates: int) -> None:
    for r in large(cell).recurrent:
        kernel = r.weight_hh_l0.detach().double()
        assert kernel.shape == (gates * r.hidden_size, r.hidden_size)
        torch.testing.assert_close(kernel.T @ kernel, torch.eye(r.hidden_size).double(), rtol=0, atol=1e-5)
        one_gate = kernel[: r.hidden_size]
        assert (one_gate.T @ one_gate - torch.eye(r.hidden_size)).abs().max() > 0.5, "no gate is orthogonal by itself"


def test_keras_biases_are_zero_but_one_at_the_forget_gates() -> None:
    network = large("lstm")
    for dense in (*network.dense, network.head):
        assert not dense.bias.any()
    for r in network.recurrent:
        gates = r.bias_ih_l0.detach().view(4, r.hidden_size)
        assert (gates[1] == 1).all()
        assert not gates[[0, 2, 3]].any()
    assert not any(r.bias_ih_l0.any() for r in large("gru").recurrent)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_keras_trains_one_bias_a_gate(cell: str) -> None:
    network = large(cell)
    for r in network.recurrent:
        assert not r.bias_hh_l0.any()
    untrained = {name for name, p in network.named_parameters() if not p.requires_grad}
    assert untrained == {"recurrent.0.bias_hh_l0", "recurrent.1.bias_hh_l0"}


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_torch_initialisation_is_pytorchs_own(cell: str) -> None:
    network = large(cell, "torch")
    assert all(p.requires_grad for p in network.parameters())
    for r in network.recurrent:
        limit = 1 / math.sqrt(r.hidden_size)
        for weight in (r.weight_ih_l0, r.weight_hh_l0, r.bias_ih_l0, r.bias_hh_l0):
            assert 0.9 * limit < weight.abs().max().item() <= limit


def test_weights_are_those_of_the_seed() -> None:
    def weights(seed: int) -> Tensor:
        return torch.cat([p.detach().flatten() for p in make(seed=seed).parameters()])

    assert torch.equal(weights(4), weights(4))
    assert not torch.equal(weights(4), weights(5))


# --- noise, of which test_noise.py has the numbers -------------------------------------------------------------


def test_no_noise_outside_training_or_at_zero_std() -> None:
    layer, x = GaussianNoise(1.0), torch.randn(4, 5)
    state = torch.get_rng_state()
    assert torch.equal(layer.eval()(x), x)
    assert torch.equal(GaussianNoise(0.0)(x), x)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_noise_follows_every_dense_layer_and_lies_between_recurrent_ones(cell: str) -> None:
    network, x = make(cell, noise_std=0.5), inputs()
    added: list[np.ndarray] = []

    def remember(module: GaussianNoise, before: tuple[Tensor], after: Tensor) -> None:
        added.append((after - before[0]).detach().transpose(0, 1).numpy())  # (T, B, H) → (B, T, H)

    network.noise.register_forward_hook(remember)
    y, _ = network(x, network.zero_state(3))
    assert [a.shape for a in added] == [(3, 11, 7), (3, 11, 6), (3, 11, 4)]
    expected, _ = in_numpy(network, x.numpy(), as_arrays(network.zero_state(3)), iter(added))
    np.testing.assert_allclose(y.detach(), expected, rtol=0, atol=1e-10)
    assert min(abs(a).max() for a in added) > 0.5


def test_network_is_noisy_in_training_only_and_reproducible_with_a_seed() -> None:
    def outputs(seed: int) -> list[Tensor]:
        torch.manual_seed(seed)
        network = make(noise_std=0.1)
        network.noise.seed = seed  # make() draws the weights with a seed of its own
        x = inputs()
        return [network(x, network.zero_state(3))[0] for _ in range(2)]

    first, second = outputs(0)
    assert not torch.equal(first, second)
    assert all(map(torch.equal, (first, second), outputs(0)))
    assert not torch.equal(first, outputs(1)[0])
    network = make(noise_std=0.1).eval()
    quiet, _ = make(noise_std=0.0)(inputs(), network.zero_state(3))
    assert torch.equal(network(inputs(), network.zero_state(3))[0], quiet)


# --- bf16 ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize("dense", [[], [5]])
def test_recurrent_layers_stay_out_of_autocast_where_it_would_be_float16(
    cell: str, dense: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU, for which the CPU stands in: bf16 around layers that take, give and compute float32."""
    monkeypatch.setattr("tbptt.models.article.leave_autocast", lambda x: True)
    network = QNetwork(4, dense, [3, 6], cell)
    seen: dict[str, tuple[torch.dtype, bool]] = {}
    for name, part in network.named_modules():
        if name and not list(part.children()) and not isinstance(part, GaussianNoise):
            part.register_forward_hook(
                lambda _, given, got, name=name: seen.update(
                    {name: ((got[0] if isinstance(got, tuple) else got).dtype, torch.is_autocast_enabled("cpu"))}
                )
            )
    with torch.autocast("cpu", torch.bfloat16):
        y, state = network(torch.randn(2, 7, 4), network.zero_state(2))
    y.float().sum().backward()
    low, full = (torch.bfloat16, True), (torch.float32, False)
    assert seen == {f"dense.{i}": low for i in range(len(dense))} | {"head": low} | {
        f"recurrent.{i}": full for i in range(2)
    }
    assert {part.dtype for layer in state for part in layer} == {torch.float32}
    assert all(
        p.grad is not None and p.grad.dtype == torch.float32 for p in network.recurrent.parameters() if p.requires_grad
    )


def test_on_the_cpu_recurrent_layers_are_in_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    network = QNetwork(4, [], [3])
    with torch.autocast("cpu", torch.bfloat16):
        _, ((h, _),) = network(torch.randn(2, 7, 4), network.zero_state(2))
    assert h.dtype == torch.bfloat16


def test_a_gpus_autocast_is_left_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    on = {"cuda": True, "cpu": True}
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device: on[device])
    gpu: Any = SimpleNamespace(is_cuda=True)
    assert leave_autocast(gpu)
    assert not leave_autocast(torch.ones(1))
    on["cuda"] = False
    assert not leave_autocast(gpu)
