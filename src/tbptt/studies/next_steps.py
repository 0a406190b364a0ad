"""What can be done with a study next, as commands that run as they stand in its working folder."""

import shlex
from collections.abc import Iterator, Sequence

from optuna.trial import FrozenTrial

from tbptt.config.names import DEFAULT_STORAGE, SWEEPS
from tbptt.studies.plan import BEST, PLACEBOS, Plan
from tbptt.studies.ranking import best_trial, complete, rerun_command
from tbptt.studies.records import StudyRecord
from tbptt.studies.study import Study
from tbptt.system.command import command
from tbptt.system.endings import ui_line
from tbptt.system.secrets import hide
from tbptt.system.stores import sqlite_path
from tbptt.system.typed_command import typed_command

MOST = 20  # commands that are kept with a study


def keep_command(study: Study, plan: Plan) -> None:
    """Keep the command of this process with its study, as the newest. Begun from Python, a study has none."""
    typed = typed_command([])
    if typed and plan.settings.fresh:  # as it was typed, it would begin yet another study
        typed += f" {_word('study.name', study.name)} study.fresh=false"
    before = study.record.commands
    if typed and (not before or before[-1] != typed):
        StudyRecord.commands.write(study.optuna, [*(c for c in before if c != typed), typed][-MOST:])


def study_again(record: StudyRecord) -> str:
    """The command that goes on with a study, or has its last lines again; empty if it is not known: the study was begun
    from Python or by an earlier version."""
    return record.commands[-1] if record.commands else ""


def next_steps(study: Study, trials: Sequence[FrozenTrial]) -> list[tuple[str, str]]:
    """What each command does, in words, and the command."""
    return list(_steps(study, study.record, trials))


def _steps(study: Study, record: StudyRecord, trials: Sequence[FrozenTrial]) -> Iterator[tuple[str, str]]:
    again, name, stores = study_again(record), shlex.quote(study.name), _stores(study, record)
    best = best_trial(trials, *study.objectives)
    is_search = not record.chosen  # neither the best of another study nor its placebos
    if again:
        yield "This study: goes on where it stopped", again
    if best is not None and not record.placebo_of:
        if (SWEEPS / study.name / "best.yaml").exists():
            yield "Train the best trial again", rerun_command(study)
        use = "Predict with the best trial (other prices: data.path=FILE)"
        yield use, f"{command('predict')} {name}{stores}"
    if again and is_search and len(complete(trials)) > 1:
        yield f"Train the best {BEST} with other seeds", " ".join([again, *map(shlex.quote, with_other_seeds(study))])
    if again and is_search and best is not None and not record.config.get("data.surrogate"):
        on_surrogates = _word("study.placebo_of", study.name), _word("study.name", f"{study.name}-placebo")
        yield "What luck alone finds: placebos", " ".join([again, *on_surrogates, f"study.n_trials={PLACEBOS}"])
    uri = record.tracking_uri or ""
    if uri and not uri.startswith(("http", "$")):  # a server has a UI of its own
        yield "Compare its runs in MLflow's UI", ui_line(uri).removeprefix("compare runs: ")
    report = f"{command('report')} {name}"
    yield "Write this report again", f"{report}{stores}"
    yield "Its figures for a paper", f"{report} --figures {shlex.quote(str(SWEEPS / study.name / 'figures'))}{stores}"


def with_other_seeds(study: Study) -> list[str]:
    """What is typed behind a study's command to train its best points with seeds by which nothing was chosen."""
    used = study.seeds_used()
    new = [seed for seed in range(10, 13 + len(used)) if seed not in used][:3]
    seeds = f"study.seeds={str(new).replace(' ', '')}"
    return [f"study.best_of={study.name}", f"study.name={study.name}-again", f"study.n_trials={BEST}", seeds]


def _stores(study: Study, record: StudyRecord) -> str:
    """What a command needs to find a study and its runs where they are not in the default places."""
    words, uri = [], record.tracking_uri or ""
    if study.storage_uri != DEFAULT_STORAGE:
        words.append(_word("study.storage", hide(study.storage_uri)))
    if uri and sqlite_path(uri) is None:  # a file is named by the study itself
        words.append(_word("tracking.uri", uri))
    return "".join(f" {word}" for word in words)


def _word(key: str, value: str) -> str:
    """One word for a shell; the value may be a variable's."""
    return f'{key}="{value}"' if value.startswith("$") else shlex.quote(f"{key}={value}")
