"""Chunked backpropagation through time against a plain one: one step, one series, one parameter tensor at a time.

The reference below shares nothing with the package but the names of the weights; all is float64 unless said otherwise.
"""

import copy
import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from tbptt.data.features import LagFeatures, Scaler
from tbptt.data.sequences import Sequences
from tbptt.evaluation.losses import evaluate
from tbptt.models.article import GaussianNoise, QNetwork
from tbptt.options.option import GROUPS
from tbptt.tasks.options import QValues
from tbptt.tasks.prepare import baseline_loss
from tbptt.training.chunks import PassRecord, epoch_loss, train_pass
from tbptt.training.flat import FlatParameters
from tbptt.training.optimizers import build_optimizer, optimizer_of

WINDOW, LENGTH, STEPS = 4, 23, [23, 9, 17]
CELLS = ["lstm", "gru"]
NAN, INF = math.nan, math.inf

TASK = QValues(name="q_values", fee=0.0, fee_unit="price")
Weights = dict[str, Tensor]
PlainState = list[tuple[Tensor, ...]]


# --- the problem ----------------------------------------------------------------------------------------------


class Problem:
    """Prices, targets and a mask that the tests may alter before they make sequences of them."""

    def __init__(self, steps: list[int] = STEPS, seed: int = 0):
        random = np.random.default_rng(seed)
        self.steps, self.length = steps, max(steps)
        self.prices = 100 + np.cumsum(random.normal(0, 1, (len(steps), WINDOW + self.length)), axis=1)
        self.targets = random.normal(0, 1, (len(steps), self.length, 2))
        self.mask = np.array([[float(t < n) for t in range(self.length)] for n in steps])

    def sequences(self, dtype: torch.dtype = torch.float64) -> Sequences:
        one = torch.ones(1, dtype=torch.float64)
        scaler = Scaler(0 * one, one, torch.zeros(1, 2, dtype=torch.float64), one)
        features = LagFeatures(torch.from_numpy(self.prices), scaler, WINDOW, "lagged_change", dtype)
        masked = min(self.steps) < self.length
        mask = torch.from_numpy(self.mask).to(dtype) if masked else None
        return Sequences(features, torch.from_numpy(self.targets).to(dtype), mask, self.steps, TASK)

    def inputs(self) -> Tensor:
        """(B, T, W) by definition: x_t[k] = p_t - p_{t-k}."""
        p = self.prices
        rows = [
            [[row[WINDOW + t] - row[WINDOW + t - k] for k in range(1, WINDOW + 1)] for t in range(self.length)]
            for row in p
        ]
        return torch.tensor(rows, dtype=torch.float64)


def make(cell: str = "lstm", noise_std: float = 0.0, init: str = "keras", seed: int = 0) -> QNetwork:
    torch.manual_seed(seed)
    return QNetwork(WINDOW, dense=[5, 6], hidden=[4, 3], cell=cell, noise_std=noise_std, init=init).double()


# --- the reference --------------------------------------------------------------------------------------------


def weights_of(network: QNetwork) -> Weights:
    return {n: p.detach().clone().requires_grad_(p.requires_grad) for n, p in network.named_parameters()}


def zeros(network: QNetwork, batch: int) -> PlainState:
    parts = 2 if network.cell == "lstm" else 1
    return [tuple(torch.zeros(batch, h, dtype=torch.float64) for _ in range(parts)) for h in network.hidden]


