"""A search space on its own: its points, its conditions, its values as texts that Hydra reads back."""

from collections.abc import Sequence
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from tbptt.options.values import Value, short_value, stored, text_of
from tbptt.studies.space import Choice, Dimension, Interval, IntRange, Space, named

ARTICLE, GEOMETRIC = (("schedule", "article"),), (("schedule", "geometric"),)
CONDITIONAL = Space(
    (
        Choice("schedule", "schedule", (), ("article", "geometric")),
        Choice("clip", "clip", (), (1.0, None)),
        Choice("schedule.chunks", "schedule.chunks", ARTICLE, ("[10, 1]", "[1]")),
        IntRange("schedule.start", "schedule.start", GEOMETRIC, 2, 4),
        IntRange("schedule.stages", "schedule.stages", GEOMETRIC, 2, 3),
    )
)


class Lowest:
    """A trial that takes the first of what it may take, and notes what it was asked for."""

    def __init__(self) -> None:
        self.asked: dict[str, Any] = {}

    def suggest_categorical(self, name: str, choices: Sequence[Value]) -> Any:
        self.asked[name] = list(choices)
        return choices[0]

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        self.asked[name] = (low, high, step, log)
        return low

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        self.asked[name] = (low, high, log)
        return low


def test_points_are_every_combination_once_the_last_dimension_fastest() -> None:
    space = Space((Choice("o", "o", (), ("adam", "sgd")), IntRange("n", "n", (), 1, 5, 2)))
    assert list(space.points()) == [{"o": o, "n": n} for o in ("adam", "sgd") for n in (1, 3, 5)]
    assert space.size() == 6


def test_points_are_counted_without_being_made() -> None:
    """A billion under each of two options, one of which a second group brings."""
    million = tuple(IntRange(key, key, GEOMETRIC, 1, 1000) for key in ("a", "b"))
    under = Choice("optimizer", "optimizer", GEOMETRIC, ("adam", "sgd"))
    of_sgd = IntRange("m", "m", (*GEOMETRIC, ("optimizer", "sgd")), 1, 9)
    space = Space((CONDITIONAL.dimensions[0], *million, under, of_sgd, IntRange("n", "n", (), 1, 1000)))
    assert space.size() == 1000 + 1000**3 * (1 + 9)


def test_a_condition_holds_in_every_point() -> None:
    points = list(CONDITIONAL.points())
    assert len(points) == CONDITIONAL.size() == 2 * 2 + 2 * 3 * 2
    assert len({tuple(p.items()) for p in points}) == len(points)
    for point in points:
        under = {"schedule.chunks"} if point["schedule"] == "article" else {"schedule.start", "schedule.stages"}
        assert set(point) == {"schedule", "clip"} | under


@pytest.mark.parametrize("chosen", ["article", "geometric"])
def test_only_what_exists_is_suggested(chosen: str) -> None:
    space = Space((Choice("schedule", "schedule", (), (chosen,)), *CONDITIONAL.dimensions[1:]))
    point = space.suggest(trial := Lowest())
    assert point in list(CONDITIONAL.points())
    assert set(trial.asked) == set(point)


def test_a_space_with_an_interval_has_no_size() -> None:
    assert Space((Interval("clip", "clip", (), 0.1, 1.0), *CONDITIONAL.dimensions)).size() is None


@pytest.mark.parametrize(
    ("dimension", "asked"),
    [
        (Interval("k", "k", (), 0.1, 10.0, True), (0.1, 10.0, True)),
        (IntRange("k", "k", (), 2, 400, 1, True), (2, 400, 1, True)),
        (IntRange("k", "k", (), 1, 9, 4), (1, 9, 4, False)),
        (Choice("k", "k", (), (2.0, None, 1.0)), [1.0, 2.0, None]),
    ],
)
def test_a_dimension_suggests_what_it_describes(dimension: Dimension, asked: object) -> None:
    dimension.suggest(trial := Lowest())
    assert trial.asked == {"k": asked}


def test_the_order_in_which_choices_are_typed_is_no_other_parameter() -> None:
    one, other = Choice("k", "k", (), ("b", "a", None)), Choice("k", "k", (), (None, "b", "a"))
    assert one.describe() == other.describe()
    first, second = Lowest(), Lowest()
    one.suggest(first)
    other.suggest(second)
    assert first.asked == second.asked
    assert one.values() != other.values()  # yet each is run in the order in which it was typed


def test_a_shared_key_has_a_name_under_each_option() -> None:
    inner = (*GEOMETRIC, ("optimizer", "adam"))
    keys = [
        ("schedule.patience", ARTICLE),
        ("schedule.patience", GEOMETRIC),
        ("schedule.patience", inner),
        ("clip", ()),
    ]
    assert named(keys) == [
        "schedule.patience@article",
        "schedule.patience@geometric",
        "schedule.patience@geometric+adam",
        "clip",
    ]


VALUES: list[Any] = [
    None,
    True,
    3,
    0.1,
    1e-05,
    "adam",
    "null",
    "1",
    "a b.csv",
    "é.csv",
    "it's",
    "back\\slash",
    "quoted\\'too",
    "ends with \\",
    "a,b",
    "x=y",
    "(z)",
    [100, 50, 1],
    [0.5, 0.25],
    ["S&P 500", "d'or", "é"],
    ["null", "1"],
    [],
]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_hydra_reads_back_what_is_typed_for_a_value(value: Any) -> None:
    override = OverridesParser.create().parse_override(f"key={text_of(stored(value))}")
    read = override.value()
    assert read == value
    assert type(read) is type(value)


def test_a_point_becomes_overrides_in_the_order_of_the_space() -> None:
    point = {"schedule": "article", "clip": None, "schedule.chunks": "[10, 1]"}
    assert CONDITIONAL.overrides(point) == ["schedule=article", "clip=null", "schedule.chunks=[10, 1]"]


def test_spaces_are_described_alike_exactly_when_they_are_equal() -> None:
    assert CONDITIONAL.describe() == {
        "schedule": "choice(article, geometric)",
        "clip": "choice(1.0, null)",
        "schedule.chunks [schedule=article]": "choice([10, 1], [1])",
        "schedule.start [schedule=geometric]": "whole numbers 2 to 4",
        "schedule.stages [schedule=geometric]": "whole numbers 2 to 3",
    }
    ranges: list[Dimension] = [
        IntRange("k", "k", (), 1, 5),
        IntRange("k", "k", (), 1, 5, 2),
        IntRange("k", "k", (), 1, 5, 1, True),
        Interval("k", "k", (), 1.0, 5.0),
        Interval("k", "k", (), 1.0, 5.0, True),
    ]
    assert len({d.describe() for d in ranges}) == len(ranges)


def test_numbers_are_short_where_they_are_only_read() -> None:
    assert [short_value(v) for v in (0.1234567891, 1.0, None, "[10, 1]", 7)] == [
        "0.123457",
        "1",
        "null",
        "[10, 1]",
        "7",
    ]
