"""Many networks at once (models/packed.py) against one at a time, in float64 with PyTorch's own layers."""

import os
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from test_bptt import CELLS, WINDOW, make
from torch import Tensor

from tbptt.models import kernels, noise
from tbptt.models.article import QNetwork
from tbptt.models.minlstm import MinLSTMNetwork
from tbptt.models.packed import PackedNetwork, StepByStep, places, why_not_packed
from tbptt.models.packed_noise import PackedNoise, as_signed, philox
from tbptt.training.flat import FlatParameters

ROWS, BATCH, STEPS = 3, 2, 7
STDS = [0.1, 0.0, 0.3]
SEEDS, UPDATES = [5, 2**64 - 1, 2**63 + 12345], [0, 2**40, 7]


@pytest.fixture(autouse=True)
def reference() -> Iterator[None]:
    """PyTorch's layers, with one thread: more would wait for each other with so little to do."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with kernels.torch_only():
        yield
    torch.set_num_threads(threads)


def networks(cell: str, init: str = "keras") -> list[QNetwork]:
    """A network for each row, whose noise is that of the row."""
    made = [make(cell, std, init, seed) for seed, std in enumerate(STDS)]
    for network, seed in zip(made, SEEDS, strict=True):
        network.noise.seed = seed
    return made


def packed(rows: list[QNetwork], noisy: bool = True) -> PackedNetwork:
    weights = torch.stack([FlatParameters(network).vector.detach() for network in rows])
    seeds = torch.tensor([as_signed(seed) for seed in SEEDS])
    drawn = PackedNoise(STDS, seeds, torch.tensor(UPDATES), torch.float64) if noisy else None
    return PackedNetwork(rows[0], weights, drawn)


def inputs(steps: int = STEPS) -> Tensor:
    return torch.randn(BATCH, steps, WINDOW, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


def near(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


# --- noise ----------------------------------------------------------------------------------------------------


def test_the_random_words_are_those_of_numpy() -> None:
    """Also where a product of 64 bits has all its upper bits set, and beyond 2^63."""
    blocks, calls = torch.tensor([1, 2, 2**33]), torch.tensor([0, 3, 2])
    seeds, updates = (torch.tensor([as_signed(n) for n in numbers])[:, None] for numbers in (SEEDS, UPDATES))
    found = philox(seeds, (blocks, calls, updates))
    for i, (seed, update) in enumerate(zip(SEEDS, UPDATES, strict=True)):
        for j, (block, call) in enumerate(zip(blocks.tolist(), calls.tolist(), strict=True)):
            key, counter = np.array([seed, 0], np.uint64), np.array([block - 1, call, update, 0], np.uint64)
            expected = np.random.Philox(key=key, counter=counter).random_raw(4)
            assert np.array_equal(found[i, 4 * j : 4 * j + 4].numpy().view(np.uint64), expected)


def test_each_row_has_the_noise_of_a_trial_alone() -> None:
    """Calls that begin within a block of 16 elements, and ones that end within it."""
    seeds = torch.tensor([as_signed(seed) for seed in SEEDS])
    first, counts = [0, 37, 160], [100, 33, 16]
    drawn = PackedNoise(STDS, seeds, torch.tensor(UPDATES), torch.float64).draw(first, counts)
    for row, (std, seed, update) in enumerate(zip(STDS, SEEDS, UPDATES, strict=True)):
        for call, (begin, count) in enumerate(zip(first, counts, strict=True)):
            expected = torch.zeros(count, dtype=torch.float64)
            if std:
                expected = noise.noise(count, std, torch.float64, begin, seed, (call, update, 0))
            assert torch.equal(drawn[call][row], expected)


def test_the_kernel_draws_the_same() -> None:
    """In Triton's interpreter, which is asked for before Triton is imported."""
    pytest.importorskip("triton")
    code = """
import torch
from tbptt.models.packed_noise import PackedNoise, as_signed
seeds = torch.tensor([as_signed(seed) for seed in (5, 2**64 - 1, 2**63 + 12345)])
noise = PackedNoise([0.1, 0.0, 0.3], seeds, torch.tensor([0, 2**40, 7]), torch.float32)
first, counts = [0, 37, 80000], [100, 5000, 16]
for call, expected in enumerate(noise.draw(first, counts)):
    assert expected.any() and torch.equal(noise.draw_with_triton(call, first[call], counts[call]), expected), call
"""
    subprocess.run([sys.executable, "-c", code], env={**os.environ, "TRITON_INTERPRET": "1"}, check=True)


