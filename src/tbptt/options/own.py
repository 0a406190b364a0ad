"""Finding options of your own: files in ``own/``, and those that an installed package brings (docs/using.md).

These files are code, and are run. They are looked for where you keep yours, never in a ``--config-dir``, which others
may have sent.
"""

import importlib
import inspect
import pkgutil
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tbptt.system.runtime import Interrupted
from tbptt.system.trouble import disk_trouble

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
    return _shown(Path(spec.origin) if spec and spec.origin else Path(name))


def is_own(of: Any) -> bool:
    """Whether a class or function is none of tbptt's packages: it was brought from elsewhere."""
    return not str(of.__module__).startswith("tbptt.") or str(of.__module__).startswith("tbptt.own")


@contextmanager
def said_of(of: Any, what: str) -> Iterator[None]:
    """What code of one's own raises, as a ValueError of one line: ``what``, the error, and where it came from in the
    file of ``of``; not what is no fault of its own, as a full disk or a signal."""
    try:
        yield
    except (Interrupted, MemoryError):
        raise
    except Exception as error:
        if disk_trouble(error) or "can't allocate memory" in str(error):
            raise
        first = (str(error).strip().splitlines() or [""])[0]
        raise ValueError(f"{what} raised {type(error).__name__}: {first}{_where(of, error)}") from error


def _where(of: Any, error: Exception) -> str:
    """The line of a class's or function's file at which an error arose; empty where it is not from there."""
    try:
        file = inspect.getsourcefile(of)
    except TypeError:
        return ""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return f" ({_shown(Path(file))}, line {lines[-1]})" if file and lines else ""


def _shown(file: Path) -> str:
    return str(file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file)
