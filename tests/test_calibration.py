"""How often verdicts are wrong where the truth is known: what the benchmark calibration.py found, and a part of it."""

import importlib
from collections import Counter
from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest
from conftest import ROOT

from tbptt.evaluation.chance import Verdict


def of_benchmarks(name: str) -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "benchmarks")
        return importlib.import_module(name)


@pytest.fixture(scope="module")
def trained() -> ModuleType:
    """benchmarks/trained.py: data, settings and verdicts of the whole."""
    return of_benchmarks("trained")


@pytest.fixture(scope="module")
def calibration() -> ModuleType:
    """benchmarks/calibration.py."""
    return of_benchmarks("calibration")


# --- the whole ------------------------------------------------------------------------------------------------------


def test_the_page_shows_what_the_file_has(calibration: ModuleType) -> None:
    page = (ROOT / "docs" / "evaluation.md").read_text().splitlines()
    lines = calibration.read(calibration.EVERY_INTERVAL)
    assert {line["row"] for line in lines} == set(calibration.ROWS)
    assert [line for line in calibration.table(lines) if line not in page] == []
    assert len({(line["row"], line["case"], line["seed"]) for line in lines}) == len(lines)  # no seed was run twice


@pytest.mark.parametrize(
    ("row", "better", "short", "seeds", "held"),
    [
        ("walks-forecast", 4, 0, 40, "holds"),
        ("walks-forecast", 5, 0, 40, "FAILS"),
        ("walks-forecast", 1, 3, 40, "holds"),
        ("walks-forecast", 2, 3, 40, "FAILS"),
        ("walks-forecast", 0, 0, 39, ""),
        ("ar", 32, 0, 40, "holds"),
        ("ar", 31, 0, 40, "FAILS"),
        ("ar", 31, 9, 40, "FAILS"),
        ("independent-series", 500, 0, 1_000, ""),
    ],
)
def test_a_row_holds_where_it_came_out_as_it_must(
    calibration: ModuleType, row: str, better: int, short: int, seeds: int, held: str
) -> None:
    found = ["better than"] * better + ["too short to tell"] * short
    found += ["cannot be told from"] * (seeds - len(found))
    lines = [{"row": row, "case": "loss", "seed": str(seed), "word": word} for seed, word in enumerate(found)]
    (one,) = calibration.came_out(lines)
    assert one.held == held
    assert f" {better} better than, 0 worse than, " in calibration.summary(lines)[0]


def test_the_share_has_its_exact_interval(calibration: ModuleType) -> None:
    words = ["better than", "worse than", "worse than", "worse than"]
    lines = [{"row": "ar", "case": "loss", "seed": str(seed), "word": word} for seed, word in enumerate(words)]
    # Clopper and Pearson: (1 - low)^4 = 0.975; and 1 of 4 or fewer comes out in 2.5 % with high.
    low = 1 - 0.975**0.25
    high = next(p for p in np.linspace(0, 1, 100_001) if (1 - p) ** 4 + 4 * p * (1 - p) ** 3 <= 0.025)
    (one,) = calibration.came_out(lines)
    assert one.share == f"25.0% ({low:.1%} to {high:.1%})"


# --- a small part of it, on seeds that it does not use -----------------------------------------------------------


def words(verdicts: Callable[[int], dict[str, Verdict]], n: int) -> Counter[str]:
    """How often each, of n seeds."""
    return Counter(verdicts(seed)["loss"].word for seed in range(2_000, 2_000 + n))


@pytest.mark.slow
def test_random_walks_are_seldom_better_than_the_mean(trained: ModuleType) -> None:
    found = words(lambda seed: trained.forecast(trained.walk(3_000, seed)), 8)
    assert found["better than"] <= 2, found  # Binomial(8, 0.1): more once in 26
    assert not found["too short to tell"]


@pytest.mark.slow
def test_changes_that_depend_on_the_last_one_are_found_and_shuffled_ones_are_not(trained: ModuleType) -> None:
    def verdicts(*extra: str) -> Counter[str]:
        return words(lambda seed: trained.forecast(trained.walk(5_000, seed, trained.PHI), *extra), 6)

    found, shuffled = verdicts(), verdicts(trained.SHUFFLED)
    assert found["better than"] >= 4, found
    assert shuffled["better than"] <= 2, shuffled
    assert not shuffled["too short to tell"]


@pytest.mark.slow
def test_a_study_finds_what_is_there(trained: ModuleType) -> None:
    found = trained.study(trained.walk(5_000, 2_000, trained.PHI))
    assert {case: verdict.word for case, verdict in found.items()} == {
        "SPA p < 0.05": "better than",
        "chosen trial on test": "better than",
    }


@pytest.mark.slow
def test_a_study_of_a_random_walk_is_judged(trained: ModuleType) -> None:
    """Both verdicts are there, on the steps that there are. How often they are wrong takes many studies."""
    found = trained.study(trained.walk(3_000, 2_000))
    assert 0 <= found["SPA p < 0.05"].estimate <= 1
    assert found["SPA p < 0.05"].observations > 30
    chosen = found["chosen trial on test"]
    assert chosen.low is not None
    assert chosen.low < chosen.estimate < (chosen.high or np.nan)
