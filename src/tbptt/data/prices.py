"""Where prices come from: the article's process, a CSV or Parquet file that is read as it is.

Errors about a file are ``ValueError`` with one line that says what is wrong and where.
"""

import hashlib
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tbptt.data.errors import DataError
from tbptt.options.takes import LARGEST
from tbptt.system.memory import too_large

Prices = NDArray[np.float64]

LARGE = 32 * 2**20  # bytes; of files that are larger, only the last one read is kept in memory
TRAINING, HELD_OUT, TEST = 0, 1, 2  # the random streams of article_series
WALK, NOISE, PHASE = 0, 1, 2
RANDOM = "random"  # data.phase: each series starts at a random time of the process


def article_series(
    count: int,
    length: int,
    *,
    seed: int,
    part: int,
    noise_std: float = 0.01,
    frequencies: tuple[float, float] = (0.0002, 0.0002),
    phase: object = 0,
) -> Prices:
    """The article's synthetic prices, (count, length) float64, rounded to ticks of 0.01.

    p_t = 100 - |cos θ_t|·sin(f1·t) + |sin θ_t|·sin(f2·t) + ε_t with θ_0 ~ U(-π, π), θ_t = θ_{t-1} + 0.01·U(-1, 1)
    and ε_t ~ N(0, noise_std²) (Muccino, 2019; his printed code never moves the amplitudes, these do).

    With ``phase`` 0, all series start at t = 0. With ``random``, t + t0 takes the place of t in both sines, where t0
    is drawn for each series from U(0, 2π/f), f the smaller of the frequencies that are not 0.

    Each series has its own random streams for walk, noise and phase. The seed, the part and the index of the series
    name them. So series i does not depend on ``count``, and a longer series begins with the shorter one.
    """
    prices = waves(count, length, seed=seed, part=part, frequencies=frequencies, phase=phase)
    for i in range(count):
        prices[i] = np.round(prices[i] + noise_std * _stream(seed, part, i, NOISE).standard_normal(length), 2)
    return prices


def waves(
    count: int,
    length: int,
    *,
    seed: int,
    part: int,
    frequencies: tuple[float, float] = (0.0002, 0.0002),
    phase: object = 0,
) -> Prices:
    """The prices of :func:`article_series` before noise and rounding."""
    steps = np.arange(length)
    prices = np.empty((count, length))
    for i in range(count):
        walk = _stream(seed, part, i, WALK)
        theta = walk.uniform(-np.pi, np.pi) + np.concatenate(([0.0], np.cumsum(0.01 * walk.uniform(-1, 1, length - 1))))
        starts = _starts(frequencies, _stream(seed, part, i, PHASE)) if phase == RANDOM else (0.0, 0.0)
        first, second = (np.sin(f * steps + start) for f, start in zip(frequencies, starts, strict=True))
        prices[i] = 100 + (-np.abs(np.cos(theta)) * first + np.abs(np.sin(theta)) * second)
    return prices


def _starts(frequencies: tuple[float, float], random: np.random.Generator) -> tuple[float, ...]:
    """The angles f·t0 of both waves at a random time t0, without whole turns: a wave that hardly moves has a t0 beside
    which the steps would be lost to rounding. A frequency of 0 has no wave, and angle 0."""
    slower = min((f for f in frequencies if f > 0), default=1.0)
    share = random.random()  # of the slower wave's period
    return tuple(2 * np.pi * (share * min(f / slower, LARGEST) % 1) for f in frequencies)


def _stream(seed: int, part: int, i: int, what: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(part, i, what)))


FEWEST = 2  # prices of a series, to learn from or to predict
_fewest: ContextVar[int] = ContextVar("fewest", default=FEWEST)


def fewest() -> int:
    """The fewest prices of a series."""
    return _fewest.get()


@contextmanager
def any_number_of_prices() -> Iterator[None]:
    """Within, a series may have a single price, or none: those before are known from elsewhere."""
    token = _fewest.set(0)
    try:
        yield
    finally:
        _fewest.reset(token)


def read_prices(path: str | Path, columns: Sequence[str] | None = None) -> dict[str, Prices]:
    """The series of a CSV or Parquet file, by column name, in the file's order.

    Args:
        path: ``.parquet``/``.pq`` is read as Parquet, everything else as CSV with a header line.
        columns: which columns; None takes every numeric one but volume.

    Returns:
        One 1-D float64 array a column. Blanks before a series begins and after it ends are dropped, so lengths
        may differ.

    Raises:
        ValueError: the file is missing, a directory, empty or unreadable; a column is missing, holds text, has a
            gap inside or fewer than two prices; there is no numeric column.
    """
    table = _read_table(Path(path))
    table.columns = [str(name) for name in table.columns]  # as errors and reports show it, also one of several levels
    if len(table) < (least := max(1, fewest())):
        raise ValueError(
            f"{path} has {len(table)} row{'' if len(table) == 1 else 's'}; a series needs at least {least}"
        )
    if columns is None:
        names = [c for c in table.columns if "volume" not in c.lower() and _holds_numbers(table[c])]
        if not names:
            raise ValueError(f"{path} has no numeric column (it has: {_listed(table.columns)})")
    else:
        names = list(columns)
        missing = [c for c in names if c not in table.columns]
        if missing:
            raise DataError(
                f"{path} has no column {_listed(missing)} (it has: {_listed(table.columns)})", "data.columns"
            )
    return {name: _one_series(table[name], f"{path}, column {name}") for name in names}


