"""The commands as the user types them, for lines that say what to type next.

There are two ways in: the scripts of a checkout (``python train.py``) and the command of the installed package (``tbptt
train``). An environment variable says which one it was, so that workers, which write such lines too, know it.
"""

import os
import shlex

from tbptt.system.environment import uri_of

VARIABLE = "TBPTT_COMMAND"
SCRIPTS = ("train", "report", "predict", "export")  # of a checkout


def started_as(program: str | None) -> None:
    """Note how this process was started.

    Args:
        program: what is typed before the command's name, such as ``tbptt``; None for the scripts of a checkout.
    """
    os.environ.pop(VARIABLE, None)
    if program:
        os.environ[VARIABLE] = program


def command(name: str) -> str:
    """How a command such as ``train`` is typed: ``python train.py`` or ``tbptt train``. A command without a script is
    typed as the package's in a checkout too."""
    program = os.environ.get(VARIABLE)
    if not program and name in SCRIPTS:
        return f"python {name}.py"
    return f"{program or 'tbptt'} {name}"


def use_command(what: str, tracking_uri: str = "") -> str:
    """How a trained network is used on a file.

    Args:
        what: the id of its run, or its study's name.
        tracking_uri: of its runs, where it has to be said; the command's default has not.
    """
    quoted = f'"{tracking_uri}"' if tracking_uri.startswith("$") else shlex.quote(tracking_uri)  # a variable
    is_default = tracking_uri in ("", uri_of())
    server = "" if is_default else f" tracking.uri={quoted}"
    return f"{command('predict')} {shlex.quote(what)} data.path=FILE{server}"


def install(package: str, extra: str | None = None) -> str:
    """How a package that is missing is installed.

    Args:
        extra: the extra of this project that has it. A checkout is installed with it again.
    """
    if os.environ.get(VARIABLE):
        return f"python -m pip install {package}"
    what = f"-e '.[{extra}]'" if extra else package
    return f".venv/bin/python -m pip install {what}"
