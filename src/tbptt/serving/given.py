"""What a trained network is to predict on: the run's own data, or others, and which part of the run each price was."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from tbptt.data.borders import NEW, TEST, TRAIN, UNKNOWN, VAL, Labels, borders_of, labels
from tbptt.data.options import DataConfig, PricesData, SplitData
from tbptt.data.panel import Panel
from tbptt.data.prices import fewest
from tbptt.serving.next_file import as_the_run, data_of
from tbptt.serving.trained import Trained

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from tbptt.data.prices import Prices
    from tbptt.tasks.prepare import Prepared

Borders = dict[str, Any]
PARTS_OF = {"train": TRAIN, "val": VAL, "test": TEST}


@dataclass(frozen=True, eq=False)
class Given:
    """Prices to predict on.

    Attributes:
        panel: the series in the run's order.
        data: the run's data config, by which the network's inputs are made, with what says how the panel was read.
        source: the panel's source in words.
        parts: by series, (N,), the part of each price: a number of :mod:`tbptt.data.borders`.
        at: by series, where the parts begin (:func:`tbptt.data.borders.borders_of`), if these are the run's own data.
            Each part is then predicted as the run was evaluated: with a state of zero before its warm-up.
        change_std: (S,) of the run's training part; None if it is not known.
        constant: (O,) what the loss is compared with, standardised; None if it is not known.
        notes: lines for the user.
    """

    panel: Panel
    data: DataConfig
    source: str
    parts: Mapping[str, Labels]
    at: Mapping[str, tuple[int, ...]] | None
    change_std: "Prices | None"
    constant: "Tensor | None"
    notes: tuple[str, ...] = ()


def given(trained: Trained, data: Any = None, changes: Mapping[str, Any] | None = None, in_parts: bool = True) -> Given:
    """Read what to predict on.

    Args:
        data: a path; a DataFrame, arrays by name, an array or a panel; None reads the run's own data again.
        changes: keys of ``data`` that are to have another value than in the run, such as ``delimiter``.
        in_parts: whether the run's own data are predicted part by part, as the run was evaluated; else in one go.

    Raises:
        ValueError: one line; they cannot be read, or have not the run's series and inputs.
    """
    if data is None and not changes:
        return _own(trained, in_parts)
    config = _read_by(trained, data, changes or {})
    if data is None or isinstance(data, str | Path):
        found, where = _read(trained, config), str(getattr(config, "path", config.name))
    else:
        found, where = _in_memory(trained, config, data), "data"
    panel = as_the_run(trained.source, config, found, where)
    return _others(trained, panel, config, where)


def _read(trained: Trained, config: SplitData) -> Any:
    """What a file holds. Few rows do not say which columns are series, so these are asked for by name first."""
    if not fewest() and config.columns is None and trained.series:
        with suppress(ValueError):
            return replace(config, columns=trained.series).prices()
    return config.prices()


def _in_memory(trained: Trained, config: SplitData, data: Any) -> Any:
    """Data that are no file: a panel or, as :func:`tbptt.data.split.as_panel` takes it, a DataFrame."""
    import pandas as pd

    if isinstance(data, Panel):
        return data
    if isinstance(data, Mapping):
        return Panel.of_arrays(data)
    if isinstance(data, pd.Series):
        names = trained.series or config.columns or ["price"]
        data = data.to_frame(names[0] if len(names) == 1 else data.name)
    if isinstance(data, pd.DataFrame):
        auto = isinstance(config, PricesData) and config.reading == "auto"
        return _of_frame(trained, cast(PricesData, config), data) if auto else data
    takes = "takes a path, a DataFrame, arrays by name, an array (series, prices) or a panel"
    try:
        prices = np.atleast_2d(np.asarray(data, dtype=np.float64))
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"data: got a {type(data).__name__} that is no array of numbers; {takes}") from None
    names = trained.series or config.columns or [str(i) for i in range(len(prices))]
    if prices.ndim != 2 or len(prices) != len(names):
        raise ValueError(f"data: got an array {np.shape(data)}; takes ({len(names)}, prices), of {', '.join(names)}")
    return Panel.of_arrays(dict(zip(names, prices, strict=True)))


def _of_frame(trained: Trained, config: PricesData, frame: "pd.DataFrame") -> Panel:
    """A DataFrame, read as a file of its rows would be. Texts in its index are a column of it."""
    import pandas as pd

    from tbptt.data.panels.frames import table_of_frame
    from tbptt.data.panels.panel_file import panel_of_table

    if (
        frame.index.nlevels == 1
        and frame.index.dtype.kind not in "iufM"
        and not isinstance(frame.index, pd.DatetimeIndex)
    ):
        frame = frame.reset_index()
    table = table_of_frame(frame, "data")
    if not fewest() and config.columns is None and trained.series:
        with suppress(ValueError):
            return panel_of_table(table, replace(config, columns=trained.series), "data")
    return panel_of_table(table, config, "data")


def _read_by(trained: Trained, data: Any, changes: Mapping[str, Any]) -> SplitData:
    """How data are read: as the run's were, where the run read a file."""
    own = data_of(trained.source)
    a_file = isinstance(data, str | Path)
    if not isinstance(own, SplitData) or (a_file and not hasattr(own, "path")):
        if data is None:
            of = ", ".join(f"data.{key}" for key in changes)
            no = f"has data={own.name}, which reads no file; takes data.path too"
            raise ValueError(f"{of}: {trained.source.said} {no}")
        path = str(data) if a_file else "data"
        default = PricesData(name="prices", path=path, reading="auto")
        seen = {f.name: getattr(own, f.name) for f in fields(DataConfig)}
        seen |= {name: getattr(own, name) for name in ("inputs", "input_window", "columns") if hasattr(own, name)}
        own = replace(default, **{**seen, "name": "prices"})
    elif a_file:
        own = replace(cast(Any, own), path=str(data))
    has = {f.name for f in fields(own)}
    if lacks := [key for key in changes if key not in has]:
        raise ValueError(f"data.{lacks[0]}: {trained.source.said} has data={own.name}, which has no such key")
    found = replace(own, **changes)
    if idle := [(key, why) for key, why in found.unused().items() if key in changes]:
        raise ValueError(f"data.{idle[0][0]}: got {changes[idle[0][0]]!r}, which has no effect with {idle[0][1]}")
    return found


