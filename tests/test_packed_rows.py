"""Trials in the rows of a pack against each alone: train_pass and torch.optim, in float64 with PyTorch's layers."""

import copy
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from test_bptt import CELLS, Problem, make
from torch import Tensor
from torch.optim._muon import DEFAULT_A, DEFAULT_B, DEFAULT_C
from torch.optim._muon import _zeropower_via_newtonschulz as of_pytorch

from tbptt.data.sequences import Sequences
from tbptt.models import kernels
from tbptt.models.article import QNetwork
from tbptt.tasks.options import QValues
from tbptt.training.chunks import train_pass
from tbptt.training.clip_modes import OWN, SHIPPED, Gradient
from tbptt.training.clipping import clip_gradients
from tbptt.training.flat import FlatParameters
from tbptt.training.optimizers import load_optimizer, optimizer_of, optimizer_state, rates, set_rates, state_problem
from tbptt.training.options import SGD, AdaDelta, AdaGrad, Adam, AdamW, Muon, OptimizerConfig, RMSprop
from tbptt.training.packed_clipping import ROW_MODES, clip_rows
from tbptt.training.packed_optimizers import NS_EPS, NS_FACTORS, orthogonal
from tbptt.training.packed_rows import PackedRows, RowTrial, why_no_row
from tbptt.training.packed_step import PackedRecord, PackedStep, PackedSteps, packed_pass

# Of each kind some that differ in all that the config has, with a clip value and mode; None clips nothing.
TRIALS: list[tuple[OptimizerConfig, float | None, str]] = [
    (Adam("adam", 0.01), 0.1, "norm"),
    (SGD("sgd", 0.01), 1.0, "tensor_norm"),
    (Adam("adam", 0.03, [0.5, 0.9], 0.001), 0.02, "value"),
    (Muon("muon", 0.02, weight_decay=0.1, decay_biases=False), 2.0, "std"),
    (AdamW("adamw", 0.02, weight_decay=0.5), None, "norm"),
    (AdamW("adamw", 0.01, weight_decay=0.7, decay_biases=False), 0.3, "norm"),
    (AdamW("adamw", 0.01, [0.7, 0.95], weight_decay=0.1), None, "norm"),
    (RMSprop("rmsprop", 0.01), 0.05, "norm"),
    (RMSprop("rmsprop", 0.001, 0.5, 0.01), 0.2, "norm"),
    (SGD("momentum", 0.01, 0.9), 1.5, "std"),
    (SGD("momentum", 0.1, 0.5), None, "norm"),
    (AdaGrad("adagrad", 0.01), 0.1, "norm"),
    (AdaGrad("adagrad", 0.3, 0.5, 0.001), 0.01, "value"),
    (AdaDelta("adadelta", 1.0), 0.1, "norm"),
    (AdaDelta("adadelta", 0.5, 0.5, 0.001), 0.1, "tensor_norm"),
    (Muon("muon", 0.001), 0.1, "norm"),
    (Muon("muon", 0.001, 0.5, False, 3, [0.5, 0.8]), 0.1, "norm"),
    (Muon("muon", 0.01, 0.8, weight_decay=0.3), 0.1, "norm"),
]
FEW = range(5)


@pytest.fixture(autouse=True)
def reference() -> Iterator[None]:
    """PyTorch's layers, with one thread: more would wait for each other with so little to do."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with kernels.torch_only():
        yield
    torch.set_num_threads(threads)


@pytest.fixture
def exact_records() -> Iterator[None]:
    """Records in float64; they are of PyTorch's default type."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


class Alone:
    """A trial by itself, and its network."""

    def __init__(self, config: OptimizerConfig, clip: float | None, mode: str, seed: int, cell: str = "lstm"):
        self.network = make(cell, noise_std=0.1, seed=seed)
        self.trial = RowTrial(config, clip, mode, self.network.noise.seed, 0.1)
        self.parameters = FlatParameters(self.network)
        self.optimizer = optimizer_of(config, self.parameters)
        self.full, self.updates = rates(self.optimizer), 0

    def train(
        self, sequences: Sequences, chunks: int, factors: list[float] | None = None, segment: int | None = None
    ) -> list[list[float]]:
        def before(update: int) -> None:
            set_rates(self.optimizer, [lr * factors[update] for lr in self.full] if factors else self.full)

        clip = {"clip": self.trial.clip, "clip_mode": self.trial.clip_mode}
        args = (self.network, self.parameters, self.optimizer, sequences, chunks)
        record = train_pass(
            *args, **clip, first_update=self.updates, before_update=before, segment_length=segment
        ).to_host()  # type: ignore[arg-type]
        self.updates += chunks
        return record


