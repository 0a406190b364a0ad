"""The command ``tbptt``: which command does what, and what its lines say to type next."""

import os
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from conftest import CONF, ROOT

from tbptt.cli import tool
from tbptt.cli.help_page import help_text
from tbptt.system import command, folders

Calls = list[tuple[str, list[str], Path]]
FUNCTIONS = {
    **{name: (f"tbptt.cli.{name}", "main") for name in ("train", "predict", "export", "studies", "servers")},
    "report": ("tbptt.cli.main", "report"),
}


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, here: Path) -> Calls:
    """What was called in the place of each command, which ends with the status 7."""
    found: Calls = []

    def stand_in(name: str) -> Any:
        def does(argv: Sequence[str], conf: Path) -> int:
            found.append((name, list(argv), conf))
            return 7

        return does

    for name, (module, function) in FUNCTIONS.items():
        stub = ModuleType(module)
        setattr(stub, function, stand_in(name))
        monkeypatch.setitem(sys.modules, module, stub)
    monkeypatch.setenv(command.VARIABLE, "")  # what is set here is undone
    monkeypatch.setattr(folders, "_first", None)
    return found


@pytest.mark.parametrize("name", FUNCTIONS)
def test_each_command_gets_its_words_and_ends_with_its_status(name: str, calls: Calls) -> None:
    assert set(FUNCTIONS) == set(tool.COMMANDS)
    assert tool.main([name, "-m", "clip=1,2", "--help"]) == 7
    assert calls == [(name, ["-m", "clip=1,2", "--help"], CONF)]


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["trian", "clip=1"], "tbptt: got 'trian'; takes one of train, report, predict, export, studies, servers; see "
         "tbptt --help; did you mean tbptt train?\n"),
        (["-m"], "tbptt: got '-m'; takes one of train, report, predict, export, studies, servers; see tbptt --help\n"),
        ([], "tbptt: no command; takes one of train, report, predict, export, studies, servers; see tbptt --help\n"),
    ],
)  # fmt: skip
def test_another_word_costs_one_line(
    argv: list[str], said: str, calls: Calls, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tool.main(argv) == 2
    assert capsys.readouterr() == ("", said)
    assert calls == []


def test_help_has_a_line_a_command_and_loads_nothing_large() -> None:
    code = (
        "import sys\nfrom tbptt.cli.tool import main\nassert main(['--help']) == main(['train', '--version']) == 0\n"
        "assert main(['--version']) == 0\n"
        "print({'torch', 'mlflow', 'optuna', 'hydra', 'omegaconf', 'numpy', 'pytorch_lightning'} & set(sys.modules))"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    *lines, of_train, number, loaded = done.stdout.splitlines()
    assert of_train == number
    assert (number, loaded) == (f"tbptt {version('tbptt')}", "set()")
    for name, (_, does) in tool.COMMANDS.items():
        assert [line.split() for line in lines if line.startswith(f"  tbptt {name} ")] == [
            ["tbptt", name, *does.split()]
        ]


def test_what_is_to_be_typed_next_is_said_as_the_command_was_typed(calls: Calls) -> None:
    assert command.command("train") == "python train.py"
    assert "\n  python train.py -m optimizer=adam" in help_text(CONF)
    assert command.install("x[y]", "z") == ".venv/bin/python -m pip install -e '.[z]'"
    tool.main(["train"])
    assert command.command("report") == "tbptt report"
    assert "python train.py" not in help_text(CONF)
    assert "\n  tbptt train -m optimizer=adam" in help_text(CONF)
    assert command.install("x[y]", "z") == "python -m pip install x[y]"
    tool.main(["train"], "python -m tbptt")
    assert command.command("train") == "python -m tbptt train"
    command.started_as(None)  # a script of a checkout that such a process starts
    assert command.command("train") == "python train.py"


def test_conf_in_the_working_folder_comes_first_but_for_servers(calls: Calls, here: Path) -> None:
    assert (folders.checkout(), folders.shipped()) == (ROOT, CONF)
    (here / "conf").mkdir()
    assert tool.main(["train"]) == 7
    assert folders.first() == here / "conf"
    (here / "conf" / "config.yaml").write_text("a: 1")
    assert tool.main(["train"]) == 2
    assert tool.main(["servers", "stop"]) == 7
    assert [name for name, *_ in calls] == ["train", "servers"]