def _own(trained: Trained, in_parts: bool) -> Given:
    """The run's own data, read again."""
    data = data_of(trained.source)
    prepared = _prepared(trained, data)
    split = prepared.split
    constant = prepared.task.baseline(prepared.train.targets, prepared.train.mask)
    if not isinstance(data, SplitData) or split.panel is None:
        panel, parts = _generated(prepared)
        begins = {name: _places(each) for name, each in parts.items()}
        return Given(panel, data, data.name, parts, begins, split.change_std, constant)
    where = str(getattr(data, "path", data.name))
    if not _same_scale(trained, prepared):
        found = _others(trained, as_the_run(trained.source, data, data.prices(), where), data, where)
        line = f"{where} is not what {trained.source.said} was trained on any more: it was changed or has grown"
        return replace(found, notes=(line, *found.notes))
    panel = as_the_run(trained.source, data, _as_seen(prepared, data), where)
    borders = borders_of(split)
    assert borders is not None
    parts = {name: labels(borders, i, panel.series[name], panel.times) for i, name in enumerate(split.train)}
    at = {name: tuple(borders["at"][i].tolist()) for i, name in enumerate(split.train)}
    panel = panel.only([name for name in panel.series if name in parts])
    return Given(panel, data, where, parts, at if in_parts else None, split.change_std, constant)


