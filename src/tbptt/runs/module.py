"""The LightningModule: one batch is the whole set of sequences, one training step the whole chunk loop."""

import math
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytorch_lightning as pl
import torch

from tbptt.config.schema import Config
from tbptt.data.sequences import Sequences
from tbptt.evaluation.losses import evaluate, measure
from tbptt.models.protocol import Network
from tbptt.options.metrics import CHUNKS, TRAIN_EVAL_LOSS, TRAIN_LOSS, VAL_LOSS, measured
from tbptt.runs.epoch import Epoch
from tbptt.training.chunks import epoch_loss, train_pass
from tbptt.training.cuda_graphs import FixedSteps, holds
from tbptt.training.flat import FlatParameters
from tbptt.training.lr_schedules import Moment
from tbptt.training.optimizers import load_optimizer, optimizer_of, optimizer_state, rates
from tbptt.training.rates import Rates
from tbptt.training.schedule import ChunkSchedule
from tbptt.training.segments import Asked, SegmentMemory


class SequenceModule(pl.LightningModule):
    """Truncated backpropagation through time as manual optimization.

    The recurrent state is a local variable of the chunk loop, so nothing that Lightning does between or within epochs
    (a validation pass, a sanity check) can touch it.

    Args:
        after_chunk: called after each chunk; may raise to stop.

    Attributes:
        finished: the epoch that was closed last; None before the first.
        metrics: the metrics of that epoch, also those that are not finite. If the epoch diverged, every metric that can
            be measured is there.
        stop_reason: why training ends with that epoch; None if training goes on.
    """

    def __init__(
        self,
        network: Network,
        config: Config,
        schedule: ChunkSchedule,
        after_chunk: Callable[[], None] = lambda: None,
    ):
        super().__init__()
        self.automatic_optimization = False
        self.network = network
        self.config = config
        self.schedule = schedule
        self.after_chunk = after_chunk
        self.updates = 0
        self.train_seconds = 0.0
        self.first_epoch = 0
        self.stop_reason: str | None = None
        self.finished: Epoch | None = None
        self.metrics: dict[str, float] = {}
        self._restored: dict[str, Any] | None = None
        self._fixed: FixedSteps | None = None
        self._memory = SegmentMemory(config.segment_memory, config.study.workers)
        self._rates: list[float] = []
        self._lr_schedule = config.lr_schedule.begin() if config.lr_schedule.changes else None
        self._scheduled: Rates | None = None
        self._measured: dict[str, torch.Tensor] = {"loss": torch.tensor(math.nan)}

    @property
    def epoch(self) -> int:
        """The current epoch, counted from 0 at the run's beginning; Lightning counts from where it was resumed."""
        return self.first_epoch + self.current_epoch

    @property
    def cut(self) -> Asked:
        """``segment_length``, or what ``auto`` is for the pass under way."""
        asked: Asked = self.config.segment_length
        return self._memory.chosen or asked

    def configure_optimizers(self) -> torch.optim.Optimizer:
        # Lightning calls this when the module is on its device, as FlatParameters needs it to be.
        self.parameters_ = FlatParameters(self.network)
        self._fixed = self._fixed_steps()
        optimizer = optimizer_of(self.config.optimizer, self.parameters_, capturable=self._fixed is not None)
        in_graph = self._fixed is not None
        self._scheduled = Rates(optimizer, self._lr_schedule, in_graph) if self._lr_schedule else None
        if self._restored:
            load_optimizer(optimizer, self.parameters_, self._restored["optimizer"])
            if self._scheduled:
                self._scheduled.go_on(self._restored.get("rates"))
        return optimizer

    def _fixed_steps(self) -> FixedSteps | None:
        """What ``cuda_graphs`` asks for on this device."""
        config, asked = self.config, self.config.cuda_graphs
        if self.device.type != "cuda" or not asked:
            return None
        if asked == "auto" and not holds(
            config.optimizer, config.clip_mode, [config.model, config.task, config.callback]
        ):
            return None
        return FixedSteps(required=asked is True)

    def on_train_start(self) -> None:
        if self._restored:
            torch.set_rng_state(self._restored["random"]["cpu"])
            if self.device.type == "cuda" and "cuda" in self._restored["random"]:
                torch.cuda.set_rng_state(self._restored["random"]["cuda"], self.device)

    def on_train_epoch_start(self) -> None:
        self._epoch_began = time.perf_counter()

    def training_step(self, batch: Sequences, batch_idx: int) -> None:
        # A graph holds the optimizer's own step only, not Lightning's bookkeeping around it.
        optimizer: Any = self.optimizers(use_pl_optimizer=self._fixed is None)
        if self._fixed and self._rates != rates(optimizer):  # a callback changed it; a graph keeps the rate it captured
            self._fixed.clear()
        if self._scheduled:
            self._scheduled.heed_changes()
        record = train_pass(
            self.network,
            self.parameters_,
            optimizer,
            batch,
            self.schedule.chunks,
            clip=self.config.clip,
            clip_mode=self.config.clip_mode,
            segment_length=self.config.segment_length,
            after_chunk=self.after_chunk,
            fixed=self._fixed,
            first_update=self.updates,
            before_update=self._set_rates if self._scheduled else None,
            share=self._scheduled.share if self._scheduled else None,
            memory=self._memory,
        )
        self._rates = rates(optimizer)
        self._losses, self._norms, self._clipped, self._finite = record.to_host()  # the epoch's one transfer
        self._pass_seconds = time.perf_counter() - self._epoch_began
        self._batch = batch

    def _set_rates(self, i: int) -> None:
        """Set the learning rates of this epoch's update ``i``."""
        assert self._scheduled is not None
        epoch, epochs, chunks = self.epoch, self.config.epochs, self.schedule.chunks
        of_stage = self.schedule.share_of_stage(epoch, epochs, i / chunks)
        self._scheduled.before(Moment(self.updates + i, epoch, chunks, (epoch + i / chunks) / epochs, of_stage))

    def validation_step(self, batch: Sequences, batch_idx: int) -> None:
        self._measured = measure(self.network, batch, measured(self.config.task.name))

    def close_epoch(self) -> None:
        """Close the epoch: its metrics, the schedule's move, and the reason to stop if there is one.

        The first callback (:func:`tbptt.runs.callbacks.in_order`) calls this, so that the other callbacks have the
        closed epoch: Lightning calls a module's own hook after the callbacks' hooks.
        """
        stage, chunks = self.schedule.stage, self.schedule.chunks
        updates = len(self._losses)
        good = int(sum(self._finite))
        values = torch.stack([value.double() for value in self._measured.values()]).tolist()
        measured_now = dict(zip(self._measured, values, strict=True))
        val_loss = measured_now.pop("loss")
        diverged = good < updates or not math.isfinite(val_loss)
        train_loss = math.nan if good < updates else epoch_loss(self._losses, self._batch)
        seen = {TRAIN_LOSS: train_loss, VAL_LOSS: val_loss, **measured_now}
        stage_ended = False if diverged else self._end_epoch(seen)

        self.stop_reason = self._why_stop(diverged)
        last = self.stop_reason is not None
        if stage_ended and self._fixed:
            self._fixed.clear()

        self.train_seconds += self._pass_seconds
        losses, norms, clipped = self._losses[:good], self._norms[:good], self._clipped[:good]
        metrics = {
            **seen,
            "train/chunk_loss_max": max(losses, default=math.nan),
            "grad/norm_max": max(norms, default=math.nan),
            "grad/norm_mean": sum(norms) / good if good else math.nan,
            "grad/clipped_fraction": sum(clipped) / good if good else math.nan,
            CHUNKS: chunks,
            "lr": self._rate(),
            "time/timesteps_per_second": self._batch.valid_steps / self._pass_seconds,
            "time/train_seconds": self.train_seconds,
        }
        if diverged:
            metrics[TRAIN_EVAL_LOSS] = math.nan
        elif stage_ended or last or (self.epoch + 1) % self.config.eval_every == 0:
            metrics[TRAIN_EVAL_LOSS] = evaluate(self.network, self._batch).item()
        metrics["time/epoch_seconds"] = time.perf_counter() - self._epoch_began

        self.updates += updates
        self.trainer.should_stop = last
        self.metrics = metrics
        self.finished = Epoch(
            number=self.epoch,
            time=int(time.time() * 1000),
            stage=stage,
            chunks=chunks,
            metrics={name: float(value) for name, value in metrics.items() if math.isfinite(value)},
            first_update=self.updates - updates,
            losses=losses,
            norms=norms,
            clipped=clipped,
            diverged_at=good if diverged else None,
            stage_ended=stage_ended,
            last=last,
        )

    def _end_epoch(self, seen: dict[str, float]) -> bool:
        """Tell both schedules the metrics of an epoch; returns whether the stage ended with it."""
        if self._lr_schedule:
            self._lr_schedule.end_epoch(seen)
        return self.schedule.end_epoch(seen[TRAIN_LOSS])

    def _rate(self) -> float:
        """The learning rate of the epoch's last update."""
        made = self._scheduled.of_the_last_update() if self._scheduled else self._rates
        return next(iter(made), self.config.optimizer.lr)

    def _why_stop(self, diverged: bool) -> str | None:
        """The reason why training ends with this epoch; None if it goes on."""
        if diverged:
            return "diverged"
        if self.schedule.done:
            return "schedule"
        if self.epoch + 1 >= self.config.epochs:
            return "epochs"
        return "callback" if self.trainer.should_stop else None  # the user's callback set it while the epoch trained

    def stop(self, reason: str) -> None:
        """End training with this epoch. If there are several reasons, the first is kept."""
        self.stop_reason = self.stop_reason or reason
        self.trainer.should_stop = True

    def make_last(self) -> None:
        """Turn the closed epoch into a last epoch, if it was not known to be the last when it was closed."""
        assert self.finished is not None
        if not self.finished.last:
            metrics = dict(self.finished.metrics)
            if TRAIN_EVAL_LOSS not in metrics:
                measured = evaluate(self.network, self._batch).item()
                metrics |= {TRAIN_EVAL_LOSS: measured} if math.isfinite(measured) else {}
            self.finished = replace(self.finished, metrics=metrics, last=True)

    def release(self) -> None:
        """Drop ``after_chunk`` and everything that only training needs; the weights stay."""
        self.after_chunk = lambda: None
        if self._fixed:
            self._fixed.clear()

    def restore(self, state: dict[str, Any]) -> None:
        """Restore a :meth:`snapshot`, before the Trainer starts.

        A run that had ended stays ended, unless it ended by its number of epochs and now has epochs left.
        """
        self.network.load_state_dict(state["model"])
        self.schedule = ChunkSchedule.from_state(state["schedule"])
        if self._lr_schedule:
            try:
                self._lr_schedule.load_state_dict(state.get("lr_schedule", {}))
            except (LookupError, TypeError, ValueError) as error:  # a file that somebody else has changed
                name = self.config.lr_schedule.name
                raise ValueError(
                    f"the checkpoint's state of its learning rate does not fit lr_schedule={name}"
                ) from error
        self.updates, self.train_seconds = state["updates"], state["train_seconds"]
        self.first_epoch = state["epoch"] + 1
        self._restored = state
        ended = state.get("stop_reason")
        self.stop_reason = None if ended == "epochs" and self.first_epoch < self.config.epochs else ended
        if self.stop_reason is None and self.first_epoch >= self.config.epochs:
            self.stop_reason = "epochs"

    def snapshot(self, epoch: Epoch) -> dict[str, Any]:
        """The state after this epoch, in plain types; training resumes from it as if it had never stopped."""
        optimizer: Any = self.optimizers(use_pl_optimizer=False)
        of_schedule: dict[str, Any] = {}
        if self._lr_schedule and self._scheduled:
            self._scheduled.heed_changes()
            of_schedule = {"lr_schedule": self._lr_schedule.state_dict(), "rates": self._scheduled.full}
        random = {"cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            random["cuda"] = torch.cuda.get_rng_state(self.device)
        return {
            "epoch": epoch.number,
            "metrics": epoch.metrics,
            "updates": self.updates,
            "train_seconds": self.train_seconds,
            "model": {name: weight.detach().clone() for name, weight in self.network.state_dict().items()},
            "optimizer": optimizer_state(optimizer, self.parameters_),
            "schedule": self.schedule.state_dict(),
            **of_schedule,
            "random": random,
        }
