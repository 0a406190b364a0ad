"""What the MLflow run of a study says on its page: notes, command, space, result, and where the report is."""

import shlex
from collections.abc import Sequence

from tbptt.config.names import SWEEPS
from tbptt.options.metrics import sign
from tbptt.options.values import short_value
from tbptt.runs import description
from tbptt.runs.description import bullets, code, escaped, section
from tbptt.runs.tracking import Run, Store
from tbptt.studies import judged_best, saved_view
from tbptt.studies.next_steps import keep_command, study_again
from tbptt.studies.plan import Plan
from tbptt.studies.ranking import best_trial, rerun_command
from tbptt.studies.records import StudyRecord
from tbptt.studies.study import Study, state_of
from tbptt.system.command import command
from tbptt.system.endings import ui_lines
from tbptt.system.mlflow_links import artifact_page, study_page
from tbptt.system.secrets import hide
from tbptt.system.typed_command import typed_command

REPORT = "report.html"
COMMAND = "study.command"  # the tag with the command that goes on with the study
MOST_DIMENSIONS = 30  # whose values are listed


def user_tags(plan: Plan) -> dict[str, str]:
    """The tags that the user gives a study's run."""
    return {str(name): hide(value) for name, value in plan.cfg.tags.items()}


def keep_labels(study: Study, plan: Plan) -> None:
    """Keep the user's notes and tags with the study, for its report, and the command. A command without notes or tags
    leaves those that were given before."""
    if plan.cfg.notes:
        StudyRecord.notes.write(study.optuna, hide(plan.cfg.notes))
    keep_command(study, plan)
    if plan.cfg.tags:
        StudyRecord.tags.write(study.optuna, user_tags(plan))


def describe_begin(parent: Run, study: Study, plan: Plan, arguments: Sequence[str]) -> None:
    """Give a study's run its tags, and its description as long as there is no result."""
    dimensions = list(plan.space.dimensions)
    lines = [f"{escaped(d.name)}: {escaped(d.describe())}" for d in dimensions[:MOST_DIMENSIONS]]
    if len(dimensions) > MOST_DIMENSIONS:
        lines.append(f"and {len(dimensions) - MOST_DIMENSIONS} more, in the param space")
    total = study.record.n_trials
    trials = "" if total is None else f"{total} trials" + (
        f", each with the seeds {', '.join(map(str, plan.settings.seeds))}" if plan.settings.seeds else ""
    )  # fmt: skip
    note = "\n\n".join(
        [
            *filter(None, [description.of_notes(study.record.notes)]),
            section("Report", _report(parent, study)),
            section("Command", code(typed_command(arguments) or "not known: begun from Python")),
            section("Space", bullets(lines), trials),
        ]
    )
    before = parent.store.retry(parent.tags)
    again = study_again(study.record)
    tags = {**user_tags(plan), **description.tags_for(note, before)}
    tags |= {COMMAND: again[: description.LONGEST]} if again else {}
    if tags:
        parent.store.retry(lambda: parent.set_tags(tags))


def describe_end(parent: Run, study: Study) -> None:
    """Add the result so far to the description."""
    trials = study.trials()
    best = best_trial(trials, *study.objectives)
    states = [state_of(trial) for trial in trials]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states) if state != "waiting")
    lines, command = [f"trials: {counts or 'none'}"], ""
    if best is not None and not study.record.placebo_of:
        pairs = zip(study.objectives, best.values, strict=True)
        values = ", ".join(f"**{value:.6g}** {escaped(name)}" for name, value in pairs)
        point = ", ".join(f"{name} {short_value(value)}" for name, value in best.params.items())
        lines.append(f"best: trial {best.number}, {values}; {escaped(point)}")
        lines += map(escaped, judged_best.answer(study, trials, best).lines)
        command = f"The best trial again:\n\n{code(hide(rerun_command(study)))}"
    tags = description.added(parent.tags(), description.RESULT, bullets(lines), command)
    if tags:
        parent.set_tags(tags)


def _report(parent: Run, study: Study) -> str:
    page = artifact_page(parent.experiment, parent.id, REPORT)
    path = (SWEEPS / study.name / REPORT).absolute()
    return "\n\n".join(
        [
            f"[{REPORT}]({page}), with this run's artifacts; `trials.csv` is there too. The study's folder has it as:",
            code(hide(str(path))),
            "Written again, also while the study runs, by:",
            code(f"{command('report')} {shlex.quote(study.name)}"),
        ]
    )


def where_to_look(study: Study, store: Store, uri: str) -> list[str]:
    """The lines that say how to open the study's runs in MLflow's UI."""
    objective = study.objectives[0]
    page = study_page(
        uri, store.experiment, study.name, objective, ascending=sign(objective) == 1, view=saved_view.kept(study, store)
    )
    return ui_lines(uri, page)
