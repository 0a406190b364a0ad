"""A sweep from beginning to end: the study, its parent run, its workers, its report."""

import logging
import shlex
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any, cast

from hydra.core.plugins import Plugins
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf

from tbptt.config.compose import CommandError, ConfigSource
from tbptt.config.hydra_node import LAUNCHERS
from tbptt.config.names import SWEEPS, numbered
from tbptt.config.schema import TrackingConfig
from tbptt.options.values import Value, text_of
from tbptt.runs import progress
from tbptt.runs.tracking import Run, Store
from tbptt.runs.versions import code_tags
from tbptt.studies import judged_best, pool
from tbptt.studies.begun import as_begun
from tbptt.studies.best_of import Chosen, best_of
from tbptt.studies.described import data_of, keep_data, lines_of
from tbptt.studies.dry_run import describe
from tbptt.studies.folds import data_fingerprint
from tbptt.studies.living import swept
from tbptt.studies.next_steps import study_again
from tbptt.studies.parent_run import describe_begin, keep_labels, user_tags, where_to_look
from tbptt.studies.placebo import placebo_line, placebos_of
from tbptt.studies.plan import Plan, differences, other_parameters
from tbptt.studies.planned import plan_of
from tbptt.studies.pool import STRIKES, Ends, WorkerProcess
from tbptt.studies.postgres import RETRY_SECONDS, ServerStorage
from tbptt.studies.ranking import best_run, best_trial, rerun_command, use_best_command
from tbptt.studies.records import StudyRecord
from tbptt.studies.study import Budget, Study
from tbptt.studies.sweep_end import HOW_TO_GO_ON, Report, settled
from tbptt.studies.sweep_progress import SweepProgress, failure_lines
from tbptt.studies.watched import offered
from tbptt.studies.worker_spec import WorkerSpec
from tbptt.system import collecting
from tbptt.system.command import command
from tbptt.system.devices import GpuFailed, gpu_trouble
from tbptt.system.endings import SweepFailed, failure_line
from tbptt.system.files import links_in
from tbptt.system.runtime import Interrupted, StopSignals, say
from tbptt.system.secrets import hide
from tbptt.system.stores import sqlite_path

log = logging.getLogger("tbptt")

POLL_SECONDS = 0.25
FOLDS = ("folds", "fold_window")  # of a study's spec
WATCH_SECONDS = 2.0  # between two looks at a study on a server


def run_sweep(
    config: DictConfig,
    context: HydraContext,
    arguments: Sequence[str],
    report: Report,
    early: Sequence[WorkerProcess] = (),
) -> None:
    """Run, join or resume the study that ``arguments`` mean.

    Args:
        report: writes the study's report.
        early: workers that already wait for their spec. Workers that are not needed keep waiting.

    Raises:
        CommandError: the sweep is wrong, or an existing study of its name is another.
        SweepFailed: some trials failed; the others were run.
        Interrupted: SIGINT, SIGTERM or SIGHUP came. The same command, given again, resumes the trials that were
            running.
    """
    plan = as_begun(plan_of(_source_of(config), arguments), arguments)
    chosen = best_of(plan) if plan.settings.best_of else placebos_of(plan) if plan.settings.placebo_of else Chosen()
    points = chosen.points or (plan.points() if plan.is_grid else [])
    about = data_of(plan)
    if plan.settings.dry_run:
        _say_what_would_run(plan, points, about)
        return
    if len(plan.objectives) > 1 and plan.settings.pruner.name not in ("auto", "none"):
        log.warning("study/pruner=%s: no trial is pruned, as there are several objectives", plan.settings.pruner.name)
    progress.now("opening the study")
    name = numbered(plan.name, Study.taken(plan.settings.storage)) if plan.settings.fresh else plan.name
    if lines := links_in(SWEEPS / name):
        raise CommandError(lines)
    spec = _spec(plan)
    with StopSignals() as signals:
        study, store = _opened(plan, name, signals)
        collecting.as_usual()  # what follows lasts as long as the study
        parent = _prepare(study, plan, store, points, chosen, spec)
        keep_data(name, parent, about)
        describe_begin(parent, study, plan, arguments)
        progress.about(plan.cfg.progress, *lines_of(about))
        store.retry_seconds = RETRY_SECONDS  # only from here on: at the start, an outage is better reported at once
        study.reap(plan.settings.retries)
        study.retry_failed()
        worker = _worker_spec(plan, name, arguments, parent)
        if isinstance(study.storage, ServerStorage):
            study.storage.check = signals.check
        with swept(store, parent), offered(study, plan), settled(study, plan, store, parent, signals, report):
            _run_workers(study, plan, worker, config, context, signals, early)
            over = _time_is_over(study, plan, worker)
            study.note_end(over)
    progress.end()
    if plan.cfg.progress != "none" and over:
        say(over)
    _say_result(study, plan, store)
    if failures := study.failures():
        raise SweepFailed("\n".join(failure_lines(failures)))


