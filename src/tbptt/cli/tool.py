"""The command ``tbptt``, also as ``python -m tbptt``, and the scripts of a checkout (train.py, report.py), which do the
same.

This module imports nothing that takes time: ``tbptt --help`` answers at once, and Ctrl-C during a command's imports
ends it quietly.
"""

import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import NoReturn

from tbptt.system import collecting, early, folders
from tbptt.system.command import started_as

# By command: the function that does it, as MODULE:NAME of tbptt.cli, and what it does.
COMMANDS = {
    "train": ("train:main", "train one run, or with -m a study of many"),
    "report": ("main:report", "write a study's report again, also while it runs"),
    "predict": ("predict:main", "predictions of a trained network on new rows"),
    "export": ("export:main", "a trained network as ONNX or as an MLflow model"),
    "studies": ("studies:main", "list, show and remove studies"),
    "servers": ("servers:main", "start and stop PostgreSQL and MLflow on this machine"),
}


def console() -> NoReturn:
    """The command ``tbptt``, and ``python -m tbptt``. Ends the process."""
    _begin()
    _leave(main(sys.argv[1:], "python -m tbptt" if early.is_the_module() else "tbptt"))


def script(name: str, conf: Path) -> NoReturn:
    """One of the scripts of a checkout, such as train.py. Ends the process.

    Args:
        name: of the command.
        conf: the folder of the configs beside the script.
    """
    _begin()
    started_as(None)
    if "--version" in sys.argv[1:]:
        _leave(_say_version())
    _leave(_do(name)(sys.argv[1:], conf))


def main(argv: Sequence[str], program: str = "tbptt") -> int:
    """Run ``tbptt ARGV`` and return its exit status (:func:`tbptt.cli.ending.ran`). ``conf/`` and ``own/`` in the
    working folder come before those of the package.

    Args:
        program: what was typed before ``argv``; lines that say what to type next begin with it.
    """
    name, *words = argv or [""]
    if name in ("--help", "-h"):
        return _say(_help(program), 0)
    if name == "--version" or (name in COMMANDS and "--version" in words):  # Hydra would print its own
        return _say_version()
    if name not in COMMANDS:
        return _say(_wrong(name, program), 2)
    started_as(program)
    conf = folders.shipped()
    if name != "servers" and Path("conf").is_dir():
        from tbptt.cli.working_folder import looked_at

        if status := looked_at(conf):
            return status
    return _do(name)(words, conf)


def _begin() -> None:
    """Set the process up for a command's imports, if it is the command's own."""
    early.end_quietly()
    if early.is_the_command():
        collecting.seldom()


def _do(name: str) -> Callable[[Sequence[str], Path], int]:
    module, _, function = COMMANDS[name][0].partition(":")
    found: Callable[[Sequence[str], Path], int] = getattr(import_module(f"tbptt.cli.{module}"), function)
    return found


def _help(program: str) -> str:
    lines = [f"  {program} {name:<10} {what}" for name, (_, what) in COMMANDS.items()]
    return "\n".join(
        [
            "Train recurrent networks on sequences too long to backpropagate through at once; search what trains them.",
            "",
            *lines,
            "",
            f"{program} COMMAND --help says what a command takes, {program} --version which version this is.",
            "conf/ and own/ in the working folder come before those of the package.",
        ]
    )


def _wrong(name: str, program: str) -> str:
    takes = f"takes one of {', '.join(COMMANDS)}; see {program} --help"
    if not name:
        return f"{program}: no command; {takes}"
    from difflib import get_close_matches

    near = get_close_matches(name, COMMANDS, n=1)
    return f"{program}: got {name!r}; {takes}" + (f"; did you mean {program} {near[0]}?" if near else "")


def _say_version() -> int:
    from importlib.metadata import version

    return _say(f"tbptt {version('tbptt')}", 0)


def _say(text: str, status: int) -> int:
    from tbptt.system.runtime import prepare_output, say

    prepare_output()
    say(text, sys.stderr if status else sys.stdout)
    return status


def _leave(status: int) -> NoReturn:
    if "tbptt.cli.ending" not in sys.modules:  # nothing is loaded that would take time to take down
        sys.exit(status)
    from tbptt.system.endings import leave

    leave(status)
