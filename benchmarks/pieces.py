"""The file of a study that is run in pieces, also by several processes at once: a CSV to which lines are appended."""

import csv
import fcntl
from collections.abc import Mapping, Sequence
from pathlib import Path


def read(path: Path) -> list[dict[str, str]]:
    """What is there; none before the first piece."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def keep(path: Path, columns: Sequence[str], lines: Sequence[Mapping[str, str]]) -> None:
    """Append lines whole, also where another piece writes at the same time."""
    with path.open("a", encoding="utf-8", newline="") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        if file.tell() == 0:
            writer.writeheader()
        writer.writerows(lines)