def plain_cell(w: Weights, name: str, x: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    from_x = x @ w[f"{name}.weight_ih_l0"].T + w[f"{name}.bias_ih_l0"]
    from_h = state[0] @ w[f"{name}.weight_hh_l0"].T + w[f"{name}.bias_hh_l0"]
    if len(state) == 2:
        i, f, g, o = (from_x + from_h).chunk(4, dim=1)
        c = torch.sigmoid(f) * state[1] + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c
    (xr, xz, xn), (hr, hz, hn) = from_x.chunk(3, dim=1), from_h.chunk(3, dim=1)
    z, n = torch.sigmoid(xz + hz), torch.tanh(xn + torch.sigmoid(xr + hr) * hn)
    return ((1 - z) * n + z * state[0],)


def plain_forward(
    w: Weights, x: Tensor, state: PlainState, noise: list[Tensor] | None = None
) -> tuple[Tensor, PlainState]:
    """(B, K, D) → (B, K, 2), one step at a time; ``noise``: (B, K, H) for each noise layer in turn."""
    dense = sum(name.startswith("dense") and name.endswith("weight") for name in w)
    outputs = []
    for t in range(x.shape[1]):
        add = iter([n[:, t] for n in noise] if noise else [])
        h = x[:, t]
        for i in range(dense):
            h = torch.tanh(h @ w[f"dense.{i}.weight"].T + w[f"dense.{i}.bias"]) + next(add, 0)
        after = []
        for i, before in enumerate(state):
            h = h + next(add, 0) if i else h
            after.append(plain_cell(w, f"recurrent.{i}", h, before))
            h = after[-1][0]
        state = after
        outputs.append(h @ w["head.weight"].T + w["head.bias"])
    return torch.stack(outputs, dim=1), state


def plain_loss(problem: Problem, y: Tensor, start: int, stop: int) -> Tensor:
    """Mean over the valid steps of [start, stop) and both actions, term by term."""
    terms = [
        (y[b, t - start, a] - problem.targets[b, t, a]) ** 2
        for b, n in enumerate(problem.steps)
        for t in range(start, min(stop, n))
        for a in (0, 1)
    ]
    return torch.stack(terms).mean()


def plain_gradient(loss: Tensor, w: Weights) -> Tensor:
    trained = [p for p in w.values() if p.requires_grad]
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, trained)])


def pieces(length: int, chunks: int) -> list[tuple[int, int]]:
    parts = np.array_split(np.arange(length), chunks)
    return [(int(p[0]), int(p[-1]) + 1) for p in parts]


class Spy:
    """An optimizer that only remembers: every gradient is taken at the same weights."""

    def __init__(self, parameters: FlatParameters):
        self.parameters = parameters
        self.gradients: list[Tensor] = []

    def step(self) -> None:
        self.gradients.append(self.parameters.grad.clone())


def spied(network: QNetwork, sequences: Sequences, chunks: int, **settings: Any) -> tuple[PassRecord, list[Tensor]]:
    parameters = FlatParameters(network)
    spy = Spy(parameters)
    return train_pass(network, parameters, spy, sequences, chunks, **settings), spy.gradients


def same(a: Tensor, b: Tensor, atol: float = 1e-10) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=atol)


# --- gradients ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("init", ["keras", "torch"])
@pytest.mark.parametrize("steps", [[LENGTH] * 3, STEPS], ids=["whole", "padded"])
@pytest.mark.parametrize("cell", CELLS)
def test_one_chunk_equals_full_bptt(cell: str, steps: list[int], init: str) -> None:
    network, problem = make(cell, init=init), Problem(steps)
    w = weights_of(network)
    y, _ = plain_forward(w, problem.inputs(), zeros(network, 3))
    loss = plain_loss(problem, y, 0, LENGTH)
    expected = plain_gradient(loss, w)
    record, [gradient] = spied(network, problem.sequences(), 1)
    same(gradient, expected)
    assert record.losses.tolist() == pytest.approx([loss.item()], rel=1e-6)
    assert record.norms.tolist() == pytest.approx([expected.norm().item()], rel=1e-6)
    assert (record.clipped.tolist(), record.finite.tolist()) == ([0], [1])


def test_full_bptt_gradient_is_the_slope_of_the_loss() -> None:
    network, sequences = make(), Problem().sequences()
    _, [gradient] = spied(copy.deepcopy(network), sequences, 1)
    parameters = FlatParameters(network)
    for i in range(0, len(gradient), 17):
        sides = []
        for step in (1e-5, -1e-5):
            with torch.no_grad():
                parameters.vector[i] += step
                sides.append(evaluate(network, sequences).item())
                parameters.vector[i] -= step
        assert gradient[i].item() == pytest.approx((sides[0] - sides[1]) / 2e-5, abs=1e-8)


