"""The training of one run, epoch by epoch: what Lightning's module and a trial in a pack have in common."""

import math
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from tbptt.config.schema import Config
from tbptt.data.sequences import Sequences
from tbptt.evaluation.losses import evaluate, measure
from tbptt.models.protocol import Network
from tbptt.options.metrics import CHUNKS, TRAIN_EVAL_LOSS, TRAIN_LOSS, VAL_LOSS, measured
from tbptt.runs.epoch import Epoch
from tbptt.training.chunks import epoch_loss
from tbptt.training.cuda_graphs import FixedSteps, holds
from tbptt.training.flat import FlatParameters
from tbptt.training.lr_schedules import Moment
from tbptt.training.optimizers import load_optimizer, optimizer_of, optimizer_state, rates
from tbptt.training.rates import Rates
from tbptt.training.schedule import ChunkSchedule
from tbptt.training.segments import RandomState


class Training:
    """A run's network, optimizer and schedules, and the epoch that was closed last.

    Each epoch: :meth:`begin_epoch`, a pass over the training sequences, :meth:`take_pass`, :meth:`validate`,
    :meth:`close_epoch`.

    Args:
        after_chunk: called after each chunk; may raise to stop.

    Attributes:
        finished: the epoch that was closed last; None before the first.
        metrics: the metrics of that epoch, also those that are not finite. If the epoch diverged, every metric that can
            be measured is there.
        stop_reason: why training ends with that epoch; None if training goes on.
    """

    network: Network
    device: torch.device
    epoch: int  # the current one, counted from 0 at the run's beginning

    def _init_training(
        self, network: Network, config: Config, schedule: ChunkSchedule, after_chunk: Callable[[], None]
    ) -> None:
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
        self._rates: list[float] = []
        self._lr_schedule = config.lr_schedule.begin() if config.lr_schedule.changes else None
        self.scheduled: Rates | None = None
        self._measured: dict[str, torch.Tensor] = {"loss": torch.tensor(math.nan)}

    # --- what Lightning keeps for its module, and a trial in a pack by itself ---------------------------------

    def is_asked_to_stop(self) -> bool:
        """Whether a callback has asked for the end of training."""
        raise NotImplementedError  # the module and the lane each have their own

    def ask_to_stop(self, is_asked: bool) -> None:
        """Ask for the end of training, or take that back."""
        raise NotImplementedError  # the same

    def optimizer_itself(self) -> torch.optim.Optimizer:
        """The optimizer, without anything around it."""
        raise NotImplementedError  # the same

    def optimizer_state(self) -> dict[str, Any]:
        """The optimizer's state, in plain types."""
        return optimizer_state(self.optimizer_itself(), self.parameters_)

    # --- an epoch ---------------------------------------------------------------------------------------------

    def make_optimizer(self) -> torch.optim.Optimizer:
        """Make the optimizer, and restore its state; to be called when the network is on its device, as FlatParameters
        needs it to be."""
        self.parameters_ = FlatParameters(self.network)
        self._fixed = self._fixed_steps()
        in_graph = self._fixed is not None
        optimizer = optimizer_of(self.config.optimizer, self.parameters_, capturable=in_graph)
        self.scheduled = Rates(optimizer, self._lr_schedule, in_graph) if self._lr_schedule else None
        if self._restored:
            load_optimizer(optimizer, self.parameters_, self._restored["optimizer"])
            if self.scheduled:
                self.scheduled.go_on(self._restored.get("rates"))
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

    def restored_random(self) -> list[torch.Tensor] | None:
        """The states of the random generators in the checkpoint that was restored, as RandomState takes them; None for
        a new run."""
        if not self._restored:
            return None
        kept, on_gpu = self._restored["random"], self.device.type == "cuda"
        return [kept["cpu"], *([kept["cuda"]] if on_gpu and "cuda" in kept else [])]

    def begin_epoch(self) -> None:
        self._epoch_began = time.perf_counter()

    def heed_changes(self) -> None:
        """Before a pass: take over what a callback may have changed."""
        if self._fixed and self._rates != rates(self.optimizer_itself()):  # a graph keeps the rate that it captured
            self._fixed.clear()
        if self.scheduled:
            self.scheduled.heed_changes()

    def set_rates(self, i: int) -> None:
        """Set the learning rates of this epoch's update ``i``."""
        assert self.scheduled is not None
        self.scheduled.before(self.moment(i))

    def moment(self, i: int) -> Moment:
        """How far training has come before this epoch's update ``i``."""
        epoch, epochs, chunks = self.epoch, self.config.epochs, self.schedule.chunks
        of_stage = self.schedule.share_of_stage(epoch, epochs, i / chunks)
        return Moment(self.updates + i, epoch, chunks, (epoch + i / chunks) / epochs, of_stage)

    def take_pass(self, record: list[list[float]], batch: Sequences, seconds: float | None = None) -> None:
        """Take the record of the pass over ``batch``.

        Args:
            record: as :meth:`tbptt.training.chunks.PassRecord.to_host` gives it.
            seconds: what the pass took; by default all since :meth:`begin_epoch`.
        """
        self._rates = rates(self.optimizer_itself())
        self._losses, self._norms, self._clipped, self._finite = record
        self._pass_seconds = time.perf_counter() - self._epoch_began if seconds is None else seconds
        self._batch = batch

    def validate(self, sequences: Sequences) -> None:
        """Measure the held-out sequences."""
        self._measured = measure(self.network, sequences, measured(self.config.task.name))

    def close_epoch(self) -> None:
        """Close the epoch: its metrics, the schedule's move, and the reason to stop if there is one."""
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
        self.ask_to_stop(last)
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
        made = self.scheduled.of_the_last_update() if self.scheduled else self._rates
        return next(iter(made), self.config.optimizer.lr)

    def _why_stop(self, diverged: bool) -> str | None:
        """The reason why training ends with this epoch; None if it goes on."""
        if diverged:
            return "diverged"
        if self.schedule.done:
            return "schedule"
        if self.epoch + 1 >= self.config.epochs:
            return "epochs"
        return "callback" if self.is_asked_to_stop() else None  # the user's callback set it while the epoch trained

    # --- its end, and its state -------------------------------------------------------------------------------

    def stop(self, reason: str) -> None:
        """End training with this epoch. If there are several reasons, the first is kept."""
        self.stop_reason = self.stop_reason or reason
        self.ask_to_stop(True)

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
        """Restore a :meth:`snapshot`, before training starts.

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
        of_schedule: dict[str, Any] = {}
        if self._lr_schedule and self.scheduled:
            self.scheduled.heed_changes()
            of_schedule = {"lr_schedule": self._lr_schedule.state_dict(), "rates": self.scheduled.full}
        return {
            "epoch": epoch.number,
            "metrics": epoch.metrics,
            "updates": self.updates,
            "train_seconds": self.train_seconds,
            "model": {name: weight.detach().clone() for name, weight in self.network.state_dict().items()},
            "optimizer": self.optimizer_state(),
            "schedule": self.schedule.state_dict(),
            **of_schedule,
            "random": dict(zip(("cpu", "cuda"), RandomState(self.device).get(), strict=False)),
        }
