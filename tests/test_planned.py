"""A sweep is composed and checked once in its head, and its data's file read once, however many values are swept."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import CONF, SMALL

from tbptt.cli.command_line import checked
from tbptt.config.compose import CommandError, ConfigSource
from tbptt.data import prices
from tbptt.data.options import PricesData
from tbptt.data.panels import panel_file
from tbptt.data.split import as_panel
from tbptt.data.tables.files import Form
from tbptt.studies import planned
from tbptt.studies.plan import Plan
from tbptt.studies.planned import one_command, plan_of

WORDS = ["clip=0.5,1", *SMALL]


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Plan]:
    """The plans that are made."""
    plans: list[Plan] = []
    make_plan = planned.make_plan

    def counted(*given: Any) -> Plan:
        plans.append(make_plan(*given))
        return plans[-1]

    monkeypatch.setattr(planned, "make_plan", counted)
    return plans


def words_for_hydra(*typed: str) -> list[str]:
    """What Hydra passes on of a command that was checked."""
    return checked(["-m", *typed], CONF)[1:]


def test_a_command_runs_the_plan_that_it_was_checked_with(here: Path, made: list[Plan]) -> None:
    with one_command():
        words = words_for_hydra(*WORDS)
        assert plan_of(ConfigSource(CONF), words) is made[0]
    assert len(made) == 1


def test_other_words_another_source_and_another_command_are_planned_anew(here: Path, made: list[Plan]) -> None:
    with one_command():
        words = words_for_hydra(*WORDS)
        assert plan_of(ConfigSource(CONF), [*words, "seed=7"]).cfg.seed == 7
        assert plan_of(ConfigSource(CONF, also=here), words) is not made[0]
    assert plan_of(ConfigSource(CONF), words) is not made[0]
    assert len(made) == 4


def test_nothing_is_kept_of_a_wrong_command(here: Path, made: list[Plan]) -> None:
    with one_command():
        with pytest.raises(CommandError, match="clip: got 'x'"):
            checked(["-m", "clip=0.5,x", *SMALL], CONF)
        with pytest.raises(CommandError, match="clip: got 'x'"):
            plan_of(ConfigSource(CONF), ["clip=0.5,x", *SMALL])
    assert made == []


@pytest.fixture
def file(here: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, list[Path]]]:
    """A file of prices, and how often it was read."""
    path = here / "prices.csv"
    path.write_text("\n".join(["a,b", *(f"{100 + i % 7},{50 + i % 11}" for i in range(200))]))
    read: list[Path] = []
    plain, found_out = prices._read_table, panel_file.read_table

    def counted(path: Path, *form: Form) -> Any:
        read.append(path)
        return found_out(path, *form) if form else plain(path)

    monkeypatch.setattr(prices, "_read_table", counted)
    monkeypatch.setattr(panel_file, "read_table", counted)
    caches = (prices._last_read, prices._lately_read, panel_file._last_read, panel_file._lately_read)
    for cache in caches:
        cache.cache_clear()
    yield path, read
    for cache in caches:
        cache.cache_clear()


DATA = ["data=prices", "data.path=prices.csv", "task.horizon=5"]


def test_a_file_of_prices_is_read_once_while_a_sweep_of_it_is_checked(file: tuple[Path, list[Path]]) -> None:
    _, read = file
    words = ["clip=0.1,0.2,0.5,1,2", "data.window=4,8", "schedule=fixed", "schedule.chunks=[5]"]
    assert checked(["-m", *DATA, *words], CONF) == ["-m", *DATA, *words]
    assert len(read) == 1


def test_of_several_files_and_columns_each_is_read_once(
    file: tuple[Path, list[Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, _ = file
    read: list[tuple[str, tuple[str, ...]]] = []
    made = panel_file.panel_of_table

    def counted(table: Any, data: Any, source: str) -> Any:
        read.append((source, tuple(data.columns)))
        return made(table, data, source)

    monkeypatch.setattr(panel_file, "panel_of_table", counted)
    (path.parent / "other.csv").write_text(path.read_text())
    words = ["clip=0.1,0.5", "data.path=prices.csv,other.csv", "data.columns=[a],[b]", "data.window=4,8"]
    more = ["schedule=fixed", "schedule.chunks=[5]"]
    assert checked(["-m", "data=prices", "task.horizon=5", *words, *more], CONF)
    assert {path for path, _ in read} == {"prices.csv", "other.csv"}
    assert {columns for _, columns in read} == {("a",), ("b",)}
    assert len(read) == len(set(read))


def test_of_large_files_one_is_kept(file: tuple[Path, list[Path]], monkeypatch: pytest.MonkeyPatch) -> None:
    path, read = file
    other = path.parent / "other.csv"
    other.write_text(path.read_text())
    monkeypatch.setattr(prices, "LARGE", 100)
    for each in (path, other, other, path):
        prices.prices_of_file(str(each))
    assert read == [path, other, path]
    monkeypatch.setattr(prices, "LARGE", 10_000)
    for each in (path, other, path, other):
        prices.prices_of_file(str(each))
    assert len(read) == 5


def test_a_file_that_cannot_be_used_is_read_once_too_and_every_time_refused(file: tuple[Path, list[Path]]) -> None:
    path, read = file
    path.write_text("a,b\n1,2\nx,3\n4,5\n")
    with pytest.raises(CommandError, match="'x' is not a number"):
        checked(["-m", *DATA, "clip=0.1,0.2,0.5"], CONF)
    assert len(read) == 2  # the second is as an earlier version read it, as the command may have begun a study then


def test_a_file_that_has_changed_is_read_again(file: tuple[Path, list[Path]]) -> None:
    path, read = file
    data = PricesData(name="prices", path=str(path))
    before = data.prices()
    assert data.prices()["a"] is before["a"]
    path.write_text("a,b\n1,2\n3,4\n")
    assert data.prices()["a"].tolist() == [1.0, 3.0]
    data.columns = ["b"]
    assert list(data.prices()) == ["b"]
    assert len(read) == 3


def test_a_file_whose_form_is_found_out_is_read_again_once_it_has_changed(file: tuple[Path, list[Path]]) -> None:
    path, read = file
    data = PricesData(name="prices", path=str(path), reading="auto")
    before = data.prices()
    data.window = 7  # says nothing about what is read
    assert data.prices() is before
    path.write_text("a,b\n1,2\n3,4\n")
    assert as_panel(data.prices(), data).series["a"].prices.tolist() == [1.0, 3.0]
    data.columns = ["b"]
    assert list(as_panel(data.prices(), data).series) == ["b"]
    assert len(read) == 3
    with pytest.raises(ValueError, match="read-only"):
        as_panel(data.prices(), data).series["b"].prices[0] = 7.0


def test_what_was_read_cannot_be_changed_by_whoever_got_it(file: tuple[Path, list[Path]]) -> None:
    path, _ = file
    found = prices.prices_of_file(str(path))
    with pytest.raises(ValueError, match="read-only"):
        found["a"][0] = 7.0
    del found["a"]
    assert list(prices.prices_of_file(str(path))) == ["a", "b"]