@pytest.mark.parametrize("cell", CELLS)
def test_gradient_stops_at_the_chunk_boundary_and_the_state_is_carried_across(cell: str) -> None:
    network, problem = make(cell), Problem()
    w, x = weights_of(network), problem.inputs()
    record, gradients = spied(network, problem.sequences(), 3)
    state, losses = zeros(network, 3), []
    for (start, stop), gradient in zip(pieces(LENGTH, 3), gradients, strict=True):
        y, after = plain_forward(w, x[:, start:stop], state)
        losses.append(plain_loss(problem, y, start, stop))
        same(gradient, plain_gradient(losses[-1], w))
        state = [tuple(part.detach() for part in layer) for layer in after]
    assert record.losses.tolist() == pytest.approx([loss.item() for loss in losses], rel=1e-6)


def test_neither_a_state_of_zero_nor_a_gradient_across_gives_the_second_chunk() -> None:
    """The two things that the test above rests on do make a difference."""
    network, problem = make(), Problem()
    w, x = weights_of(network), problem.inputs()
    _, gradients = spied(network, problem.sequences(), 2)
    middle = pieces(LENGTH, 2)[0][1]
    _, carried = plain_forward(w, x[:, :middle], zeros(network, 3))
    for state in (zeros(network, 3), carried):
        y, _ = plain_forward(w, x[:, middle:], state)
        other = plain_gradient(plain_loss(problem, y, middle, LENGTH), w)
        assert (other - gradients[1]).abs().max() > 1e-3


@pytest.mark.parametrize("cell", CELLS)
def test_state_starts_at_zero_in_every_pass(cell: str) -> None:
    network, sequences = make(cell), Problem().sequences()
    parameters = FlatParameters(network)
    spy = Spy(parameters)
    for _ in range(2):
        train_pass(network, parameters, spy, sequences, 3)
    for first, second in zip(spy.gradients[:3], spy.gradients[3:], strict=True):
        assert torch.equal(first, second)


# --- segments -------------------------------------------------------------------------------------------------


def remembered_noise(network: QNetwork) -> list[Tensor]:
    """Fills with what the noise layer adds, call by call, (B, K, H)."""
    added: list[Tensor] = []

    def remember(module: Any, before: tuple[Tensor], after: Tensor) -> None:
        added.append((after - before[0]).detach().transpose(0, 1))

    network.noise.register_forward_hook(remember)
    return added


@pytest.mark.parametrize("noise_std", [0.0, 0.3])
@pytest.mark.parametrize("steps", [[LENGTH] * 3, STEPS], ids=["whole", "padded"])
@pytest.mark.parametrize("cell", CELLS)
def test_segments_give_the_gradient_of_the_whole_chunk(cell: str, steps: list[int], noise_std: float) -> None:
    """23 steps in segments of 5, the last of 3; the reference gets the noise that the first pass over them drew."""
    network, problem = make(cell, noise_std=noise_std), Problem(steps)
    w, added = weights_of(network), remembered_noise(network)
    record, [gradient] = spied(network, problem.sequences(), 1, segment_length=5)
    assert len(added) == 2 * 5 * 3, "three noise layers, five segments, forward and again"
    drawn = [added[3 * s : 3 * s + 3] for s in range(5)]
    noise = [torch.cat([segment[i] for segment in drawn], dim=1) for i in range(3)]
    y, _ = plain_forward(w, problem.inputs(), zeros(network, 3), noise if noise_std else None)
    loss = plain_loss(problem, y, 0, LENGTH)
    same(gradient, plain_gradient(loss, w))
    assert record.losses.tolist() == pytest.approx([loss.item()], rel=1e-6)


@pytest.mark.parametrize("cell", CELLS)
def test_segments_of_several_chunks_give_the_gradients_of_whole_chunks(cell: str) -> None:
    network, sequences = make(cell), Problem().sequences()
    whole, expected = spied(copy.deepcopy(network), sequences, 2, segment_length=None)
    record, gradients = spied(network, sequences, 2, segment_length=2)
    for a, b in zip(gradients, expected, strict=True):
        same(a, b)
    same(record.losses, whole.losses, 1e-6)


