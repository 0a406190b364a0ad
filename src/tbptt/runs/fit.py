"""One training run, from a config to its objective, step by step."""

import logging
import re
import signal
import traceback
import warnings
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.plugins.environments import LightningEnvironment

from tbptt.config.plain import plain, rerunnable
from tbptt.config.schema import Config, flatten
from tbptt.evaluation import words
from tbptt.evaluation.data_words import data_lines, warning_lines
from tbptt.evaluation.results import Judged
from tbptt.models import kernels
from tbptt.models.build import build_network
from tbptt.options.metrics import as_objectives
from tbptt.options.option import CHOSEN
from tbptt.options.values import Value, stored
from tbptt.runs import callbacks, description, judging, naming, own_callbacks
from tbptt.runs.best import Best
from tbptt.runs.context import RunContext
from tbptt.runs.datamodule import SequenceDataModule
from tbptt.runs.dataset import log_dataset, tags_of
from tbptt.runs.epoch import Epoch, unpacked
from tbptt.runs.journal import Outbox, deliver_pending, hold
from tbptt.runs.lane import Lane, in_a_pack
from tbptt.runs.module import SequenceModule
from tbptt.runs.progress import Progress
from tbptt.runs.system_metrics import monitored
from tbptt.runs.tracking import Run, Store
from tbptt.runs.training import Training
from tbptt.runs.versions import code_tags
from tbptt.system import collecting, devices
from tbptt.system.command import command, use_command
from tbptt.system.devices import gpu_trouble, pick_device
from tbptt.system.endings import ui_lines
from tbptt.system.files import write_text
from tbptt.system.mlflow_links import run_page
from tbptt.system.runtime import (
    Interrupted,
    LeaseLost,
    StopSignals,
    keep_freed_memory,
    say,
    set_precision,
)
from tbptt.system.secrets import hide
from tbptt.system.stores import sqlite_path
from tbptt.system.trouble import DiskTrouble, disk_trouble
from tbptt.training.chunks import parts_of
from tbptt.training.schedule import ChunkSchedule

log = logging.getLogger("tbptt")
T = TypeVar("T")

# Lightning uses a PyTorch name that PyTorch will drop soon; a user can do nothing about it.
warnings.filterwarnings("ignore", message=".*LeafSpec.*", module="pytorch_lightning.*")
warnings.filterwarnings("ignore", message=".*`srun` command is available.*")  # on any machine that has SLURM
# Steps outside a CUDA graph are intended: those of a graph's warm-up, and of chunks in segments.
warnings.filterwarnings("ignore", message=".*capturable=True.*")


@dataclass(frozen=True)
class Result:
    """The end of a run: its MLflow id and experiment, why it stopped, its best epoch, the held-out loss of predicting
    the mean."""

    run_id: str
    experiment: str
    stop_reason: str
    best: Best
    baseline: float


def train(cfg: DictConfig, context: RunContext | None = None) -> float | tuple[float, ...] | None:
    """Train a new run or resume one, say where it is seen, and return its objective (a tuple for several).

    Returns None if it diverged at once.
    """
    result = fit(cfg, context)
    if cfg.progress != "none":
        page = run_page(cfg.tracking.uri, result.experiment, result.run_id)
        for line in ui_lines(cfg.tracking.uri, page):
            say(line)
    best = result.best
    if cfg.progress != "none" and best.epoch is not None:
        say(f"use it: {use_command(result.run_id, hide(cfg.tracking.uri))}")
    return best.values if len(best.values) > 1 else best.value


def fit(cfg: DictConfig, context: RunContext | None = None) -> Result:
    """Train one run, tracked in MLflow from beginning to end.

    Args:
        cfg: composed from conf/, checked already.
        context: the settings besides the config; by default those of a single run.

    Raises:
        ValueError: the data or the callback cannot be used.
        GpuTrouble: ``device=cuda`` but no GPU works, or the GPU failed or ran out of memory; the run can be resumed.
        ConnectionError: the tracking server does not answer at the start.
        Interrupted: SIGINT, SIGTERM or SIGHUP came; the run is closed as KILLED and can be resumed.
        LeaseLost: another worker may have the run by now; this process leaves the run as it is.
    """
    return to_the_end(in_steps(cfg, context or RunContext()))


def to_the_end(steps: Generator[Lane, None, T]) -> T:
    """The result of what does not stop, as it is not part of a pack."""
    try:
        next(steps)
    except StopIteration as end:
        result: T = end.value
        return result
    raise RuntimeError("it waits for a pack")


