"""Series with times in common: cut at the same times, and judged by time."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from parts import WARM, WINDOW, Told, forecast, of_panel, panel_of, q_values, scored, walks

from tbptt.data.panel import Panel, Series
from tbptt.data.prices import fingerprint
from tbptt.data.split import Split, load_split
from tbptt.evaluation.data_words import described
from tbptt.evaluation.judged import judge
from tbptt.evaluation.steps import aligned
from tbptt.tasks.prepare import Prepared, prepare

AHEAD = forecast(1, 3).ahead
EVERY = {"a": range(400), "b": range(400), "c": range(400)}
# From the beginning, from later on, until some time ago, and with days that others do not have.
ROWS = {
    "whole": range(600),
    "late": range(150, 600),
    "ended": range(560),
    "weekdays": [row for row in range(600) if row % 7 < 5],
}
PARTS = ("train", "val", "test")


def own_rows(panel: Panel, name: str) -> list[int]:
    return [int(row) for row in panel.series[name].rows]


def slow_borders(panel: Panel, val_fraction: float, test_fraction: float) -> tuple[int, int]:
    """The first rows of val and test, by counting prices one row after another from the end."""
    rows = [row for name in panel.series for row in own_rows(panel, name)]
    test = max(rows) + 1
    while sum(row >= test - 1 for row in rows) <= math.floor(test_fraction * len(rows) + 1e-9):
        test -= 1
    val = test
    while sum(val - 1 <= row < test for row in rows) <= math.floor(val_fraction * len(rows) + 1e-9):
        val -= 1
    return val, test


def scored_rows(split: Split, part: str, name: str) -> list[int]:
    """The rows of a part's own prices, without what it looks back to."""
    if part == "train":
        return [int(row) for row in split.rows_of[part][name]]
    return [int(row) for row in split.rows_of[part][name][split.window + split.warm[part][name] :]]


# --- borders --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("val_fraction", "test_fraction"), [(0.25, 0.25), (0.2, 0.2), (0.17, 0.29), (0.3, 0.0)])
def test_all_series_are_cut_at_the_same_rows(val_fraction: float, test_fraction: float) -> None:
    panel = panel_of(ROWS)
    data = of_panel(panel, val_fraction=val_fraction, test_fraction=test_fraction, warm_steps=3)
    split = load_split(data, forecast(1, 3))
    val, test = slow_borders(panel, val_fraction, test_fraction)
    assert split.by_time
    for name, series in panel.series.items():
        rows = own_rows(panel, name)
        bounds = {"train": (0, val), "val": (val, test), "test": (test, 600)}
        for part in PARTS if test_fraction else PARTS[:2]:
            first, end = bounds[part]
            assert scored_rows(split, part, name) == [row for row in rows if first <= row < end]
            of_row = dict(zip(rows, series.prices, strict=True))
            expected = [of_row[int(row)] for row in split.rows_of[part][name]]
            assert getattr(split, part)[name].tolist() == expected
    assert bool(split.test) is bool(test_fraction)
    assert list(split.val) == list(split.train) == list(panel.series)


def test_test_and_val_have_at_most_their_fraction_of_all_prices_and_one_row_more_would_be_too_many() -> None:
    panel = panel_of(ROWS)
    total = sum(len(rows) for rows in ROWS.values())
    split = load_split(of_panel(panel, val_fraction=0.23, test_fraction=0.21), forecast(1, 3))
    for part, fraction in (("val", 0.23), ("test", 0.21)):
        count = sum(len(scored_rows(split, part, name)) for name in ROWS)
        assert fraction * total - len(ROWS) < count <= fraction * total


def test_folds_are_cut_from_all_prices_before_test_at_common_rows() -> None:
    panel = panel_of(ROWS)
    _, test = slow_borders(panel, 0.2, 0.2)
    rows = sorted(row for name in ROWS for row in own_rows(panel, name) if row < test)
    borders = []
    for i in range(5):
        border = 0
        while border < test and sum(row <= border for row in rows) <= len(rows) * i // 4:
            border += 1
        borders.append(border)
    assert borders[4] == test
    for window in ("expanding", "rolling"):
        for k in (2, 3):
            changes = {"fold": f"{k}/3", "fold_window": window, "warm_steps": 2}
            split = load_split(of_panel(panel, test_fraction=0.2, **changes), forecast(1, 3))
            for name in ROWS:
                own = own_rows(panel, name)
                assert scored_rows(split, "val", name) == [r for r in own if borders[k] <= r < borders[k + 1]]
                assert scored_rows(split, "test", name) == [r for r in own if r >= test]
                first = 0
                if window == "rolling":  # and what its first step looks back to
                    first = max(0, sum(r < borders[k - 1] for r in own) - WINDOW)
                assert scored_rows(split, "train", name) == [r for r in own[first:] if r < borders[k]]