def _source_of(config: DictConfig) -> ConfigSource:
    """The source from which Hydra composed its config."""
    found = {s.provider: Path(s.path) for s in config.hydra.runtime.config_sources if s.schema == "file"}
    return ConfigSource(
        found["main"], config.hydra.job.config_name, found.get("command-line"), first=found.get("tbptt")
    )


def _say_what_would_run(plan: Plan, points: Sequence[Mapping[str, Value]], about: Mapping[str, Any]) -> None:
    progress.now("timing an epoch")
    text = describe(plan, points, [line for lines in lines_of(about) for line in lines])
    progress.end()
    say(text)


def _spec(plan: Plan) -> dict[str, Any]:
    """What identifies a study, with the fingerprint of its data unless the data are searched."""
    if any(d.key.split(".")[0] in ("data", "task") for d in plan.space.dimensions):
        return plan.spec
    return {**plan.spec, "data": data_fingerprint(plan.cfg)}


def _opened(plan: Plan, name: str, signals: StopSignals) -> tuple[Study, Store]:
    """Open the study and the store of its runs. A signal ends the wait for a server."""
    is_local = sqlite_path(plan.settings.storage) and sqlite_path(plan.cfg.tracking.uri)
    with nullcontext() if is_local else signals.at_once():
        # The store comes first: if it cannot be used, no empty study is left behind.
        store = Store(cast(TrackingConfig, OmegaConf.to_object(plan.cfg.tracking)), check=signals.check)
        study = Study(name, plan.settings.storage, plan.objectives, plan.settings.heartbeat)
    signals.check()  # making the tables of a new store takes seconds
    return study, store


def _worker_spec(plan: Plan, name: str, arguments: Sequence[str], parent: Run) -> WorkerSpec:
    """What the workers are told. The study's time starts to run here."""
    source = plan.source
    words = [*arguments, *plan.earlier, f"study.name={text_of(name)}", "study.fresh=false"]
    also = str(source.also) if source.also else None
    first = str(source.first) if source.first else None
    spec = WorkerSpec(str(source.folder), source.name, also, words, parent.id, first=first)
    return spec.within(plan.settings.timeout)


def _prepare(
    study: Study,
    plan: Plan,
    store: Store,
    points: Sequence[Mapping[str, Value]],
    chosen: Chosen,
    spec: Mapping[str, Any],
) -> Run:
    """Compare the plan with the study, or store the plan in a new study; queue its points; open the parent run."""
    code = code_tags()
    own = code.get("own.sha256", "")
    (SWEEPS / study.name).mkdir(parents=True, exist_ok=True)
    with study.locked():
        record = study.record
        if record.spec:
            changed = differences(record.spec, spec)
            if changed and not plan.settings.allow_changed:
                advice = "takes another study.name, study.fresh=true, or study.allow_changed=true"
                raise CommandError([f"study {study.name}: {line}; {advice}" for line in changed])
            # Trials in other folds could not be compared with these.
            if fixed := [*other_parameters(record.space, spec["space"]), *differences(record.spec, spec, *FOLDS)]:
                advice = "cannot change within a study; takes another study.name, or study.fresh=true"
                raise CommandError([f"study {study.name}: {line}; {advice}" for line in fixed])
            if changed:
                StudyRecord.changes.write(study.optuna, [*record.changes, *changed])
                StudyRecord.enqueued.write(study.optuna, False)
            if record.code != code.get("git.sha"):
                log.warning("study %s: the code has changed since it was begun", study.name)
            if record.own not in (None, own):
                log.warning("study %s: the files in own/ have changed since it was begun", study.name)
        study.note_end(None)  # it goes on
        StudyRecord.seeds_used.write(study.optuna, sorted({*study.seeds_used(), *chosen.seeds}))  # before spec changes
        StudyRecord.spec.write(study.optuna, spec)
        StudyRecord.code.write(study.optuna, record.code if record.spec else code.get("git.sha"))
        StudyRecord.own.write(study.optuna, own if record.own is None else record.own)
        if not record.spec:
            StudyRecord.begun.write(study.optuna, plan.begun)
        StudyRecord.n_trials.write(study.optuna, plan.n_trials)
        StudyRecord.objectives.write(study.optuna, plan.objectives)
        StudyRecord.tracking_uri.write(study.optuna, hide(plan.cfg.tracking.uri))
        keep_labels(study, plan)
        was = record.parent_run
        parent = store.reopen_run(was) if was else None
        if parent is None:
            if was:
                log.warning("study %s: its parent run %s was deleted in MLflow; a new one is made", study.name, was)
            parent = store.start_run(study.name, {**user_tags(plan), **code, "study.name": study.name})
            parent.log_params({"space": plan.space.describe(), "fixed": " ".join(plan.fixed)})
            StudyRecord.parent_run.write(study.optuna, parent.id)
        if chosen.trials:
            chosen = chosen.after(record.chosen)
            if len(chosen.trials) > len(record.chosen):
                StudyRecord.enqueued.write(study.optuna, False)
            StudyRecord.chosen.write(study.optuna, chosen.trials)
            points = chosen.points
        if points:
            progress.now(f"queueing {len(points)} points")
            StudyRecord.n_trials.write(study.optuna, len(points))
            study.enqueue(points)
    return parent


