"""The first updates of every optimizer, with the values that conf/optimizer ships, against formulas written out here.

PyTorch's conventions: where eps sits relative to the square root, and how averages are corrected for their bias.
"""

import copy
from collections.abc import Callable, Iterator
from typing import Any, cast

import numpy as np
import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn

from tbptt.models.article import QNetwork
from tbptt.options.option import GROUPS
from tbptt.training.flat import FlatParameters
from tbptt.training.optimizers import build_optimizer, load_optimizer, optimizer_of, optimizer_state
from tbptt.training.options import OptimizerConfig
from tbptt.training.try_out import try_optimizer

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


def test_every_optimizer_of_elements_has_its_formula() -> None:
    elementwise = {name for name, option in GROUPS["optimizer"].items() if cast(Any, option).elementwise}
    assert elementwise == set(FORMULAS)


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


# --- of tensors -----------------------------------------------------------------------------------------------


class Trained:
    """A small network of the article's form with an optimizer of the shipped config, and a gradient for its updates."""

    def __init__(self, config: Callable[..., DictConfig], *words: str):
        torch.manual_seed(0)
        self.network = QNetwork(5, [6], [4]).double()
        self.parameters = FlatParameters(self.network)
        settings = OmegaConf.to_object(config(*words).optimizer)
        self.optimizer = optimizer_of(cast(OptimizerConfig, settings), self.parameters)

    def update(self, seed: int) -> None:
        """By a random gradient, or with 0 by none."""
        generator = torch.Generator().manual_seed(seed)
        self.parameters.grad.normal_(generator=generator).mul_(seed > 0)
        self.optimizer.step()

    def weights(self) -> dict[str, torch.Tensor]:
        return {name: p.detach().clone() for name, p in self.parameters.named.items()}


IS_MUONS = {"dense.0.weight", "recurrent.0.weight_ih_l0", "recurrent.0.weight_hh_l0"}


def test_muon_makes_orthogonal_steps_of_the_matrices_that_are_not_the_heads(config: Callable[..., DictConfig]) -> None:
    trained = Trained(config, "optimizer=muon", "optimizer.lr=0.01")
    before = trained.weights()
    trained.update(1)
    gradients = dict(zip(trained.parameters.named, trained.parameters.grads, strict=True))
    for name, after in trained.weights().items():
        step, g = before[name] - after, gradients[name]
        if name in IS_MUONS:
            u, _, v = torch.linalg.svd(g, full_matrices=False)
            of_g = u.T @ step @ v.T / (0.01 * 0.2 * max(g.shape) ** 0.5)  # diagonal where it keeps g's directions
            assert ((of_g.diagonal() > 0.5) & (of_g.diagonal() < 1.5)).all(), name
            assert (of_g - of_g.diagonal().diag()).abs().max() < 0.1, name
        else:  # AdamW's first step is lr·sign(g)
            torch.testing.assert_close(step, 0.01 * g / (g.abs() + 1e-7), msg=name)


@pytest.mark.parametrize("name", ["adamw", "muon"])
@pytest.mark.parametrize("decay_biases", [True, False])
def test_weight_decay_leaves_biases_where_it_is_told_to(
    name: str, decay_biases: bool, config: Callable[..., DictConfig]
) -> None:
    words = [f"optimizer={name}", f"optimizer.decay_biases={str(decay_biases).lower()}", "optimizer.weight_decay=0.5"]
    trained = Trained(config, *words, "optimizer.lr=0.01")
    trained.parameters.vector.detach().fill_(1)
    trained.update(0)  # without a gradient, decay is all there is
    for key, after in trained.weights().items():
        expected = 1.0 if "bias" in key and not decay_biases else 1 - 0.01 * 0.5
        torch.testing.assert_close(after, torch.full_like(after, expected), rtol=0, atol=1e-12, msg=key)


