"""MLflow's way in: the flavor python_function of a run's model, which ``mlflow.pyfunc.load_model`` and ``mlflow models
serve`` load (runs/model.py writes it).

The checkpoint beside it is read as any other: with ``weights_only``, its checksum, and a test of each part. Nothing is
unpickled.
"""

import base64
import binascii
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from numpy.typing import NDArray

from tbptt import own
from tbptt.data.panels.inputs import formed
from tbptt.options.own import differs, load_own
from tbptt.runs import checkpoint, contents
from tbptt.runs.columns import PRICE, RETURN_STATE, SERIES, SIDE, STATE, Columns, columns_of
from tbptt.runs.model import FILE, OWN
from tbptt.serving.predictor import Predictor
from tbptt.serving.source import Source
from tbptt.serving.trained import Trained, trained

Array = NDArray[np.float64]
LONGEST_STATE = 2**26  # characters
# What a state holds: for each group of series that are predicted together, their names, the predictor's own state, and
# (B, D) the last value of each other input, of which a change is made.
IS_STATE = {
    "parts": contents.all_are(
        contents.has(
            {"series": contents.all_are(contents.is_text), "predictor": contents.each_is(contents.is_plain)}
            | {"last": lambda value: isinstance(value, torch.Tensor) and value.dtype == torch.float64}
        )
    )
}


def _load_pyfunc(path: str) -> "Model":
    """The model in a folder. MLflow calls this.

    Raises ValueError if its checkpoint cannot be read, or a file of the user's own that came with it differs from the
    one of this name that this process uses already.
    """
    folder = Path(path)
    use_own(folder / OWN)
    content = checkpoint.load(folder / FILE, contents.OF_A_MODEL)
    return Model(trained(Source(content, "the model")))


def use_own(folder: Path) -> None:
    """Import the user's own files that came with a model, where there are none of these names.

    Only MLflow's way in does so. Whoever loads a model with MLflow runs what is in it anyway.
    """
    if not folder.is_dir():
        return
    load_own()  # those in own/, if there is one, come first
    for path in sorted(folder.rglob("*.py")):
        if differs(path, folder):
            name = f"{OWN}/{path.relative_to(folder)}"
            raise ValueError(f"the model came with {name}, and this process uses another file of that name already")
    if str(folder) in own.of_models:
        return
    own.of_models.append(str(folder))
    try:
        load_own()
    except BaseException:  # else every later load would meet these files again
        own.of_models.remove(str(folder))
        own.look()
        raise


class Mistake(MlflowException, ValueError):
    """What a model cannot take, in one line. MLflow's server passes the line on with status 400; of another error it
    would only say that it was unexpected."""

    def __init__(self, line: str):
        super().__init__(line, error_code=INVALID_PARAMETER_VALUE)


class Answers(pd.DataFrame):
    """A table whose blanks are None where it becomes plain objects. MLflow's server makes its JSON of these, and JSON
    has no NaN."""

    def to_dict(self, *args: Any, **more: Any) -> Any:
        return pd.DataFrame(self).astype(object).where(self.notna(), None).to_dict(*args, **more)


