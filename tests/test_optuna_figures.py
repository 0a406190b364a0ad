"""The report's figures of keys and objectives: what they draw is what the trials say, and in which order."""

import html
import json
import math
import random
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest
from studies import HOSTILE, made_study, made_trial, numbered

from tbptt.reports import figures, optuna_figures
from tbptt.reports.drawable import drawable
from tbptt.reports.explained import explained
from tbptt.reports.optuna_figures import EXPLAINED, View, sections
from tbptt.reports.pareto import pareto
from tbptt.studies.ranking import best_first

SPEED = "time/timesteps_per_second"  # maximized


def only(of: list[optuna_figures.Section], title: str) -> go.Figure:
    return next(section.figures[0] for section in of if section.title.startswith(title))


def searched(n: int, seed: int = 0, sign: int = 1) -> list[Any]:
    """Trials whose first objective depends on clip alone, and whose second is the best where the first is the worst."""
    rng, lists = random.Random(seed), ("[100, 50, 10, 2, 1]", "[50, 10, 1]", "[10]")
    trials = []
    for _ in range(n):
        point = {
            "clip": math.exp(rng.uniform(-2, 2)),
            "schedule.chunks": rng.choice(lists),
            "optimizer": rng.choice("ab"),
        }
        value = abs(math.log(point["clip"])) + 0.01 * rng.random()
        trials.append(made_trial(values=[sign * value, 1000 * value], params=point, curve=[2.0]))
    return numbered(trials)


def test_history_follows_the_objectives_direction() -> None:
    trials = numbered([made_trial(values=v) for v in ([3.0, 10.0], [1.0, 30.0], [2.0, 20.0])])
    found, _ = sections(trials, ["val/loss", SPEED])
    assert list(only(found, "History of val/loss").data[1].y) == [3.0, 1.0, 1.0]
    assert list(only(found, f"History of {SPEED}").data[1].y) == [10.0, 30.0, 30.0]


def test_history_counts_the_trials_that_are_not_complete() -> None:
    trials = numbered([made_trial("PRUNED"), made_trial(values=[3.0]), made_trial("FAIL"), made_trial(values=[1.0])])
    dots = only(sections(trials, ["val/loss"])[0], "History").data[0]
    assert (list(dots.x), list(dots.y), list(dots.customdata)) == ([1, 3], [3.0, 1.0], [1, 3])


@pytest.mark.parametrize("n", [8, 60])
def test_keys_are_ordered_by_what_they_explain_and_as_typed_where_that_is_not_known(n: int) -> None:
    rng = random.Random(3)
    trials = []
    for _ in range(n):
        point = {
            "optimizer": rng.choice("ab"),
            "clip": math.exp(rng.uniform(-2, 2)),
            "lr": math.exp(rng.uniform(-6, 0)),
        }
        trials.append(made_trial(values=[abs(math.log(point["clip"])), 1e4 * point["lr"]], params=point))
    for i, (objective, key) in enumerate((("val/loss", "clip"), (SPEED, "lr"))):
        shares = [e.key for e in explained(numbered(trials), i, objective)]
        assert shares[:1] == ([] if n < 10 else [key])
        view = View(trials, objective, i, "")
        assert view.keys == (shares or ["optimizer", "clip", "lr"])
        assert [f.layout.xaxis.title.text for f in view.slices().figures] == view.keys
        assert ("explains most first" in view.slices().note) == (n >= 10)


def test_no_second_figure_says_what_a_key_is_worth() -> None:
    """Shares by another measure, which add up to one whatever they rest on, contradicted those with intervals."""
    titles = [section.title for section in sections(searched(20), ["val/loss"])[0]]
    assert titles == [
        "History",
        EXPLAINED,
        "Parallel coordinates",
        "Slices",
        "Two keys together: clip against schedule.chunks",
    ]


def test_two_keys_of_numbers_have_a_contour() -> None:
    rng = random.Random(0)
    points_ = [{"clip": math.exp(rng.uniform(-2, 2)), "schedule.start": rng.randint(2, 400)} for _ in range(12)]
    trials = numbered([made_trial(values=[rng.random()], params=point) for point in points_])
    (together,) = [s for s in sections(trials, ["val/loss"])[0] if s.title.startswith("Two keys")]
    assert together.title == "Two keys together: clip against schedule.start"
    assert "interpolated" in together.note
    assert "median" not in together.note
    assert isinstance(together.figures[0].data[0], go.Contour)


