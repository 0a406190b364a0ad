"""A study of any size has a page that opens: what is drawn is bounded and said; what is answered is of all trials."""

import base64
import csv
import gzip
import json
import math
import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial
from pages import page_of
from studies import made_study, made_trial, numbered

from tbptt.reports import thinning
from tbptt.reports.explained import explained, judged
from tbptt.reports.optuna_figures import View, sections
from tbptt.reports.page import write_report
from tbptt.reports.pairs import paired


def many(n: int) -> list[FrozenTrial]:
    """Every third pruned; the best is the last complete one."""
    rng, trials = random.Random(0), []
    for i in range(n):
        params = {"clip": rng.uniform(1, 9), "optimizer": rng.choice(["adam", "sgd"])}
        worst = 3.0 - i / n
        trials.append(
            made_trial("PRUNED" if i % 3 == 2 else "COMPLETE", values=[worst], params=params, curve=[4.0, worst])
        )
    return trials


def drawn_of(path: Path) -> dict[str, Any]:
    """What the page's scripts draw."""
    text = re.search(r'id="drawn">([^<]*)<', path.read_text(encoding="utf-8"))
    assert text
    return json.loads(gzip.decompress(base64.b64decode(text[1])))  # type: ignore[no-any-return]


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page that holds a hundredth of what it really does."""
    for name in ("MOST_DRAWN", "MOST_ROWS"):
        monkeypatch.setattr(thinning, name, 20)
    for function in (thinning.at_random, thinning.best_and_even, View.choice):
        monkeypatch.setattr(function, "__defaults__", (20,))


def test_a_large_study_has_its_best_on_the_page_says_so_and_has_all_in_the_table_file(here: Path, few: None) -> None:
    path = write_report(made_study(many(90)))
    page, text = page_of(path), path.read_text(encoding="utf-8")
    assert "The best 20 of 90; all are in trials.csv." in page.text
    assert [row[0] for row in page.tables["trials"][1:4]] == ["88", "87", "85"]
    assert len(page.tables["trials"]) == 1 + 20
    assert "60 complete, 30 pruned, of 90" in page.text
    assert "Best: trial 88" in page.text
    assert text.count("Drawn: 20 of 60 complete trials, the best and an even choice of the others.") == 3
    assert "Drawn: 20 of 90 trials, chosen at random." in page.text  # the timeline's
    labels = set(drawn_of(path)["labels"])
    assert 20 < len(labels) < 90
    assert {row[0] for row in page.tables["trials"][1:11]} <= labels
    with path.with_name("trials.csv").open(encoding="utf-8") as file:
        assert [row["trial"] for row in csv.DictReader(file)] == [str(i) for i in range(90)]


def test_a_study_of_a_thousand_trials_is_drawn_whole() -> None:
    trials = numbered(many(1000))
    some, every = judged(trials)
    assert len(some) == len(every) == 1000
    assert thinning.at_random(trials) == trials
    assert thinning.best_and_even(trials) == trials
    assert len(paired(trials)[0]) == len(View(trials, "val/loss", 0, "").complete) == 667


def test_the_best_so_far_is_of_all_trials_also_of_those_that_are_not_drawn(few: None) -> None:
    rng = random.Random(1)
    trials = numbered([made_trial(values=[round(rng.expovariate(1.0), 3)], curve=[1.0]) for _ in range(500)])
    figure = next(section for section in sections(trials, ["val/loss"])[0] if section.title == "History").figures[0]
    dots, best = figure.data
    assert len(dots.x) == 20
    least = np.minimum.accumulate([t.values[0] for t in trials])
    at = np.searchsorted(best.x, np.arange(500), side="right") - 1
    assert np.array(best.y)[at].tolist() == least.tolist()


def test_shares_of_many_trials_are_reckoned_from_some_at_random(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(2)
    trials = numbered(
        [made_trial(values=[c + rng.random()], params={"clip": c}) for c in (rng.uniform(0, 1) for _ in range(600))]
    )
    (whole,) = explained(trials, 0, "val/loss")
    monkeypatch.setattr("tbptt.reports.explained.MOST_JUDGED", 200)
    some, every = judged(trials)
    assert (len(some), len(every)) == (200, 600)
    assert {t.number % 3 for t in some} == {0, 1, 2}  # of a grid, every value of each key
    (share,) = explained(trials, 0, "val/loss")
    assert share.trials == 200
    assert abs(share.share - whole.share) < 0.1


@pytest.mark.parametrize("n", [1, 19, 20, 21, 39, 41, 1000])
def test_a_choice_is_in_order_and_never_larger_than_asked(n: int) -> None:
    for chosen in (thinning.at_random(range(n), 20), thinning.best_and_even(range(n), 20)):
        assert chosen == sorted(set(chosen))
        assert min(n, 11) <= len(chosen) <= 20
    assert thinning.best_and_even(range(n), 20)[:10] == list(range(min(n, 10)))


def test_what_is_read_at_once_is_what_optuna_reads(here: Path) -> None:
    spaces = {
        "clip": FloatDistribution(0.1, 9, log=True),
        "epochs": IntDistribution(1, 9, step=2),
        "optimizer": CategoricalDistribution(["adam", None, 2.0, True]),
    }
    study = made_study([])
    for i, state in enumerate((*TrialState, TrialState.COMPLETE)):
        done = state == TrialState.COMPLETE
        params = {"optimizer": ["adam", None, 2.0, True][i % 4], "clip": 0.3 * (i + 1), "epochs": 3}
        study.optuna.add_trial(
            create_trial(
                state=state,
                values=[math.inf if i == 5 else 1.5] if done else None,
                params=params,
                distributions=spaces,
                user_attrs={"curves": {"val/loss": [1.0, None]}, "n": i},
                system_attrs={"fixed_params": {"clip": i}},
                intermediate_values={2: 1.0, 1: math.inf, 0: -math.inf},
            )
        )
    study.optuna.add_trial(create_trial(state=TrialState.FAIL, user_attrs={"same_as": 0}))
    made_study([made_trial(values=[2.0])], name="another")
    read = study.read()
    assert read == study.trials()
    assert [type(t.params["optimizer"]) for t in read] == [type(t.params["optimizer"]) for t in study.trials()]
    assert [list(t.params) for t in read] == [list(t.params) for t in study.trials()]
