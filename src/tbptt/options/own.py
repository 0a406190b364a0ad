"""Finding options of your own: files in ``own/``, and those that an installed package brings (docs/using.md).

These files are code, and are run. They are looked for where you keep yours, never in a ``--config-dir``, which others
may have sent.
"""

import importlib
import pkgutil
from collections.abc import Callable
from functools import cache
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path

ENTRY_POINTS = "tbptt.options"


def load_own() -> None:
    """Import what brings options, clip modes and callbacks of your own: the files in ``own/`` and in ``src/tbptt/own``,
    and the entry points ``tbptt.options`` of installed packages. What is imported already is not imported again.

    Raises:
        ValueError: with a line for one that fails.
    """
    from tbptt import own

    own.look()
    for module in pkgutil.iter_modules(own.__path__):
        name = f"{own.__name__}.{module.name}"
        _tried(lambda name=name: importlib.import_module(name), lambda name=name: _file(name))  # type: ignore[misc]
    _load_installed()


@cache
def _load_installed() -> None:
    for entry in entry_points(group=ENTRY_POINTS):
        _tried(entry.load, lambda entry=entry: f"{entry.value}, of an installed package")  # type: ignore[misc]


def _tried(load: Callable[[], object], where: Callable[[], str]) -> None:
    try:
        load()
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0]
        raise ValueError(f"{where()}: {type(error).__name__}: {reason}") from error


def _file(name: str) -> str:
    """A module's file, as one reads it in the working directory."""
    spec = find_spec(name)
    file = Path(spec.origin) if spec and spec.origin else Path(name)
    return str(file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file)