@pytest.mark.parametrize("maximized", [False, True])
def test_between_values_without_an_order_nothing_is_drawn_but_medians_and_how_many_they_are_of(maximized: bool) -> None:
    objective = SPEED if maximized else "val/loss"
    trials = searched(40, sign=-1 if maximized else 1)
    (together,) = [s for s in sections(trials, [objective])[0] if s.title.startswith("Two keys")]
    assert "interpolated" not in together.note
    (figure,) = together.figures
    (table,) = figure.data
    assert isinstance(table, go.Heatmap)
    lists = ["[100, 50, 10, 2, 1]", "[10]", "[50, 10, 1]"]
    assert [html.unescape(t).replace("<br>", " ") for t in figure.layout.xaxis.ticktext] == lists
    assert table.reversescale is not maximized  # a dark cell is a good one
    quarters = np.quantile([t.params["clip"] for t in trials], [0.25, 0.5, 0.75])
    for row, (cells, texts) in enumerate(zip(table.z, table.text, strict=True)):
        for cell, text, chunks in zip(cells, texts, lists, strict=True):
            inside = [
                t.values[0]
                for t in trials
                if t.params["schedule.chunks"] == chunks and np.searchsorted(quarters, t.params["clip"]) == row
            ]
            assert cell == (pytest.approx(np.median(inside)) if inside else None)
            assert text == (f"{np.median(inside):.3g}<br>n = {len(inside)}" if inside else "")
    low, high = figure.layout.yaxis.ticktext[0].replace("<br>", " ").split(" to ")
    assert float(low) == pytest.approx(min(t.params["clip"] for t in trials), rel=0.01)
    assert float(high) <= quarters[0] * 1.01


def test_a_value_that_is_no_number_leaves_no_contour_and_numbers_are_in_their_order() -> None:
    points_ = [{"clip": c, "schedule": s} for c in (10.0, 2.0, None) for s in ("full", "article")]
    trials = numbered([made_trial(values=[float(i)], params=point) for i, point in enumerate(points_)])
    (figure,) = next(s for s in sections(trials, ["val/loss"])[0] if s.title.startswith("Two keys")).figures
    assert list(figure.layout.yaxis.ticktext) == ["2", "10", "null"]
    assert list(figure.layout.xaxis.ticktext) == ["article", "full"]
    assert [list(row) for row in figure.data[0].z] == [[3.0, 2.0], [1.0, 0.0], [5.0, 4.0]]


def test_contour_needs_keys_that_are_there_together() -> None:
    trials = numbered(
        [made_trial(values=[float(i)], params={"clip" if i % 2 else "schedule.start": i}) for i in range(8)]
    )
    found, missing = sections(trials, ["val/loss"])
    assert not [s for s in found if s.title.startswith("Two keys")]
    assert missing[-1] == "Two keys together: needs two keys that vary together."


def test_conditional_keys_have_a_slice_of_the_trials_that_have_them() -> None:
    trials = [
        made_trial(values=[float(i)], params={"clip": 1.0 + i, **({"schedule.start": i} if i % 2 else {})})
        for i in range(10)
    ]
    found, missing = sections(numbered(trials), ["val/loss"])
    slices = next(s.figures for s in found if s.title == "Slices")
    dots = {figure.layout.xaxis.title.text: list(figure.data[0].customdata) for figure in slices}
    assert dots == {"clip": list(range(10)), "schedule.start": [1, 3, 5, 7, 9]}
    assert missing == []


def test_slices_name_categories_as_they_are_typed_and_numbers_in_order() -> None:
    from optuna.distributions import CategoricalDistribution as Choice

    points_ = [{"clip": c, "optimizer": o, "on": b} for c in (10.0, 2.0, None) for o in "ab" for b in (True, False)]
    spaces = {"clip": Choice([10.0, 2.0, None]), "optimizer": Choice(["b", "a"]), "on": Choice([True, False])}
    trials = numbered([made_trial(values=[float(i)], params=p) for i, p in enumerate(points_)], **spaces)
    axes = {
        figure.layout.xaxis.title.text: list(figure.layout.xaxis.ticktext)
        for s in sections(trials, ["val/loss"])[0]
        if s.title == "Slices"
        for figure in s.figures
    }
    assert axes == {"clip": ["2", "10", "null"], "optimizer": ["a", "b"], "on": ["false", "true"]}
    by_value = {t.number: t.params["clip"] for t in trials}
    (figure,) = [
        f
        for s in sections(trials, ["val/loss"])[0]
        if s.title == "Slices"
        for f in s.figures
        if f.layout.xaxis.title.text == "clip"
    ]
    for x, number in zip(figure.data[0].x, figure.data[0].customdata, strict=True):
        assert x == repr(figures.short_value(by_value[number]))


def test_lines_of_parallel_coordinates_know_their_trial_unless_two_share_a_value() -> None:
    trials = searched(30)
    trials[3].values = trials[4].values
    lines = only(sections(trials, ["val/loss"])[0], "Parallel").data[:-1]
    numbers = [line.meta["trial"] for line in lines]
    assert sorted(n for n in numbers if n is not None) == [n for n in range(30) if n not in (3, 4)]
    for line in lines:
        if (number := line.meta["trial"]) is not None:
            assert line.customdata[0][1] == f"{trials[number].values[0]:.3g}"


