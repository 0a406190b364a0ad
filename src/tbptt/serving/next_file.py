"""A run's data source read again, or the next file of the same shape, for the network to predict on."""

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from omegaconf import OmegaConf

from tbptt.config.schema import typed
from tbptt.data.options import DataConfig, SplitData
from tbptt.serving.source import Source, find

if TYPE_CHECKING:
    from tbptt.data.panel import Panel


def panel(
    run_id: str | Path,
    path: str | Path | None = None,
    tracking_uri: str | None = None,
    which: str = "best",
    storage: str | None = None,
) -> "Panel":
    """The series and other inputs of a run's data source, read again, or of the next file of the same shape.

    Args:
        run_id, tracking_uri, which, storage: as for :func:`load_run`.
        path: a file to be read as the run's was, with the run's keys; None reads the run's source again.

    Returns:
        The run's series in the run's order, whole, not cut into parts; ``inputs`` are the run's, in its order. Series
        that the run did not have are left out, and ``findings.left_out`` says so.

    Raises:
        ValueError: there is no such run; its data come from no file or source; the file cannot be read, or lacks a
            series or an input of the run.
    """
    source = find(run_id, tracking_uri, which, storage)
    data = data_of(source)
    if not isinstance(data, SplitData):
        no = f"has data={data.name}, whose series are held out whole and come from no source"
        raise ValueError(f"{source.said} {no}")
    if path is not None:
        if not hasattr(data, "path"):
            raise ValueError(f"path: got {path}; {source.said} has data={data.name}, which reads no path")
        data = replace(cast(Any, data), path=str(path))
    return as_the_run(source, data, data.prices(), str(getattr(data, "path", data.name)))


def data_of(source: Source) -> DataConfig:
    """The data of a run, as its config says them. Raises ValueError if that has an option that is not there."""
    cfg = typed(source.content["config"], needs=("data",))
    return cast(DataConfig, OmegaConf.to_object(cfg.data))


def as_the_run(source: Source, data: SplitData, given: Any, where: str) -> "Panel":
    """The run's series and inputs alone, in its order, of what a data source returns. If all the run's series share one
    scale, as generated ones do, the network takes any: then all series of the source.

    Args:
        data: says how the source is read.
        given: a panel, a DataFrame, or arrays by name.
        where: the source, in words.

    Raises:
        ValueError: one line; a series or an input of the run is missing.
    """
    from tbptt.data.split import as_panel

    found, content, what = as_panel(given, data), source.content, source.said
    known = len(content["scaler"]["input_mean"])
    any_series = content.get("series") is None and known == 1 and not isinstance(data_of(source), SplitData)
    names = list(found.series) if any_series else content.get("series") or data.columns or list(found.series)
    found = found if any_series else _named_as(found, names, data)
    found = _with_blank(found, names)
    if lacks := [name for name in names if name not in found.series]:
        new = [name for name in found.series if name not in names]
        more = f"; new are {listed(new)}" if new else ""
        raise ValueError(f"{where} has no series {listed(lacks)}, on which {what} was trained{more}")
    if not any_series and len(names) != known:
        raise ValueError(f"{where} has {len(names)} series, and {what} was trained on {known}: give it the same")
    if lacks := [name for name in data.inputs if name not in found.inputs]:
        has = listed(found.inputs) if found.inputs else "none"
        raise ValueError(f"{where} has no input {listed(lacks)}, which {what} sees (it has: {has})")
    return _only(found, names, data.inputs)


def _named_as(found: "Panel", names: list[str], data: SplitData) -> "Panel":
    """A panel whose series have the run's names, where a file calls them almost so: in another case, or after its
    only symbol, though the column of the prices has the run's name."""
    import numpy as np

    from tbptt.data.panels.columns import resolved
    from tbptt.data.split import as_panel

    free = [name for name in found.series if name not in names]
    called = {near: name for name in names if name not in found.series and (near := resolved(name, free)) is not None}
    if not called and len(names) == len(free) == len(found.series) == 1:
        with suppress(ValueError, NotImplementedError):  # the file has no such column, or there is no file
            (of_column,) = as_panel((again := replace(data, columns=names)).prices(), again).series.values()
            if np.array_equal(of_column.prices, found.series[free[0]].prices):
                called = {free[0]: names[0]}
    return replace(found, series={called.get(name, name): each for name, each in found.series.items()})


def _with_blank(found: "Panel", names: list[str]) -> "Panel":
    """A panel with series without prices for columns that hold none, if that many are enough."""
    import numpy as np

    from tbptt.data.panel import Series
    from tbptt.data.panels.roles import EMPTY
    from tbptt.data.prices import fewest

    blank = [name for name in names if found.findings.left_out.get(name) == EMPTY and not fewest()]
    none = Series(np.empty(0), np.empty(0, np.int64), np.empty((0, len(found.inputs))))
    return replace(found, series={**found.series, **dict.fromkeys(blank, none)}) if blank else found


def _only(found: "Panel", names: list[str], inputs: list[str]) -> "Panel":
    """A panel with these series and inputs alone, in this order."""
    columns = [found.inputs.index(name) for name in inputs]
    series = {name: found.series[name] for name in names}
    left = {name: "no series of the run" for name in found.series if name not in series}
    return replace(
        found,
        series={name: replace(each, inputs=each.inputs[:, columns]) for name, each in series.items()},
        inputs=tuple(inputs),
        findings=replace(found.findings, left_out={**found.findings.left_out, **left}),
    )


def listed(names: Iterable[str]) -> str:
    """Names in a message, at most twelve of them."""
    shown = list(names)
    return ", ".join(shown[:12]) + (f" and {len(shown) - 12} more" if len(shown) > 12 else "")