@pytest.mark.parametrize(
    ("segment_length", "longest"), [(5, 5), (1, 1), (22, 22), (23, LENGTH), ("auto", LENGTH), (None, LENGTH)]
)
def test_a_graph_spans_no_more_than_a_segment_once_a_chunk_is_longer(
    segment_length: int | str | None, longest: int
) -> None:
    network = make()
    spans = []

    def measure(module: Any, arguments: tuple[Tensor, Any]) -> None:
        if torch.is_grad_enabled():
            spans.append(arguments[0].shape[1])

    network.register_forward_pre_hook(measure)
    spied(network, Problem().sequences(), 1, segment_length=segment_length)
    assert max(spans) == longest
    assert sum(spans) == LENGTH


def test_segments_draw_no_more_noise_than_one_forward() -> None:
    """What draws from PyTorch's generator goes on after a segmented chunk from where its single forward left it."""
    network, sequences = make(noise_std=0.3), Problem().sequences()
    network.noise = GaussianNoise(0.3, pool=True)
    torch.manual_seed(8)
    state = network.zero_state(3)
    for start in range(0, LENGTH, 5):
        _, state = network(sequences.features(start, min(start + 5, LENGTH)), state)
    expected = torch.get_rng_state()
    torch.manual_seed(8)
    spied(network, sequences, 1, segment_length=5)
    assert torch.equal(torch.get_rng_state(), expected)


def test_between_may_stop_a_pass_after_a_segment_and_after_an_update() -> None:
    class Stopped(Exception):
        pass

    for segment_length, calls in ((None, 2), (2, 2 * (2 * 6 + 1))):
        seen = 0

        def after_chunk() -> None:
            nonlocal seen
            seen += 1

        spied(make(), Problem().sequences(), 2, segment_length=segment_length, after_chunk=after_chunk)
        assert seen == calls

    def stop() -> None:
        raise Stopped

    with pytest.raises(Stopped):
        spied(make(), Problem().sequences(), 2, after_chunk=stop)


# --- a whole pass ---------------------------------------------------------------------------------------------


def clipped_by_hand(gradients: list[Tensor], clip: float) -> float:
    norm = math.sqrt(sum(float((g**2).sum()) for g in gradients))
    if norm > clip:
        for g in gradients:
            g *= clip / norm
    return norm


@pytest.mark.parametrize("chunks", [1, 4, LENGTH])
@pytest.mark.parametrize("cell", CELLS)
def test_training_equals_a_plain_loop_with_an_optimizer_over_separate_tensors(cell: str, chunks: int) -> None:
    network, problem = make(cell), Problem()
    w, x, clip = weights_of(network), problem.inputs(), 0.6
    trained = [p for p in w.values() if p.requires_grad]
    plain = torch.optim.Adam(trained, lr=0.01, eps=1e-7, foreach=False, fused=False)
    losses, norms = [], []
    for _ in range(2):
        state = zeros(network, 3)
        for start, stop in pieces(LENGTH, chunks):
            plain.zero_grad()
            y, after = plain_forward(w, x[:, start:stop], state)
            loss = plain_loss(problem, y, start, stop)
            loss.backward()
            norms.append(clipped_by_hand([p.grad for p in trained if p.grad is not None], clip))
            plain.step()
            losses.append(loss.item())
            state = [tuple(part.detach() for part in layer) for layer in after]

    parameters = FlatParameters(network)
    optimizer = build_optimizer([parameters.vector], "adam", lr=0.01, betas=(0.9, 0.999), eps=1e-7)
    records = [train_pass(network, parameters, optimizer, problem.sequences(), chunks, clip=clip) for _ in range(2)]
    for name, value in network.named_parameters():
        same(value.detach(), w[name].detach(), 1e-9)
    seen = [
        torch.cat([torch.tensor(row) for row in rows]) for rows in zip(*(r.to_host() for r in records), strict=True)
    ]
    np.testing.assert_allclose(seen[0], losses, rtol=1e-6)
    np.testing.assert_allclose(seen[1], norms, rtol=1e-6)
    assert seen[2].tolist() == [float(norm > clip) for norm in norms]
    assert chunks == 1 or 0 < seen[2].mean() < 1, "the clip acts on some updates only"
    assert seen[3].tolist() == [1.0] * (2 * chunks)