# --- the network ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("init", ["keras", "torch"])
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("first_step", [0, 3])
def test_each_row_computes_what_its_network_does(cell: str, init: str, first_step: int) -> None:
    """Outputs, states and gradients, with a state that was carried over and with noise."""
    rows, x = networks(cell, init), inputs()
    together = packed(rows)
    state = [tuple(torch.randn_like(part) for part in parts) for parts in together.zero_state(BATCH)]
    lengths = torch.full((ROWS,), STEPS, dtype=torch.int32)
    y, after = together(x, state, lengths, first_step)
    target = torch.randn(ROWS, BATCH, STEPS, 2, dtype=torch.float64)
    together.backward((y - target).square().sum().add(sum(part.sum() for parts in after for part in parts)))
    for n, network in enumerate(rows):
        noise.begin(noise.noise_layers(network.modules()), UPDATES[n], first_step)
        parameters = FlatParameters(network)
        own, own_after = network(x, [tuple(part[n : n + 1] for part in parts) for parts in state])
        near(y[n], own)
        for parts, own_parts in zip(after, own_after, strict=True):
            for part, own_part in zip(parts, own_parts, strict=True):
                near(part[n : n + 1], own_part)
        (own - target[n]).square().sum().add(sum(part.sum() for parts in own_after for part in parts)).backward()
        near(together.grad[n], parameters.grad)


@pytest.mark.parametrize("cell", CELLS)
def test_a_row_ends_after_its_own_length(cell: str) -> None:
    """Its state is that after its last step, and no later step has a part in its gradient; also with no step at all."""
    lengths = [STEPS, STEPS - 1, 0]
    x, gradients = inputs(), []
    for changed in (0.0, 5.0):
        together = packed(networks(cell), noisy=False)
        x[:, -1] += changed
        y, after = together(x, together.zero_state(BATCH), torch.tensor(lengths, dtype=torch.int32))
        together.backward(sum((part.square().sum() for parts in after for part in parts), y[:, :, 0].sum()))
        gradients.append(together.grad.clone())
        whole = networks(cell)[1].eval()
        _, expected = whole(x[:, :-1], whole.zero_state(BATCH))
        near(after[1][0][1:2], expected[1][0])
        assert not any(part[2].any() for parts in after for part in parts)
    assert not torch.equal(gradients[0][0], gradients[1][0])
    assert torch.equal(gradients[0][1:], gradients[1][1:])
    assert gradients[0][1].any()


def test_what_a_layer_gives_after_the_length_is_zero() -> None:
    lengths = torch.tensor([1, 2], dtype=torch.int32)
    ones = [torch.ones(shape) for shape in ((2, 3, 1, 6), (2, 6, 2), (2, 6), (2, 1, 2))]
    h, last = StepByStep.gru(*ones, lengths)
    assert not h[0, 1:].any()
    assert not h[1, 2:].any()
    assert torch.equal(last, torch.stack([h[0, 0], h[1, 1]]))


def test_the_weights_are_those_of_the_matrix() -> None:
    together = packed(networks("lstm"))
    for name, place in places(networks("lstm")[0]).items():
        assert together.named[name].untyped_storage().data_ptr() == together.weights.untyped_storage().data_ptr()
        assert torch.equal(together.named[name][1].flatten(), together.weights[1, place.start : place.stop])


def test_noise_is_there_in_training_only() -> None:
    together, x = packed(networks("lstm")), inputs()
    lengths = torch.full((ROWS,), STEPS, dtype=torch.int32)
    noisy, _ = together(x, together.zero_state(BATCH), lengths)
    together.training = False
    still, _ = together(x, together.zero_state(BATCH), lengths)
    assert [torch.equal(a, b) for a, b in zip(noisy, still, strict=True)] == [std == 0 for std in STDS]


def test_one_recurrent_layer_without_dense_ones_has_no_noise() -> None:
    torch.manual_seed(1)
    alone = QNetwork(WINDOW, [], [3], noise_std=0.1).double()
    together, x = packed([alone] * ROWS), inputs()
    y, _ = together(x, together.zero_state(BATCH), torch.full((ROWS,), STEPS, dtype=torch.int32))
    near(y[2], alone(x, alone.zero_state(BATCH))[0])


def test_what_cannot_be_packed_is_said() -> None:
    assert why_not_packed(make()) is None
    assert "MinLSTMNetwork" in str(why_not_packed(MinLSTMNetwork(4, 2)))
    pool = QNetwork(4, [3], [3], noise_std=0.1, noise_pool=True)
    assert "model.noise_from=counter" in str(why_not_packed(pool))
    other = make()
    other.recurrent[0].bias_hh_l0.data.add_(1)
    assert "frozen" in str(why_not_packed(other))