def test_a_panel_without_a_price_is_refused_by_name() -> None:
    none = Series(np.empty(0), np.empty(0, dtype=np.int64), np.empty((0, 0)))
    with pytest.raises(ValueError, match=r"^empty has 0 prices, 0 of them in its training part"):
        load_split(of_panel(Panel({"empty": none}, shared=True)), forecast(1))


@settings(max_examples=150, deadline=None)
@given(
    n=st.integers(20, 300),
    series=st.integers(1, 4),
    val=st.floats(0.01, 0.6),
    test=st.one_of(st.just(0.0), st.floats(0.01, 0.6), st.sampled_from([0.29, 0.07, 0.57, 1 / 3])),
    fold=st.one_of(st.none(), st.sampled_from(["1/1", "1/3", "2/3", "3/3", "4/7"])),
    window=st.sampled_from(["expanding", "rolling"]),
    gap=st.integers(1, 5),
    surrogate=st.sampled_from([None, "shuffle", "blocks", "signs"]),
)
def test_series_with_the_same_rows_are_cut_and_drawn_as_each_by_itself(
    n: int, series: int, val: float, test: float, fold: str | None, window: str, gap: int, surrogate: str | None
) -> None:
    panel = panel_of({f"s{i}": range(7, 7 + n * gap, gap) for i in range(series)}, inputs=1)
    changes = {"val_fraction": val, "test_fraction": test, "fold": fold, "fold_window": window, "warm_steps": 9}
    changes["surrogate"] = surrogate
    found: list[Split | str] = []
    for how in ("each", "time"):
        try:
            found.append(load_split(of_panel(panel, split=how, **changes), forecast(2)))
        except ValueError as error:
            found.append(str(error))
    each, by_time = found
    if isinstance(each, str) or isinstance(by_time, str):
        assert isinstance(each, str)
        assert isinstance(by_time, str)
        assert by_time.startswith(each)
        return
    assert each.warm == by_time.warm
    for part in PARTS:
        assert list(getattr(each, part)) == list(getattr(by_time, part))
        for name, prices in getattr(each, part).items():
            assert prices.tobytes() == getattr(by_time, part)[name].tobytes()
            assert each.rows_of[part][name].tolist() == by_time.rows_of[part][name].tolist()
            assert each.inputs[part][name].tobytes() == by_time.inputs[part][name].tobytes()
    assert each.fingerprint() == by_time.fingerprint()
    assert (each.by_time, by_time.by_time) == (False, True)