def in_steps(cfg: DictConfig, context: RunContext) -> Generator[Lane, None, Result]:
    """:func:`fit`, which stops whenever the run has to wait for the pack that the context names, and yields its lane
    (:data:`tbptt.runs.lane.TURNS`). A run outside a pack, or one that only Lightning can train, does not stop."""
    config = cast(Config, OmegaConf.to_object(cfg))
    own = own_callbacks.built(config.callback)
    pack = context.pack if not own and config.precision != "bf16" else None
    objectives = as_objectives(config.objective)
    device = _set_up(config)
    mode = config.progress if context.show else "silent"
    with (
        context.signals,
        Progress(mode, config.epochs, objectives[0], context.name) as progress,
        kernels.torch_only() if config.kernels == "torch" and pack is None else nullcontext(),
        ExitStack() as held,
    ):
        store = _reached(config, context, progress)
        collecting.as_usual()  # all large libraries are imported, and the data are not there yet
        progress.now("preparing the data")
        with context.signals.at_once():
            data = SequenceDataModule(config.data, config.task, context.prepare)
        progress.about(data_lines(data.about), warning_lines(data.about))
        run, state = _opened(store, config, context, device, data, held)
        outbox = Outbox(run, config.tracking.update_points)
        with _closing(run, outbox, context.signals) as ending:
            judged: Judged | None = None
            module = _training(config, context, progress, device, is_lane=pack is not None)
            best = _begin_or_go_on(cfg, outbox, state, module, context, data) or Best(objectives)
            own_callbacks.restore(own, (state or {}).get("callbacks", {}))
            progress.parts = lambda: parts_of(data.train.length, module.schedule.chunks, module.cut)
            progress.opened(run.id, module.first_epoch)
            if module.stop_reason is None:
                judging.forget(run.folder)
                ours = callbacks.in_order(cfg, data, best, outbox, progress, context.after_epoch, own)
                with monitored(run, outbox.folder, config.tracking.system_metrics):
                    if isinstance(module, SequenceModule):
                        epochs = config.epochs - module.first_epoch
                        with _let_go(_trainer(config, device, epochs, ours), module) as trainer:
                            trainer.fit(module, datamodule=data)
                    else:
                        assert pack is not None
                        yield from in_a_pack(module, data, ours, pack)
                module.stop_reason = module.stop_reason or callbacks.ASKED  # before an epoch began
            if module.stop_reason != "pruned":
                progress.now("judging the best epoch")
                network = module.network.to(device)
                with module.at_work() if isinstance(module, Lane) else nullcontext():
                    judged = judging.judge_best(run.folder, network, data.prepared, context.test)
            ending.reason = module.stop_reason
        assert module.stop_reason is not None
        result = Result(run.id, run.experiment, module.stop_reason, best, data.baseline)
        progress.result(result.stop_reason, best.epoch, best.value, run.id, _verdict(judged, data, store, config))
    return result


def _verdict(judged: Judged | None, data: SequenceDataModule, store: Store, config: Config) -> list[str]:
    """The last lines of a run, about the quality of its predictions."""
    if judged is None:
        return []
    if judged.test is None:
        return [words.nothing_left(config.data)]
    uses = judging.uses(store, data.prepared.split.test_fingerprint())
    return [*words.lines(judged), words.uses_line(uses)]


def _set_up(config: Config) -> str:
    """Set this process up for a run; returns the device to train on."""
    device = pick_device(config.device)
    keep_freed_memory()
    torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    set_precision(config.precision)
    return device


def _reached(config: Config, context: RunContext, progress: Progress) -> Store:
    """The store of runs; what earlier runs could not deliver is sent to it first, if it takes it now."""
    progress.now(hide(f"opening {config.tracking.uri}"))
    if context.pack and context.pack.store:
        return context.pack.store
    with nullcontext() if sqlite_path(config.tracking.uri) else context.signals.at_once():
        # That of a pack outlives its first trial, whose lease is of no concern to the others.
        check = context.signals.check if context.pack else context.check
        store = Store(config.tracking, context.retry_seconds, check)
    deliver_pending(store, config.tracking.update_points)
    if context.pack:
        context.pack.store = store
    return store


def _opened(
    store: Store, config: Config, context: RunContext, device: str, data: SequenceDataModule, held: ExitStack
) -> tuple[Run, dict[str, Any] | None]:
    """The run to train and the checkpoint to resume from; a new run and None if there is nothing to resume.

    This process has the run to itself until ``held`` ends.
    """
    resume = context.resume
    begun = store.retry(lambda: store.run(resume)) if resume else None
    if begun and begun.is_deleted:
        log.warning("run %s was deleted in MLflow; a new one begins in its place", begun.id)
        begun = None
    context.check()  # the calls above may have waited for long
    if begun:
        hold(store, begun.id, held, context.check)
    state = begun.last_state(take_over=True) if begun else None
    facts = {"data.fingerprint": data.fingerprint, "baseline.val_loss": f"{data.baseline:.6g}", **tags_of(data.about)}
    layers = config.model.computed_by(device, config.precision)
    trained_by = {"device": devices.describe(device), "versions.kernels": layers}

    def opened() -> Run:
        # A run that stopped before its first checkpoint stays as it ended: MLflow takes no second set of params.
        if begun and state and store.reopen_run(begun.id):
            before = begun.tags()
            begun.set_tags({**_and_then(before, trained_by), **context.tags, **description.unfinished(before)})
            return begun
        own = {name: hide(value) for name, value in config.tags.items()}
        tags = {**own, **code_tags(), **facts, **trained_by, **context.tags}
        return store.start_run(context.name or _run_name(config, context.typed), tags, parent=context.parent)

    context.check()
    run = store.retry(opened)
    context.on_start(run.id)
    hold(store, run.id, held, context.check)
    return run, state