def all_alone(which: Any = FEW, cell: str = "lstm") -> list[Alone]:
    return [Alone(*TRIALS[i], seed=i, cell=cell) for i in which]


def pack_of(trials: list[Alone], size: int = 0, rows: list[int] | None = None) -> PackedRows:
    pack = PackedRows(trials[0].network, max(size, len(trials)))
    for row, one in zip(rows or range(len(trials)), trials, strict=True):
        pack.fill(row, one.trial, one.network)
    return pack


def near(found: Any, expected: Any, within: float = 1e-10) -> None:
    found, expected = (torch.as_tensor(each, dtype=torch.float64) for each in (found, expected))
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=within, equal_nan=True)


def near_alone(pack: PackedRows, row: int, one: Alone) -> None:
    """Whether a row has its trial's weights. Muon computes in bf16, where the order of a sum may decide a rounding."""
    within = 1e-3 if isinstance(one.trial.optimizer, Muon) else 1e-10
    near(pack.tensors["weights"][row], weights(one.network), within)


def by_row(step: PackedStep, record: PackedRecord) -> dict[int, list[list[float]]]:
    return dict(zip(step.order, record.to_host(), strict=True))


def weights(network: QNetwork) -> Tensor:
    return torch.cat([p.detach().flatten() for p in network.parameters() if p.requires_grad])


# --- whole updates --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cell", CELLS)
def test_every_row_trains_as_its_trial_alone(cell: str, exact_records: None) -> None:
    """Different optimizers, clips, rates and noise; series of different lengths, chunks of two lengths; two passes."""
    chunks = 4
    alone, sequences = all_alone(FEW, cell), Problem().sequences()
    rows = [3, 0, 5, 1, 7]
    pack = pack_of(alone, 8, rows)
    steps = PackedSteps(pack)
    factors = [[0.5 + 0.1 * i + 0.05 * n for n in FEW] for i in range(chunks)]
    clipped = set()
    for _ in range(2):
        step = steps.of(rows, sequences, chunks)
        of_rows = torch.tensor([[of[rows.index(row)] for row in step.order] for of in factors], dtype=torch.float64)
        seen = by_row(step, packed_pass(step, sequences, chunks, factors=of_rows))
        for n, (row, one) in enumerate(zip(rows, alone, strict=True)):
            record = one.train(sequences, chunks, [of[n] for of in factors])
            near(seen[row], record, 1e-3 if isinstance(one.trial.optimizer, Muon) else 1e-10)
            near_alone(pack, row, one)
            clipped |= set(record[2])
    assert clipped == {0.0, 1.0}
    assert pack.tensors["updates"].tolist() == [2 * chunks if row in rows else 0 for row in range(8)]
    assert steps.of(rows, sequences, chunks) is step


@pytest.mark.parametrize("cell", CELLS)
def test_segments_give_the_same(cell: str) -> None:
    """Against the chunk in one piece; a segment begins within a block of the noise."""
    found = []
    for segment in (None, 5):
        alone, sequences = all_alone([0, 2, 3], cell), Problem().sequences()
        pack = pack_of(alone)
        step = PackedStep(pack, [0, 1, 2], sequences, 12, segment)
        found.append((packed_pass(step, sequences, 2).to_host(), pack.tensors["weights"]))
    near(*(record for record, _ in found))
    near(*(w for _, w in found))