@pytest.mark.parametrize("mode", ["norm", "tensor_norm", "value", "std"])
def test_every_clip_mode_reaches_the_optimizer(mode: str) -> None:
    """The modes that look at tensors see those of the network, not the one vector."""
    clip = 0.05 if mode != "std" else 1.0
    network, sequences = make(), Problem().sequences()
    _, [whole] = spied(copy.deepcopy(network), sequences, 1)
    record, [clipped] = spied(network, sequences, 1, clip=clip, clip_mode=mode)
    sizes = [p.numel() for p in network.parameters() if p.requires_grad]
    expected = []
    for g in whole.split(sizes):
        if mode == "norm":
            expected.append(g * min(1, clip / whole.norm().item()))
        elif mode == "tensor_norm":
            expected.append(g * min(1, clip / g.norm().item()))
        elif mode == "value":
            expected.append(g.clamp(-clip, clip))
        else:
            std = g.std(correction=0)
            expected.append(g.clamp(g.mean() - clip * std, g.mean() + clip * std))
    same(clipped, torch.cat(expected))
    assert record.norms.item() == pytest.approx(whole.norm().item(), rel=1e-6), "the norm before clipping"
    assert record.clipped.item() == 1


def test_untrained_biases_stay_zero_and_all_else_learns() -> None:
    network, sequences = make(), Problem().sequences()
    before = weights_of(network)
    parameters = FlatParameters(network)
    optimizer = build_optimizer([parameters.vector], "adamw", lr=0.01, eps=1e-7, weight_decay=0.1)
    losses = [epoch_loss(train_pass(network, parameters, optimizer, sequences, 2).losses.tolist(), sequences)]
    for _ in range(60):
        losses.append(epoch_loss(train_pass(network, parameters, optimizer, sequences, 2).losses.tolist(), sequences))
    for name, value in network.named_parameters():
        if "bias_hh" in name:
            assert not value.any()
        else:
            assert (value != before[name]).all(), name
    assert losses[-1] < 0.8 * losses[0]


# --- padding --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("segment_length", [None, 2])
@pytest.mark.parametrize("cell", CELLS)
def test_padded_steps_change_nothing(cell: str, segment_length: int | None) -> None:
    results = []
    for altered in (False, True):
        problem = Problem()
        if altered:
            for b, n in enumerate(STEPS):
                problem.prices[b, WINDOW + n :] = 3.0
                problem.targets[b, n:] = -70.0
        sequences, network = problem.sequences(), make(cell)
        loss, mean = evaluate(network, sequences, 4), baseline_loss(sequences, sequences, TASK)
        record, gradients = spied(network, sequences, 2, segment_length=segment_length)
        results.append([loss, torch.tensor(mean), record.losses, record.norms, *gradients])
    for plain, changed in zip(*results, strict=True):
        same(plain, changed, 1e-14)


def test_a_sequence_trains_alike_alone_and_beside_a_longer_one() -> None:
    """Padded or not, a sequence's gradient is its own; each weighs by its valid steps."""
    gradients = []
    for rows in ([0], [1], [0, 1]):
        problem = Problem([23, 9])
        problem.prices, problem.targets, problem.mask = (
            v[rows] for v in (problem.prices, problem.targets, problem.mask)
        )
        problem.steps = [problem.steps[r] for r in rows]
        gradients.append(spied(make(), problem.sequences(), 1)[1][0])
    same(gradients[2], (23 * gradients[0] + 9 * gradients[1]) / 32)


@pytest.mark.parametrize("chunks", [1, 2, 5, 23])
def test_valid_steps_are_counted_in_every_chunk(chunks: int) -> None:
    problem = Problem()
    sequences = problem.sequences()
    for start, stop in pieces(LENGTH, chunks):
        assert sequences.valid_in(start, stop) == problem.mask[:, start:stop].sum()
    assert sequences.valid_steps == problem.mask.sum()
    assert (sequences.batch, sequences.length) == (3, LENGTH)


