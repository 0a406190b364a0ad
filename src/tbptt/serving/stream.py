"""Answering rows as they come: the state is carried, and a row's answer is the one of a pass over all rows."""

import csv
import io
import os
import re
import select
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import torch
from numpy.typing import NDArray

from tbptt.data.panels.inputs import formed
from tbptt.serving.predictor import Predicted, Predictor
from tbptt.serving.rows_of_text import NO_TIME, Block, Columns, Form, parsed
from tbptt.serving.state_file import Until
from tbptt.serving.trained import Trained
from tbptt.system.runtime import CONTROL

SPECIAL = re.compile('[",\r\n]')
READ, MOST, LONGEST = 1 << 16, 1 << 18, 1 << 23  # bytes: of one read, of a block of rows, of a line
DELIMITERS = ";\t,|"
WAIT = 0.2  # seconds until a signal is looked for


class WrongRow(ValueError):
    """A row cannot be used, and the stream is to stop there."""


class Stream:
    """Rows in, answers out.

    Args:
        predictor: of the series of ``columns``.
        until: how far the series have been predicted; moved on.
        skip: whether a wrong row gets an empty answer; else it ends the stream.
        tell: is given a line about each wrong row.
        carry: whether a missing price is the one before, as ``data.gaps=carry`` has it.
    """

    def __init__(
        self,
        predictor: Predictor,
        columns: Columns,
        form: Form,
        until: Until,
        skip: bool,
        tell: Callable[[str], None],
        carry: bool = False,
    ):
        self.predictor, self.columns, self.form, self.until = predictor, columns, form, until
        self.skip, self.tell, self.carry, self._before = skip, tell, carry, until.rows
        self._begins = True

    def header(self) -> bytes:
        """The names of an answer's fields."""
        task = self.predictor.trained.task
        names = [*task.output_names, *(["side"] if task.decides else [])]
        series = self.columns.names
        fields = names if len(series) == 1 else [f"{one}.{name}" for one in series for name in names]
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerow(["row" if self.columns.time is None else "time", *fields])
        return CONTROL.sub("?", text.getvalue()).encode()

    def answers(self, block: bytes) -> tuple[bytes, bool]:
        """The answers to whole lines, one line each, and whether the stream ends with them, as a row is wrong."""
        block = self.form.without_blank_lines(block)
        if not block:
            return b"", False
        rows = parsed(block, self.columns, self.form)
        wrong = {**rows.wrong, **self._backwards(rows)}
        count = len(rows.numbers)
        stops = bool(wrong) and not self.skip
        if stops:
            count = min(wrong)
            self._say(wrong, count, rows)
        else:
            for row in sorted(wrong):
                self._say(wrong, row, rows)
        right = np.arange(count)
        if wrong:
            right = np.setdiff1d(right, list(wrong))
        found = self._predicted(rows.numbers[right])
        if len(right) and self.columns.time is not None:
            self._seen(rows.times[right])
        answered = self._written(found, right, count, rows)
        self.until.rows += count
        return answered, stops

    def _seen(self, times: NDArray[np.int64]) -> None:
        """Move on to the last time, and say if rows may be missing before the first."""
        if self._begins and (hole := self.until.hole_before(times)):
            self.tell(hole)
        self._begins, before = False, [] if self.until.time is None else [self.until.time]
        self.until.seen(np.concatenate([np.array(before, dtype=np.int64), times]))
        self.until.time = int(times[-1])

    def _say(self, wrong: dict[int, str], row: int, rows: Block) -> None:
        place = f"row {self.until.rows - self._before + row + 1}"
        when = "" if rows.said is None or rows.times[row] == NO_TIME else rows.said[row][:40]
        if when and when not in wrong[row]:
            place += f" ({when})"
        self.tell(f"{place}: {wrong[row]}")

    def _backwards(self, rows: Block) -> dict[int, str]:
        """The rows whose time is not after the one before, of those that are right otherwise."""
        if rows.said is None:
            return {}
        times = rows.times
        if rows.wrong:
            times = times.copy()
            times[list(rows.wrong)] = NO_TIME
        last = NO_TIME if self.until.time is None else self.until.time
        before = np.maximum.accumulate(np.concatenate(([last], times)))[:-1]
        late = np.flatnonzero((times <= before) & (times != NO_TIME)).tolist()
        return {row: f"{rows.said[row][:40]} is not after the time before it" for row in late}

    def _predicted(self, numbers: NDArray[np.float64]) -> Predicted:
        """The predictions of right rows, (n, F) by field."""
        prices = np.ascontiguousarray(numbers[:, self.columns.series].T)
        if self.carry:
            _carry(prices, self.until.last[:, 0].numpy())
        extra = self._inputs(numbers, prices) if self.columns.inputs else None
        last = self.until.last[:, 0]
        for i, row in enumerate(prices):
            if len(known := row[np.isfinite(row)]):
                last[i] = known[-1]
        return self.predictor(torch.from_numpy(prices), extra)

    def _inputs(self, numbers: NDArray[np.float64], prices: NDArray[np.float64]) -> torch.Tensor:
        """The other inputs in their forms, (B, n, D). Each series has those of the rows at which it has a price."""
        found = np.full((*prices.shape, len(self.columns.inputs)), np.nan)
        for b, row in enumerate(prices):
            there = np.isfinite(row)
            if not there.any():
                continue
            kept = self.until.last[b]
            own = np.concatenate(([float(kept[0])], row[there]))
            for d, (at, form) in enumerate(self.columns.inputs):
                values = np.concatenate(([float(kept[1 + d])], numbers[there, at]))
                found[b, there, d] = formed(form, values, own)[1:]
                kept[1 + d] = float(values[-1])
        return torch.from_numpy(found)

    def _written(self, found: Predicted, right: NDArray[np.int64], count: int, rows: Block) -> bytes:
        """Answers as CSV, an empty one for a wrong row."""
        first: Any = range(self.until.rows + 1, self.until.rows + count + 1)
        if rows.said is not None:
            first = [text if at != NO_TIME else None for text, at in zip(rows.said[:count], rows.times, strict=False)]
        columns = [pa.array(first, pa.int64() if rows.said is None else pa.string())]
        for b in range(len(self.columns.names)):
            for o in range(found.values.shape[2]):
                columns.append(_placed(found.values[b, :, o].numpy(), right, count, np.nan))
            if found.side is not None:
                side = found.side[b].numpy()
                columns.append(_placed(side, right, count, 0))
        table = pa.table(columns, names=[str(i) for i in range(len(columns))])
        sink = io.BytesIO()
        plain = rows.said is None or not SPECIAL.search("".join(filter(None, first)))
        style = "none" if plain else "needed"  # which would put all times into quotes
        options = pa.csv.WriteOptions(include_header=False, batch_size=max(1, count), quoting_style=style)
        pa.csv.write_csv(table, sink, options)
        return sink.getvalue()