def test_a_row_that_diverges_is_frozen_and_disturbs_no_other(exact_records: None) -> None:
    """The others are as they are beside a trial that goes well, to the bit."""
    sequences, found = Problem().sequences(), []
    for lr in (0.01, 1e200):
        which = [0, 1, 2, 3]
        alone = all_alone(which)
        alone[1].trial = replace(alone[1].trial, optimizer=replace(TRIALS[1][0], lr=lr), clip=None)
        alone[1].optimizer = optimizer_of(alone[1].trial.optimizer, alone[1].parameters)
        alone[1].full = rates(alone[1].optimizer)
        pack = pack_of(alone)
        step = PackedStep(pack, which, sequences, 6)
        record = by_row(step, packed_pass(step, sequences, 5))
        near(record[1], torch.tensor(alone[1].train(sequences, 5), dtype=torch.float32), 2e-6)
        near_alone(pack, 1, alone[1])
        found.append((record, pack.tensors))
    (well, of_well), (badly, of_badly) = found
    assert [well[1][3], badly[1][3][-2:]] == [[1.0] * 5, [0.0] * 2]
    assert all(torch.isfinite(of_badly[name]).all() for name in ("weights", "first", "second"))
    for row in (0, 2, 3):
        assert well[row] == badly[row]
        assert all(torch.equal(of_well[name][row], of_badly[name][row]) for name in of_well)


def test_a_row_is_the_same_in_any_company() -> None:
    """Alone, and after the rows were regrouped, with other rows between them and a row that was filled anew."""
    sequences = Problem().sequences()
    alone = all_alone([0, 2, 3, 1])
    pack = pack_of(alone, 6, [4, 1, 2, 0])
    steps = PackedSteps(pack)
    for chosen, chunks in (([4, 1, 2, 0], 4), ([4, 2], 2)):
        packed_pass(steps.of(chosen, sequences, chunks), sequences, chunks)
    pack.free(1)
    new = Alone(*TRIALS[5], seed=9)
    pack.fill(1, new.trial, new.network)
    packed_pass(steps.of([1, 2], sequences, 3), sequences, 3)
    for one, row, passes in ((alone[0], 4, (4, 2)), (alone[2], 2, (4, 2, 3)), (alone[3], 0, (4,)), (new, 1, (3,))):
        for chunks in passes:
            one.train(sequences, chunks)
        near_alone(pack, row, one)


def test_each_row_may_have_its_own_length() -> None:
    sequences = Problem().sequences()
    alone = all_alone([0, 2])
    step = PackedStep(pack_of(alone), [0, 1], sequences, 6)
    step.begin_pass()
    lengths = [6, 5]
    counts = torch.tensor([float(sequences.count(0, length)) for length in lengths], dtype=torch.float64)
    seen = step.run(sequences, 0, 6, torch.tensor(lengths, dtype=torch.int32), counts).clone()
    for n, (one, length) in enumerate(zip(alone, lengths, strict=True)):
        y, _ = one.network(sequences.features(0, length), one.network.zero_state(3))
        loss = sequences.loss(y, 0, length) / sequences.count(0, length)
        near(seen[0, n], loss.detach().float(), 1e-6)


def test_a_loss_of_your_own_is_computed_row_by_row() -> None:
    """One that looks at its numbers, which cannot be done for all rows at once."""

    class Absolute(QValues):
        def loss(self, y: Tensor, target: Tensor, mask: Tensor | None) -> Tensor:  # type: ignore[override]
            assert mask is not None
            error = (y - target).abs().sum(2) * mask
            return error.sum() if bool(error.sum() > 0) else error.sum() * 0

    sequences = Problem().sequences()
    sequences.task = Absolute(name="q_values", fee=0.0, fee_unit="price")
    alone = all_alone([0, 2])
    pack = pack_of(alone)
    packed_pass(PackedStep(pack, [0, 1], sequences, 8), sequences, 3)
    for row, one in enumerate(alone):
        one.train(sequences, 3)
        near_alone(pack, row, one)


def test_all_stays_where_it_is() -> None:
    """As a CUDA graph needs it: an update writes to the same memory as the one before."""
    sequences = Problem().sequences()
    step = PackedStep(pack_of(all_alone([0, 3])), [0, 1], sequences, 6)

    def addresses() -> list[int]:
        held = [*step._tensors.values(), step.network.grad, step.seen, step.finite, *step._state[0], step._x]
        return [t.data_ptr() for t in (*held, *step.network.named.values())]

    before = addresses()
    packed_pass(step, sequences, 4)
    packed_pass(step, sequences, 4)
    assert addresses() == before


