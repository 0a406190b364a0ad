"""Real names of files and columns are taken as they stand; what means something in Hydra's grammar goes on to."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import CONF
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from tbptt.cli.command_line import checked
from tbptt.config.compose import CommandError, ConfigSource, composed, parsed
from tbptt.config.schema import PrunerConfig, register
from tbptt.config.words import Text, as_typed, spelled, text_keys
from tbptt.options.option import GROUPS, key
from tbptt.options.takes import TEXT, list_of
from tbptt.options.values import text_of
from tbptt.studies.plan import make_plan
from tbptt.studies.worker_spec import WorkerSpec

NAMES = [
    "S&P 500 Historical Data.csv", "^GSPC.csv", "CL=F.csv", "prices (1).csv", "it's.csv", "~/x.csv", "a#b;c!d.csv",
    "Überblick 日経225.csv", "[new] prices.csv", "{a}.csv", "file[1].csv", "a|b<c>.csv", "prices(1)", "two\nlines.csv",
    "2024-01-02.csv", "100%.csv", "1e3", "007", "1_000", "TRUE", "nan", ".5", "-", "C:\\data\\x.csv", 'a "b" c.csv',
    "x\\'s.csv", "a,b.csv", "Prices, 2020 (USD).csv", "(", ")", "'", '"', "a'b'c.csv", "a\\", "=", "choice(x", "700.10",
]  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def _registered() -> None:
    register()


def read(word: str) -> object:
    """A word's value, as Hydra reads it."""
    return OverridesParser.create().parse_override(word).value()


def text(word: str, keys: Mapping[str, Text], may_sweep: bool = False) -> object:
    """What a text key takes of a word: OmegaConf makes text of numbers."""
    value = read(spelled(word, keys, may_sweep))
    return [str(v) for v in value] if isinstance(value, list) else str(value)


@pytest.mark.parametrize("name", NAMES)
def test_a_text_is_the_rest_of_the_word(name: str) -> None:
    keys = text_keys()
    for place in ("data.path", "study.name", "tracking.experiment", "resume"):
        word = spelled(f"{place}={name}", keys, False)
        assert text(word, keys) == name
        assert spelled(word, keys) == word  # read again, by a worker, it is the same


# A quote or a backslash before a comma means something, and so does an open bracket.
COLUMNS = [n for n in NAMES if "," not in n and n[-1] not in "\\'\"" and n.count("(") == n.count(")")]


@pytest.mark.parametrize("name", COLUMNS)
def test_a_column_is_what_stands_between_the_commas(name: str) -> None:
    keys = text_keys()
    word = spelled(f"data.columns=[{name}, <CLOSE>]", keys)
    assert text(word, keys) == [name, "<CLOSE>"]
    assert spelled(word, keys) == word


@pytest.mark.parametrize(
    ("typed", "value"),
    [
        ("data.path='my file.csv'", "my file.csv"),
        ('data.path="my file.csv"', "my file.csv"),
        ("data.path=my file.csv", "my file.csv"),
        ("data.path=a\\,b.csv", "a,b.csv"),
        ("data.path=${oc.env:DATA}/x.csv", "${oc.env:DATA}/x.csv"),
        ("data.path=${oc.env:DATA}/S&P.csv", "${oc.env:DATA}/S&P.csv"),
        ("study.name=null", None),
        ("data.columns=null", None),
        ("data.columns=[]", []),
        ("data.columns=[a,'b,c',\"d\"]", ["a", "b,c", "d"]),
        ("data.columns=[null,true,7]", ["null", "true", "7"]),
        ("data.columns=[('Close', 'AAPL'),x]", ["('Close', 'AAPL')", "x"]),
    ],
)
def test_what_means_something_in_hydras_grammar_goes_on_to(typed: str, value: object) -> None:
    found = read(spelled(typed, text_keys(), False))
    assert (list(map(str, found)) if isinstance(found, list) else found) == value


@pytest.mark.parametrize(
    ("typed", "values"),
    [
        ("data.path=a.csv,b.csv", ["a.csv", "b.csv"]),
        ("data.path=a (1).csv,it's.csv", ["a (1).csv", "it's.csv"]),
        ("data.path=choice(a (1).csv, b.csv)", ["a (1).csv", "b.csv"]),
        ("data.path=it's\\, new.csv,b&c.csv", ["it's, new.csv", "b&c.csv"]),
        ("data.columns=[<CLOSE>],[700.10,TRUE],null", [["<CLOSE>"], ["700.10", "TRUE"], None]),
        ("data.columns=choice([700.10],['a,b'])", [["700.10"], ["a,b"]]),
        ("clip_mode=norm,std", ["norm", "std"]),
        ("optimizer=adam,sgd", ["adam", "sgd"]),
    ],
)
def test_several_texts_are_several_values_each_as_it_stands(typed: str, values: list[object]) -> None:
    override = OverridesParser.create().parse_override(spelled(typed, text_keys()))
    items = [OverridesParser.create().parse_override(f"k={t}").value() for t in override.sweep_string_iterator()]
    assert items == values


def test_a_word_that_hydra_reads_rightly_stays_as_it_is() -> None:
    keys = text_keys()
    for word in ("clip=1 (2)", "data.path=x y.csv", "optimizer=glob(*)", "sweep=null", "study.name=7", "foo=S&P", "x"):
        assert spelled(word, keys) == word


