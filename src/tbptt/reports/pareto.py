"""The figure of the Pareto front of a study with several objectives."""

from collections.abc import Sequence

from optuna import visualization
from optuna.trial import FrozenTrial

from tbptt.reports import thinning
from tbptt.reports.drawable import drawable
from tbptt.reports.figures import BEST, GREY, LEGEND_ABOVE, axis_type
from tbptt.reports.optuna_figures import Section
from tbptt.studies.ranking import complete, pareto_front


def pareto(trials: Sequence[FrozenTrial], objectives: Sequence[str]) -> Section | None:
    """The front of two or three objectives, and the trials behind it; of very many, a random sample."""
    every = complete(trials)
    if not every or len(objectives) not in (2, 3):
        return None
    front = pareto_front(every, objectives)
    first = {t.number for t in front}
    behind = [t for t in every if t.number not in first]
    others = thinning.at_random(behind)
    study = drawable([*front, *others], objectives, *range(len(objectives)))
    figure = visualization.plot_pareto_front(study, target_names=list(objectives))
    values = "<br>".join(f"{o} <b>%{{{axis}:.4g}}</b>" for o, axis in zip(objectives, "xyz", strict=False))
    for dots, name, colour in zip(figure.data, ("dominated", "on the front"), (GREY, BEST), strict=True):
        numbers = list(dots.marker.color or ())
        dots.marker = {"color": colour, "size": 9 if len(objectives) == 2 else 4, "line": {"width": 0.5}}
        dots.update(name=name, showlegend=True, text=None, customdata=numbers)
        dots.hovertemplate = f"%{{text}}<br>{values}<extra></extra>"
    if len(objectives) == 2:
        kinds = [axis_type(t.values[i] for t in every) for i in range(2)]
        figure.update_layout(xaxis_type=kinds[0], yaxis_type=kinds[1])
    figure.update_layout(legend=LEGEND_ABOVE, height=480)
    note = "No other trial is at least as good in every objective and better in one."
    note += thinning.said(others, behind, "trials that are not on it", is_random=True)
    return Section("Pareto front", note, [figure])