def test_series_without_times_in_common_are_cut_each_by_itself() -> None:
    series = walks((400, 300))
    of_arrays = Panel.of_arrays(series)
    splits = [load_split(of_panel(of_arrays, split=how), forecast(1)) for how in ("each", "time")]
    for part in PARTS:
        for name, prices in getattr(splits[0], part).items():
            np.testing.assert_array_equal(getattr(splits[1], part)[name], prices)
    assert [len(splits[1].train[name]) for name in series] == [200, 150]
    assert not splits[1].by_time
    panel = panel_of(ROWS)
    each = load_split(of_panel(panel, split="each"), forecast(1))
    assert not each.by_time
    assert [len(each.train[name]) for name in ROWS] == [n - 2 * (n // 4) for n in (600, 450, 560, 430)]


def test_the_series_that_are_there_decide_where_is_cut() -> None:
    panel = panel_of(ROWS)
    split = load_split(of_panel(panel.only(["ended", "late"])), forecast(1))
    val, test = slow_borders(panel.only(["ended", "late"]), 0.25, 0.25)
    assert (val, test) != slow_borders(panel, 0.25, 0.25)
    assert list(split.test) == ["ended", "late"]
    assert scored_rows(split, "val", "late") == list(range(val, test))
    assert split.panel is not None
    assert list(split.panel.series) == ["ended", "late"]


@pytest.mark.parametrize("fold", [None, "2/3"])
def test_the_steps_that_are_scored_do_not_depend_on_the_window_so_trials_can_be_compared(fold: str | None) -> None:
    panel = panel_of(ROWS)
    rows = []
    for window in (2, 30):
        data = prepare(of_panel(panel, window=window, fold=fold), forecast(1, 3))
        table = by_row(data, "val", data.val.targets[..., 0])
        rows.append([(row, name) for row, name in table.stack().index])
    assert rows[0] == rows[1]


# --- what goes with the prices --------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["time", "each"])
def test_inputs_and_rows_are_views_of_the_same_steps_as_the_prices(how: str) -> None:
    panel = panel_of(ROWS, inputs=2)
    split = load_split(of_panel(panel, split=how), forecast(1, 3))
    for name, series in panel.series.items():
        for part in PARTS:
            prices, inputs, rows = getattr(split, part)[name], split.inputs[part][name], split.rows_of[part][name]
            at = np.searchsorted(series.rows, rows)
            np.testing.assert_array_equal(prices, series.prices[at])
            np.testing.assert_array_equal(inputs, series.inputs[at])
            assert np.shares_memory(inputs, series.inputs)
            assert np.shares_memory(rows, series.rows)
    without = load_split(of_panel(panel_of(ROWS), split=how), forecast(1, 3))
    assert without.inputs == {}


def test_a_fingerprint_knows_the_inputs_and_is_as_before_without_them() -> None:
    plain = load_split(of_panel(panel_of(EVERY)), forecast(1, 3))
    expected = {f"training/{name}": prices for name, prices in plain.train.items()}
    expected |= {f"held_out/{name}": prices[WARM:] for name, prices in plain.val.items()}
    expected |= {f"test/{name}": prices[WARM:] for name, prices in plain.test.items()}
    assert plain.fingerprint() == fingerprint(expected)
    assert plain.test_fingerprint() == fingerprint({n: prices[WARM + WINDOW :] for n, prices in plain.test.items()})

    panel = panel_of(EVERY, inputs=2)
    splits = [load_split(of_panel(panel, warm_steps=n), forecast(1, 3)) for n in (0, 7)]
    assert len({split.fingerprint() for split in splits}) == len({split.test_fingerprint() for split in splits}) == 1
    bare = load_split(of_panel(replace(panel, inputs=())), forecast(1, 3))
    assert splits[0].fingerprint() != bare.fingerprint()
    assert splits[0].test_fingerprint() != bare.test_fingerprint()
    for row, in_test in ((10, False), (250, False), (350, True)):
        moved = {name: replace(series, inputs=series.inputs.copy()) for name, series in panel.series.items()}
        moved["b"].inputs[row, 1] += 1
        other = load_split(of_panel(replace(panel, series=moved)), forecast(1, 3))
        assert other.fingerprint() != splits[0].fingerprint()
        assert (other.test_fingerprint() != splits[0].test_fingerprint()) is in_test


# --- judged by time -------------------------------------------------------------------------------------------------


def by_row(prepared: Prepared, part: str, values: torch.Tensor) -> pd.DataFrame:
    """Values of the scored steps, a row a time and a column a series: what pandas makes of series with an index."""
    split = prepared.split
    found = {}
    for b, name in enumerate(getattr(split, part)):
        first, rows = split.warm[part][name], split.rows_of[part][name]
        steps = len(rows) - split.window - split.ahead
        index = rows[split.window + first : split.window + steps]
        found[name] = pd.Series(values[b, first:steps].double().numpy(), index=index)
    return pd.DataFrame(found).sort_index()


@pytest.mark.parametrize("part", ["val", "test"])
def test_series_are_put_side_by_side_by_time(part: str) -> None:
    data = prepare(of_panel(panel_of(ROWS)), forecast(1, 3))
    sequences = data.val if part == "val" else data.test()
    assert sequences is not None
    assert sequences.rows is not None
    numbers = torch.arange(sequences.targets[..., 0].numel(), dtype=torch.float64).reshape(sequences.targets.shape[:2])
    numbers[~sequences.mask.bool()] = math.nan  # type: ignore[union-attr]
    found, table = aligned(sequences, number=numbers), by_row(data, part, numbers)
    assert found.present.tolist() == table.notna().to_numpy().T.tolist()
    np.testing.assert_array_equal(found.values["number"], table.fillna(0).to_numpy().T)
    np.testing.assert_array_equal(found.sums("number"), table.sum(axis=1))
    np.testing.assert_allclose(found.means("number"), table.mean(axis=1), rtol=1e-15)
    np.testing.assert_array_equal(found.by_series("number"), table.sum(axis=0))
    assert found.counts().min() >= 1
    assert data.split.moments(part) == len(table)
    assert sum(found.counts()) == len(scored(sequences))


def test_series_with_the_same_rows_are_side_by_side_as_at_their_ends() -> None:
    data = prepare(of_panel(panel_of(EVERY)), forecast(1, 3))
    losses = data.val.targets.square().mean(2)
    by_time, at_ends = aligned(data.val, loss=losses), aligned(replace(data.val, rows=None), loss=losses)
    np.testing.assert_array_equal(by_time.values["loss"], at_ends.values["loss"])
    np.testing.assert_array_equal(by_time.present, at_ends.present)


def test_what_is_kept_of_a_time_is_the_mean_over_the_series_that_are_there() -> None:
    data = prepare(of_panel(panel_of(ROWS)), q_values())
    test = data.test()
    assert test is not None
    y = [torch.randn(s.targets.shape, generator=torch.Generator().manual_seed(1)) for s in (data.val, test)]
    found, kept = judge([Told(*y)], data, with_test=True)
    assert found.test is not None
    for part, result, sequences, given_y in (("val", found.val, data.val, y[0]), ("test", found.test, test, y[1])):
        table = by_row(data, part, (given_y - sequences.targets).square().mean(2))
        np.testing.assert_allclose(kept[f"{part}/loss"], table.mean(axis=1), rtol=1e-5)
        assert result.steps == len(table) == data.split.moments(part)
        assert result.observations == pytest.approx(len(table) / result.block)
        assert result.metrics["loss"] == pytest.approx(table.stack().mean(), rel=1e-5)
    table = by_row(data, "test", (y[1] - test.targets).square().mean(2))
    base = by_row(data, "test", test.targets.square().mean(2))
    assert found.skill["mean"].estimate == pytest.approx(1 - table.sum().sum() / base.sum().sum(), rel=1e-4)


def test_series_that_move_together_are_no_more_evidence_than_one() -> None:
    """The same walk with and without its last days. At their ends, no block would hold the same days of both."""
    whole = panel_of({"whole": range(1200)}).series["whole"]
    ended = Series(whole.prices[:1150], whole.rows[:1150], whole.inputs[:1150])
    both = panel_of({"whole": range(1200), "ended": range(1150)})
    both = replace(both, series={"whole": whole, "ended": ended})
    data = prepare(of_panel(both), forecast(1))
    test = data.test()
    assert test is not None
    losses = test.targets.square().mean(2)
    steps = aligned(test, loss=losses)
    together = steps.present.all(axis=0)
    assert 0 < (~together).sum() <= 50
    np.testing.assert_allclose(*steps.values["loss"][:, together], rtol=1e-5)
    ends = aligned(replace(test, rows=None), loss=losses)
    assert not np.allclose(*ends.values["loss"][:, ends.present.all(axis=0)], rtol=0.1)


def test_the_data_line_counts_times_and_not_steps_as_observations() -> None:
    """Two series that are scored on different days of a week: as many observations as there are days."""
    days = {"even": [2 * row for row in range(300)], "odd": [2 * row + 1 for row in range(300)]}
    data = prepare(of_panel(panel_of(days)), forecast(1))
    assert [data.split.moments(part) for part in ("val", "test")] == [2 * (75 - 1)] * 2
    val = described(data.data, data.task, data.split)["parts"]["val"]
    assert val["steps"] == 148
    assert val["evidence"] == f"at most about {148 / 2:.0f} independent observations"
    each = prepare(of_panel(panel_of(days), split="each"), forecast(1))
    assert each.split.moments("test") == 74
    assert each.val.rows is None
