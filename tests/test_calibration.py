"""Verdicts on trained networks where the truth is known: a small part of what benchmarks/calibration.py does."""

import importlib
from collections import Counter
from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest
from conftest import ROOT

from tbptt.evaluation.chance import Verdict

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def trained() -> ModuleType:
    """benchmarks/trained.py: data, settings and verdicts of the whole."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "benchmarks")
        return importlib.import_module("trained")


def words(verdicts: Callable[[int], dict[str, Verdict]], n: int) -> Counter[str]:
    """How often each, of n seeds that calibration.py does not use."""
    return Counter(verdicts(seed)["loss"].word for seed in range(2_000, 2_000 + n))


def test_random_walks_are_seldom_better_than_the_mean(trained: ModuleType) -> None:
    found = words(lambda seed: trained.forecast(trained.walk(3_000, seed)), 8)
    assert found["better than"] <= 2, found  # Binomial(8, 0.1): more once in 26
    assert not found["too short to tell"]


def test_changes_that_depend_on_the_last_one_are_found_and_shuffled_ones_are_not(trained: ModuleType) -> None:
    def verdicts(*extra: str) -> Counter[str]:
        return words(lambda seed: trained.forecast(trained.walk(5_000, seed, trained.PHI), *extra), 6)

    found, shuffled = verdicts(), verdicts(trained.SHUFFLED)
    assert found["better than"] >= 4, found
    assert shuffled["better than"] <= 2, shuffled
    assert not shuffled["too short to tell"]


def test_a_study_finds_what_is_there(trained: ModuleType) -> None:
    found = trained.study(trained.walk(5_000, 2_000, trained.PHI))
    assert {case: verdict.word for case, verdict in found.items()} == {
        "SPA p < 0.05": "better than",
        "chosen trial on test": "better than",
    }


def test_a_study_of_a_random_walk_is_judged(trained: ModuleType) -> None:
    """Both verdicts are there, on the steps that there are. How often they are wrong takes many studies."""
    found = trained.study(trained.walk(3_000, 2_000))
    assert 0 <= found["SPA p < 0.05"].estimate <= 1
    assert found["SPA p < 0.05"].observations > 30
    chosen = found["chosen trial on test"]
    assert chosen.low is not None
    assert chosen.low < chosen.estimate < (chosen.high or np.nan)