def test_no_figure_is_larger_than_a_browser_draws_smoothly() -> None:
    rng = random.Random(5)
    trials = numbered(
        [
            made_trial(values=[rng.random()], params={f"key{i}": rng.uniform(1, 100) for i in range(12)}, curve=[1.0])
            for _ in range(1000)
        ]
    )
    found, missing = sections(trials, ["val/loss"])
    assert missing == []
    most = optuna_figures.MOST_LINES
    assert len(only(found, "Parallel").data) <= most + 1
    assert len(only(found, "Parallel").layout.xaxis.tickvals) == optuna_figures.MOST_AXES + 1
    assert np.array(only(found, "Two keys").data[0].z).size <= (most + 2) ** 2
    assert len(next(s.figures for s in found if s.title == "Slices")) == optuna_figures.MOST_AXES
    assert "Drawn: 147 of 1000 complete trials" in next(s.note for s in found if s.title.startswith("Parallel"))
    best = best_first(trials, "val/loss")[: most // 2]
    assert {t.number for t in best} <= set(only(found, "Two keys").data[1].customdata)


def test_pareto_front_is_optunas(here: Any) -> None:
    rng = random.Random(6)
    study = made_study([made_trial(values=[rng.random(), rng.random()]) for _ in range(60)], ["val/loss", SPEED])
    section = pareto(study.trials(), ["val/loss", SPEED])
    assert section is not None
    dominated, front = section.figures[0].data
    assert sorted(front.customdata) == sorted(t.number for t in study.optuna.best_trials)
    assert sorted([*front.customdata, *dominated.customdata]) == list(range(60))
    assert pareto(study.trials(), ["val/loss"]) is None


def test_the_copy_that_is_drawn_keeps_numbers_and_nothing_else_that_is_large() -> None:
    trials = [made_trial("PRUNED"), made_trial(values=[1 / 3, 2.0], params={HOSTILE: HOSTILE, "clip": 2 / 3})]
    (copy,) = drawable(numbered(trials)[1:], ["val/loss"], 0).trials
    assert (copy.number, copy.state.name) == (1, "COMPLETE")
    assert copy.values == [0.333333]
    assert copy.params["clip"] == 0.6667
    assert html.escape(HOSTILE, quote=False) in copy.params
    assert copy.user_attrs == {}
    assert trials[1].params == {HOSTILE: HOSTILE, "clip": 2 / 3}


def test_a_rounded_number_stays_in_its_range() -> None:
    from optuna.distributions import FloatDistribution

    low, high = 0.12344, 0.65438
    trials = [made_trial(values=[v], params={"clip": v}) for v in (low, high)]
    copy = drawable(numbered(trials, clip=FloatDistribution(low, high)), ["val/loss"], 0)
    assert [t.params["clip"] for t in copy.trials] == [low, high]


def test_hostile_names_reach_no_figure_as_markup() -> None:
    values = (HOSTILE, "b", HOSTILE + "2")
    trials = [
        made_trial(values=[float(i), 1.0 + i % 3], params={HOSTILE: values[i % 3], "clip": 1.0 + i}) for i in range(12)
    ]
    found, missing = sections(numbered(trials), ["val/loss", SPEED])
    front = pareto(trials, ["val/loss", SPEED])
    assert front is not None
    assert missing == []
    for section in [*found, front]:
        for figure in section.figures:
            text = figure.to_json()
            assert "</script" not in text
            for piece in strings(json.loads(text)):
                assert "<script" not in piece
                assert "<img" not in piece


def strings(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [s for item in value.values() for s in strings(item)]
    if isinstance(value, list):
        return [s for item in value for s in strings(item)]
    return [value] if isinstance(value, str) else []


def test_one_figure_says_what_explains_each_objective_with_its_marks_of_chance() -> None:
    rng, trials = random.Random(3), []
    for _ in range(40):
        point = {"clip": rng.uniform(1, 9), "lr": rng.uniform(1, 9)}
        trials.append(made_trial(values=[abs(point["clip"] - 5), 1e4 + point["lr"]], params=point))
    trials, objectives = numbered(trials), ["val/loss", SPEED]
    (section,) = [s for s in sections(trials, objectives)[0] if s.title.startswith(EXPLAINED)]
    assert section.title == EXPLAINED
    (figure,) = section.figures
    bars, marks = figure.data[::2], figure.data[1::2]
    assert [bar.name for bar in bars] == objectives
    assert [mark.showlegend for mark in marks] == [True, False]
    for i, (objective, bar, mark) in enumerate(zip(objectives, bars, marks, strict=True)):
        found = explained(trials, i, objective)
        assert list(bar.x) == [e.share for e in found]
        assert list(mark.x) == [e.chance for e in found]
        assert [row[0] for row in bar.customdata] == [e.key for e in found]
        assert list(bar.y) == list(mark.y)
        rows = dict(zip(figure.layout.yaxis.tickvals, figure.layout.yaxis.ticktext, strict=True))
        assert [rows[round(y)].split()[0] for y in bar.y] == [e.key for e in found]
    assert not set(bars[0].y) & set(bars[1].y)  # side by side