def test_a_captured_update_computes_the_same() -> None:
    """As a graph replays it, in segments, with rates that change and a row that is filled with another trial."""
    simulated = pytest.importorskip("simulated_graph").simulated
    sequences, found = Problem().sequences(), []
    for captures in (False, True):
        pack = pack_of(all_alone([0, 1, 2]))
        with simulated() as graphs:
            steps, records = PackedSteps(pack, captures), []
            for each in range(3):
                step = steps.of(range(3), sequences, 4, 4)
                factors = torch.linspace(0.5, 1 + each, 12, dtype=torch.float64).view(4, 3)
                records.append(packed_pass(step, sequences, 4, factors=factors).to_host())
                if each == 1:
                    new = Alone(replace(TRIALS[2][0], lr=0.05), 0.5, "value", seed=77)
                    pack.fill(2, new.trial, new.network)
        assert [graph.replays for graph in graphs] == ([3 * 4 - 3] if captures else [])
        found.append((records, pack.tensors))
    assert found[0][0] == found[1][0]
    assert all(torch.equal(found[0][1][name], found[1][1][name]) for name in found[0][1])


# --- optimizers -----------------------------------------------------------------------------------------------


def test_optimizers_step_as_those_of_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    """All kinds in one pack, those of a kind with other settings each; then the state that is saved goes on alone, and
    the state of a trial alone goes on in a row."""
    # In bf16 the order of a sum may decide a rounding; the next test compares the two.
    of_one: Any = lambda grad, factors, iterations, eps: orthogonal(grad[None], iterations)[0]  # noqa: E731
    monkeypatch.setattr(torch.optim._muon, "_zeropower_via_newtonschulz", of_one)
    which = range(len(TRIALS))
    alone, sequences = all_alone(which), Problem().sequences()
    for one in alone:
        one.trial = replace(one.trial, clip=None)
    pack = pack_of(alone)
    step = PackedStep(pack, which, sequences, 23)
    random = torch.Generator().manual_seed(1)

    def update(own: list[Alone], of_pack: PackedRows, its_step: PackedStep) -> None:
        its_step.begin_pass()
        gradients = torch.randn(len(own), pack.tensors["weights"].shape[1], dtype=torch.float64, generator=random)
        for n, one in enumerate(own):
            one.parameters.attach()
            one.parameters.grad.copy_(gradients[n])
            one.optimizer.step()
        its_step.network.grad.copy_(gradients[its_step.order])
        its_step._apply(torch.zeros(len(own), dtype=torch.float64))
        its_step.end_pass()
        for n, one in enumerate(own):
            near(of_pack.tensors["weights"][n], one.parameters.vector.detach(), 1e-12)

    for _ in range(4):
        update(alone, pack, step)
    again = PackedRows(alone[0].network, len(TRIALS))
    for n, one in enumerate(alone):
        mine, its = pack.optimizer_state(n), optimizer_state(one.optimizer, one.parameters)
        assert state_problem(one.trial.optimizer, one.network, mine["state"]) is None
        assert_same_state(mine, its)
        again.fill(n, one.trial, one.network, optimizer=copy.deepcopy(its))
        parameters = FlatParameters(copy.deepcopy(one.network))
        one.optimizer = optimizer_of(one.trial.optimizer, parameters)
        one.parameters = parameters
        load_optimizer(one.optimizer, parameters, mine)
    step = PackedStep(again, which, sequences, 23)
    for _ in range(2):
        update(alone, again, step)


def test_a_rows_step_is_the_same_to_the_bit_in_any_company() -> None:
    """Clipping, guard and optimizer, of all kinds and modes, in float32; one row diverges."""
    which = range(len(TRIALS))
    alone, sequences = [Alone(*one, seed=i) for i, one in enumerate(TRIALS)], Problem().sequences(torch.float32)
    for one in alone:
        one.network.float()
    packs = [pack_of(alone), *(pack_of([one]) for one in alone)]
    steps = [PackedStep(pack, range(len([t for t in pack.trials if t])), sequences, 23) for pack in packs]
    random = torch.Generator().manual_seed(4)
    for step in steps:
        step.begin_pass()
    for _ in range(3):
        gradients = torch.randn(len(alone), packs[0].tensors["weights"].shape[1], generator=random)
        gradients[3, 5] = torch.nan
        steps[0].network.grad.copy_(gradients[steps[0].order])
        steps[0]._apply(torch.zeros(len(alone)))
        for n, step in enumerate(steps[1:]):
            step.network.grad.copy_(gradients[n : n + 1])
            step._apply(torch.zeros(1))
    steps[0].end_pass()
    for n in which:
        for name in ("weights", "first", "second", "steps"):
            assert torch.equal(packs[0].tensors[name][n], packs[1 + n].tensors[name][0]), (n, name)
        row = steps[0].order.index(n)
        assert torch.equal(steps[0].seen[1:, row], steps[1 + n].seen[1:, 0]) or n == 3
    assert steps[0].finite.tolist() == [n != 3 for n in steps[0].order]


