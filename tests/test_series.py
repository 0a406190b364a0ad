"""Where prices come from: the article's process by its definition, files with everything that can be wrong in them."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tbptt.data.options import MarketData
from tbptt.data.prices import HELD_OUT, TEST, TRAINING, article_series, fingerprint, read_prices

# --- the article's process ------------------------------------------------------------------------------------


def by_definition(
    seed: int,
    part: int,
    i: int,
    length: int,
    noise_std: float = 0.01,
    f1: float = 0.0002,
    f2: float = 0.0002,
    start: float = 0.0,
) -> list[float]:
    """p_t = 100 - |cos θ_t|·sin(f1·(t + start)) + |sin θ_t|·sin(f2·(t + start)) + ε_t, one step at a time."""
    walk = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(part, i, 0)))
    noise = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(part, i, 1)))
    theta = walk.uniform(-math.pi, math.pi)
    prices = []
    for t in range(length):
        if t > 0:
            theta += 0.01 * walk.uniform(-1, 1)
        at = t + start
        wave = -abs(math.cos(theta)) * math.sin(f1 * at) + abs(math.sin(theta)) * math.sin(f2 * at)
        prices.append(round(100 + wave + noise_std * noise.standard_normal(), 2))
    return prices


@pytest.mark.parametrize("part", [TRAINING, HELD_OUT])
def test_prices_follow_the_articles_formula(part: int) -> None:
    expected = [by_definition(7, part, i, 6000) for i in range(2)]
    np.testing.assert_allclose(article_series(2, 6000, seed=7, part=part), expected, rtol=0, atol=1e-9)


def test_noise_and_frequencies_are_settings() -> None:
    got = article_series(1, 500, seed=1, part=TRAINING, noise_std=0.3, frequencies=(0.01, 0.05))
    expected = by_definition(1, TRAINING, 0, 500, noise_std=0.3, f1=0.01, f2=0.05)
    np.testing.assert_allclose(got[0], expected, rtol=0, atol=1e-9)


def start_of(seed: int, part: int, i: int, slower: float) -> float:
    """Uniform over a period of the slower wave, from a stream of its own."""
    stream = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(part, i, 2)))
    return float(stream.uniform(0, 2 * math.pi / slower))


@pytest.mark.parametrize("part", [TRAINING, HELD_OUT, TEST])
@pytest.mark.parametrize(
    ("f1", "f2", "slower"),
    [(0.0002, 0.0002, 0.0002), (0.003, 0.0007, 0.0007), (0, 0.002, 0.002), (0.002, 0, 0.002)],
)
def test_series_with_random_phases_start_anywhere_within_the_slower_waves_period(
    part: int, f1: float, f2: float, slower: float
) -> None:
    """Walk and noise are those of the series that start at t = 0. A frequency of 0 has no wave, and no period."""
    got = article_series(3, 400, seed=7, part=part, frequencies=(f1, f2), phase="random")
    starts = [start_of(7, part, i, slower) for i in range(3)]
    expected = [by_definition(7, part, i, 400, f1=f1, f2=f2, start=starts[i]) for i in range(3)]
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-9)
    assert np.ptp(starts) > 0.05 * 2 * math.pi / slower


def test_random_phases_without_a_wave_change_nothing() -> None:
    still, moved = (
        article_series(2, 300, seed=0, part=TRAINING, frequencies=(0, 0), phase=phase) for phase in (0, "random")
    )
    np.testing.assert_array_equal(moved, still)


def test_a_wave_that_hardly_moves_leaves_the_other_one_its_steps() -> None:
    """Its period is longer than all numbers, and a time within it has no room for a step beside it."""
    prices = article_series(2, 300, seed=0, part=TRAINING, noise_std=0, frequencies=(5e-324, 1.0), phase="random")
    assert np.isfinite(prices).all()
    assert (np.ptp(prices, axis=1) > 0.1).all()


def test_series_that_start_at_0_are_those_of_versions_before_there_was_a_phase() -> None:
    """By the digest of their bytes as version 0.1 made them."""
    parts = [article_series(2, 2000, seed=0, part=part) for part in (TRAINING, HELD_OUT, TEST)]
    series = {f"{part} {i}": row for part, rows in enumerate(parts) for i, row in enumerate(rows)}
    assert fingerprint(series) == "b1e2978352d0526559b35eb40c673185e93bcb1c5a663dadca8bbbec1dbcb9d6"
    for part, rows in enumerate(parts):
        assert article_series(2, 2000, seed=0, part=part, phase=0).tobytes() == rows.tobytes()


def test_prices_are_ticks_of_a_hundredth() -> None:
    prices = article_series(3, 2000, seed=0, part=TRAINING, noise_std=0.5)
    np.testing.assert_array_equal(prices, np.rint(prices * 100) / 100)
    assert len(np.unique(prices)) > 100


def amplitudes(frequencies: tuple[float, float]) -> np.ndarray:
    """With a frequency of π/2 the sine is 1 at steps 1, 5, 9, …: there the price shows the amplitude itself."""
    prices = article_series(4, 8000, seed=3, part=TRAINING, noise_std=0, frequencies=frequencies)
    return np.abs(prices[:, 1::4] - 100)


def test_both_amplitudes_follow_one_walk_around_the_circle() -> None:
    cosine, sine = amplitudes((math.pi / 2, 0)), amplitudes((0, math.pi / 2))
    np.testing.assert_allclose(cosine**2 + sine**2, 1, atol=0.02)
    angle = np.arctan2(sine, cosine)
    rounding = 0.015
    assert np.abs(np.diff(angle, axis=1)).max() <= 4 * 0.01 + rounding  # four steps of at most 0.01
    assert np.ptp(angle, axis=1).min() > 0.1, "the amplitudes move"


def test_first_wave_is_subtracted_and_second_added() -> None:
    first = article_series(3, 2, seed=0, part=TRAINING, noise_std=0, frequencies=(math.pi / 2, 0))
    second = article_series(3, 2, seed=0, part=TRAINING, noise_std=0, frequencies=(0, math.pi / 2))
    np.testing.assert_array_equal(first[:, 0], 100)
    assert (first[:, 1] < 100).all()
    assert (second[:, 1] > 100).all()


def test_walk_starts_anywhere_on_the_circle() -> None:
    cosine = 100 - article_series(500, 2, seed=0, part=TRAINING, noise_std=0, frequencies=(math.pi / 2, 0))[:, 1]
    assert cosine.mean() == pytest.approx(2 / math.pi, abs=0.05)  # E|cos U(-π, π)|
    assert cosine.std() == pytest.approx(math.sqrt(0.5 - 4 / math.pi**2), abs=0.03)


def test_noise_is_normal_with_the_given_standard_deviation() -> None:
    noise = article_series(1, 20000, seed=0, part=TRAINING, noise_std=1.0, frequencies=(0, 0))[0] - 100
    assert noise.mean() == pytest.approx(0, abs=0.03)
    assert noise.std() == pytest.approx(1, abs=0.02)
    assert np.mean(np.abs(noise) > 2) == pytest.approx(0.0455, abs=0.008)


def test_default_noise_has_a_standard_deviation_of_a_tick_not_a_variance() -> None:
    noise = article_series(1, 20000, seed=0, part=TRAINING, frequencies=(0, 0))[0] - 100
    assert noise.std() == pytest.approx(math.sqrt(0.01**2 + 0.01**2 / 12), rel=0.02)  # rounding adds a twelfth


def test_same_seed_gives_the_same_bytes() -> None:
    first, second = (article_series(3, 300, seed=5, part=TRAINING) for _ in range(2))
    assert first.tobytes() == second.tobytes()


def test_more_series_leave_the_others_unchanged() -> None:
    few, many = (article_series(n, 300, seed=0, part=HELD_OUT) for n in (2, 6))
    np.testing.assert_array_equal(many[:2], few)


def test_longer_series_begin_with_the_shorter_ones() -> None:
    short, long = (article_series(2, n, seed=0, part=TRAINING) for n in (1, 300))
    np.testing.assert_array_equal(long[:, :1], short)
    np.testing.assert_array_equal(article_series(2, 1000, seed=0, part=TRAINING)[:, :300], long)


def test_noise_setting_leaves_the_walk_unchanged() -> None:
    loud, quiet = (article_series(1, 3000, seed=0, part=TRAINING, noise_std=s)[0] for s in (0.01, 0))
    assert np.abs(loud - quiet).max() < 0.07


def test_every_series_of_every_part_and_seed_is_another_one() -> None:
    rows = [
        row
        for seed in (0, 1)
        for part in (TRAINING, HELD_OUT)
        for row in article_series(3, 5000, seed=seed, part=part, noise_std=0.02)
    ]
    correlation = np.corrcoef(np.diff(rows, axis=1))
    assert np.abs(correlation - np.eye(len(rows))).max() < 0.08


# --- files ----------------------------------------------------------------------------------------------------


def write(folder: Path, table: pd.DataFrame, kind: str) -> Path:
    path = folder / f"prices.{kind}"
    if kind == "csv":
        table.to_csv(path, index=False)
    else:
        table.to_parquet(path)
    return path


TABLE = pd.DataFrame(
    {
        "date": ["2020-01-01", "2020-01-02", "2020-01-03", "2020-01-04", "2020-01-05"],
        "gold": [1500.25, 1501.5, 1499.75, 1502.0, 1503.125],
        "Volume": [10, 20, 30, 40, 50],
        "oil": [60, 61, 62, 61, 60],
        "volume_usd": [1.0, 2.0, 3.0, 4.0, 5.0],
        "note": ["a", "b", "c", "d", "e"],
    }
)


@pytest.mark.parametrize("kind", ["csv", "parquet", "pq"])
def test_every_numeric_column_but_volume_is_a_series(tmp_path: Path, kind: str) -> None:
    series = read_prices(write(tmp_path, TABLE, kind))
    assert list(series) == ["gold", "oil"]
    np.testing.assert_array_equal(series["gold"], TABLE["gold"])
    np.testing.assert_array_equal(series["oil"], [60.0, 61.0, 62.0, 61.0, 60.0])
    assert all(prices.dtype == np.float64 and prices.ndim == 1 for prices in series.values())


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_chosen_columns_come_in_the_order_chosen(tmp_path: Path, kind: str) -> None:
    series = read_prices(str(write(tmp_path, TABLE, kind)), ["oil", "Volume"])
    assert list(series) == ["oil", "Volume"]
    np.testing.assert_array_equal(series["Volume"], [10.0, 20.0, 30.0, 40.0, 50.0])


def test_dates_of_a_parquet_file_are_no_series(tmp_path: Path) -> None:
    table = TABLE.assign(date=pd.date_range("2020-01-01", periods=5), open=[True, False, True, False, True])
    assert list(read_prices(write(tmp_path, table, "parquet"))) == ["gold", "oil"]


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_blanks_at_both_ends_give_different_lengths(tmp_path: Path, kind: str) -> None:
    table = pd.DataFrame(
        {
            "whole": [1.0, 2.0, 3.0, 4.0, 5.0],
            "late": [None, None, 3.0, 4.0, 5.0],
            "ended": [1.0, 2.0, 3.0, None, None],
            "both": [None, 2.0, 3.0, None, None],
        }
    )
    series = read_prices(write(tmp_path, table, kind))
    assert {name: prices.tolist() for name, prices in series.items()} == {
        "whole": [1, 2, 3, 4, 5],
        "late": [3, 4, 5],
        "ended": [1, 2, 3],
        "both": [2, 3],
    }


def test_blanks_of_pandas_nullable_integers_are_blanks(tmp_path: Path) -> None:
    table = pd.DataFrame({"oil": pd.array([None, 60, 61, None], dtype="Int64")})
    np.testing.assert_array_equal(read_prices(write(tmp_path, table, "parquet"))["oil"], [60.0, 61.0])


def failure(path: Path, columns: list[str] | None = None) -> str:
    """The one line that the reader says about a file; it names the file."""
    with pytest.raises(ValueError, match=r".") as caught:
        read_prices(path, columns)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


def text_file(folder: Path, content: str, name: str = "prices.csv") -> Path:
    path = folder / name
    path.write_text(content)
    return path


def test_missing_file_is_named(tmp_path: Path) -> None:
    assert "does not exist" in failure(tmp_path / "none.csv")


def test_directory_is_no_file(tmp_path: Path) -> None:
    assert "not a file" in failure(tmp_path)


@pytest.mark.parametrize("name", ["prices.csv", "prices.parquet"])
def test_empty_file_is_named(tmp_path: Path, name: str) -> None:
    assert "empty" in failure(text_file(tmp_path, "", name))


def test_parquet_that_is_none_is_named(tmp_path: Path) -> None:
    assert "cannot be read" in failure(text_file(tmp_path, "gold\n1\n2\n", "prices.parquet"))


def test_binary_csv_is_named(tmp_path: Path) -> None:
    path = tmp_path / "prices.csv"
    path.write_bytes(bytes(range(128, 256)))
    assert "cannot be read" in failure(path)


def test_one_row_is_no_series(tmp_path: Path) -> None:
    assert "1 row" in failure(text_file(tmp_path, "gold,oil\n1,2\n"))


def test_header_alone_is_no_series(tmp_path: Path) -> None:
    failure(text_file(tmp_path, "gold,oil\n"))


def test_no_numeric_column_says_what_there_is(tmp_path: Path) -> None:
    message = failure(text_file(tmp_path, "date,volume\n2020-01-01,5\n2020-01-02,6\n"))
    assert "no numeric column" in message
    assert "date" in message


def test_missing_column_is_named_beside_those_there_are(tmp_path: Path) -> None:
    message = failure(text_file(tmp_path, "gold,oil\n1,2\n3,4\n"), ["oil", "silver"])
    assert "silver" in message
    assert "gold" in message


@pytest.mark.parametrize(
    ("cells", "row", "reason"),
    [
        (["1", "2", "abc", "4", "5"], 3, "'abc' is not a number"),
        (["1", "2", "3", "", "5"], 4, "gap"),
        (["", "2", "", "4", "5"], 3, "gap"),
        (["1", "nan", "3", "4", ""], 2, "gap"),
        (["1", "inf", "3", "4", "5"], 2, "inf is not a finite number"),
        (["", "2", "3", "4", "-inf"], 5, "-inf is not a finite number"),
        (["1", "2", "1e400", "4", "5"], 3, "not a finite number"),
    ],
)
def test_bad_cell_is_named_by_column_and_row(tmp_path: Path, cells: list[str], row: int, reason: str) -> None:
    lines = [f"{i},{cell}" for i, cell in enumerate(cells)]
    message = failure(text_file(tmp_path, "\n".join(["good,bad", *lines, ""])))
    assert "column bad" in message
    assert f"row {row}:" in message
    assert reason in message


def test_chosen_column_of_text_is_named(tmp_path: Path) -> None:
    message = failure(write(tmp_path, TABLE, "csv"), ["note"])
    assert "column note, row 1: 'a' is not a number" in message


def test_chosen_column_of_dates_is_no_series(tmp_path: Path) -> None:
    table = TABLE.assign(date=pd.date_range("2020-01-01", periods=5))
    assert "column date" in failure(write(tmp_path, table, "parquet"), ["date"])


@pytest.mark.parametrize("cells", [["", "", ""], ["", "2", ""]])
def test_column_of_fewer_than_two_prices_is_named(tmp_path: Path, cells: list[str]) -> None:
    lines = [f"{i},{cell}" for i, cell in enumerate(cells)]
    assert "column bad" in failure(text_file(tmp_path, "\n".join(["good,bad", *lines, ""])), ["bad"])


def test_blank_line_inside_a_file_of_one_column_is_a_gap(tmp_path: Path) -> None:
    message = failure(text_file(tmp_path, "gold\n1\n2\n\n4\n5\n"))
    assert "column gold, row 3" in message


def test_rows_longer_than_the_header_shift_no_column(tmp_path: Path) -> None:
    failure(text_file(tmp_path, "gold,oil\n1,60,7\n2,61,8\n3,62,9\n"))


# --- real data, fingerprint -----------------------------------------------------------------------------------


def test_market_has_three_series_of_different_lengths_without_blanks() -> None:
    series = {name: each.prices for name, each in MarketData(name="market").prices().series.items()}
    assert list(series) == ["sp500", "nasdaq", "wti"]
    assert len({len(prices) for prices in series.values()}) > 1
    for prices in series.values():
        assert prices.dtype == np.float64
        assert prices.ndim == 1
        assert len(prices) > 5000
        assert np.isfinite(prices).all()


def test_market_columns_can_be_chosen() -> None:
    for split in ("each", "time"):
        found = MarketData(name="market", columns=["wti", "sp500"], split=split).prices()
        assert list(found.series) == ["wti", "sp500"]
        with pytest.raises(ValueError, match=r"gold.*sp500, nasdaq, wti"):
            MarketData(name="market", columns=["gold"], split=split).prices()


def test_fingerprint_tells_names_lengths_and_values_apart() -> None:
    a, b = np.array([1.0, 2.0]), np.array([3.0])
    different = [
        {"a": a, "b": b},
        {"b": a, "a": b},
        {"a": np.array([1.0, 2.0, 3.0])},
        {"a": a, "b": np.nextafter(b, 4)},
        {"a": np.array([1.0]), "b": np.array([2.0, 3.0])},
    ]
    assert len({fingerprint(series) for series in different}) == len(different)
    assert fingerprint({"a": a, "b": b}) == fingerprint({"a": a.copy(), "b": b.copy()})


LEVELS = pd.MultiIndex.from_tuples([("Close", "AAPL"), ("Close", "MSFT"), ("Volume", "AAPL")])


def test_a_column_of_several_levels_is_named_as_it_is_shown(tmp_path: Path) -> None:
    path = tmp_path / "levels.parquet"
    pd.DataFrame([[1.0, 2.0, 9.0], [3.0, 4.0, 9.0]], columns=LEVELS).to_parquet(path)
    shown = ["('Close', 'AAPL')", "('Close', 'MSFT')"]
    found = read_prices(path)
    assert {name: list(prices) for name, prices in found.items()} == {shown[0]: [1.0, 3.0], shown[1]: [2.0, 4.0]}
    assert list(read_prices(path, shown[1:])) == shown[1:]
    line = failure(path, ["Close"])
    assert all(name in line for name in ("no column Close", *shown))