def _training(
    config: Config, context: RunContext, progress: Progress, device: str, is_lane: bool
) -> Lane | SequenceModule:
    def after_chunk() -> None:
        context.check()
        progress.moved()

    network = build_network(config.model, config.data.input_size, config.task.outputs)
    if is_lane:
        return Lane(network, config, _schedule(config), after_chunk, device)
    return SequenceModule(network, config, _schedule(config), after_chunk)


def _begin_or_go_on(
    cfg: DictConfig,
    outbox: Outbox,
    state: dict[str, Any] | None,
    module: Training,
    context: RunContext,
    data: SequenceDataModule,
) -> Best | None:
    """Log a new run's config, or restore a resumed run from its checkpoint; returns its best epoch so far, if any."""
    run = outbox.run
    write_text(run.folder / "config.yaml", rerunnable(cfg))
    before = [unpacked(one) for one in state.get("records", [])] if state else []
    outbox.agree_with(Epoch(**state["record"]) if state else None, before)
    if state is None:
        params = {name: value for name, value in plain(cfg).items() if name not in ("notes", "tags")}
        described = description.of_run(run, cfg.notes, context.overrides)

        def described_in_store() -> None:
            with run.store.together():
                run.log_params(flatten(params))
                run.set_tags(description.tags_for(described, {}))
                log_dataset(run, data.about, data.fingerprint)

        run.store.retry(described_in_store)
        return None
    module.restore(state)
    for epoch in outbox.epochs:
        context.after_epoch(epoch)
    return Best(**state["best"])


def _schedule(config: Config) -> ChunkSchedule:
    return ChunkSchedule.plan(
        config.schedule.as_list(),
        epochs=config.epochs,
        patience=config.schedule.patience,
        stage_epochs=config.schedule.stage_epochs,
    )


@dataclass
class _Ending:
    """The reason why a run stopped, if no error ended it."""

    reason: str | None = None


@contextmanager
def _closing(run: Run, outbox: Outbox, signals: StopSignals) -> Iterator[_Ending]:
    """Give the run its true status at the end, after an error or for the reason in the yielded ``_Ending``."""
    ending = _Ending()
    try:
        yield ending
    except LeaseLost:
        outbox.abandon()
        raise
    except BaseException as error:
        stopped = signals.signum is not None or isinstance(error, KeyboardInterrupt | Interrupted)
        trouble = None if stopped else disk_trouble(error)
        if not stopped:
            with suppress(OSError):
                write_text(run.folder / "traceback.txt", hide("".join(traceback.format_exception(error))))
        outbox.close("KILLED" if stopped else "FAILED", "interrupted" if stopped else "error", quiet=bool(trouble))
        how = f"go on with it: {command('train')} resume={run.id}"
        if stopped:  # Lightning may have raised another error for the signal: SystemExit for SIGTERM
            raise Interrupted(signals.signum or signal.SIGINT, f"; {how}") from None
        if trouble:
            raise DiskTrouble(
                trouble.number, trouble.where or str(run.folder), f"; when that is mended, {how}"
            ) from error
        if failed := gpu_trouble(error):
            raise type(failed)(failed.what, f"; {how}") from error
        raise
    else:
        outbox.close("KILLED" if ending.reason == "pruned" else "FINISHED", ending.reason)


def _trainer(config: Config, device: str, epochs: int, callbacks: list[pl.Callback]) -> pl.Trainer:
    """A Trainer without logging, checkpoints, progress and clipping: this project does these itself."""
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*GPU available but not used.*")
        return pl.Trainer(
            max_epochs=epochs,
            accelerator={"cpu": "cpu", "cuda": "gpu"}[device],
            devices=1,
            callbacks=callbacks,
            plugins=LightningEnvironment(),  # one process, also in a SLURM job: else Lightning handles its signals
            precision="bf16-mixed" if config.precision == "bf16" else "32-true",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
        )


@contextmanager
def _let_go(trainer: pl.Trainer, module: SequenceModule) -> Iterator[pl.Trainer]:
    """At the end, break the reference cycles between a Trainer and its parts, and between a module and its callback.

    Their GPU memory, above all that of a graph, is then free without a garbage collection, which takes 0.3 s.
    """
    try:
        yield trainer
    finally:
        module.release()
        vars(trainer).clear()


def _and_then(before: Mapping[str, str], now: Mapping[str, str]) -> dict[str, str]:
    """Tags of a resumed run, which may be on another machine now: the old value, then the new one."""
    found = {}
    for name, value in now.items():
        was = before.get(name, value)
        found[name] = was if was.split(", then ")[-1] == value else f"{was}, then {value}"
    return found


def _run_name(config: Config, typed: Sequence[str]) -> str:
    """The name of a run of its own."""
    said: list[tuple[str, Value]] = []
    for word in typed:
        key = word.partition("=")[0].lstrip("+")
        value: Any = config
        for part in re.split("[./]", key):
            value = getattr(value, part, None)
        said.append((key, stored(getattr(value, "name", value) if key in CHOSEN else value)))
    return naming.single_name(said, config.optimizer.name, config.clip, config.seed)
