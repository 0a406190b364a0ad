"""Finding options of your own: files in ``own/``, and options of installed packages (docs/using.md).

These files are code and are run. So they are never searched for in a ``--config-dir``, which somebody else may have
sent.
"""

import hashlib
import importlib
import inspect
import pkgutil
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tbptt.system.runtime import Interrupted
from tbptt.system.trouble import disk_trouble

ENTRY_POINTS = "tbptt.options"
TABLES: list[dict[str, Any]] = []  # the tables to which such code adds entries; each table's module adds it here

_contents: dict[str, bytes] = {}  # by module of own/: the digest of its file when it was imported


def load_own() -> None:
    """Import the modules with options, clip modes, metrics and callbacks of your own: the files in ``own/`` and in
    ``src/tbptt/own``, and the entry points ``tbptt.options`` of installed packages. Each is imported once.

    A module that fails leaves nothing behind. After it is fixed, it can be imported in the same process.

    Raises:
        ValueError: a module fails; the message is one line about it.
    """
    from tbptt import own

    own.look()
    for module in pkgutil.iter_modules(own.__path__):
        name = f"{own.__name__}.{module.name}"
        if name not in sys.modules:
            _tried(lambda name=name: importlib.import_module(name), lambda name=name: _file(name), own.__name__)  # type: ignore[misc]
    _note_contents(own.__name__)
    _load_installed()


def own_digest() -> str | None:
    """The SHA-256 of the names and contents of all imported files of ``own/``; None if there are none."""
    if not _contents:
        return None
    return hashlib.sha256(repr(sorted(_contents.items())).encode()).hexdigest()


def differs(file: Path, below: Path) -> bool:
    """Whether a file of ``own/`` was imported already under the name of ``file``, with another content.

    Args:
        below: the folder like ``own/`` in which ``file`` lies.
    """
    parts = file.relative_to(below).with_suffix("").parts
    name = ".".join(["tbptt.own", *(parts[:-1] if parts[-1] == "__init__" else parts)])
    return name in _contents and _contents[name] != hashlib.sha256(file.read_bytes()).digest()


def _note_contents(package: str) -> None:
    for name, module in sys.modules.copy().items():  # another thread may import
        file = getattr(module, "__file__", None)
        if name.startswith(f"{package}.") and name not in _contents and file:
            with suppress(OSError):  # the file was removed meanwhile
                _contents[name] = hashlib.sha256(Path(file).read_bytes()).digest()


@cache
def _load_installed() -> None:
    for entry in entry_points(group=ENTRY_POINTS):
        where = f"{entry.value}, of an installed package"
        _tried(entry.load, lambda where=where: where, entry.module.split(".")[0])  # type: ignore[misc]


def _tried(load: Callable[[], object], where: Callable[[], str], package: str) -> None:
    try:
        with _undone_if_it_fails(package):
            load()
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0]
        raise ValueError(f"{where()}: {type(error).__name__}: {reason}") from error


@contextmanager
def _undone_if_it_fails(package: str) -> Iterator[None]:
    """Undo an import from ``package`` if it fails: remove the entries that it added to the tables, and the package's
    modules that it imported. Otherwise a second import would skip these modules, and would not add their entries."""
    tables, modules = [dict(table) for table in TABLES], set(sys.modules.copy())
    try:
        yield
    except BaseException:
        for table, before in zip(TABLES, tables, strict=False):
            table.clear()
            table.update(before)
        for name in [
            name for name in sys.modules.copy() if name not in modules and f"{name}.".startswith(f"{package}.")
        ]:
            del sys.modules[name]
            above, _, leaf = name.rpartition(".")
            vars(sys.modules[above]).pop(leaf, None) if above in sys.modules else None
        raise


def _file(name: str) -> str:
    """A module's file, relative to the working directory if it is there."""
    spec = find_spec(name)
    return _shown(Path(spec.origin) if spec and spec.origin else Path(name))


def is_own(of: Any) -> bool:
    """Whether a class or function is the user's own: it comes from ``own/`` or from outside tbptt's packages."""
    return not str(of.__module__).startswith("tbptt.") or str(of.__module__).startswith("tbptt.own")


@contextmanager
def said_of(of: Any, what: str) -> Iterator[None]:
    """Turn an error of the user's own code into a ValueError of one line: ``what``, the error, and its line in the file
    of ``of``. Errors that are not the code's fault, such as a full disk or a signal, pass unchanged."""
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
    """The line in the file of a class or function at which an error arose; empty if the error is not from there."""
    try:
        file = inspect.getsourcefile(of)
    except TypeError:
        return ""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return f" ({_shown(Path(file))}, line {lines[-1]})" if file and lines else ""


def _shown(file: Path) -> str:
    return str(file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file)
