"""Names of studies. A study's folder in ``sweeps/`` has the study's name, and the names of its files contain it."""

import re
import unicodedata
from collections.abc import Collection, Iterator
from pathlib import Path

from omegaconf import DictConfig

from tbptt.options.takes import TEXT, Takes
from tbptt.system.stores import SQLITE, sqlite_path

SWEEPS = Path("sweeps")
DEFAULT_STORAGE = f"{SQLITE}{SWEEPS}/optuna.db"
MOST_CHARACTERS = 100
# A file name may have 255 bytes, and most letters outside English take several bytes. The limit leaves 15 bytes for
# ``.NAME.lock`` and for the number after the name of a fresh study.
MOST_BYTES = 240


def _is_name(value: object) -> bool:
    return (
        isinstance(value, str)
        and TEXT.test(value)
        and value.isprintable()
        and value == value.strip()
        and not value.startswith(".")
        and not value.endswith(".")  # which some file systems drop
        and "/" not in value
        and len(value) <= MOST_CHARACTERS
        and len(value.encode()) <= MOST_BYTES
    )


STUDY_NAME = Takes(
    f"a name that can be a folder's (at most {MOST_CHARACTERS} characters and {MOST_BYTES} bytes, no / in it, no dot "
    "or space before or behind it), or null",
    lambda v: v is None or _is_name(v),
)


def name_problem(cfg: DictConfig) -> str | None:
    """Why a study cannot have the name that a config gives it, or None. Its folder must not be another study's, a file,
    or something that belongs to a store."""
    name, takes = cfg.study.name, "takes another name"
    if name is None:
        return None
    if name.casefold() in {file.casefold() for file in _files_of_stores(cfg.study.storage, cfg.tracking.uri)}:
        return f"got {name!r}, the name of a file or folder of the stores in {SWEEPS}/; {takes}"
    folder = SWEEPS / name
    if not folder.exists():
        return None
    if not folder.is_dir():
        return f"got {name!r}, and {folder} is a file; {takes}"
    there = {_one_form(path.name): path.name for path in SWEEPS.iterdir()}
    if _one_form(name) in there:
        return None
    same = next((known for form, known in there.items() if form.casefold() == _one_form(name).casefold()), "another")
    return f"got {name!r}, which this disk does not tell from {same!r}, the folder of another study; {takes}"


def derived(keys: Collection[str], digest: str) -> str:
    """The name of a study that was given none: the keys that it searches, and a digest."""
    behind = f"-{digest[:8]}"
    return _cut(re.sub(r"[^\w+-]", "-", "+".join(keys))[:60], behind) + behind


def numbered(name: str, taken: Collection[str]) -> str:
    """The name, with the next free number after it if it is taken. Names that differ only in case count as the same."""
    known = {each.casefold() for each in taken}
    tried = (name, *(_cut(name, f"-{i}") + f"-{i}" for i in range(2, len(known) + 3)))
    return next(each for each in tried if each.casefold() not in known)


def _cut(name: str, behind: str) -> str:
    """A name shortened so that, with ``behind`` after it, it is no longer than a study's name may be."""
    while len(name + behind) > MOST_CHARACTERS or len((name + behind).encode()) > MOST_BYTES:
        name = name[:-1]
    return name


def _one_form(name: str) -> str:
    """A name in Unicode's composed form: a disk may store é as one character or as two."""
    return unicodedata.normalize("NFC", name)


def _files_of_stores(storage: str, tracking: str) -> Iterator[str]:
    """The names of files and folders in ``sweeps/`` that the stores use or will make."""
    here = SWEEPS.absolute()
    for path in (sqlite_path(storage), sqlite_path(tracking)):
        if path is not None and path.parent == here:
            yield from (path.name, *(f"{path.name}-{end}" for end in ("journal", "wal", "shm")))
        elif path is not None and here in path.parents:
            yield path.relative_to(here).parts[0]
    if (path := sqlite_path(tracking)) is not None and path.parent == here:
        yield from ("artifacts", "pending")  # of MLflow's runs
