"""Names of studies. A study's name is that of its folder in ``sweeps/`` too, and part of those of its files."""

import re
import unicodedata
from collections.abc import Collection, Iterator
from pathlib import Path

from omegaconf import DictConfig

from tbptt.options.takes import TEXT, Takes
from tbptt.system.stores import sqlite_path

SWEEPS = Path("sweeps")
MOST_CHARACTERS = 100
# A file's name has 255 bytes, and most letters beyond English take several. 15 are left for ``.NAME.lock`` and the
# number behind the name of a fresh study.
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
    """Why a study cannot have the name that it is given here, or None: its folder would be another study's, or a file
    is there, or will be one of a store."""
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
    """The name of a study that was given none: what it searches, and a digest."""
    behind = f"-{digest[:8]}"
    return _cut(re.sub(r"[^\w+-]", "-", "+".join(keys))[:60], behind) + behind


def numbered(name: str, taken: Collection[str]) -> str:
    """The name, or with the next number behind it where it is taken; also where case is all that tells them apart."""
    known = {each.casefold() for each in taken}
    tried = (name, *(_cut(name, f"-{i}") + f"-{i}" for i in range(2, len(known) + 3)))
    return next(each for each in tried if each.casefold() not in known)


def _cut(name: str, behind: str) -> str:
    """A name without its last letters, so that with something behind it is a study's still."""
    while len(name + behind) > MOST_CHARACTERS or len((name + behind).encode()) > MOST_BYTES:
        name = name[:-1]
    return name


def _one_form(name: str) -> str:
    """A disk may keep é as one letter or as two."""
    return unicodedata.normalize("NFC", name)


def _files_of_stores(storage: str, tracking: str) -> Iterator[str]:
    """The names in ``sweeps/`` that the stores have, or will have."""
    here = SWEEPS.absolute()
    for path in (sqlite_path(storage), sqlite_path(tracking)):
        if path is not None and path.parent == here:
            yield from (path.name, *(f"{path.name}-{end}" for end in ("journal", "wal", "shm")))
        elif path is not None and here in path.parents:
            yield path.relative_to(here).parts[0]
    if (path := sqlite_path(tracking)) is not None and path.parent == here:
        yield from ("artifacts", "pending")  # of MLflow's runs