def prices_of_file(path: str, columns: Sequence[str] | None = None) -> dict[str, Prices]:
    """:func:`read_prices` with a cache: while a file is unchanged, series that were read recently are returned again.

    A sweep needs this: it checks its values one by one and prepares the data afterwards. Callers share the arrays, so
    these are read-only.
    """
    status = Path(path).stat() if Path(path).exists() else None
    version = status and (status.st_mtime_ns, status.st_size, status.st_ino)
    read = _last_read if status and status.st_size > LARGE else _lately_read
    found = (read if fewest() == FEWEST else _read)(path, None if columns is None else tuple(columns), version)
    if isinstance(found, tuple):
        raise DataError(*found)
    return dict(found)


def _read(path: str, columns: tuple[str, ...] | None, version: object) -> dict[str, Prices] | tuple[str, str]:
    """The series that :func:`read_prices` returns, or the text of its error and the key that it is about."""
    try:
        series = read_prices(path, columns)
    except ValueError as error:
        return str(error), error.key if isinstance(error, DataError) else "data.path"
    for prices in series.values():
        prices.flags.writeable = False
    return series


_last_read = lru_cache(maxsize=1)(_read)
_lately_read = lru_cache(maxsize=4)(_read)  # a sweep may be over files, or over columns of one


def fingerprint(series: Mapping[str, Prices]) -> str:
    """SHA-256 over the names, lengths and bytes of all series: the same data, the same 64 hex digits."""
    digest = hashlib.sha256()
    for name, prices in series.items():
        digest.update(f"{name}\0{len(prices)}\0".encode())
        digest.update(np.ascontiguousarray(prices, dtype="<f8").tobytes())
    return digest.hexdigest()


def _read_table(path: Path) -> Any:
    import pandas as pd

    if not path.exists():
        raise ValueError(f"{path} does not exist")
    if not path.is_file():
        raise ValueError(f"{path} is not a file")
    if path.stat().st_size == 0:
        raise ValueError(f"{path} is empty")
    is_parquet = path.suffix.lower() in (".parquet", ".pq")
    try:
        if not is_parquet:
            with path.open("rb") as file:
                if b"\0" in file.read(65536):
                    raise ValueError("it is no text")
        if problem := too_large(_size_in_memory(path, is_parquet)):
            raise ValueError(f"it {problem}")
        if is_parquet:
            return pd.read_parquet(path)
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # rows longer than the header
            # A blank line is a gap. No column is an index: an index column would shift the others by one.
            return pd.read_csv(path, skip_blank_lines=False, index_col=False)
    except Exception as error:  # pandas and pyarrow raise a dozen kinds for a file that is not what its name says
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path} cannot be read: {reason}") from error


def _size_in_memory(path: Path, is_parquet: bool) -> int:
    """About how many bytes reading a table takes: its columns, and a second copy while pandas joins them."""
    if is_parquet:
        from pyarrow import parquet

        metadata = parquet.read_metadata(path)
        return int(2 * 8 * metadata.num_rows * metadata.num_columns)
    return 5 * path.stat().st_size // 2  # 100.01, is seven bytes of text and eight of memory


def _holds_numbers(column: Any) -> bool:
    """Whether a column is meant as numbers: a stray text makes pandas read all of it as text."""
    import pandas as pd

    if pd.api.types.is_bool_dtype(column) or pd.api.types.is_datetime64_any_dtype(column):
        return False
    if pd.api.types.is_numeric_dtype(column):
        return True
    return bool(pd.to_numeric(column, errors="coerce").notna().sum() * 2 > column.notna().sum())


def _one_series(column: Any, where: str) -> Prices:
    import pandas as pd

    if pd.api.types.is_datetime64_any_dtype(column) or pd.api.types.is_bool_dtype(column):
        raise ValueError(f"{where} holds {column.dtype} values, not numbers")
    numbers = pd.to_numeric(column, errors="coerce")
    text = column.notna() & numbers.isna()
    if text.any():
        row = int(np.flatnonzero(text)[0])
        raise ValueError(f"{where}, row {row + 1}: {str(column.iloc[row])[:40]!r} is not a number")
    prices = numbers.to_numpy(np.float64, na_value=np.nan)
    known = np.flatnonzero(~np.isnan(prices))
    if len(known) < fewest():
        raise ValueError(f"{where} holds {len(known)} price{'' if len(known) == 1 else 's'}; a series needs at least 2")
    if not len(known):
        return prices[:0]
    first, last = known[0], known[-1]
    if len(known) != last - first + 1:
        gap = first + int(np.flatnonzero(np.isnan(prices[first:last]))[0])
        raise ValueError(f"{where}, row {gap + 1}: a gap inside the series (blanks may only come before or after it)")
    prices = prices[first : last + 1]
    if not np.isfinite(prices).all():
        row = first + int(np.flatnonzero(~np.isfinite(prices))[0])
        raise ValueError(f"{where}, row {row + 1}: {prices[row - first]} is not a finite number")
    return prices


def _listed(names: Iterable[object]) -> str:
    shown = [str(n) for n in names]
    return ", ".join(shown[:12]) + (", …" if len(shown) > 12 else "") if shown else "none"
