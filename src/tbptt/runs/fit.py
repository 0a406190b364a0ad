"""One training run, from a config to its objective: the one linear story."""

import logging
import math
import signal
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass
from typing import cast

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.plugins.environments import LightningEnvironment

from tbptt.config.plain import plain, rerunnable
from tbptt.config.schema import Config, flatten
from tbptt.models import kernels
from tbptt.models.build import build_network
from tbptt.options.metrics import as_objectives, sign
from tbptt.runs import checkpoint, own_callbacks
from tbptt.runs.datamodule import Prepare, SequenceDataModule
from tbptt.runs.epoch import Epoch, packed, unpacked
from tbptt.runs.journal import Outbox, deliver_pending, hold
from tbptt.runs.module import SequenceModule
from tbptt.runs.progress import Progress
from tbptt.runs.tracking import Run, Store
from tbptt.runs.versions import code_tags
from tbptt.system import devices
from tbptt.system.devices import gpu_trouble, pick_device
from tbptt.system.files import write_text
from tbptt.system.runtime import Interrupted, Lost, StopSignals, keep_freed_memory, set_precision
from tbptt.system.secrets import hide
from tbptt.system.stores import sqlite_path
from tbptt.system.trouble import DiskTrouble, disk_trouble
from tbptt.tasks.prepare import prepare
from tbptt.training.chunks import parts_of
from tbptt.training.schedule import ChunkSchedule

log = logging.getLogger("tbptt")

# Lightning calls PyTorch by a name that PyTorch is about to drop; nothing that a user could do about it.
warnings.filterwarnings("ignore", message=".*LeafSpec.*", module="pytorch_lightning.*")
warnings.filterwarnings("ignore", message=".*`srun` command is available.*")  # on any machine that has SLURM
# Steps outside a CUDA graph, of a graph's warm-up and of chunks in segments, are meant to be.
warnings.filterwarnings("ignore", message=".*capturable=True.*")


@dataclass
class Best:
    """The epoch at which the leading objective was best so far.

    Attributes:
        values: of all objectives at that epoch; nan for one that was not measured then.
    """

    objectives: list[str]
    epoch: int | None = None
    values: tuple[float, ...] = ()

    @property
    def value(self) -> float | None:
        """Of the leading objective; None before it was ever measured."""
        return self.values[0] if self.values else None

    def take(self, epoch: Epoch) -> bool:
        """Whether this epoch is the best so far."""
        value = epoch.metrics.get(self.objectives[0])
        factor = sign(self.objectives[0])
        if value is None or (self.values and factor * value >= factor * self.values[0]):
            return False
        self.epoch = epoch.number
        self.values = tuple(epoch.metrics.get(name, math.nan) for name in self.objectives)
        return True


@dataclass(frozen=True)
class Result:
    """How a run ended: its MLflow id, why it stopped, its best epoch, the held-out loss of predicting the mean."""

    run_id: str
    stop_reason: str
    best: Best
    baseline: float


def train(cfg: DictConfig, resume: str | None = None) -> float | tuple[float, ...] | None:
    """Train one run, or go on with one, and return its objective (a tuple for several); None where it diverged at
    once."""
    best = fit(cfg, resume=resume).best
    return best.values if len(best.values) > 1 else best.value


