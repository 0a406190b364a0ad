"""What the chosen trial does on test, step by step: its predictions beside the truth, and the profit of following
them."""

from typing import Any

import numpy as np
import plotly.graph_objects as go
from optuna.trial import FrozenTrial

from tbptt.config.names import SWEEPS
from tbptt.evaluation.results import STEPS
from tbptt.evaluation.words import SIDES
from tbptt.options.values import shown
from tbptt.reports.arrays import Array, read_arrays
from tbptt.reports.figures import BEST, GREY, INK, LEGEND_ABOVE, STATES
from tbptt.reports.optuna_figures import Section
from tbptt.studies.records import is_number
from tbptt.studies.study import Study

MOST_STEPS = 10_000  # five times what runs keep
PREDICTED = {"color": BEST, "width": 1.5}
TRUE = {"color": GREY, "width": 1.5}
COLOURS = {"long": STATES["COMPLETE"], "short": STATES["PRUNED"], "flat": INK}
DASHES = {"long": "dash", "short": "dot", "flat": "solid"}
TITLES = ("Predictions beside the truth, on test", "Profit so far, on test")


def sections(study: Study, trial: FrozenTrial) -> tuple[list[Section], list[str]]:
    """The figures of a study's chosen trial, and a line for those that its file does not give. No content of the file
    raises an error."""
    path = SWEEPS / study.name / STEPS
    if not path.exists():
        return [], [f"{TITLES[0]}: there is no {path.name}."]
    try:
        arrays = _checked(read_arrays(path, lambda name: name.startswith("drawn/")))
    except ValueError as error:
        return [], [f"{TITLES[0]}: {error}."]
    decides = "profit" in arrays
    found = [_predictions(arrays, decides, study, trial)]
    return [*found, _profit(arrays, study, trial)] if decides else found, []


def _checked(arrays: dict[str, Array]) -> dict[str, Array]:
    """The arrays by their names without the prefix ``drawn/``. Raises ValueError if the arrays do not go together."""
    found = {name.removeprefix("drawn/"): values for name, values in arrays.items()}
    predicted, true = found.get("predicted"), found.get("true")
    if predicted is None or true is None or predicted.shape != true.shape or predicted.ndim != 2 or not predicted.size:
        raise ValueError(f"{STEPS} has no predictions and truth that go together")
    if "profit" in found:
        lines = [found.get(name) for name in ("step", "profit", *SIDES)]
        if any(line is None or line.ndim != 1 or line.shape != found["step"].shape for line in lines):
            raise ValueError(f"{STEPS} has no profits that go together")
        if predicted.shape[1] != 2:
            raise ValueError(f"{STEPS} has profits of what does not decide")
    if any(len(values) > MOST_STEPS for values in found.values() if values.ndim):
        raise ValueError(f"{STEPS} has more steps than runs keep")
    return found


def _predictions(arrays: dict[str, Array], decides: bool, study: Study, trial: FrozenTrial) -> Section:
    predicted, true = arrays["predicted"], arrays["true"]
    if decides:
        what, note = "Q(buy) - Q(sell)", "What being long is worth more than being short: by this one decides."
        predicted, true = predicted[:, 0] - predicted[:, 1], true[:, 0] - true[:, 1]
    else:
        horizons = _setting(study, trial, "task.horizons")
        first = horizons[0] if isinstance(horizons, list) and horizons and is_number(horizons[0]) else None
        what = f"forecast for {shown(first)} step{'s' if first != 1 else ''} ahead" if first else "first output"
        note = "The first of what is predicted."
        predicted, true = predicted[:, 0], true[:, 0]
    count = len(true)
    note += f" The last {count:,} steps of the test part's first series, in units of the price."
    note += " On the right, true predictions would lie on the dashed line; a cloud that does not rise knows nothing."
    return Section(TITLES[0], note, [_in_time(predicted, true, what), _beside(predicted, true, what)])


def _in_time(predicted: Array, true: Array, what: str) -> go.Figure:
    steps = np.arange(1, len(true) + 1)
    figure = go.Figure()
    for name, values, line in (("true", true, TRUE), ("predicted", predicted, PREDICTED)):
        figure.add_scatter(
            x=steps,
            y=_short(values),
            mode="lines",
            line=line,
            name=name,
            hovertemplate=f"step %{{x}}, {name}: <b>%{{y:.4g}}</b><extra></extra>",
        )
    figure.update_layout(
        xaxis_title="step",
        yaxis_title=f"{what},<br>in units of the price",
        legend=LEGEND_ABOVE,
        height=380,
    )
    return figure


def _beside(predicted: Array, true: Array, what: str) -> go.Figure:
    figure = go.Figure()
    finite = predicted[np.isfinite(predicted)]
    ends = [float(finite.min()), float(finite.max())] if finite.size else [0.0, 1.0]
    figure.add_scatter(
        x=_short(predicted),
        y=_short(true),
        mode="markers",
        marker={"color": STATES["COMPLETE"], "size": 4, "opacity": 0.4},
        name="a step",
        hovertemplate="predicted <b>%{x:.4g}</b>, true <b>%{y:.4g}</b><extra></extra>",
    )
    figure.add_scatter(
        x=ends,
        y=ends,
        mode="lines",
        line={"color": INK, "width": 1, "dash": "dash"},
        name="as predicted",
        hoverinfo="skip",
    )
    figure.update_layout(xaxis_title=f"predicted {what}", yaxis_title=f"true {what}", legend=LEGEND_ABOVE, height=380)
    return figure


def _profit(arrays: dict[str, Array], study: Study, trial: FrozenTrial) -> Section:
    figure = go.Figure()
    names = {"profit": "following the predictions", **SIDES}
    for side, name in reversed(names.items()):
        line = PREDICTED if side == "profit" else {"color": COLOURS[side], "width": 1.5, "dash": DASHES[side]}
        figure.add_scatter(
            x=arrays["step"] + 1,
            y=_short(arrays[side]),
            mode="lines",
            line={**line, "width": 2.5} if side == "profit" else line,
            name=name,
            hovertemplate=f"step %{{x}}, {name}: <b>%{{y:.4g}}</b><extra></extra>",
        )
    figure.update_layout(
        xaxis_title="step of the test part",
        yaxis_title="profit so far, in standard deviations<br>of a training step's change",
        legend={**LEGEND_ABOVE, "traceorder": "reversed"},
        height=420,
    )
    note = "The mean over the series. 1 is a standard deviation of what a price changes by in a training step."
    return Section(TITLES[1], f"{note} A change of side costs 2 × the fee{_fee(study, trial)}.", [figure])


def _fee(study: Study, trial: FrozenTrial) -> str:
    fee = _setting(study, trial, "task.fee", "data.fee")
    if not is_number(fee):
        return ""
    unit = {"change_std": " standard deviations of a change", "price": " in units of the price"}
    of = _setting(study, trial, "task.fee_unit", "data.fee_unit")
    return f", {shown(fee)}{unit.get(of, '') if isinstance(of, str) else ''}"


def _setting(study: Study, trial: FrozenTrial, *keys: str) -> Any:
    """A setting with which a trial was trained, from the first of the keys that has one. The later keys are older
    names."""
    config = study.record.config
    return next((v for v in (trial.params.get(key, config.get(key)) for key in keys) if v is not None), None)


def _short(values: Array) -> list[float | None]:
    """Numbers for the page's JSON, with five digits: people read them and nothing computes with them. None if not
    finite."""
    return [float(f"{v:.5g}") if np.isfinite(v) else None for v in values]