def _run_workers(
    study: Study,
    plan: Plan,
    worker: WorkerSpec,
    config: DictConfig,
    context: HydraContext,
    signals: StopSignals,
    early: Sequence[WorkerProcess],
) -> None:
    """Run workers until the budget is used up. On a server, also wait for the trials of other machines' workers, so
    that the trial of a worker that dies is run again."""
    settings = plan.settings
    budget = _budget(plan, worker.deadline)
    is_local = config.hydra.launcher._target_ == LAUNCHERS["basic"]
    strikes = 0
    ends = Ends(study, settings.retries, 1, "what the jobs printed", HOW_TO_GO_ON)  # counts rounds of jobs
    while True:
        if study.has_more(budget, plan.is_grid):
            counts = study.counts()
            remaining = None if plan.n_trials is None else plan.n_trials - counts.complete - counts.pruned
            if plan.is_grid:
                remaining = counts.waiting
            workers = settings.workers if remaining is None else min(settings.workers, max(remaining, 1))
            if is_local:
                before = len(study.trials())
                _run_pool(study, plan, worker, workers, signals, early)
                early = ()
                now = study.counts()
                elsewhere = isinstance(study.storage, ServerStorage) and now.running
                if len(study.trials()) == before and not now.waiting and not elsewhere:
                    return  # the workers found nothing more to run
            elif workers <= counts.running:  # jobs of a stopped command still run
                signals.check()
                time.sleep(WATCH_SECONDS)
            elif troubles := _run_jobs(worker, workers - counts.running, config, context, signals):
                if all(isinstance(gpu_trouble(error), GpuFailed) for error in troubles):
                    ends.gpu_failed()
                    continue
                done = study.counts()
                strikes = 1 if done.complete + done.pruned > counts.complete + counts.pruned else strikes + 1
                if strikes == STRIKES:
                    raise RuntimeError(f"jobs of the launcher failed {STRIKES} times; what they printed says why")
        elif isinstance(study.storage, ServerStorage) and study.counts().running:
            signals.check()
            time.sleep(WATCH_SECONDS)
        else:
            return


def _budget(plan: Plan, deadline: float | None = None) -> Budget:
    return Budget(plan.n_trials, deadline, plan.settings.max_failures, plan.settings.retries)


def _time_is_over(study: Study, plan: Plan, worker: WorkerSpec) -> str | None:
    """The line that says that ``study.timeout`` ended the sweep before its trials were done; None if it did not."""
    if worker.deadline is None or time.monotonic() < worker.deadline or not study.has_more(_budget(plan), plan.is_grid):
        return None
    counts, total = study.counts(), study.record.n_trials
    done = f"{counts.complete + counts.pruned}{f' of {total}' if total else ''} trials"
    return f"study.timeout of {plan.settings.timeout:g} s is over: {done}; the same command goes on"


