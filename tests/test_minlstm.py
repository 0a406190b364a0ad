"""minLSTM: all steps at once give what one after the other gives, and what its definition says."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from omegaconf import DictConfig
from test_bptt import LENGTH, STEPS, WINDOW, Problem, pieces, plain_gradient, same, spied, weights_of
from torch import Tensor

from tbptt.models.minlstm import MinLSTMNetwork
from tbptt.models.scan import scan, sequential
from tbptt.runs.fit import fit
from tbptt.training.chunks import train_pass
from tbptt.training.cuda_graphs import FixedSteps
from tbptt.training.flat import FlatParameters
from tbptt.training.optimizers import build_optimizer


def make(parallel: bool = True, noise_std: float = 0.0, forget_bias: float = 1.0) -> MinLSTMNetwork:
    torch.manual_seed(0)
    return MinLSTMNetwork(WINDOW, 2, [5, 6], [4, 3], noise_std, forget_bias, parallel).double()


def by_definition(w: dict[str, Tensor], x: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """(B, K, D) → (B, K, 2), one step at a time: f' = f / (f + i), i' = i / (f + i), h = f' h + i' c."""
    outputs = []
    for t in range(x.shape[1]):
        y = x[:, t]
        for i in range(2):
            y = torch.tanh(y @ w[f"dense.{i}.weight"].T + w[f"dense.{i}.bias"])
        after = []
        for i, h in enumerate(state):
            f, g, c = (y @ w[f"recurrent.{i}.gates.weight"].T + w[f"recurrent.{i}.gates.bias"]).chunk(3, dim=1)
            f, g = f.sigmoid(), g.sigmoid()
            y = f / (f + g) * h + g / (f + g) * c
            after.append(y)
        state = after
        outputs.append(y @ w["head.weight"].T + w["head.bias"])
    return torch.stack(outputs, 1), state


def loss_of(problem: Problem, y: Tensor, start: int, stop: int) -> Tensor:
    mask = torch.from_numpy(problem.mask[:, start:stop])
    error = (y - torch.from_numpy(problem.targets[:, start:stop])).square() * mask[..., None]
    return error.sum() / (2 * mask.sum())


# --- the scan -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 15, 16, 17, 24, 25, 26, 200, 997])
def test_all_steps_at_once_give_what_one_after_the_other_gives(steps: int) -> None:
    """Values, and the gradients of all that goes in, for every way that steps can fall into blocks."""
    torch.manual_seed(steps)
    f, b, h = torch.rand(steps, 2, 3).double(), torch.randn(steps, 2, 3).double(), torch.randn(2, 3).double()
    weight, found = torch.randn(steps, 2, 3).double(), []
    for function in (scan, sequential):
        given = [t.clone().requires_grad_() for t in (f, b, h)]
        y = function(*given)
        found.append([y.detach(), *torch.autograd.grad((y * weight).sum(), given)])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


@pytest.mark.parametrize("gate", [1e-30, 0.0, 0.5, 1.0])
def test_gates_at_their_ends_are_exact(gate: float) -> None:
    f, b, h = torch.full((100, 1), gate), torch.ones(100, 1), torch.ones(1)
    torch.testing.assert_close(scan(f, b, h), sequential(f, b, h), rtol=1e-6, atol=0)


def test_float32_stays_exact_for_20000_steps() -> None:
    """Held against float64, gates from near 0 to near 1, with the gradient through all steps."""
    torch.manual_seed(0)
    f, b = torch.sigmoid(4 * torch.randn(20_000, 2, 3)), torch.randn(20_000, 2, 3)
    weight, found = torch.randn(20_000, 2, 3), []
    for dtype in (torch.float32, torch.float64):
        given = [t.to(dtype).requires_grad_() for t in (f, b, torch.ones(2, 3))]
        y = scan(*given)
        found.append([y.detach(), *torch.autograd.grad((y * weight.to(dtype)).sum(), given)])
    for one, other in zip(*found, strict=True):
        assert ((one.double() - other).abs() / (1 + other.abs())).max() < 1e-5


# --- the network ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("parallel", [True, False])
def test_the_network_is_its_definition(parallel: bool) -> None:
    """Outputs, state, and gradients of two chunks with the state carried, to 1e-9 in float64."""
    network, problem = make(parallel), Problem(STEPS)
    w, x = weights_of(network), problem.inputs()
    _, gradients = spied(network, problem.sequences(), 2)
    state, expected = network.zero_state(3), network.zero_state(3)
    for (start, stop), gradient in zip(pieces(LENGTH, 2), gradients, strict=True):
        y, state = network(x[:, start:stop], state)
        right, after = by_definition(w, x[:, start:stop], expected)
        expected = [h.detach() for h in after]
        same(y, right, 1e-9)
        for one, other in zip(state, expected, strict=True):
            same(one, other, 1e-9)
        same(gradient, plain_gradient(loss_of(problem, right, start, stop), w), 1e-9)


@pytest.mark.parametrize("noise_std", [0.0, 0.1])
def test_both_ways_train_alike(noise_std: float) -> None:
    found = []
    for parallel in (True, False):
        network = make(parallel, noise_std)
        parameters = FlatParameters(network)
        optimizer = build_optimizer([parameters.vector], "adam", lr=0.01)
        torch.manual_seed(1)
        for _ in range(3):
            train_pass(network, parameters, optimizer, Problem().sequences(), 4)
        found.append(parameters.vector.detach())
    same(found[0], found[1], 1e-9)


def test_chunks_that_carry_the_state_give_the_whole_sequence() -> None:
    network, x = make(), Problem().inputs()
    whole, end = network(x, network.zero_state(3))
    state, parts = network.zero_state(3), []
    for start, stop in pieces(LENGTH, 7):
        y, state = network(x[:, start:stop], state)
        parts.append(y)
    same(torch.cat(parts, 1), whole, 1e-12)
    for one, other in zip(state, end, strict=True):
        same(one, other, 1e-12)


@pytest.mark.parametrize("noise_std", [0.0, 0.1])
@pytest.mark.parametrize("length", [1, 5, 11])
def test_segments_give_the_gradient_of_the_whole_chunk(length: int, noise_std: float) -> None:
    """With noise: of the whole chunk with the noise of the segments."""
    network, problem, added = make(noise_std=noise_std), Problem(), list[Tensor]()
    hook: Any = lambda module, given, result: added.append((result - given[0]).detach())  # noqa: E731
    handle = network.noise.register_forward_hook(hook)
    _, [gradient] = spied(network, problem.sequences(), 1, segment_length=length)
    handle.remove()
    segments = -(-LENGTH // length)
    drawn = [torch.cat([added[3 * s + i] for s in range(segments)]) for i in range(3)]  # (K, B, H) of three layers
    again = iter(drawn)
    network.noise.forward = lambda x: x + next(again)  # type: ignore[method-assign]
    y, _ = network(problem.inputs(), network.zero_state(3))
    expected = torch.autograd.grad(loss_of(problem, y, 0, LENGTH), list(network.parameters()))
    same(gradient, torch.cat([g.flatten() for g in expected]))


@pytest.mark.parametrize("chunks", [1, 5])
def test_steps_in_memory_of_their_own_train_the_same(chunks: int) -> None:
    one = make(noise_std=0.1)
    other, found = copy.deepcopy(one), []
    for network, fixed in ((one, None), (other, FixedSteps())):
        torch.manual_seed(1)
        parameters = FlatParameters(network)
        optimizer = build_optimizer([parameters.vector], "adam", lr=0.01)
        found.append(
            [
                train_pass(network, parameters, optimizer, Problem().sequences(), chunks, fixed=fixed).to_host()
                for _ in range(3)
            ]
        )
    assert found[0] == found[1]


def test_autocast_leaves_the_gates_in_float32() -> None:
    network = make().float()
    x = Problem().inputs().float()
    with torch.autocast("cpu", torch.bfloat16):
        _, state = network(x, network.zero_state(3))
    assert {h.dtype for h in state} == {torch.float32}


def test_a_larger_forget_bias_remembers_for_longer() -> None:
    def left(forget_bias: float) -> float:
        """Of a state of ones, after ten steps."""
        layer = make(forget_bias=forget_bias).recurrent[0]
        x = torch.zeros(10, 1, 6).double()
        h: Tensor = layer(x, torch.ones(1, 4).double())
        return float(h[-1].detach().mean())

    assert left(0) == pytest.approx(0.5**10)
    assert left(0) < left(1) < left(3) < 1


def test_a_run_of_it_learns(small: Callable[..., DictConfig], here: object) -> None:
    cfg = small("model=minlstm", "epochs=15", "schedule=fixed", "schedule.chunks=[6]", "objective=train/loss")
    result = fit(cfg)
    assert result.stop_reason == "epochs"
    assert result.best.value is not None
    assert result.best.value < 0.8
