"""Learning-rate schedules: their factors against PyTorch's schedulers, what a run does with them, and resume."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from conftest import CONF
from omegaconf import DictConfig, OmegaConf
from test_bptt import Problem, make
from test_module import SETTINGS, train
from torch import nn, optim

from tbptt.cli.command_line import checked
from tbptt.config.compose import CommandError
from tbptt.config.schema import Config
from tbptt.config.try_out import lr_schedule_problem
from tbptt.options.option import GROUPS
from tbptt.runs.epoch import Epoch
from tbptt.runs.module import SequenceModule
from tbptt.training.chunks import train_pass
from tbptt.training.cuda_graphs import FixedSteps
from tbptt.training.flat import FlatParameters
from tbptt.training.lr_schedules import ByChunk, Cosine, LrScheduleConfig, Moment, Plateau, Warmup
from tbptt.training.optimizers import optimizer_of, rates, set_rates
from tbptt.training.options import OptimizerConfig
from tbptt.training.rates import Rates
from tbptt.training.schedule import ChunkSchedule


def at(update: int = 0, chunks: int = 10, of_run: float = 0.0, of_stage: float = 0.0) -> Moment:
    return Moment(update=update, epoch=update // chunks, chunks=chunks, of_run=of_run, of_stage=of_stage)


def rates_of_torch(make_scheduler: Callable[[optim.Optimizer], Any], steps: int) -> list[float]:
    """The rates of a PyTorch scheduler, stepped after every update."""
    optimizer = optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler, found = make_scheduler(optimizer), []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


# --- factors ----------------------------------------------------------------------------------------------------------


def test_warmup_is_pytorchs_linear_rise() -> None:
    warmup = Warmup(name="warmup", warmup=40)
    expected = rates_of_torch(lambda o: optim.lr_scheduler.LinearLR(o, 1 / 40, 1.0, total_iters=39), 60)
    assert [warmup.factor(at(u)) for u in range(60)] == pytest.approx(expected, rel=1e-12)
    assert Warmup(name="warmup", warmup=0).factor(at(0)) == 1.0


@pytest.mark.parametrize("end", [0.0, 0.2])
def test_cosine_over_the_run_is_pytorchs_annealing(end: float) -> None:
    """With one number of chunks throughout, where PyTorch can know how many updates there will be."""
    cosine, updates = Cosine(name="cosine", end=end), 7 * 10
    expected = rates_of_torch(lambda o: optim.lr_scheduler.CosineAnnealingLR(o, updates, eta_min=end), updates)
    found = [cosine.factor(at(u, of_run=u / updates, of_stage=0.9)) for u in range(updates)]
    assert found == pytest.approx(expected, rel=1e-9)


def test_cosine_by_stage_begins_anew_in_each() -> None:
    cosine = Cosine(name="cosine", over="stage", warmup=4)
    assert cosine.factor(at(40, of_run=0.5, of_stage=0.0)) == 1.0
    assert cosine.factor(at(45, of_run=0.6, of_stage=0.5)) == pytest.approx(0.5)
    assert cosine.factor(at(1, of_stage=0.5)) == pytest.approx(0.25)  # in the second of four updates that warm up


@pytest.mark.parametrize(
    ("power", "cap", "factors"),
    [(1.0, None, [0.01, 0.1, 0.5, 1.0]), (1.0, 0.1, [0.01, 0.1, 0.1, 0.1]), (0.5, 0.9, [0.1, 10**-0.5, 0.5**0.5, 0.9])],
)
def test_by_chunk_is_the_smaller_of_the_cap_and_a_power_of_the_chunks(
    power: float, cap: float | None, factors: list[float]
) -> None:
    by_chunk = ByChunk(name="by_chunk", power=power, cap=cap)
    assert [by_chunk.factor(at(chunks=n)) for n in (100, 10, 2, 1)] == pytest.approx(factors, rel=1e-12)


def test_plateau_is_pytorchs_on_the_chosen_loss_and_goes_on_from_its_state() -> None:
    losses = [1.0, 0.9, 0.9, 0.95, 0.9, 0.91, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8]
    optimizer = optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    reference = optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.3, patience=2, cooldown=1, min_lr=0.05)
    config = Plateau(name="plateau", metric="train/loss", reduce=0.3, patience=2, cooldown=1, end=0.05, warmup=2)
    schedule = config.begin()
    factors = []
    for i, loss in enumerate(losses):
        reference.step(loss)
        schedule.end_epoch({"train/loss": loss, "val/loss": -i})
        state, schedule = schedule.state_dict(), config.begin()  # as if interrupted after each epoch
        schedule.load_state_dict(state)
        factors.append(schedule.factor(at(100)))
        assert factors[-1] == optimizer.param_groups[0]["lr"]
        assert schedule.factor(at(0)) == factors[-1] / 2
    assert len(set(factors)) == 4


def test_the_share_of_a_stage_that_is_done() -> None:
    schedule = ChunkSchedule.plan([4, 2, 1], epochs=10, stage_epochs=3)
    shares = []
    for epoch in range(10):
        shares.append(schedule.share_of_stage(epoch, 10, 0.5))
        schedule.end_epoch(1 / (epoch + 1))
    assert shares == pytest.approx([(i + 0.5) / n for n in (3, 3, 4) for i in range(n)])
    without_limit = ChunkSchedule.plan([4, 1], epochs=10, stage_epochs=None)
    assert without_limit.share_of_stage(0, 10, 0.5) == pytest.approx(0.05)


# --- runs -------------------------------------------------------------------------------------------------------------

CHUNKS = [7, 7, 3, 3, 1, 1]  # of each epoch of test_module's run
EVERY_UPDATE = [(e, i, n) for e, n in enumerate(CHUNKS) for i in range(n)]  # epoch, update in it, chunks


def with_rates(config: Callable[..., DictConfig], *words: str) -> tuple[list[float], list[Epoch]]:
    """The learning rate of every update of a run, and its epochs."""
    seen: list[float] = []

    def look(module: SequenceModule, data: object) -> None:
        optimizer: Any = module.optimizers(use_pl_optimizer=False)
        seen.append(optimizer.param_groups[0]["lr"])

    settings = cast(Config, OmegaConf.to_object(config(*SETTINGS, "optimizer.lr=0.02", *words)))
    epochs, _ = train(settings, after_chunk=look)
    return seen, epochs


@pytest.mark.parametrize(
    ("words", "factor"),
    [
        ("lr_schedule=constant", lambda e, i, n: 1.0),
        ("lr_schedule=warmup lr_schedule.warmup=10", lambda e, i, n: min(1, (7 * e + i + 1) / 10)),
        ("lr_schedule=cosine", lambda e, i, n: (1 + math.cos(math.pi * (e + i / n) / 6)) / 2),
        (
            "lr_schedule=cosine lr_schedule.over=stage",
            lambda e, i, n: (1 + math.cos(math.pi * (e % 2 + i / n) / 2)) / 2,
        ),
        ("lr_schedule=by_chunk lr_schedule.cap=0.2", lambda e, i, n: min(0.2, 1 / n)),
    ],
)
def test_every_update_has_its_rate_and_each_epoch_its_last_one(
    words: str, factor: Callable[[int, int, int], float], small: Callable[..., DictConfig]
) -> None:
    seen, epochs = with_rates(small, *words.split())
    expected = [0.02 * factor(*one) for one in EVERY_UPDATE]
    assert seen == pytest.approx(expected, rel=1e-12)
    last = [0.02 * factor(e, n - 1, n) for e, n in enumerate(CHUNKS)]
    assert [epoch.metrics["lr"] for epoch in epochs] == pytest.approx(last, rel=1e-12)


def test_plateau_follows_the_runs_own_loss(small: Callable[..., DictConfig]) -> None:
    words = "lr_schedule=plateau lr_schedule.patience=0 lr_schedule.threshold=0.3 lr_schedule.reduce=0.25"
    _, epochs = with_rates(small, *words.split())
    best, rate, expected = math.inf, 0.02, []
    for epoch in epochs:
        expected.append(rate)
        if epoch.metrics["val/loss"] < 0.7 * best:
            best = epoch.metrics["val/loss"]
        else:
            rate *= 0.25
    assert [epoch.metrics["lr"] for epoch in epochs] == pytest.approx(expected, rel=1e-12)
    assert len(set(expected)) > 2


@pytest.mark.parametrize("kept", [{}, {"factor": "much", "best": 1.0, "bad_epochs": 0, "cooldown": 0}])
def test_a_state_that_does_not_fit_is_said(kept: dict[str, Any], small: Callable[..., DictConfig]) -> None:
    settings = cast(Config, OmegaConf.to_object(small(*SETTINGS, "lr_schedule=plateau")))
    _, module = train(settings)
    assert module.finished is not None
    state = {**module.snapshot(module.finished), "lr_schedule": kept}
    with pytest.raises(ValueError, match="learning rate does not fit lr_schedule=plateau"):
        module.restore(state)


@pytest.mark.parametrize("name", [n for n, kind in GROUPS["optimizer"].items() if kind.__module__.startswith("tbptt.")])
def test_a_share_of_a_step_is_a_step_at_that_share_of_the_rate(name: str, config: Callable[..., DictConfig]) -> None:
    """What a CUDA graph holds: it keeps the rate that it captured, so the step is cut instead."""
    option = cast(OptimizerConfig, OmegaConf.to_object(config(f"optimizer={name}").optimizer))
    factors, weights = [1.0, 0.5, 0.01, 0.3], []
    for in_graph in (False, True):
        network = make(noise_std=0.1)
        parameters = FlatParameters(network)
        optimizer = optimizer_of(option, parameters)
        share = torch.ones((), dtype=torch.float64) if in_graph else None

        def before_update(i: int, optimizer: optim.Optimizer = optimizer, share: torch.Tensor | None = share) -> None:
            if share is not None:
                share.fill_(factors[i])
            else:
                set_rates(optimizer, [option.lr * factors[i]] * len(optimizer.param_groups))

        fixed = FixedSteps() if in_graph else None
        train_pass(
            network,
            parameters,
            optimizer,
            Problem().sequences(),
            4,
            clip=0.5,
            before_update=before_update,
            share=share,
            fixed=fixed,
        )
        weights.append(parameters.vector.detach())
    torch.testing.assert_close(weights[1], weights[0], rtol=1e-9, atol=1e-12)


def test_in_a_graph_the_rates_stay_and_the_share_is_the_factor() -> None:
    optimizer = optim.SGD([nn.Parameter(torch.zeros(3, dtype=torch.float64))], lr=0.2)
    scheduled = Rates(optimizer, ByChunk(name="by_chunk").begin(), in_graph=True)
    scheduled.before(at(chunks=4))
    assert scheduled.share is not None
    assert (scheduled.share.item(), scheduled.share.dtype) == (0.25, torch.float64)
    assert rates(optimizer) == [0.2]
    assert scheduled.of_the_last_update() == [0.05]
    optimizer.param_groups[0]["lr"] = 0.1  # by a callback: the graph is captured anew
    scheduled.heed_changes()
    scheduled.before(at(chunks=2))
    assert scheduled.share.item() == 0.5
    assert scheduled.of_the_last_update() == pytest.approx([0.05])


def test_what_a_callback_changes_is_kept_as_a_factor_and_goes_on_from_a_checkpoint() -> None:
    optimizer = optim.SGD([nn.Parameter(torch.zeros(3))], lr=0.2)
    scheduled = Rates(optimizer, ByChunk(name="by_chunk").begin(), in_graph=False)
    scheduled.before(at(chunks=4))
    optimizer.param_groups[0]["lr"] *= 0.1
    scheduled.heed_changes()
    assert scheduled.full == pytest.approx([0.02])
    again = optim.SGD([nn.Parameter(torch.zeros(3))], lr=0.2)
    resumed = Rates(again, ByChunk(name="by_chunk").begin(), in_graph=False)
    again.param_groups[0]["lr"] = rates(optimizer)[0]  # as a checkpoint has it
    resumed.go_on(scheduled.full)
    for each in (scheduled, resumed):
        each.heed_changes()
        each.before(at(chunks=2))
    assert rates(optimizer) == rates(again) == pytest.approx([0.01])


# --- configs ----------------------------------------------------------------------------------------------------------


def test_each_optimizer_chooses_the_schedule_that_suits_it(config: Callable[..., DictConfig]) -> None:
    chosen = {name: config(f"optimizer={name}").lr_schedule.name for name in GROUPS["optimizer"]}
    assert {name for name, schedule in chosen.items() if schedule == "by_chunk"} == {"adam", "adamw", "momentum"}
    of_momentum = config("optimizer=momentum").lr_schedule
    assert (of_momentum.power, of_momentum.cap) == (0.5, None)
    assert set(chosen.values()) == {"by_chunk", "constant"}
    assert config("optimizer=adam", "lr_schedule=cosine").lr_schedule.name == "cosine"
    for figure in (CONF / "figure").glob("*.yaml"):  # the article's rate
        cfg = config(f"figure={figure.stem}")
        assert (cfg.lr_schedule.name, cfg.optimizer.lr) == ("constant", 0.01)


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("lr_schedule.cap=2", "lr_schedule.cap: got 2.0; takes a number above 0 and at most 1, or null"),
        ("lr_schedule.power=-1", "lr_schedule.power: got -1.0; takes a number from 0"),
        ("lr_schedule.over=run", "lr_schedule.over: a key of lr_schedule=cosine, and another lr_schedule is chosen"),
        ("lr_schedule=cosin", "lr_schedule: got 'cosin'; takes one of by_chunk, by_root, constant, cosine"),
    ],
)
def test_a_mistake_gets_one_line(word: str, says: str) -> None:
    with pytest.raises(CommandError) as caught:
        checked(["optimizer=adam", word], CONF)
    (line,) = caught.value.lines
    assert says in line


def mine(given: Any) -> Any:
    class Mine(LrScheduleConfig):
        def factor(self, at: Moment) -> float:
            return cast(float, given(at) if callable(given) else given)

    return SimpleNamespace(lr_schedule=OmegaConf.structured(dataclass(Mine)(name="mine")))


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (-0.5, "lr_schedule=mine: factor gives -0.5 at the first update; takes a finite number from 0"),
        ("much", "lr_schedule=mine: factor gives 'much' at the first update; takes a finite number from 0"),
        (lambda at: 1 - at.update / 60, "lr_schedule=mine: factor gives -0.64"),
        (lambda at: at.of_run and math.inf, "factor gives inf at one halfway"),
        (
            lambda at: 1 / (at.of_run < 0.9),
            "lr_schedule=mine: factor raised ZeroDivisionError: division by zero (tests/",
        ),
    ],
)
def test_what_is_no_factor_is_said(given: Any, says: str) -> None:
    assert says in str(lr_schedule_problem(mine(given)))


def test_a_factor_is_right() -> None:
    assert lr_schedule_problem(mine(lambda at: 1 / at.chunks)) is None