# --- divergence -----------------------------------------------------------------------------------------------


def shipped(name: str, config: Callable[..., DictConfig], *overrides: str) -> dict[str, Any]:
    settings = OmegaConf.to_container(config(f"optimizer={name}", *overrides).optimizer)
    assert isinstance(settings, dict)
    return {str(key): value for key, value in settings.items()}


def made_on(parameters: FlatParameters, settings: dict[str, Any]) -> torch.optim.Optimizer:
    return optimizer_of(GROUPS["optimizer"][settings["name"]](**settings), parameters)


def numbers_in(state: Any) -> Iterator[Tensor]:
    """Every tensor of an optimizer's state."""
    if isinstance(state, Tensor):
        yield state
    elif isinstance(state, dict | list | tuple):
        for part in state.values() if isinstance(state, dict) else state:
            yield from numbers_in(part)


def trained_once(
    network: QNetwork, problem: Problem, settings: dict[str, Any], **passes: Any
) -> tuple[PassRecord, list[Tensor], FlatParameters, torch.optim.Optimizer]:
    """A pass of five updates, with the weights after each."""
    parameters = FlatParameters(network)
    optimizer = made_on(parameters, settings)
    snapshots: list[Tensor] = []
    record = train_pass(
        network,
        parameters,
        optimizer,
        problem.sequences(),
        5,
        after_chunk=lambda: snapshots.append(parameters.vector.detach().clone()),
        **passes,
    )
    return record, snapshots, parameters, optimizer


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
@pytest.mark.parametrize("name", list(GROUPS["optimizer"]))
def test_a_loss_that_is_not_finite_stops_all_updates_from_there_on(
    name: str, bad: float, config: Callable[..., DictConfig]
) -> None:
    settings, problem = shipped(name, config), Problem()
    _, good, _, _ = trained_once(make(), problem, settings, clip=1.0)
    problem.targets[0, 11, 1] = bad  # in the third of five chunks: steps 10 to 14
    network = make()
    record, weights, _, optimizer = trained_once(network, problem, settings, clip=1.0)
    assert record.finite.tolist() == [1, 1, 0, 0, 0]
    assert torch.isfinite(record.losses).tolist() == [True, True, False, True, True]
    assert [torch.equal(a, b) for a, b in zip(weights, good, strict=True)] == [True, True, False, False, False]
    for later in weights[2:]:
        assert torch.equal(later, good[1]), "the weights after the last good update"
    after = torch.cat([p.detach().flatten() for p in network.parameters() if p.requires_grad])
    assert torch.equal(after, good[1])
    assert all(torch.isfinite(v).all() for v in numbers_in(optimizer.state_dict()["state"]))


@pytest.mark.parametrize("mode", ["norm", "tensor_norm", "value", "std"])
@pytest.mark.parametrize("bad", [NAN, INF])
def test_a_gradient_that_is_not_finite_under_a_finite_loss_stops_updates(bad: float, mode: str) -> None:
    network = make()
    calls = itertools.count()
    network.head.bias.register_hook(lambda g: g * bad if next(calls) == 2 else g)
    settings = {"name": "adam", "lr": 0.01, "eps": 1e-7}
    record, weights, _, optimizer = trained_once(network, Problem(), settings, clip=1.0, clip_mode=mode)
    assert torch.isfinite(record.losses).all()
    assert record.finite.tolist() == [1, 1, 0, 0, 0]
    assert not torch.equal(weights[0], weights[1])
    assert all(torch.equal(later, weights[1]) for later in weights[2:])
    assert torch.isfinite(weights[-1]).all()
    assert all(torch.isfinite(v).all() for v in numbers_in(optimizer.state_dict()["state"]))


