"""The columns of a network's MLflow model: prices and other inputs in, predictions out.

If each series has its own scale, there is a column of prices for each, called as the series. If all share one scale,
any series can be predicted: their prices are in the column ``price``, and the column ``series`` says whose each is.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from tbptt.data.panels.inputs import FORMS
from tbptt.tasks.options import TaskConfig

PRICE, SERIES = "price", "series"
STATE, RETURN_STATE = "state", "return_state"  # a param and a column; a param
SIDE = "side"


@dataclass(frozen=True)
class Columns:
    """The columns of a network.

    Attributes:
        series: the names of its series; None if it predicts any series.
        inputs: of each other input, in their order: its column and its form.
        outputs: what the predictions of a series are called, O words, and ``side`` if the task decides.
    """

    series: list[str] | None
    inputs: list[tuple[str, str]]
    outputs: list[str]

    @property
    def needed(self) -> list[str]:
        """The columns of numbers without which nothing is predicted."""
        shared = [column for column, _ in self.inputs] if self.series is None or len(self.series) == 1 else []
        return list(dict.fromkeys([*(self.series or [PRICE]), *shared]))

    @property
    def optional(self) -> list[str]:
        """More columns of numbers: other inputs, one column for all series or one for each."""
        found = [name for column, _ in self.inputs for name in self.of_input(column)]
        return [name for name in dict.fromkeys(found) if name not in self.needed]

    def of_input(self, column: str) -> Iterator[str]:
        """The names that the column of an input may have."""
        yield column
        if len(self.series or []) > 1:
            yield from (f"{name}.{column}" for name in self.series or [])

    def given(self, names: list[str] | None = None) -> list[str]:
        """The columns of the predictions of some series, by default of all of the network's."""
        return [f"{name}.{output}" for name in names or self.series or [PRICE] for output in self.outputs]


def columns_of(content: dict[str, Any], cfg: DictConfig) -> Columns:
    """The columns of a checkpoint's network.

    Args:
        cfg: its config, typed.
    """
    task = cast(TaskConfig, OmegaConf.to_object(cfg.task))
    series, count = content.get("series"), len(content["scaler"]["input_mean"])
    if count == 1 and series is not None and len(series) != 1:
        series = None
    if count > 1 and (series is None or len(series) != count):  # a checkpoint that is older than the names
        series = [f"{PRICE}_{i + 1}" for i in range(count)]
    inputs = [parted(text) for text in OmegaConf.select(cfg, "data.inputs") or []]
    return Columns(series, inputs, [*task.output_names, *([SIDE] if task.decides else [])])


def parted(text: str) -> tuple[str, str]:
    """An other input, ``volume:log1p``, as its column and its form."""
    name, colon, form = text.rpartition(":")
    return (name, form) if colon and form in FORMS else (text, "level")
