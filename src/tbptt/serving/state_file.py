"""A file that keeps how far a network has predicted, so that a later process goes on from there."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tbptt.runs import checkpoint
from tbptt.runs.contents import all_are, is_count, is_plain, is_text, or_none
from tbptt.serving.predictor import Predictor
from tbptt.system.files import refuse_link

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
    """

    names: list[str]
    inputs: list[str]
    time: int | None
    rows: int
    last: torch.Tensor

    @classmethod
    def start(cls, names: list[str], inputs: list[str]) -> "Until":
        return cls(names, inputs, None, 0, torch.full((len(names), 1 + len(inputs)), torch.nan, dtype=torch.float64))


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
    found: dict[str, Any] = checkpoint.load(path, KEEPS)
    if found["names"] != names or found["inputs"] != inputs:
        has = ", ".join(found["names"][:6])
        raise ValueError(f"{path} is a state of other series or inputs ({has}); takes that of {', '.join(names[:6])}")
    try:
        predictor.load_state_dict(found["predictor"])
    except ValueError as error:
        raise ValueError(f"{path} {error}: takes a state of {predictor.trained.source.said}") from None
    if found["last"].shape != begin.last.shape:
        raise ValueError(f"{path} is not of {len(names)} series of this network")
    return Until(names, inputs, found["until"], found["rows"], found["last"])


def write(path: Path, predictor: Predictor, until: Until) -> None:
    """Keep where a predictor is; the file is replaced whole. Raises ValueError if it is a link."""
    refuse_link(path)
    content = {"names": until.names, "inputs": until.inputs, "predictor": predictor.state_dict()}
    checkpoint.save(path, {**content, "until": until.time, "rows": until.rows, "last": until.last})