def _generated(prepared: "Prepared") -> tuple[Panel, dict[str, Labels]]:
    """Generated series of all parts, each named after its part."""
    prices, parts = {}, {}
    for part, label in PARTS_OF.items():
        for name, each in getattr(prepared.split, part).items():
            prices[f"{part} {name}"] = each
            parts[f"{part} {name}"] = np.full(len(each), label, dtype=np.int8)
    return Panel.of_arrays(prices, prepared.data.name), parts


def _places(parts: Labels) -> tuple[int, ...]:
    """The borders of a series that is all in one part."""
    n = len(parts)
    return {TRAIN: (0, n, n, n, n), VAL: (0, 0, n, n, n), TEST: (0, 0, 0, 0, n)}[int(parts[0])]


def _as_seen(prepared: "Prepared", data: SplitData) -> Panel:
    """The panel with the prices that the run saw: of a surrogate, if it was trained on one."""
    panel, split = prepared.split.panel, prepared.split
    assert panel is not None
    if data.surrogate is None:
        return panel
    found = {}
    for name, series in panel.series.items():
        prices, inputs = series.prices.copy(), series.inputs.copy()
        for part in PARTS_OF:
            if name in (of := getattr(split, part)):
                at = np.searchsorted(series.rows, split.rows_of[part][name])
                prices[at] = of[name]
                if part in split.inputs:
                    inputs[at] = split.inputs[part][name]
        found[name] = replace(series, prices=prices, inputs=inputs)
    return replace(panel, series=found)


def _prepared(trained: Trained, data: DataConfig) -> "Prepared":
    from tbptt.tasks.prepare import prepare

    return prepare(data, trained.task)


def _same_scale(trained: Trained, prepared: "Prepared") -> bool:
    """Whether data are those that a run was trained on: then they have its moments."""
    import torch

    own, other = trained.scaler.state_dict(), prepared.scaler.state_dict()
    for name in ("input_mean", "input_std", "target_mean", "target_std"):
        if own[name].shape != other[name].shape or not torch.allclose(own[name], other[name], rtol=1e-9, atol=0):
            return False
    return True


def _others(trained: Trained, panel: Panel, data: SplitData, where: str) -> Given:
    """Data that are not, or not only, the run's own."""
    borders, change_std, notes = _known(trained)
    if borders is None:  # generated series are nowhere else
        label = UNKNOWN if isinstance(data_of(trained.source), SplitData) else NEW
        parts = {name: np.full(len(each.prices), label, dtype=np.int8) for name, each in panel.series.items()}
    else:
        each = enumerate(panel.series.items())
        parts = {name: labels(borders, i, series, panel.times) for i, (name, series) in each}
    if any((each == UNKNOWN).any() for each in parts.values()):
        notes = (*notes, f"whether {trained.source.said} was trained on some of these rows is not known")
    return Given(panel, data, where, parts, None, change_std, _constant(trained), notes)


def _known(trained: Trained) -> "tuple[Borders | None, Prices | None, tuple[str, ...]]":
    """The borders of the run's parts and the deviation of its changes: of its checkpoint, or for an older one, of the
    run's data read again."""
    content = trained.source.content
    if "change_std" in content:
        return content.get("borders"), content["change_std"].double().numpy(), ()
    try:
        prepared = _prepared(trained, data_of(trained.source))
        if _same_scale(trained, prepared):
            return borders_of(prepared.split), prepared.split.change_std, ()
        why = "its data have changed"
    except (ValueError, OSError) as error:
        why = " ".join(str(error).split())
    line = f"{trained.source.said} is of an earlier version, and what it was trained on cannot be read again ({why})"
    return None, None, (f"{line}: truth and profit that depend on it are left out",)


def _constant(trained: Trained) -> "Tensor | None":
    """What the loss is compared with, where no training part is needed for it."""
    import torch

    from tbptt.tasks.options import TaskConfig

    task = trained.task
    if type(task).baseline is not TaskConfig.baseline or task.common_scale is None:
        return None
    return task.baseline(torch.empty(1, 0, task.outputs), None)