def fit(
    cfg: DictConfig,
    *,
    name: str = "",
    parent: str | None = None,
    tags: Mapping[str, str] | None = None,
    resume: str | None = None,
    after_epoch: Callable[[Epoch], bool] = lambda epoch: False,
    on_start: Callable[[str], None] = lambda run_id: None,
    signals: StopSignals | None = None,
    prepare: Prepare = prepare,
    show: bool = True,
    still_ours: Callable[[], None] = lambda: None,
    retry_seconds: float = 0.0,
) -> Result:
    """Train one run, tracked in MLflow from beginning to end.

    Args:
        cfg: composed from conf/, checked already.
        name: of the run, in MLflow and in the progress line.
        parent: id of the MLflow run to put this one under.
        tags: more tags for the run.
        resume: id of a run to go on with from its last finished epoch; a new run where it has none.
        after_epoch: takes each finished epoch, those of a resumed run too; True prunes the run: it stops with
            ``stop.reason=pruned``.
        on_start: takes the run's id as soon as it has one.
        signals: where SIGINT, SIGTERM and SIGHUP are noted; this run's own by default.
        prepare: gives the data.
        show: whether to show progress and result.
        still_ours: called before the run is opened and between chunks; raises Lost where the run may be another
            worker's by now: it is left alone.
        retry_seconds: how long a tracking server that is away is tried again when the run begins.

    Raises:
        ValueError: the data or the callback cannot be used.
        GpuTrouble: there is no GPU that works and ``device=cuda``, or it failed or had no room; the run can be resumed.
        ConnectionError: the tracking server does not answer at the start.
        Interrupted: SIGINT, SIGTERM or SIGHUP came; the run is closed as KILLED and can be resumed.
    """
    config = cast(Config, OmegaConf.to_object(cfg))
    callbacks = own_callbacks.built(config.callback)
    device = pick_device(config.device)
    keep_freed_memory()
    torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    set_precision(config.precision)
    best = Best(as_objectives(config.objective))
    mode = config.progress if show else "silent"
    with (
        signals or StopSignals() as signals,
        Progress(mode, config.epochs, best.objectives[0], name) as progress,
        kernels.torch_only() if config.kernels == "torch" else nullcontext(),
        ExitStack() as ends,
    ):

        def check() -> None:
            signals.check()
            still_ours()

        progress.now(hide(f"opening {config.tracking.uri}"))
        with nullcontext() if sqlite_path(config.tracking.uri) else signals.at_once():
            store = Store(config.tracking, retry_seconds, check)
        deliver_pending(store, config.tracking.update_points)
        progress.now("preparing the data")
        with signals.at_once():
            data = SequenceDataModule(config.data, config.task, prepare)
        begun = store.retry(lambda: store.run(resume)) if resume else None
        if begun and begun.is_deleted:
            log.warning("run %s was deleted in MLflow; a new one begins in its place", begun.id)
            begun = None
        check()  # what came before may have waited for long
        if begun:
            hold(store, begun.id, ends, check)
        state = begun.last_state(take_over=True) if begun else None
        facts = {"data.fingerprint": data.fingerprint, "baseline.val_loss": f"{data.baseline:.6g}"}
        layers = config.model.layers(device, config.precision)
        trained_by = {"device": devices.describe(device), "versions.kernels": layers}

        def opened() -> Run:
            # One that was stopped before its first checkpoint stays as it ended: MLflow takes no second set of params.
            if begun and state and store.reopen_run(begun.id):
                begun.set_tags({**_and_then(begun.tags(), trained_by), **(tags or {})})
                return begun
            all_tags = {**code_tags(), **facts, **trained_by, **(tags or {})}
            return store.start_run(name or _run_name(config), all_tags, parent=parent)

        check()
        run = store.retry(opened)
        on_start(run.id)
        hold(store, run.id, ends, check)
        outbox = Outbox(run, config.tracking.update_points)

        def on_epoch(epoch: Epoch) -> str | None:
            """Checkpoint, journal, store, in this order: whatever stops the process, what was finished is kept."""
            improved = best.take(epoch)
            reason = "pruned" if after_epoch(epoch) else None
            content = {
                "config": plain(cfg),
                "scaler": data.scaler.state_dict(),
                "best": vars(best),
                "stop_reason": module.stop_reason or reason,
                "record": asdict(epoch),
                **module.snapshot(epoch),
                **own_callbacks.kept(callbacks),
            }
            if not run.is_local:  # another machine may go on with it, where the journal is not
                content["records"] = [packed(one) for one in [*outbox.epochs, epoch]]
            checkpoint.save(run.folder / "checkpoints" / "last.ckpt", content, keep_previous=True)
            if improved:
                checkpoint.save(run.folder / "checkpoints" / "best.ckpt", content)
            outbox.add(epoch)
            outbox.send()
            progress.epoch(epoch, module.schedule, best.value)
            if epoch.diverged_at is not None:
                log.warning(_divergence(epoch, best))
            return reason

        def between() -> None:
            check()
            progress.moved()

        with _closing(run, outbox, signals, lambda: module.stop_reason):
            network = build_network(config.model, config.data.window, config.task.outputs)
            module = SequenceModule(network, config, _schedule(config), between=between)
            write_text(run.folder / "config.yaml", rerunnable(cfg))
            before = [unpacked(one) for one in state.get("records", [])] if state else []
            outbox.agree_with(Epoch(**state["record"]) if state else None, before)
            if state is None:
                store.retry(lambda: run.log_params(flatten(plain(cfg))))
            else:
                module.restore(state)
                own_callbacks.restore(callbacks, state.get("callbacks", {}))
                best = Best(**state["best"])
                for epoch in outbox.epochs:
                    after_epoch(epoch)
            module.on_epoch = on_epoch
            progress.parts = lambda: parts_of(data.training.length, module.schedule.chunks, config.segment_length)
            progress.opened(run.id, module.first_epoch)
            if module.stop_reason is None:
                epochs = config.epochs - module.first_epoch
                with _let_go(_trainer(config, device, epochs, callbacks), module) as trainer:
                    trainer.fit(module, datamodule=data)
        assert module.stop_reason is not None
        result = Result(run.id, module.stop_reason, best, data.baseline)
    progress.result(result.stop_reason, best.epoch, best.value, result.baseline, run.id)
    return result