@pytest.mark.parametrize("shape", [(5, 4), (16, 5), (3, 12), (4, 4)])
def test_matrices_are_made_orthogonal_as_pytorch_does(shape: tuple[int, int]) -> None:
    matrices = torch.randn(6, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    matrices *= torch.tensor([1e-9, 1, 1, 1, 100, 0])[:, None, None]
    expected = torch.stack([of_pytorch(m, NS_FACTORS, 5, NS_EPS) for m in matrices])
    torch.testing.assert_close(orthogonal(matrices, 5), expected, rtol=0, atol=0.02)
    assert torch.linalg.svdvals(expected[1].float()).min() > 0.5
    assert (DEFAULT_A, DEFAULT_B, DEFAULT_C) == NS_FACTORS


def assert_same_state(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert one["param_groups"] == other["param_groups"]
    assert one["state"].keys() == other["state"].keys()
    for number, state in one["state"].items():
        assert state.keys() == other["state"][number].keys()
        for name, value in state.items():
            expected = other["state"][number][name]
            assert (value.dtype, value.shape) == (expected.dtype, expected.shape)
            near(value, expected, 1e-12)


def test_a_rate_that_a_schedule_moved_is_saved() -> None:
    pack = pack_of(all_alone([0]))
    pack.tensors["factors"][0] = 0.25
    assert [group["lr"] for group in pack.optimizer_state(0)["param_groups"]] == [0.25 * TRIALS[0][0].lr]
    pack.fill(0, pack.trial(0), make(), lr=0.5)
    assert [group["lr"] for group in pack.optimizer_state(0)["param_groups"]] == [0.5]


def test_an_optimizer_of_your_own_has_no_row() -> None:
    class Own(OptimizerConfig):
        name = "own"

    assert why_no_row(TRIALS[0][0]) is None
    assert "optimizer=own" in str(why_no_row(Own("own", 0.1)))


# --- clipping -------------------------------------------------------------------------------------------------


def half(gradient: Gradient, clip: float) -> Tensor:
    """A mode of your own: it halves what is longer than the weights times ``clip``."""
    is_long = gradient.norm > clip * torch.stack([w.norm() for w in gradient.weights]).norm()
    gradient.flat.mul_(torch.where(is_long, 0.5, 1.0))
    return is_long


@pytest.mark.parametrize("mode", [*SHIPPED, "half", None])
def test_rows_clip_as_trials_alone(mode: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(OWN, "half", half)
    values = [0.5, 0.5, 0.5] if mode == "half" else [0.01, 1.5, 100.0]
    network = make()
    pack = PackedRows(network, 3)
    gradients = torch.randn(3, pack.tensors["weights"].shape[1], dtype=torch.float64) * torch.tensor([[1], [1], [5]])
    gradients[1] *= 0.1
    w = torch.stack([weights(network)] * 3)
    mine = gradients.clone()
    as_tensor = torch.tensor(values, dtype=torch.float64)[:, None]
    norms, clipped = clip_rows(mine, w, pack.places, mode, as_tensor, values[0] if mode == "half" else None)
    for n in range(3):
        flat = gradients[n].clone()
        parts, of_weights = (
            [row[p.start : p.stop].view(p.shape) for p in pack.places.values()] for row in (flat, w[n])
        )
        norm, changed = clip_gradients(flat, parts, values[n] if mode else None, mode or "norm", of_weights)
        near(mine[n], flat, 1e-14)
        near(torch.stack([norms[n], clipped[n]]), torch.stack([norm, changed]), 1e-12)
    assert set(clipped.tolist()) == ({0.0, 1.0} if mode else {0.0})


def test_every_shipped_mode_has_one_of_rows() -> None:
    assert set(ROW_MODES) == set(SHIPPED)
