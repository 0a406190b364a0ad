"""From a config's sampler and pruner to Optuna's: the right class, its settings, points from each."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from tbptt.config.schema import Asha, Hyperband, MedianPruner, PrunerConfig, SamplerConfig
from tbptt.options.option import GROUPS
from tbptt.options.takes import MOST
from tbptt.studies.samplers import build_pruner, build_sampler
from tbptt.studies.space import Choice, Interval, IntRange, Space
from tbptt.studies.study import Budget, Study

STORAGE = "sqlite:///optuna.db"
MIXED = Space(
    (
        Interval("clip", "clip", (), 0.1, 10.0, True),
        IntRange("epochs", "epochs", (), 1, 9),
        Choice("optimizer", "optimizer", (), ("adam", "sgd")),
        Choice("schedule.chunks", "schedule.chunks", (), ("[10, 1]", "[1]", None)),
        IntRange("data.window", "data.window", (("optimizer", "sgd"),), 2, 6),
    )
)
NUMBERS = Space(MIXED.dimensions[:2])
SAMPLERS: dict[str, Any] = {
    "tpe": optuna.samplers.TPESampler,
    "random": optuna.samplers.RandomSampler,
    "gp": optuna.samplers.GPSampler,
    "cmaes": optuna.samplers.CmaEsSampler,
    "qmc": optuna.samplers.QMCSampler,
    "nsgaii": optuna.samplers.NSGAIISampler,
}


def config(name: str, **settings: Any) -> Any:
    schema = GROUPS["study/sampler"][name]
    known = {f.name for f in fields(schema)}
    return schema(name, **{k: v for k, v in settings.items() if k in known})


def points(study: Study, space: Space, sampler: SamplerConfig, total: int) -> list[dict[str, Any]]:
    """Search for what is small, to so many trials in total; the new points."""
    found = []
    budget = Budget(total, None, None, 1)
    while claimed := study.claim(space, budget, sampler, PrunerConfig("none"), 3, False):
        trial, point = claimed
        found.append(point)
        values = [abs(float(point["clip"]) - 2) + float(point["epochs"]), float(point["epochs"])]
        study.optuna.tell(trial, values[: len(study.objectives)])
    return found


def test_every_sampler_of_the_config_is_tested() -> None:
    assert set(SAMPLERS) == set(GROUPS["study/sampler"])


@pytest.mark.parametrize("name", SAMPLERS)
def test_each_sampler_suggests_points_of_the_space(here: Path, name: str) -> None:
    sampler = config(name, n_startup_trials=2, population_size=4)
    assert type(build_sampler(sampler, 0)) is SAMPLERS[name]
    study = Study(name, STORAGE, ["val/loss"])
    found = points(study, MIXED, sampler, 6)
    assert [t.state for t in study.trials()] == [TrialState.COMPLETE] * 6
    for point in found:
        assert 0.1 <= point["clip"] <= 10
        assert point["epochs"] in range(1, 10)
        assert point["schedule.chunks"] in ("[10, 1]", "[1]", None)
        assert ("data.window" in point) == (point["optimizer"] == "sgd")
    assert len({p["clip"] for p in found}) == 6


@pytest.mark.parametrize("name", sorted(set(SAMPLERS) - {"cmaes"}))
def test_each_sampler_but_cmaes_takes_several_objectives(here: Path, name: str) -> None:
    sampler = config(name, n_startup_trials=2, population_size=4)
    study = Study(name, STORAGE, ["val/loss", "time/train_seconds"])
    assert len(points(study, NUMBERS, sampler, 4)) == 4
    assert {len(t.values) for t in study.optuna.best_trials} == {2}


@pytest.mark.parametrize("name", ["random", "tpe", "cmaes", "qmc"])
def test_the_seed_decides_the_points(here: Path, name: str) -> None:
    def drawn(study: str, seed: int) -> list[Any]:
        return points(Study(study, STORAGE, ["val/loss"]), NUMBERS, config(name, seed=seed, n_startup_trials=2), 4)

    first = drawn("first", 1)
    assert drawn("same", 1) == first
    assert drawn("other", 2) != first
    assert len({p["clip"] for p in first}) == 4  # no trial draws what the one before it drew


def test_qmc_goes_on_with_its_sequence_when_it_is_resumed(here: Path) -> None:
    whole = points(Study("whole", STORAGE, ["val/loss"]), NUMBERS, config("qmc"), 6)
    parts = [points(Study("parts", STORAGE, ["val/loss"]), NUMBERS, config("qmc"), n) for n in (2, 6)]
    assert parts[0] + parts[1] == whole


def test_without_a_seed_each_study_is_another(here: Path) -> None:
    found = [points(Study(name, STORAGE, ["val/loss"]), NUMBERS, SamplerConfig("random", None), 2) for name in "ab"]
    assert found[0] != found[1]


def kind(pruner: optuna.pruners.BasePruner) -> str:
    """Its class, and that of the pruner within."""
    inner = getattr(pruner, "_wrapped_pruner", None)
    return type(pruner).__name__ + (f" of {kind(inner)}" if inner else "")


@pytest.mark.parametrize(
    ("pruner", "search", "grid"),
    [
        (PrunerConfig("auto"), "PatientPruner of MedianPruner", "NopPruner"),
        (PrunerConfig("none"), "NopPruner", "NopPruner"),
        (MedianPruner("median", patience=0), "MedianPruner", "MedianPruner"),
        (MedianPruner("median"), "PatientPruner of MedianPruner", "PatientPruner of MedianPruner"),
        (Asha("asha"), "SuccessiveHalvingPruner", "SuccessiveHalvingPruner"),
        (Hyperband("hyperband"), "HyperbandPruner", "HyperbandPruner"),
    ],
    ids=lambda value: value.name if isinstance(value, PrunerConfig) else None,
)
def test_each_pruner_is_optunas(pruner: PrunerConfig, search: str, grid: str) -> None:
    assert kind(build_pruner(pruner, 50, is_grid=False)) == search
    assert kind(build_pruner(pruner, 50, is_grid=True)) == grid


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"patience": 0, "n_warmup_steps": 1}, [False, True, True, True]),
        ({"patience": 0, "n_warmup_steps": 3}, [False, False, False, True]),
        ({"patience": 0, "n_warmup_steps": 0, "n_startup_trials": 2}, [False] * 4),
        ({"patience": 2}, [False, False, False, True]),  # three epochs without a new best
    ],
)
def test_a_pruners_settings_reach_it(here: Path, settings: dict[str, int], expected: list[bool]) -> None:
    study = Study("toy", STORAGE, ["val/loss"])
    pruner = MedianPruner("median", **({"n_startup_trials": 1} | settings))
    for value in (1.0, 2.0):
        claimed = study.claim(NUMBERS, Budget(2, None, None, 1), SamplerConfig("random"), pruner, 3, False)
        assert claimed is not None
        pruned = []
        for epoch in range(4):
            claimed[0].report(value + epoch / 10, epoch)
            pruned.append(claimed[0].should_prune())
        study.optuna.tell(claimed[0], value)
    assert pruned == expected


def test_asha_stops_the_worse_of_its_rung(here: Path) -> None:
    study = Study("toy", STORAGE, ["val/loss"])
    decisions = []
    for value in (1.0, 2.0, 3.0, 4.0):
        claimed = study.claim(NUMBERS, Budget(4, None, None, 1), SamplerConfig("random"), Asha("asha"), 50, False)
        assert claimed is not None
        claimed[0].report(value, 1)
        decisions.append(claimed[0].should_prune())
    assert decisions == [False, True, True, True]


def test_the_largest_pruner_is_one_that_memory_holds() -> None:
    """Its numbers are multiplied: a rate of 2^63 took all memory."""
    rate = next(f.metadata["takes"] for f in fields(Asha) if f.name == "min_early_stopping_rate")
    assert not rate.test(101)
    largest = Asha("asha", min_resource=MOST, reduction_factor=MOST, min_early_stopping_rate=100)
    study = optuna.create_study(pruner=build_pruner(largest, MOST, False))
    trial = study.ask()
    trial.report(1.0, 1)
    assert not trial.should_prune()