def _schedule(config: Config) -> ChunkSchedule:
    return ChunkSchedule.plan(
        config.schedule.as_list(),
        epochs=config.epochs,
        patience=config.schedule.patience,
        stage_epochs=config.schedule.stage_epochs,
    )


@contextmanager
def _closing(run: Run, outbox: Outbox, signals: StopSignals, reason: Callable[[], str | None]) -> Iterator[None]:
    """Give the run its true status, whatever ends it."""
    try:
        yield
    except Lost:
        outbox.abandon()
        raise
    except BaseException as error:
        stopped = signals.signum is not None or isinstance(error, KeyboardInterrupt | Interrupted)
        trouble = None if stopped else disk_trouble(error)
        if not stopped:
            with suppress(OSError):
                write_text(run.folder / "traceback.txt", hide("".join(traceback.format_exception(error))))
        outbox.close("KILLED" if stopped else "FAILED", "interrupted" if stopped else "error", quiet=bool(trouble))
        how = f"go on with it: python train.py resume={run.id}"
        if stopped:  # whatever Lightning made of the signal: a SystemExit of a SIGTERM
            raise Interrupted(signals.signum or signal.SIGINT, f"; {how}") from None
        if trouble:
            raise DiskTrouble(
                trouble.number, trouble.where or str(run.folder), f"; when that is mended, {how}"
            ) from error
        if failed := gpu_trouble(error):
            raise type(failed)(failed.what, f"; {how}") from error
        raise
    else:
        outbox.close("KILLED" if reason() == "pruned" else "FINISHED", reason())


def _trainer(config: Config, device: str, epochs: int, callbacks: list[pl.Callback]) -> pl.Trainer:
    """Lightning without what this project does itself: logging, checkpoints, progress, clipping."""
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*GPU available but not used.*")
        return pl.Trainer(
            max_epochs=epochs,
            accelerator={"cpu": "cpu", "cuda": "gpu"}[device],
            devices=1,
            plugins=LightningEnvironment(),  # one process, also within a SLURM job, whose signals it would take
            precision="bf16-mixed" if config.precision == "bf16" else "32-true",
            callbacks=callbacks,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
        )


@contextmanager
def _let_go(trainer: pl.Trainer, module: SequenceModule) -> Iterator[pl.Trainer]:
    """At the end, cut the circles in which a Trainer and all of its parts, a module and its callback hold each other:
    what they have on a GPU, a graph's memory above all, is free without a garbage collection, which takes 0.3 s."""
    try:
        yield trainer
    finally:
        module.release()
        vars(trainer).clear()


def _and_then(before: Mapping[str, str], now: Mapping[str, str]) -> dict[str, str]:
    """Tags of a run that goes on, maybe elsewhere: what was, then what is."""
    found = {}
    for name, value in now.items():
        was = before.get(name, value)
        found[name] = was if was.split(", then ")[-1] == value else f"{was}, then {value}"
    return found


def _run_name(config: Config) -> str:
    return f"{config.optimizer.name}, clip {config.clip}, {config.schedule.name}"


def _divergence(epoch: Epoch, best: Best) -> str:
    at = f"diverged in epoch {epoch.number + 1}, update {epoch.diverged_at}: the loss or gradient was not finite"
    kept = f"the best of epoch {best.epoch + 1} is kept" if best.epoch is not None else "there is no best epoch"
    return f"{at}; training stops with the weights before it, {kept}. A smaller lr or clip usually helps."
