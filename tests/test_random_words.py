"""Whatever is typed, it is checked to its end: a command is right, or gets lines. Minutes long."""

from collections.abc import Sequence
from pathlib import Path

import hypothesis.strategies as st
import pytest
from conftest import CONF
from hypothesis import HealthCheck, given, settings

from tbptt.cli.command_line import checked
from tbptt.config.compose import CommandError, parsed
from tbptt.config.schema import all_keys, register
from tbptt.config.typed import FLAGS, OTHER_NAMES
from tbptt.config.words import spelled, text_keys
from tbptt.options.option import CHOSEN

pytestmark = pytest.mark.slow
register()
HYDRAS = ["hydra", "hydra/launcher", "hydra/sweeper", "hydra/job_logging", "hydra.verbose", "hydra.run.dir",
          "hydra.job.name", "hydra.job.chdir", "hydra.job.env_set", "hydra.mode", "hydra.callbacks", "hydra.searchpath",
          "hydra.launcher", "hydra.sweep.dir", "hydra.output_subdir", "hydra.runtime", "hydra.overrides"]  # fmt: skip
KEYS = sorted({name for name, *_ in all_keys()} | {*CHOSEN})
NODES = ["", "data.", ".", "study", "tracking", "space", "study.sampler", "data.columns.0", "defaults", "clip.x", "a b"]
LEAVES = ["1", "0", "-1", "1.5", "1e308", "nan", "inf", "true", "null", "''", "text", "a b", "adam", "auto", "[]", "{}",
          "[1.5]", "[null]", "{a:1}", "[[1]]", "${clip}", "${nowhere}", "${", "}", "${oc.env:HOME}", "x.csv", "it's",
          "99999999999999999999", "9223372036854775807", "norm", "val/loss", "a@b", "~", "*", "\x00", "é"]  # fmt: skip
FUNCTIONS = ["choice", "range", "interval", "tag", "glob", "sort", "shuffle", "int", "float", "str", "bool", "prices"]


def joined(parts: Sequence[str]) -> str:
    return ",".join(parts)


leaves = st.sampled_from(LEAVES) | st.text(max_size=6)
values = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(joined),
        st.lists(inner, max_size=3).map(lambda items: f"[{joined(items)}]"),
        st.tuples(st.sampled_from(FUNCTIONS), st.lists(inner, max_size=3)).map(lambda f: f"{f[0]}({joined(f[1])})"),
        inner.map(lambda text: f"'{text}'"),
        inner.map(lambda text: f"{{a:{text}}}"),
    ),
    max_leaves=4,
)
keys = st.one_of(st.sampled_from(KEYS), st.sampled_from(KEYS), st.sampled_from([*HYDRAS, *NODES]), st.text(max_size=4))
before = st.sampled_from(["", "", "", "", "+", "++", "~", "-", "--"])
between = st.sampled_from(["=", "=", "=", "", "@x="])
words = st.one_of(
    st.tuples(before, keys, between, values).map("".join),
    st.sampled_from([*FLAGS, *OTHER_NAMES, "-x", "--", "-", ""]),
    st.text(max_size=8),
)  # fmt: skip
QUIET = settings(
    deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@given(st.lists(words, max_size=4), st.sampled_from([[], [], ["-m"], ["-m", "clip=1,2"], ["--cfg", "job"]]))
@settings(QUIET, max_examples=600)
def test_random_words_are_right_or_get_lines_and_leave_nothing(here: Path, argv: list[str], more: list[str]) -> None:
    lines: list[str] = []
    found: list[str] = []
    try:
        found = checked([*argv, *more], CONF)
    except CommandError as error:
        lines = error.lines
        assert lines
    assert all(line.strip() and "Traceback" not in line for line in lines)
    if not lines:
        assert checked(found, CONF) == found
    assert list(here.iterdir()) == []


@given(st.sampled_from(sorted(text_keys())), st.text(max_size=12) | values, st.booleans())
@settings(QUIET, max_examples=2000)
def test_a_text_is_spelled_once(key: str, typed: str, may_sweep: bool) -> None:
    keys = text_keys()
    word = spelled(f"{key}={typed}", keys, may_sweep)
    assert spelled(word, keys) == word
    assert not parsed([word])[1] or "(" in typed  # a function that fails is told as one