def test_which_keys_take_text_is_read_from_the_schema(monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclass
    class Own(PrunerConfig):
        label: str = key(TEXT, "x")
        tags: list[str] | None = key(list_of("tags", TEXT, null=True), None)
        level: int = 3

    monkeypatch.setitem(GROUPS["study/pruner"], "own", Own)
    found = text_keys()
    assert found["study.pruner.label"] == Text(False, False)
    assert found["study.pruner.tags"] == Text(True, False)
    assert "study.pruner.level" not in found
    assert {"data.path", "data.columns", "tracking.uri", "study.storage", "study.best_of"} <= set(found)
    assert not {"clip", "epochs", "objective", "schedule.chunks"} & set(found)


@pytest.mark.parametrize("name", [*NAMES, "null", "NaN", "Inf", "a:b", "x.csv"])
def test_a_point_of_a_study_is_the_text_that_was_typed(name: str) -> None:
    assert read(f"data.path={text_of(name)}") == name


# --- whole commands ---------------------------------------------------------------------------------------------


@pytest.fixture
def files(here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Prices under real names, in this folder and in the home folder."""
    rows = "".join(f"{100 + i % 7},{50 + i % 5},{20 + i % 3}\n" for i in range(300))
    (here / "home").mkdir()
    monkeypatch.setenv("HOME", str(here / "home"))
    for name in ("S&P 500 (1).csv", "it's.csv", "a, b.csv", "a${b}.csv", "home/x.csv"):
        (here / name).write_text("<CLOSE>,700.10,TRUE\n" + rows)
    return here


DATA = ["data=prices", "data.reading=plain", "data.window=8", "task.horizon=3"]


@pytest.mark.parametrize("name", ["S&P 500 (1).csv", "it's.csv", "a, b.csv", "~/x.csv", "'a\\${b}.csv'"])
def test_a_file_of_any_name_is_found(name: str, files: Path) -> None:
    words = checked([*DATA, f"data.path={name}", "data.columns=[<CLOSE>,700.10,TRUE]"], CONF)
    source = ConfigSource(CONF)
    with source.opened():
        cfg, wrong = composed(source, words)
    assert cfg is not None
    assert not wrong
    assert cfg.data.columns == ["<CLOSE>", "700.10", "TRUE"]
    assert (files / cfg.data.path.replace("~", "home")).exists()
    assert checked(words, CONF) == words


def test_workers_and_files_of_a_study_carry_the_same_text(files: Path) -> None:
    typed = ["-m", *DATA, "data.path=S&P 500 (1).csv,it's.csv", "data.columns=[<CLOSE>],[700.10,TRUE]"]
    flag, *words = checked([*typed, "study.name=it's (a) study"], CONF)
    assert flag == "-m"
    source = ConfigSource(CONF)
    with source.opened():
        plan = make_plan(source, parsed(words)[0])
        there = WorkerSpec(str(CONF), "config", None, [*words, f"study.name={text_of(plan.name)}"], "parent").plan()
        assert there.name == plan.name == "it's (a) study"
        assert there.points() == plan.points()
        found = []
        for i, point in enumerate(there.points()):
            overrides = [*there.fixed, *there.space.overrides(point)]
            source.save(files / str(i), overrides)
            again = source.compose(list(OmegaConf.load(files / str(i) / "overrides.yaml")))
            assert again == OmegaConf.load(files / str(i) / "config.yaml")
            found.append((again.data.path, list(again.data.columns)))
    assert found == [
        (path, columns) for path in ("S&P 500 (1).csv", "it's.csv") for columns in (["<CLOSE>"], ["700.10", "TRUE"])
    ]


@pytest.mark.parametrize(
    ("words", "name"),
    [(["data.path=a${b}.csv"], "a${b}.csv"), (["-m", "clip=1,2", "data.path=a, b.csv"], "a, b.csv")],
)
def test_a_line_shows_the_spelling_that_works(words: list[str], name: str, files: Path) -> None:
    with pytest.raises(CommandError) as caught:
        checked([*DATA, *words], CONF)
    right = as_typed("data.path", name)
    assert caught.value.lines[0].endswith(f"; to pass this text literally, type {right}")
    (word,) = shlex.split(right)
    assert checked([*DATA, *words[:-1], word], CONF)


@pytest.mark.parametrize("url", ["https://me:hunter2@host/x.csv", "http://host/x.csv", "s3://bucket/x.csv"])
def test_a_url_is_no_file(url: str, files: Path) -> None:
    with pytest.raises(CommandError) as caught:
        checked([*DATA, f"data.path={url}"], CONF)
    (line,) = caught.value.lines
    assert line.startswith("data.path: got ")
    assert line.endswith("a URL; takes the path of a file on this machine")
    assert "hunter2" not in line


def test_a_comma_without_m_says_so_where_there_is_no_such_file(files: Path) -> None:
    with pytest.raises(CommandError) as caught:
        checked([*DATA, "data.path=it's.csv,x.csv"], CONF)
    assert caught.value.lines == ["data.path: it's.csv,x.csv does not exist; for several values add -m"]