class Model:
    """A trained network that takes and gives tables.

    Attributes:
        columns: what it takes and gives.
    """

    def __init__(self, of: Trained):
        self._trained = of
        self.columns: Columns = columns_of(of.source.content, of.config)

    def predict(self, model_input: Any, params: Mapping[str, Any] | None = None) -> pd.DataFrame:
        """Predict each row of a table, oldest first.

        Args:
            model_input: a table (a DataFrame, or what makes one). If the network has a scale for each series: a column
                of prices for each, called as the series. Otherwise a column ``price``, and where it has several series
                a column ``series`` that says whose price each is; or, without these two, a column of prices for each
                series, called as you like. A blank price is missing. Other inputs are in columns of their own, as they
                are in the file, without their forms: ``volume`` of ``volume:log1p``. If there are several series, one
                column is that of all, and ``SERIES.volume`` is that of one.
            params: ``state``: the text that ended what came before. ``return_state``: whether to give such a text.

        Returns:
            A row for each: ``SERIES.OUTPUT``, in the units of the task's targets, and ``SERIES.side`` if the task
            decides (1 long, -1 short, after costs). NaN where there is no prediction: the price is missing, or fewer
            than W came before it. With ``return_state`` also ``state``: the text in the last row, None in the others.

        Raises:
            Mistake: a ValueError; a column is missing or holds anything but numbers; the state is not of this network
                and these series.
        """
        try:
            return self._predict(model_input, params or {})
        except ValueError as error:
            raise Mistake(str(error)) from None

    def _predict(self, model_input: Any, params: Mapping[str, Any]) -> pd.DataFrame:
        table = model_input if isinstance(model_input, pd.DataFrame) else pd.DataFrame(model_input)
        table = table.rename(columns=str)
        before = unpacked(str(params.get(STATE) or ""))
        predict = self._long if self.columns.series is None and PRICE in table else self._wide
        found, parts = predict(table, before)
        if params.get(RETURN_STATE) and len(found):
            found[STATE] = [*[None] * (len(found) - 1), packed(parts)]
        return Answers(found)

    def _wide(self, table: pd.DataFrame, before: list[dict[str, Any]]) -> tuple[pd.DataFrame, list[dict[str, Any]]]:
        """Predict a table with a column for each series."""
        inputs = {column for column, _ in self.columns.inputs}
        names = self.columns.series
        if names is None:
            own = {f"{name}.{column}" for name in table for column in inputs}
            names = [str(name) for name in table if name not in inputs | own]
        if lacks := [name for name in names if name not in table]:
            raise ValueError(f"no column {', '.join(lacks[:12])}; takes the prices of {', '.join(names[:12])}")
        if not names:
            raise ValueError(f"no column of prices; takes {PRICE}, or a column for each series")
        if before and (len(before) != 1 or list(before[0]["series"]) != names):
            raise ValueError(f"{STATE}: is of other series")
        prices = np.stack([_numbers(table, name) for name in names])
        values, part = self._predicted(names, prices, self._inputs(table, names), before[0] if before else None)
        columns = {name: values[:, i] for i, name in enumerate(self.columns.given(names))}
        return pd.DataFrame(columns, index=table.index), [part]

    def _long(self, table: pd.DataFrame, before: list[dict[str, Any]]) -> tuple[pd.DataFrame, list[dict[str, Any]]]:
        """Predict a table in which each row has a price of one series; all series share the network's scale."""
        named = table[SERIES] if SERIES in table else pd.Series("", index=table.index)
        codes, labels = pd.factorize(named.fillna("").astype(str))
        known = {str(part["series"][0]): part for part in before if len(part["series"]) == 1}
        # A series that is named may begin at any time. That one with a name goes on as one without cannot be meant.
        if len(known) < len(before) or (before and "" in {*labels, *known} and not {*labels} & {*known}):
            raise ValueError(f"{STATE}: is of other series")
        found, values = dict(known), np.full((len(table), len(self.columns.outputs)), np.nan)
        prices, inputs = _numbers(table, PRICE), self._inputs(table, [PRICE])
        for code, label in enumerate(labels):
            rows = np.flatnonzero(codes == code)
            given = self._predicted([str(label)], prices[None, rows], inputs[:, rows], known.get(str(label)))
            values[rows], found[str(label)] = given
        columns = {name: values[:, i] for i, name in enumerate(self.columns.given())}
        return pd.DataFrame(columns, index=table.index), list(found.values())

    def _inputs(self, table: pd.DataFrame, names: list[str]) -> Array:
        """(B, N, D), the other inputs of each series, without their forms."""
        found = np.empty((len(names), len(table), len(self.columns.inputs)))
        for i, (column, _) in enumerate(self.columns.inputs):
            for row, name in enumerate(names):
                called = f"{name}.{column}" if f"{name}.{column}" in table else column
                if called not in table:
                    raise ValueError(f"no column {column}, which is an input of the network")
                found[row, :, i] = _numbers(table, called)
        return found

    def _predicted(
        self, names: list[str], prices: Array, inputs: Array, before: dict[str, Any] | None
    ) -> tuple[Array, dict[str, Any]]:
        """The predictions of some series, (N, B · outputs), and the state after them.

        Args:
            prices: (B, N).
            inputs: (B, N, D), as they are in the table.
        """
        predictor = Predictor(self._trained, len(names))
        last = np.full((len(names), inputs.shape[2]), np.nan)
        if before is not None:
            try:
                predictor.load_state_dict(before["predictor"])
            except ValueError as error:
                raise ValueError(f"{STATE}: {error}") from None
            if tuple(before["last"].shape) != last.shape:
                raise ValueError(f"{STATE}: is not of the inputs of this network")
            last = before["last"].numpy().copy()
        extra = self._formed(prices, inputs, last)
        given = predictor(torch.from_numpy(prices), torch.from_numpy(extra))
        values = given.values.numpy()
        if SIDE in self.columns.outputs and given.side is not None:
            side = given.side.numpy().astype(np.float64)
            values = np.concatenate([values, np.where(side == 0, np.nan, side)[..., None]], axis=2)
        state = {"series": names, "predictor": predictor.state_dict(), "last": torch.from_numpy(last)}
        return values.transpose(1, 0, 2).reshape(prices.shape[1], -1), state

    def _formed(self, prices: Array, inputs: Array, last: Array) -> Array:
        """(B, N, D), the other inputs in their forms, at the rows that have a price. Moves ``last`` on."""
        found = np.full(inputs.shape, np.nan)
        for row, known in enumerate(np.isfinite(prices)):
            for i, (_, form) in enumerate(self.columns.inputs):
                values = np.concatenate([last[row, i : i + 1], inputs[row, known, i]])
                paid = np.concatenate([[np.nan], prices[row, known]])
                found[row, known, i] = formed(form, values, paid)[1:]
                last[row, i] = values[-1]
        return found


def _numbers(table: pd.DataFrame, name: str) -> Array:
    """(N,) a column's numbers; NaN where it is blank. Raises ValueError if it holds dates, true and false, or text."""
    try:
        column = pd.to_numeric(table[name])  # of dates it would make nanoseconds
    except (ValueError, TypeError) as error:
        raise ValueError(f"column {name}: {str(error).splitlines()[0][:200]}; takes numbers") from None
    if table[name].dtype.kind in "mM" or column.dtype.kind == "b":
        raise ValueError(
            f"column {name}: holds {'dates' if column.dtype.kind != 'b' else 'true and false'}; takes numbers"
        )
    return np.array(column.to_numpy(dtype=np.float64, na_value=np.nan))


def packed(parts: list[dict[str, Any]]) -> str:
    """A state as a text."""
    return base64.b64encode(checkpoint.as_bytes({"parts": parts})).decode()


def unpacked(text: str) -> list[dict[str, Any]]:
    """:func:`packed` undone; an empty text is no state. Raises ValueError if it is none."""
    if not text:
        return []
    if len(text) > LONGEST_STATE:
        raise ValueError(f"{STATE}: has {len(text):,} characters; takes at most {LONGEST_STATE:,}")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / STATE
        try:
            file.write_bytes(base64.b64decode(text, validate=True))
            parts: list[dict[str, Any]] = checkpoint.load(file, IS_STATE)["parts"]
        except (ValueError, binascii.Error):
            raise ValueError(f"{STATE}: is none that this model gave, or was cut short") from None
    return parts