def test_a_loss_that_overflows_above_a_finite_gradient_stops_updates() -> None:
    """In float32 an error of 2e19 has an infinite square and a slope that is finite."""
    problem = Problem()
    problem.targets[0, 11, 1] = 2e19
    network = make().float()
    parameters = FlatParameters(network)
    optimizer = build_optimizer([parameters.vector], "sgd", lr=0.01)
    weights: list[Tensor] = []
    record = train_pass(
        network,
        parameters,
        optimizer,
        problem.sequences(torch.float32),
        5,
        after_chunk=lambda: weights.append(parameters.vector.detach().clone()),
    )
    assert torch.isfinite(record.losses).tolist() == [True, True, False, True, True]
    assert torch.isfinite(record.norms).all()
    assert record.finite.tolist() == [1, 1, 0, 0, 0]
    assert all(torch.equal(later, weights[1]) for later in weights[2:])


def test_a_bad_loss_in_a_segment_stops_updates() -> None:
    problem = Problem()
    problem.targets[0, 11, 1] = NAN
    network = make()
    before = torch.cat([p.detach().flatten() for p in network.parameters() if p.requires_grad])
    parameters = FlatParameters(network)
    optimizer = build_optimizer([parameters.vector], "adam", lr=0.01)
    record = train_pass(network, parameters, optimizer, problem.sequences(), 1, segment_length=2)
    assert record.finite.tolist() == [0]
    assert torch.equal(parameters.vector.detach(), before)


@pytest.mark.parametrize("name", list(GROUPS["optimizer"]))
def test_weights_that_overflow_by_an_update_are_put_back(name: str, config: Callable[..., DictConfig]) -> None:
    """In float32, with gradients that are finite and a step that is not (for AdaDelta, the second one)."""
    problem = Problem()
    problem.targets *= 1e4
    network = make().float()
    weights = [torch.cat([p.detach().flatten() for p in network.parameters() if p.requires_grad])]
    parameters = FlatParameters(network)
    optimizer = made_on(parameters, shipped(name, config) | {"lr": 3e38})
    record = train_pass(
        network,
        parameters,
        optimizer,
        problem.sequences(torch.float32),
        4,
        after_chunk=lambda: weights.append(parameters.vector.detach().clone()),
    )
    good = 1 if name == "adadelta" else 0
    assert math.isfinite(record.losses[0])
    assert math.isfinite(record.norms[0])
    assert record.finite.tolist() == [1] * good + [0] * (4 - good)
    assert all(torch.equal(later, weights[good]) for later in weights[good + 1 :])
    assert torch.isfinite(parameters.vector).all()
    assert all(torch.isfinite(v).all() for v in numbers_in(optimizer.state_dict()["state"]))


def test_the_pass_after_a_diverged_one_trains_again() -> None:
    problem = Problem()
    problem.targets[0, 11, 1] = NAN
    network = make()
    _, weights, parameters, optimizer = trained_once(network, problem, {"name": "adam", "lr": 0.01})
    record = train_pass(network, parameters, optimizer, Problem().sequences(), 5)
    assert record.finite.tolist() == [1] * 5
    assert torch.isfinite(parameters.vector).all()
    assert not torch.equal(parameters.vector, weights[-1])


def test_record_comes_to_the_host_in_one_piece() -> None:
    record = PassRecord(3, "cpu")
    record.losses[:] = torch.tensor([1.0, 2.0, 3.0])
    record.norms[1], record.clipped[2], record.finite[0] = 5, 1, 1
    assert record.to_host() == [[1, 2, 3], [0, 5, 0], [0, 0, 1], [1, 0, 0]]


# --- one vector of parameters ---------------------------------------------------------------------------------


def test_flat_parameters_are_the_networks_own() -> None:
    network = make()
    before = weights_of(network)
    parameters = FlatParameters(network)
    trained = [p for p in network.parameters() if p.requires_grad]
    assert parameters.vector.numel() == sum(p.numel() for p in trained)
    for name, value in network.named_parameters():
        assert torch.equal(value, before[name])
    with torch.no_grad():
        parameters.vector.copy_(torch.arange(float(parameters.vector.numel())))
    assert torch.equal(torch.cat([p.detach().flatten() for p in trained]), parameters.vector.detach())
    assert [g.shape for g in parameters.grads] == [p.shape for p in trained]


