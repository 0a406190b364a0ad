"""Noise by counter against NumPy's Philox, written out here; what it depends on, and what it does not."""

import copy
import math
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from test_bptt import LENGTH, Problem, make
from torch import Tensor

from tbptt.models import kernels
from tbptt.models.noise import GaussianNoise, begin, noise_layers
from tbptt.training.chunks import train_pass
from tbptt.training.flat import FlatParameters
from tbptt.training.optimizers import build_optimizer


def layer(std: float = 1.0, seed: int = 5, pool: bool = False) -> GaussianNoise:
    torch.manual_seed(seed)
    return GaussianNoise(std, pool)


def drawn(of: GaussianNoise, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return of(torch.zeros(shape, dtype=dtype))


def by_numpy(count: int, std: float, seed: int, call: int, update: int, number: int, first: int = 0) -> np.ndarray:
    """Element by element: block i // 16 of the stream, its 16 bits number i % 16, and their quantile."""
    quantiles = stats.norm.ppf((np.arange(65536) + 0.5) / 65536)
    quantiles *= std / np.sqrt(np.mean(quantiles**2))
    values = []
    for i in range(first, first + count):
        counter = np.array([i // 16, call, update, number], dtype=np.uint64)
        words = np.random.Philox(key=np.array([seed, 0], dtype=np.uint64), counter=counter).random_raw(4)
        word = int(words[i % 16 // 4])
        values.append(quantiles[(word >> (16 * (i % 4))) & 0xFFFF])
    return np.array(values)


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("seed", [0, 5, 2**64 - 1])
@pytest.mark.parametrize("shape", [(1,), (3, 7, 5), (2, 15, 64)])
def test_each_number_is_the_one_that_seed_update_layer_and_element_name(
    compiled: bool, dtype: torch.dtype, seed: int, shape: tuple[int, ...]
) -> None:
    noise = layer(0.3, seed)
    noise.begin(4, 2**40 + 9, first_step=3)
    first = 3 * math.prod(shape[1:])
    for call in range(2):
        if compiled:
            found = drawn(noise, *shape, dtype=dtype)
        else:
            with kernels.torch_only():
                found = drawn(noise, *shape, dtype=dtype)
        expected = by_numpy(math.prod(shape), 0.3, seed, call, 2**40 + 9, 4, first)
        assert found.dtype == dtype
        np.testing.assert_allclose(found.flatten().numpy(), expected, rtol=2e-7 if dtype == torch.float32 else 1e-12)


def test_noise_is_normal_and_independent_of_update_layer_call_and_element() -> None:
    noise = layer()
    rows = []
    for number, update in ((0, 0), (0, 1), (1, 0), (0, 2**32)):
        noise.begin(number, update, 0)
        rows += [drawn(noise, 200, 15, 64).flatten().double().numpy() for _ in range(2)]
    table = np.stack(rows)
    # Kolmogorov and Smirnov's test of 192,000 numbers each; eight rows, so at 0.001.
    assert min(stats.kstest(row, "norm").pvalue for row in rows) > 0.001
    assert table.std(axis=1) == pytest.approx(np.ones(8), abs=0.01)
    related = np.corrcoef(table) - np.eye(8)
    assert np.abs(related).max() < 5 / math.sqrt(table.shape[1])
    for lag in (1, 2, 4, 15, 16, 64, 960):
        assert np.abs(np.mean(table[:, lag:] * table[:, :-lag], axis=1)).max() < 5 / math.sqrt(table.shape[1])


def test_16_bits_are_enough_for_the_tails() -> None:
    values = by_numpy(20_000, 1.0, 1, 0, 0, 0)
    assert stats.kurtosis(values) == pytest.approx(0, abs=0.15)
    assert np.abs(values).max() < 4.4


def test_calls_outside_of_the_chunk_loop_differ() -> None:
    noise = layer()
    rows = [drawn(noise, 4, 3) for _ in range(3)]
    assert not torch.equal(rows[0], rows[1])
    assert not torch.equal(rows[1], rows[2])
    again = layer()
    assert all(torch.equal(drawn(again, 4, 3), row) for row in rows)


@pytest.mark.parametrize("compiled", [True, False])
def test_bf16_gets_the_same_noise_and_is_rounded_after_it(compiled: bool) -> None:
    noise, x = layer(0.5), torch.arange(20.0).view(5, 4).bfloat16()
    noise.begin(0, 1, 0)
    exact = noise(x.float())
    noise.begin(0, 1, 0)
    with torch.autocast("cpu", torch.bfloat16), nullcontext() if compiled else kernels.torch_only():
        rounded = noise(x)
    assert torch.equal(rounded, exact.bfloat16())


def test_a_chunk_in_segments_has_the_noise_of_the_whole() -> None:
    noise = layer()
    noise.begin(0, 3, 0)
    whole = drawn(noise, 10, 3, 2)
    parts = []
    for start, stop in ((0, 4), (4, 9), (9, 10)):
        noise.begin(0, 3, start)
        parts.append(drawn(noise, stop - start, 3, 2))
    assert torch.equal(torch.cat(parts), whole)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_segments_train_as_the_whole_chunk_does_with_noise(cell: str) -> None:
    results = []
    for segment_length in (None, 4):
        network = make(cell, noise_std=0.3)
        results.append(pass_of(network, 2, segment_length=segment_length))
    np.testing.assert_allclose(results[1], results[0], rtol=1e-9)


def pass_of(network: Any, chunks: int, **more: Any) -> list[float]:
    parameters = FlatParameters(network)
    optimizer = build_optimizer([parameters.vector], "sgd", lr=0.1)
    record = train_pass(network, parameters, optimizer, Problem().sequences(), chunks, **more)
    return [*record.losses.tolist(), *parameters.vector.tolist()]


def test_training_beside_another_run_is_training_alone() -> None:
    """Two runs take turns, as runs of one process do; each has the losses that it has alone."""

    def run(seed: int) -> Any:
        network = make(noise_std=0.3, seed=seed)
        parameters = FlatParameters(network)
        optimizer = build_optimizer([parameters.vector], "adam", lr=0.01)
        sequences = Problem().sequences()
        for epoch in range(3):
            yield train_pass(network, parameters, optimizer, sequences, 4, first_update=4 * epoch).losses.tolist()

    alone = [list(run(seed)) for seed in (1, 2)]
    together = list(zip(run(1), run(2), strict=True))
    assert [list(one) for one in zip(*together, strict=True)] == alone
    assert alone[0] != alone[1]


def test_an_update_has_the_noise_of_its_number_whatever_came_before() -> None:
    """A pass that begins at update 4 sees the noise of updates 4 and 5, not of 0 and 1; no generator is touched."""
    network = make(noise_std=0.3)
    before = torch.get_rng_state()
    first, later = (pass_of(copy.deepcopy(network), 2, first_update=n) for n in (0, 4))
    assert first != later
    pass_of(copy.deepcopy(network), 2, first_update=0)
    assert pass_of(copy.deepcopy(network), 2, first_update=4) == later
    assert torch.equal(torch.get_rng_state(), before)


def test_layers_of_a_network_are_told_apart() -> None:
    one, other = layer(), layer()
    begin(noise_layers([one, torch.nn.Tanh(), other]), 7)
    assert not torch.equal(drawn(one, 3, 4), drawn(other, 3, 4))


def test_the_pool_is_drawn_as_it_was() -> None:
    """Versions that had no counter drew a slice of a pool; what they began goes on so."""
    noise = layer(0.5, seed=8, pool=True)
    pool = torch.randn(GaussianNoise.POOL, generator=torch.Generator().manual_seed(8))
    torch.manual_seed(3)
    found = [drawn(noise, 2, 30).flatten() for _ in range(2)]
    torch.manual_seed(3)
    for row in found:
        offset = int(torch.randint(GaussianNoise.POOL - 60, ()))
        assert torch.equal(row, 0.5 * pool[offset : offset + 60])


def test_a_pool_that_is_too_small_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(GaussianNoise, "POOL", 1000)
    noise = layer(0.25, pool=True)
    torch.manual_seed(1)
    found = drawn(noise, 20, 30)
    torch.manual_seed(1)
    assert torch.equal(found, 0.25 * torch.randn(20, 30))


def test_the_gradient_passes_through() -> None:
    x = torch.zeros(LENGTH, 2, requires_grad=True)
    layer()(x).backward(torch.arange(2.0 * LENGTH).view(LENGTH, 2))
    assert x.grad is not None
    assert torch.equal(x.grad, torch.arange(2.0 * LENGTH).view(LENGTH, 2))
