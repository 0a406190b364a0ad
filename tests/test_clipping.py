"""Every clip mode against its definition in NumPy."""

import numpy as np
import pytest
import torch
from torch import Tensor

from tbptt.training.clipping import MODES, clip_gradients

SIZES = ((4, 3), (4,), (2, 5), (1,), (6,))


def gradient(scale: float = 1.0) -> tuple[Tensor, list[Tensor]]:
    """A whole gradient and its tensors as views; each tensor has its own size."""
    counts = [int(np.prod(s)) for s in SIZES]
    flat = torch.randn(sum(counts), dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * scale
    for k, part in enumerate(flat.split(counts)):
        part.mul_(2.0**k)
    return flat, [p.view(s) for p, s in zip(flat.split(counts), SIZES, strict=True)]


def by_definition(parts: list[np.ndarray], clip: float, mode: str) -> list[np.ndarray]:
    if mode == "norm":
        norm = np.sqrt(sum(np.sum(g**2) for g in parts))
        return [g * min(1, clip / norm) for g in parts]
    if mode == "tensor_norm":
        return [g * min(1, clip / np.sqrt(np.sum(g**2))) for g in parts]
    if mode == "value":
        return [np.minimum(np.maximum(g, -clip), clip) for g in parts]
    spread = [np.sqrt(np.mean((g - g.mean()) ** 2)) for g in parts]
    return [
        np.minimum(np.maximum(g, g.mean() - clip * s), g.mean() + clip * s) for g, s in zip(parts, spread, strict=True)
    ]


@pytest.mark.parametrize("clip", [0.1, 1.0, 1.5, 30.0])
@pytest.mark.parametrize("mode", MODES)
def test_clipped_gradient_norm_and_flag_are_those_of_the_definition(mode: str, clip: float) -> None:
    flat, parts = gradient()
    before = [p.numpy().copy() for p in parts]
    norm, changed = clip_gradients(flat, parts, clip, mode)
    expected = by_definition(before, clip, mode)
    for got, wanted in zip(parts, expected, strict=True):
        np.testing.assert_allclose(got.numpy(), wanted, rtol=1e-12, atol=0)
    assert norm.item() == pytest.approx(np.sqrt(sum(np.sum(g**2) for g in before)), rel=1e-12)
    altered = any(not np.allclose(a, b, rtol=1e-9, atol=0) for a, b in zip(before, expected, strict=True))
    assert changed.item() == float(altered)
    assert norm.shape == changed.shape == ()


@pytest.mark.parametrize("mode", MODES)
def test_below_the_bound_nothing_changes(mode: str) -> None:
    flat, parts = gradient(1e-3)
    before = flat.clone()
    _, changed = clip_gradients(flat, parts, 10.0, mode)
    assert torch.equal(flat, before)
    assert changed.item() == 0


@pytest.mark.parametrize("mode", MODES)
def test_without_clip_nothing_changes_and_the_norm_is_still_told(mode: str) -> None:
    flat, parts = gradient(100)
    before = flat.clone()
    norm, changed = clip_gradients(flat, parts, None, mode)
    assert torch.equal(flat, before)
    assert norm.item() == pytest.approx(np.linalg.norm(before.numpy()), rel=1e-12)
    assert changed.item() == 0


@pytest.mark.parametrize("mode", MODES)
def test_zero_gradient_stays_zero(mode: str) -> None:
    flat, parts = gradient(0)
    norm, changed = clip_gradients(flat, parts, 1.0, mode)
    assert (norm.item(), changed.item()) == (0, 0)
    assert not flat.any()


def test_gradient_exactly_at_the_bound_is_left_alone() -> None:
    for mode in ("norm", "tensor_norm", "value"):
        flat = torch.tensor([0.0, -2.0, 0.0])
        _, changed = clip_gradients(flat, [flat], 2.0, mode)
        assert flat.tolist() == [0, -2, 0]
        assert changed.item() == 0


def test_tensor_norm_leaves_the_small_tensors_alone() -> None:
    flat, parts = gradient()
    parts[1].mul_(1e-3)
    small = parts[1].clone()
    _, changed = clip_gradients(flat, parts, 0.5, "tensor_norm")
    assert torch.equal(parts[1], small)
    assert changed.item() == 1
    assert max(p.norm().item() for p in parts) == pytest.approx(0.5)


def test_std_mode_pulls_outliers_towards_the_mean_not_towards_zero() -> None:
    flat = torch.tensor([10.0, 10.0, 10.0, 14.0])  # mean 11, population std sqrt(3)
    clip_gradients(flat, [flat], 1.0, "std")
    torch.testing.assert_close(flat, torch.tensor([10.0, 10.0, 10.0, 11 + 3**0.5]))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("mode", MODES)
def test_a_gradient_that_is_not_finite_shows_in_the_norm(mode: str, bad: float) -> None:
    flat, parts = gradient()
    flat[5] = bad
    norm, _ = clip_gradients(flat, parts, 1.0, mode)
    assert not norm.isfinite()


def test_unknown_mode_is_named() -> None:
    flat, parts = gradient()
    with pytest.raises(ValueError, match=r"'max'.*norm, tensor_norm, value, std"):
        clip_gradients(flat, parts, 1.0, "max")