@pytest.mark.parametrize("to_none", [True, False])
def test_zeroed_gradients_of_the_module_do_not_cut_it_off(to_none: bool) -> None:
    """Lightning calls zero_grad around a validation."""
    results = []
    for zeroed in (False, True):
        network, sequences = make(), Problem().sequences()
        parameters = FlatParameters(network)
        optimizer = build_optimizer([parameters.vector], "adam", lr=0.01)
        for _ in range(3):
            train_pass(network, parameters, optimizer, sequences, 4)
            if zeroed:
                network.zero_grad(set_to_none=to_none)
        results.append(parameters.vector.detach().clone())
    assert torch.equal(*results)


def test_gradients_of_an_update_do_not_add_to_those_before() -> None:
    network, sequences = make(), Problem().sequences()
    parameters = FlatParameters(network)
    parameters.grad.fill_(5.0)
    spy = Spy(parameters)
    train_pass(network, parameters, spy, sequences, 1)
    _, [expected] = spied(make(), sequences, 1)
    same(spy.gradients[0], expected, 1e-14)


# --- evaluation and losses ------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk_length", [1, 4, LENGTH, 500])
@pytest.mark.parametrize("cell", CELLS)
def test_evaluation_is_the_quiet_loss_of_one_stateful_pass(cell: str, chunk_length: int) -> None:
    network, problem = make(cell, noise_std=0.5), Problem()
    y, _ = plain_forward(weights_of(network), problem.inputs(), zeros(network, 3))
    expected = plain_loss(problem, y, 0, LENGTH).item()
    loss = evaluate(network, problem.sequences(), chunk_length)
    assert loss.item() == pytest.approx(expected, abs=1e-12)
    assert loss.shape == ()
    assert not loss.requires_grad


@pytest.mark.parametrize("training", [True, False])
def test_evaluation_leaves_mode_weights_gradients_and_random_numbers_alone(training: bool) -> None:
    network, sequences = make(noise_std=0.5).train(training), Problem().sequences()
    parameters = FlatParameters(network)
    parameters.grad.fill_(2.0)
    before, state = parameters.vector.detach().clone(), torch.get_rng_state()
    evaluate(network, sequences)
    assert all(module.training == training for module in network.modules())
    assert torch.equal(parameters.vector.detach(), before)
    assert (parameters.grad == 2).all()
    assert torch.equal(torch.get_rng_state(), state)


def test_training_is_noisy_and_follows_the_seed() -> None:
    def losses(seed: int) -> list[float]:
        network = make(noise_std=0.3)
        network.noise.seed = seed
        return spied(network, Problem().sequences(), 2)[0].losses.tolist()

    assert losses(0) == losses(0)
    assert losses(0) != losses(1)


@pytest.mark.parametrize("chunks", [1, 2, 5, 23])
def test_epoch_loss_weighs_chunks_by_their_valid_steps(chunks: int) -> None:
    problem = Problem()
    losses = list(np.random.default_rng(0).uniform(0, 2, chunks))
    weights = [problem.mask[:, a:b].sum() for a, b in pieces(LENGTH, chunks)]
    expected = float(np.average(losses, weights=weights))
    assert epoch_loss(losses, problem.sequences()) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("chunks", [1, 4, 23])
def test_epoch_loss_of_resting_weights_is_that_of_the_whole(chunks: int) -> None:
    network, sequences = make(), Problem().sequences()
    record, _ = spied(network, sequences, chunks)
    assert epoch_loss(record.losses.tolist(), sequences) == pytest.approx(evaluate(network, sequences).item(), rel=1e-6)


def test_the_baseline_is_the_loss_of_predicting_zero_in_standardised_units() -> None:
    problem = Problem()
    terms = [problem.targets[b, t, a] ** 2 for b, n in enumerate(STEPS) for t in range(n) for a in (0, 1)]
    assert baseline_loss(problem.sequences(), problem.sequences(), TASK) == pytest.approx(
        sum(terms) / len(terms), rel=1e-12
    )
    assert baseline_loss(*2 * [problem.sequences(torch.float32)], TASK) == pytest.approx(
        sum(terms) / len(terms), rel=1e-6
    )
