"""The first updates of every optimizer, with the values that conf/optimizer ships, against formulas written out here.

PyTorch's conventions: where eps sits relative to the square root, and how averages are corrected for their bias.
"""

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn

from tbptt.options.option import GROUPS
from tbptt.training.optimizers import build_optimizer

Array = np.ndarray
# Elements of all sizes: against those near 1e-7, a misplaced eps shows.
GRADIENTS = [
    np.array([3.0, -0.5, 1e-3, 2e-7, -1e-7, 0.0, 1e-10]),
    np.array([-1.0, -0.5, 4e-3, 1e-7, 3e-7, 0.0, 2e-10]),
    np.array([0.2, 7.0, -1e-3, -2e-7, 1e-7, 1.0, 1e-10]),
    np.array([0.1, 0.0, 2e-3, 5e-8, 2e-7, -1.0, 4e-10]),
]
START = np.array([1.0, -2.0, 0.5, 0.0, 3.0, 0.25, -0.75])


def sgd(w: Array, gradients: list[Array]) -> Iterator[Array]:
    for g in gradients:
        w = w - 0.01 * g
        yield w


def momentum(w: Array, gradients: list[Array]) -> Iterator[Array]:
    v = np.zeros_like(w)
    for g in gradients:
        v = 0.9 * v + g
        w = w - 0.01 * v
        yield w


def rmsprop(w: Array, gradients: list[Array]) -> Iterator[Array]:
    s = np.zeros_like(w)
    for g in gradients:
        s = 0.9 * s + 0.1 * g**2
        w = w - 0.01 * g / (np.sqrt(s) + 1e-7)
        yield w


def adam(w: Array, gradients: list[Array], weight_decay: float = 0.0) -> Iterator[Array]:
    m, v = np.zeros_like(w), np.zeros_like(w)
    for t, g in enumerate(gradients, start=1):
        w = w - 0.01 * weight_decay * w
        m = 0.9 * m + 0.1 * g
        v = 0.999 * v + 0.001 * g**2
        w = w - 0.01 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-7)
        yield w


def adamw(w: Array, gradients: list[Array]) -> Iterator[Array]:
    return adam(w, gradients, weight_decay=0.004)


def adagrad(w: Array, gradients: list[Array]) -> Iterator[Array]:
    s = np.full_like(w, 0.1)
    for g in gradients:
        s = s + g**2
        w = w - 0.01 * g / (np.sqrt(s) + 1e-7)
        yield w


def adadelta(w: Array, gradients: list[Array]) -> Iterator[Array]:
    s, u = np.zeros_like(w), np.zeros_like(w)
    for g in gradients:
        s = 0.95 * s + 0.05 * g**2
        step = np.sqrt(u + 1e-7) / np.sqrt(s + 1e-7) * g
        u = 0.95 * u + 0.05 * step**2
        w = w - 1.0 * step
        yield w


FORMULAS: dict[str, Callable[[Array, list[Array]], Iterator[Array]]] = {
    "sgd": sgd,
    "momentum": momentum,
    "rmsprop": rmsprop,
    "adam": adam,
    "adamw": adamw,
    "adagrad": adagrad,
    "adadelta": adadelta,
}


def test_every_optimizer_has_its_formula() -> None:
    assert set(GROUPS["optimizer"]) == set(FORMULAS)


@pytest.mark.parametrize("name", FORMULAS)
def test_shipped_optimizer_makes_the_updates_of_its_formula(name: str, config: Callable[..., DictConfig]) -> None:
    settings = OmegaConf.to_container(config(f"optimizer={name}").optimizer)
    assert isinstance(settings, dict)
    assert settings["name"] == name
    weights = nn.Parameter(torch.tensor(START))
    optimizer = build_optimizer([weights], **{str(key): value for key, value in settings.items()})
    for gradient, expected in zip(GRADIENTS, FORMULAS[name](START, GRADIENTS), strict=True):
        weights.grad = torch.tensor(gradient)
        optimizer.step()
        np.testing.assert_allclose(weights.detach(), expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("name", FORMULAS)
def test_learning_rate_of_a_config_is_used(name: str, config: Callable[..., DictConfig]) -> None:
    moved = []
    for lr in (0.125, 0.25):
        settings = OmegaConf.to_container(config(f"optimizer={name}", f"optimizer.lr={lr}").optimizer)
        assert isinstance(settings, dict)
        weights = nn.Parameter(torch.zeros(3, dtype=torch.float64))
        weights.grad = torch.tensor([1.0, -2.0, 0.1], dtype=torch.float64)
        build_optimizer(iter([weights]), **{str(key): value for key, value in settings.items()}).step()
        moved.append(weights.detach().numpy())
    np.testing.assert_allclose(moved[1], 2 * moved[0], rtol=1e-12)


@pytest.mark.parametrize("name", FORMULAS)
def test_one_vector_moves_as_its_pieces_do(name: str, config: Callable[..., DictConfig]) -> None:
    """No optimizer here looks further than an element, so all parameters may lie in one vector."""
    settings = OmegaConf.to_container(config(f"optimizer={name}").optimizer)
    assert isinstance(settings, dict)
    keywords = {str(key): value for key, value in settings.items()}
    whole = nn.Parameter(torch.tensor(START))
    pieces = [nn.Parameter(torch.tensor(START[:3])), nn.Parameter(torch.tensor(START[3:]))]
    one, many = build_optimizer([whole], **keywords), build_optimizer(pieces, **keywords)
    for gradient in GRADIENTS:
        whole.grad, pieces[0].grad, pieces[1].grad = map(torch.tensor, (gradient, gradient[:3], gradient[3:]))
        one.step()
        many.step()
    torch.testing.assert_close(torch.cat([p.detach() for p in pieces]), whole.detach(), rtol=0, atol=1e-15)
