"""Where the shipped configs are, and where the user's own ones are.

In a checkout, the shipped configs are its ``conf/``. In a wheel they lie inside the package. The command ``tbptt`` also
takes what lies in ``conf/`` of the working folder; these files come before the shipped ones of the same name.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]

_first: Path | None = None


def checkout() -> Path | None:
    """The folder of ``train.py``, ``conf/`` and ``src/`` if this code runs from one, as after an editable install; None
    if it was installed as a package."""
    project = PACKAGE.parents[1]
    is_one = PACKAGE.parent.name == "src" and (project / "train.py").is_file() and (project / "conf").is_dir()
    return project if is_one else None


def shipped() -> Path:
    """The folder of the shipped configs."""
    project = checkout()
    return (project or PACKAGE) / "conf"


def is_shipped(folder: str) -> bool:
    """Whether a folder, which need not exist, is that of the shipped configs."""
    return Path(folder).resolve() == shipped()


def first() -> Path | None:
    """The folder whose configs come before the shipped ones; None if there is none."""
    return _first


def look_here() -> None:
    """From now on, ``conf/`` in the working folder comes before the shipped configs, if it is there."""
    global _first
    here = Path.cwd() / "conf"
    _first = here if here.is_dir() and not here.samefile(shipped()) else None


@contextmanager
def coming_first(folder: Path | None) -> Iterator[None]:
    """Within, the configs in ``folder`` come before the shipped ones."""
    global _first
    before, _first = _first, folder
    try:
        yield
    finally:
        _first = before
