"""A config that somebody sent costs no more than its size, and a line: whatever it repeats or nests."""

from pathlib import Path

import pytest
from test_command_line import refused

from tbptt.system.nesting import DEEPEST, LARGEST, is_too_deep, yaml_problem

HEAD = "defaults: [config, _self_]\n"
BOMB = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n" + "".join(f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 9))
WRONG = {
    "repeats": (BOMB, "stands for more than 20,000 keys and values"),
    "within itself": ("a: &a [*a]\n", "has &a, which stands within itself"),
    "nested": ("a: " + "[" * 3000 + "]" * 3000, f"is nested more than {DEEPEST} deep"),
    "nested maps": ("a: " + "{b: " * 60 + "}" * 60, f"is nested more than {DEEPEST} deep"),
    "nested by names": (
        "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}]\n" for i in range(1, 60)),
        f"is nested more than {DEEPEST} deep",
    ),
    "never closed": ("a: " + "[" * 3000, f"is nested more than {DEEPEST} deep"),
    "large": ("# " + LARGEST * "x", "bytes; takes at most 1,000,000"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_file_that_grows_is_refused_wherever_it_is_named(what: str, here: Path) -> None:
    content, says = WRONG[what]
    Path("sent.yaml").write_text(HEAD + content)
    Path("sweep").mkdir()
    Path("sweep/sent.yaml").write_text("# @package _global_\n" + content)
    (line,) = refused(["--config-dir", ".", "--config-name", "sent"])
    assert line.startswith(f"--config-name: {here}/sent.yaml ")
    assert says in line
    (line,) = refused(["--config-dir", ".", "-m", "sweep=sent"])
    assert line.startswith(f"{here}/sweep/sent.yaml ")
    assert says in line


def test_what_repeats_a_little_may_be_read(here: Path) -> None:
    Path("ok.yaml").write_text("a: &a {b: [1, 2]}\nc: *a\nd: {<<: *a, e: 1}\n")
    Path("wrong.yaml").write_text("a: [1\n")  # who reads it says so
    assert yaml_problem(Path("ok.yaml")) is None
    assert yaml_problem(Path("wrong.yaml")) is None


@pytest.mark.parametrize("word", ["[" * 3000 + "]" * 3000, "choice(" * 60 + ")" * 60, "{a:" * 60, "${" * 60 + "}" * 60])
def test_what_is_typed_is_not_nested_too_deeply(word: str) -> None:
    for more in ([], ["-m"]):
        (line,) = refused([*more, f"clip={word}"])
        assert line.startswith("clip: is nested too deeply; takes at most 50 brackets")
    assert not is_too_deep("[[1,2],[3]]" * 100)
