"""A file that keeps how far a network has predicted, so that a later process goes on from there."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tbptt.runs import checkpoint
from tbptt.runs.contents import all_are, is_count, is_plain, is_text, or_none
from tbptt.serving.predictor import Predictor
from tbptt.system.files import refuse_link

Times = NDArray[np.int64]  # microseconds since 1970
KEEPS = {
    "names": all_are(is_text),
    "inputs": all_are(is_text),
    "predictor": lambda value: isinstance(value, dict) and is_plain(value),
    "until": or_none(lambda value: type(value) is int),
    "rows": is_count,
    "last": lambda value: isinstance(value, torch.Tensor) and value.dtype == torch.float64,
}


@dataclass
class Until:
    """How far series have been predicted.

    Attributes:
        names: of the series.
        inputs: the names of the other inputs.
        time: of the last row, in microseconds since 1970; None if the rows have no times.
        rows: how many rows there were.
        last: (B, 1 + D) the last price and the last other inputs of each series as they came in; NaN for none. A stream
            takes them for what depends on the row before.
        usual, longest: how far rows are apart, in microseconds; None if that is not known.
    """

    names: list[str]
    inputs: list[str]
    time: int | None
    rows: int
    last: torch.Tensor
    usual: int | None = None
    longest: int | None = None

    @classmethod
    def start(cls, names: list[str], inputs: list[str]) -> "Until":
        return cls(names, inputs, None, 0, torch.full((len(names), 1 + len(inputs)), torch.nan, dtype=torch.float64))

    def refuse_other_rows(self, times: bool, source: str) -> None:
        """Raises ValueError if the rows so far had times and those of ``source`` have none, or the other way round:
        which of them are new is not known then."""
        if not self.last[:, 0].isfinite().any() or (self.time is not None) == times:
            return
        one, other = ("times", "none") if self.time is not None else ("none", "times")
        raise ValueError(f"the rows of the state have {one}, those of {source} {other}: which are new is not known")

    def hole_before(self, times: Times) -> str | None:
        """A line if there is a hole between the rows so far and the new ones at ``times``, in microseconds: one that is
        longer than all distances between two rows that are known."""
        steps, longest, usual = np.diff(times), self.longest, self.usual
        if len(steps):
            longest, usual = max(int(steps.max()), longest or 0), usual or int(np.median(steps))
        if self.time is None or not len(times) or longest is None or usual is None:
            return None
        if (hole := int(times[0]) - self.time) <= longest:
            return None
        at = [str(np.datetime64(time, "us")).removesuffix(".000000") for time in (self.time, int(times[0]))]
        apart = f"{_long(hole)}, and rows are usually {_long(usual)} apart ({_long(longest)} at most)"
        return f"a hole between the state and the new rows, {at[0]} to {at[1]}: {apart}; rows may be missing there"

    def seen(self, times: Times) -> None:
        """Learn from more rows how far rows are apart."""
        if len(steps := np.diff(times)):
            self.longest = max(int(steps.max()), self.longest or 0)
            self.usual = self.usual if self.usual and len(steps) < 2 else int(np.median(steps))


def _long(microseconds: int) -> str:
    seconds = microseconds / 10**6
    for name, unit in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= unit:
            count = round(seconds / unit, 1)
            return f"{count:g} {name if count != 1 else name[:-1]}"
    return f"{seconds:g} seconds"


def read(path: Path | None, predictor: Predictor, names: list[str]) -> Until:
    """Set a predictor to where a state file says; where there is no file yet, it begins.

    Args:
        names: of the series, in order.

    Raises:
        ValueError: one line; the file is damaged, a link, or of another network or of other series.
    """
    inputs = predictor.trained.inputs
    begin = Until.start(names, inputs)
    if path is None:
        return begin
    refuse_link(path)
    if not path.exists():
        return begin
    try:
        found: dict[str, Any] = checkpoint.load(path, KEEPS)
    except ValueError as error:
        raise ValueError(f"state: got {str(path)!r}, which is no file that --state has written ({error})") from None
    if found["names"] != names or found["inputs"] != inputs:
        has = ", ".join(found["names"][:6])
        raise ValueError(f"{path} is a state of other series or inputs ({has}); takes that of {', '.join(names[:6])}")
    try:
        predictor.load_state_dict(found["predictor"])
    except ValueError as error:
        raise ValueError(f"{path} {error}: takes a state of {predictor.trained.source.said}") from None
    if found["last"].shape != begin.last.shape:
        raise ValueError(f"{path} is not of {len(names)} series of this network")
    usual, longest = (found.get(name) if type(found.get(name)) is int else None for name in ("usual", "longest"))
    return Until(names, inputs, found["until"], found["rows"], found["last"], usual, longest)


def write(path: Path, predictor: Predictor, until: Until) -> None:
    """Keep where a predictor is; the file is replaced whole. Raises ValueError if it is a link."""
    refuse_link(path)
    content: dict[str, Any] = {"names": until.names, "inputs": until.inputs, "predictor": predictor.state_dict()}
    content |= {"until": until.time, "rows": until.rows, "last": until.last}
    checkpoint.save(path, {**content, "usual": until.usual, "longest": until.longest})