def _carry(prices: NDArray[np.float64], last: NDArray[np.float64]) -> None:
    """Put the price before into each missing one, in place: prices (B, n), the last ones before them (B,)."""
    with_last = np.concatenate([last[:, None], prices], axis=1)
    at = np.maximum.accumulate(np.where(np.isfinite(with_last), np.arange(with_last.shape[1]), 0), axis=1)
    prices[:] = np.take_along_axis(with_last, at, axis=1)[:, 1:]


def _placed(values: NDArray[Any], right: NDArray[np.int64], count: int, missing: float) -> pa.Array:
    """The values of right rows in their places among all; null elsewhere, and where a value is missing."""
    whole = np.full(count, missing, dtype=values.dtype)
    whole[right] = values
    return pa.array(whole, mask=np.isnan(whole) if np.isnan(missing) else whole == missing)


class Reader:
    """Whole lines of a file descriptor: those that are there, at once.

    Args:
        stopped: whether to end, asked several times a second.
    """

    def __init__(self, fd: int, stopped: Callable[[], bool]):
        self.fd, self.stopped, self.ended, self._rest = fd, stopped, False, b""

    def lines(self, most: int = MOST) -> bytes:
        """The next lines, about ``most`` bytes at most; nothing at the end, or when it is asked to end.

        Raises ValueError for a line of more than 8 MB.
        """
        while not self.stopped():
            cut = self._rest.rfind(b"\n") + 1
            if cut and (len(self._rest) >= most or self.ended or not self._more(0)):
                block, self._rest = self._rest[:cut], self._rest[cut:]
                return block
            if self.ended:
                block, self._rest = self._rest, b""
                return block + b"\n" if block else b""
            if len(self._rest) > LONGEST:
                raise ValueError(f"a row of more than {LONGEST:,} bytes; rows end with a newline")
            if self._more(WAIT):
                data = os.read(self.fd, READ)
                self.ended = not data
                self._rest += data
        return b""

    def first(self) -> bytes:
        """The first line, which stays to be read."""
        while (block := self.lines()) and not (block := block[len(block) - len(block.lstrip(b"\r\n")) :]):
            pass  # blank lines
        self._rest = block + self._rest
        return block.split(b"\n")[0]

    def skip(self, line: bytes) -> None:
        """Leave out a first line."""
        self._rest = self._rest[len(line) + 1 :]

    def _more(self, seconds: float) -> bool:
        return bool(select.select([self.fd], [], [], seconds)[0])


def write(fd: int, data: bytes) -> bool:
    """Write all bytes at once. Returns whether anybody still reads them."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BrokenPipeError:
            return False
    return True


def columns_of(trained: Trained, first: bytes, form: Form, time: str | None) -> tuple[Columns, bool]:
    """What the fields of the rows are, by the first line, and whether that is a header.

    Without a header, each row is one price: of a network of one series without other inputs.
    """
    try:
        line = first.decode("utf-8-sig").removesuffix("\r")
    except UnicodeDecodeError:
        raise ValueError("the first row is no text in UTF-8") from None
    series, shared = trained.series, trained.series is None and len(trained.scaler.input_std) == 1
    if not trained.inputs and (shared or (series is not None and len(series) == 1)):
        fields = form.fields(line)
        if len(fields) == 1 and form.number(fields[0]) is not None:
            return Columns.one(series[0] if series else "price"), False
    fields = form.fields(line)
    try:
        return Columns.of(fields, series, trained.inputs, time), True
    except ValueError as error:
        if len(fields) == 1 and (other := next((each for each in DELIMITERS if each in line), None)):
            key = "tab" if other == "\t" else f'"{other}"'
            raise ValueError(f"{error}; if its fields are parted by {other!r}, say data.delimiter={key}") from None
        raise