def _run_jobs(
    worker: WorkerSpec, workers: int, config: DictConfig, context: HydraContext, signals: StopSignals
) -> list[Exception]:
    """Run workers as jobs of another Hydra launcher, and return the errors that ended some of them early. If this
    process is stopped, the jobs go on."""
    from tbptt.studies.worker import work_as_job

    launcher = Plugins.instance().instantiate_launcher(
        hydra_context=context, task_function=partial(work_as_job, worker.given()), config=config
    )
    words = [word for word in worker.overrides if word.startswith("cluster=")]  # Hydra's own part of a job needs it
    troubles: list[Exception] = []

    def launch() -> None:
        try:
            for job in launcher.launch([words] * workers, initial_job_idx=0):
                _ = job.return_value
        except Exception as error:  # a node that failed, a job that was cancelled: the others' work is in the study
            troubles.append(error)

    thread = Thread(target=launch, daemon=True)  # launchers wait for their jobs without looking at signals
    thread.start()
    progress.now("the launcher's jobs run")
    try:
        while thread.is_alive():
            if signals.signum is not None:
                here = launcher.__class__.__name__ == "JoblibLauncher"
                raise Interrupted(
                    signals.signum, f"; {HOW_TO_GO_ON}" if here else f"; its jobs go on: {HOW_TO_GO_ON} and watch"
                )
            thread.join(POLL_SECONDS)
    finally:
        pool.end_joblib(stop=signals.signum is not None)
    for error in troubles:
        log.warning("a job of the launcher ended early: %s", failure_line(error))
    return troubles


def _run_pool(
    study: Study, plan: Plan, worker: WorkerSpec, workers: int, signals: StopSignals, early: Sequence[WorkerProcess]
) -> None:
    """Run worker processes on this machine. Another worker replaces one that dies; the trial goes back to the study."""
    log_path = SWEEPS / study.name / "workers.log"
    slots: dict[WorkerProcess, int] = {}

    def begin(slot: int, process: WorkerProcess) -> None:
        process.give(worker, log_path)
        slots[process] = slot

    next_look = 0.0
    ends = Ends(study, plan.settings.retries, workers, str(log_path), HOW_TO_GO_ON)
    look_every = WATCH_SECONDS if isinstance(study.storage, ServerStorage) else POLL_SECONDS
    try:
        for slot in range(workers):
            begin(slot, early[slot] if slot < len(early) else pool.WorkerProcess(slot))
        show = SweepProgress(plan.cfg.progress, study.name, study.record.n_trials, plan.objectives, workers)
        with show as display, signals.pausing(lambda: pool.pause(slots)):
            while slots:
                time.sleep(POLL_SECONDS)
                signals.pause_if_asked()
                if signals.signum is not None:
                    raise Interrupted(signals.signum, f"; {HOW_TO_GO_ON}")
                for process, status in [(p, s) for p in slots if (s := p.poll()) is not None]:
                    slot = slots.pop(process)
                    if ends.take(status):
                        begin(slot, pool.WorkerProcess(slot))
                if time.monotonic() >= next_look:
                    display.update(study.trials())
                    next_look = time.monotonic() + look_every
            display.update(study.trials())
        ends.all_taken()
    finally:
        pool.stop(slots)


def _say_result(study: Study, plan: Plan, store: Store) -> None:
    """The last lines of a sweep: the best trial, how it compares, where to look."""
    if plan.cfg.progress == "none":
        return

    trials = study.trials()
    best = best_trial(trials, *study.objectives)
    if of := study.record.placebo_of:  # a placebo study chooses no trial
        real = Study.existing(of, plan.settings.storage)
        say(f"study {of}: {placebo_line(real)}")
        real.close()
        say(f"its report says so too: {command('report')} {shlex.quote(of)}")
    elif best is not None:
        point = " ".join(plan.space.overrides(best.params))
        values = "  ".join(f"{o} {v:.4g}" for o, v in zip(study.objectives, best.values, strict=True))
        by_it = ", chosen by it" if study.objectives[0].startswith("val/") else ""
        say(f"best: trial {best.number}  {values}{by_it}  {point}")
        for line in judged_best.answer(study, trials, best).lines:
            say(line)
        say(f"rerun it: {rerun_command(study)}")
        say(f"use it: {use_best_command(study)}")
        if luck := best_run(study, best)[1]:
            say(f"sweeps/{study.name}/best.ckpt: of {luck}")
    say(f"report: sweeps/{study.name}/report.html")
    for line in where_to_look(study, store, plan.cfg.tracking.uri):
        say(line)
    if again := study_again(study.record):
        say(f"again: {again}")
