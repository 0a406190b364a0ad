"""A run's name: what a list of runs shows of it tells runs apart."""

from itertools import product
from typing import Any

import pytest

from tbptt.options.values import Value
from tbptt.runs.naming import SHOWN, single_name, trial_name

CHUNKS = ("[100, 50, 10, 2, 1]", "[100, 50, 10, 1]", "[100, 50, 10, 2]", "[10]")


@pytest.mark.parametrize(
    ("name", "number", "point", "seed", "fold"),
    [
        ("#15 rmsprop clip 1.6 s1", 15, {"optimizer": "rmsprop", "clip": 1.6}, 1, None),
        ("#0 lr 3e-4", 0, {"optimizer.lr": 0.0003}, None, None),
        ("#2 chunks 100,50,1 f2", 2, {"schedule.chunks": "[100, 50, 1]"}, None, "2/4"),
        ("#7 clip null clip_mode value", 7, {"clip": None, "clip_mode": "value"}, None, None),
        ("#1 prices.csv", 1, {"data.path": "a/prices.csv"}, None, None),
    ],
)
def test_a_name_is_number_values_seed_and_fold(
    name: str, number: int, point: dict[str, Value], seed: int | None, fold: str | None
) -> None:
    found = trial_name(number, point, {}, seed, fold)
    assert found.replace("path ", "") == name


def test_points_of_a_study_differ_in_what_a_list_shows_even_without_their_number() -> None:
    rates = (0.001, 0.00101, 0.5)
    files = ("data/of/2019/prices.csv", "data/of/2020/prices.csv")
    choices = {"schedule.chunks": CHUNKS, "optimizer.lr": rates, "data.path": files}
    names = [trial_name(0, dict(zip(choices, point, strict=True)), choices) for point in product(*choices.values())]
    assert len({name[:SHOWN] for name in names}) == len(CHUNKS) * len(rates) * len(files)


def test_where_there_is_no_room_number_seed_and_fold_come_first() -> None:
    point: dict[str, Any] = {f"model.a_long_key_{i}": f"a value that is long {i}" for i in range(9)}
    names = [trial_name(n, point, {}, seed, f"{k}/2")[:SHOWN] for n in (3, 4) for seed in (0, 1) for k in (1, 2)]
    assert len(set(names)) == 8
    assert names[1].startswith("#3 s0 f2 ")


def test_a_key_with_one_value_only_is_left_out_where_there_is_no_room() -> None:
    point: dict[str, Value] = {"clip": 1.25, "schedule.chunks": CHUNKS[0], "optimizer": "rmsprop"}
    name = trial_name(12, point, {"schedule.chunks": CHUNKS[:1], "optimizer": ("adam", "rmsprop")})
    assert name == "#12 clip 1.25 rmsprop"


@pytest.mark.parametrize(
    ("name", "typed"),
    [
        ("adam clip 1 s2", []),
        ("adam clip 0.5 s2", [("clip", 0.5)]),
        ("adam epochs 3 clip 1 s2", [("epochs", 3), ("device", "cpu"), ("seed", 2), ("notes", "x"), ("tags", "{}")]),
        ("rmsprop epochs 2 length 2e4 s2", [("epochs", 2), ("data.length", 2e4), ("optimizer", "rmsprop")]),
        ("adam forecast … s2", [("task", "forecast"), ("model.hidden", "[64, 64]"), ("epochs", 2)]),
    ],
)
def test_a_run_of_its_own_is_named_by_what_was_typed(name: str, typed: list[tuple[str, Value]]) -> None:
    optimizer = dict(typed).get("optimizer", "adam")
    assert single_name(typed, str(optimizer), dict(typed).get("clip", 1.0), 2) == name  # type: ignore[arg-type]