def test_where_biases_do_not_decay_the_matrices_move_as_they_did(config: Callable[..., DictConfig]) -> None:
    moved = []
    for decays in ("true", "false"):
        trained = Trained(config, "optimizer=adamw", f"optimizer.decay_biases={decays}")
        for seed in (1, 2, 3):
            trained.update(seed)
        moved.append(trained.weights())
    for key, value in moved[0].items():
        assert torch.allclose(value, moved[1][key], rtol=0, atol=1e-12) == ("bias" not in key), key


@pytest.mark.parametrize("name", FORMULAS)
def test_an_optimizer_of_elements_gets_one_vector(name: str, config: Callable[..., DictConfig]) -> None:
    trained = Trained(config, f"optimizer={name}")
    (group,) = trained.optimizer.param_groups
    assert [p is trained.parameters.vector for p in group["params"]] == [True]


@pytest.mark.parametrize("words", [["optimizer=muon"], ["optimizer=muon", "optimizer.decay_biases=false"]])
def test_several_as_one_go_on_from_what_they_kept(words: list[str], config: Callable[..., DictConfig]) -> None:
    whole, again = Trained(config, *words), Trained(config, *words)
    for seed in (1, 2):
        whole.update(seed)
    kept = copy.deepcopy(optimizer_state(whole.optimizer, whole.parameters))
    again.network.load_state_dict(whole.network.state_dict())
    load_optimizer(again.optimizer, again.parameters, kept)
    for trained in (whole, again):
        for group in trained.optimizer.param_groups:  # as a schedule of learning rates would
            group["lr"] *= 0.5
        trained.update(3)
    assert torch.equal(whole.parameters.vector, again.parameters.vector)


# --- of the user's, tried before a run begins ---------------------------------------------------------------------


class Bare(torch.optim.Optimizer):
    def __init__(self, params: Any, lr: float = 1.0):
        super().__init__(params, {"lr": lr})


class Descends(Bare):
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                p.sub_(p.grad, alpha=group["lr"])


class Asks(Bare):
    def step(self, closure: Any) -> Any:  # type: ignore[override]
        return closure()


class Insists(Bare):
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        assert closure is not None, "it requires closure, but it was not provided"


class TakesNone(Bare):
    def step(self) -> None:  # type: ignore[override]
        pass


class TakesAny(Bare):
    def step(self, **more: Any) -> None:  # type: ignore[override]
        pass


class Stumbles(Bare):
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        raise KeyError("momentum")


NEEDS = r"; takes step\(self, closure=None\), which needs no closure"
REFUSED = [
    (Asks, r"step\(\) raised TypeError: .*step\(\) missing 1 required positional argument: 'closure'" + NEEDS),
    (torch.optim.LBFGS, r"step\(\) raised TypeError: .*missing 1 required positional argument: 'closure'" + NEEDS),
    (Insists, r"step\(\) raised AssertionError: it requires closure, .* \(.*, line \d+\)" + NEEDS),
    (TakesNone, r"its step\(\) has no parameter closure" + NEEDS),
    (Stumbles, r"step\(\) raised KeyError: 'momentum' \(.*, line \d+\)$"),
    (lambda parameters, lr: 1 / 0, r"building it raised ZeroDivisionError: division by zero"),
]


def described(kind: Any) -> OptimizerConfig:
    class Mine(OptimizerConfig):
        @classmethod
        def kind(cls) -> Any:
            return kind

    return Mine("mine", lr=0.5)


@pytest.mark.parametrize(("kind", "said"), REFUSED)
def test_an_optimizer_that_cannot_step_is_refused_in_a_line_that_names_it(kind: Any, said: str) -> None:
    with pytest.raises(ValueError, match="^optimizer=mine: " + said) as caught:
        try_optimizer(described(kind), QNetwork(5, [6], [4]))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", [Descends, TakesAny])
def test_an_optimizer_that_can_is_tried_with_one_step(kind: Any) -> None:
    network = QNetwork(5, [6], [4])
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    try_optimizer(described(kind), network)
    for name, p in network.named_parameters():
        moved = 0.5 * 1e-3 if kind is Descends and p.requires_grad else 0.0
        torch.testing.assert_close(before[name] - p.detach(), torch.full_like(p, moved), rtol=0, atol=1e-6)
