"""The module under Lightning trains exactly as the bare chunk loop does, whatever Lightning does around it."""

import gc
import math
import weakref
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import pytest
import pytorch_lightning as pl
import torch
from omegaconf import DictConfig, OmegaConf

from tbptt.config.schema import Config
from tbptt.evaluation.losses import evaluate
from tbptt.models.build import build_network
from tbptt.runs.callbacks import AfterEpoch, CloseEpoch
from tbptt.runs.context import RunContext
from tbptt.runs.datamodule import SequenceDataModule
from tbptt.runs.epoch import Epoch
from tbptt.runs.fit import fit
from tbptt.runs.module import SequenceModule
from tbptt.training.chunks import train_pass
from tbptt.training.cuda_graphs import FixedStep, FixedSteps
from tbptt.training.flat import FlatParameters
from tbptt.training.optimizers import build_optimizer
from tbptt.training.schedule import ChunkSchedule

Compose = Callable[..., DictConfig]
Curve = list[list[float]]

CHUNKS = [7, 7, 3, 3, 1, 1]  # of each epoch
SETTINGS = ["data.length=60", "schedule.chunks=[7,3,1]", "epochs=6", "eval_every=2", "model.noise_std=0.1"]


@pytest.fixture
def settings(small: Compose) -> Config:
    return cast(Config, OmegaConf.to_object(small(*SETTINGS)))


def train(
    config: Config,
    *,
    after_chunk: Callable[[SequenceModule, SequenceDataModule], None] = lambda module, data: None,
    ask: Callable[[Epoch], str | None] = lambda epoch: None,
    **trainer: Any,
) -> tuple[list[Epoch], SequenceModule]:
    """Every epoch of a training under Lightning."""
    torch.manual_seed(config.seed)
    data = SequenceDataModule(config.data, config.task)
    network = build_network(config.model, config.data.window, config.task.outputs)
    schedule = ChunkSchedule.plan([7, 3, 1], epochs=config.epochs)
    epochs: list[Epoch] = []

    class Ask(AfterEpoch):
        def take(self, module: SequenceModule, epoch: Epoch) -> None:
            epochs.append(epoch)
            if reason := ask(epoch):
                module.stop(reason)

    module = SequenceModule(network, config, schedule, lambda: after_chunk(module, data))
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "num_sanity_val_steps": 0}
    pl.Trainer(
        max_epochs=config.epochs,
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        callbacks=[CloseEpoch(), Ask()],
        **{**quiet, **trainer},
    ).fit(module, datamodule=data)
    return epochs, module


def curve(epochs: list[Epoch]) -> Curve:
    return [epoch.losses for epoch in epochs]


def test_lightning_changes_no_number_of_the_bare_loop(settings: Config) -> None:
    torch.manual_seed(settings.seed)
    data = SequenceDataModule(settings.data, settings.task)
    network = build_network(settings.model, settings.data.window, settings.task.outputs)
    parameters = FlatParameters(network)
    lr_and_more = {k: v for k, v in vars(settings.optimizer).items() if k != "name"}
    optimizer = build_optimizer([parameters.vector], settings.optimizer.name, **lr_and_more)
    bare = []
    for n in CHUNKS:
        optimizer.param_groups[0]["lr"] = settings.optimizer.lr * min(0.1, 1 / n)  # lr_schedule=by_chunk
        before = sum(map(len, bare))
        record = train_pass(network, parameters, optimizer, data.train, n, clip=settings.clip, first_update=before)
        bare.append(record.losses.tolist())
    epochs, _ = train(settings)
    assert curve(epochs) == bare


def test_validation_leaves_training_alone(settings: Config) -> None:
    every_epoch, _ = train(settings)
    once, _ = train(settings, num_sanity_val_steps=1, check_val_every_n_epoch=100)
    assert curve(once) == curve(every_epoch)


def test_mid_epoch_validation_leaves_training_state_alone(settings: Config) -> None:
    seen: list[float] = []

    def validate(module: SequenceModule, data: SequenceDataModule) -> None:
        module.eval()
        seen.append(evaluate(module.network, data.val).item())
        module.train()

    epochs, _ = train(settings, after_chunk=validate)
    assert len(seen) == sum(CHUNKS)
    assert len(set(seen)) > 1  # the weights did move between
    assert curve(epochs) == curve(train(settings)[0])


def test_updates_of_an_epoch_are_its_chunks(settings: Config) -> None:
    epochs, module = train(settings)
    assert [epoch.chunks for epoch in epochs] == CHUNKS
    assert [len(epoch.losses) for epoch in epochs] == CHUNKS
    assert [epoch.first_update for epoch in epochs] == [0, 7, 14, 17, 20, 21]
    assert module.updates == sum(CHUNKS)
    assert module.trainer.global_step == sum(CHUNKS)


def test_stages_end_and_the_last_epoch_is_marked(settings: Config) -> None:
    epochs, module = train(settings)
    assert [epoch.stage for epoch in epochs] == [0, 0, 1, 1, 2, 2]
    assert [epoch.stage_ended for epoch in epochs] == [False, True, False, True, False, False]
    assert [epoch.last for epoch in epochs] == [False] * 5 + [True]
    assert module.stop_reason == "epochs"


def test_last_measured_losses_are_those_of_the_weights_that_are_left(settings: Config) -> None:
    epochs, module = train(settings)
    data = SequenceDataModule(settings.data, settings.task)
    assert epochs[-1].metrics["val/loss"] == pytest.approx(evaluate(module.network, data.val).item(), rel=1e-6)
    assert epochs[-1].metrics["train/eval_loss"] == pytest.approx(evaluate(module.network, data.train).item(), rel=1e-6)


def test_reason_given_by_the_callback_stops_training(settings: Config) -> None:
    epochs, module = train(settings, ask=lambda epoch: "enough" if epoch.number == 2 else None)
    assert len(epochs) == 3
    assert module.stop_reason == "enough"


def test_error_between_chunks_stops_training_at_once(settings: Config) -> None:
    calls: list[int] = []

    def stop(module: SequenceModule, data: SequenceDataModule) -> None:
        calls.append(1)
        if len(calls) == 9:
            raise InterruptedError("stop here")

    with pytest.raises(InterruptedError, match="stop here"):
        train(settings, after_chunk=stop)
    assert len(calls) == 9


def test_divergence_stops_with_the_last_finite_weights(settings: Config) -> None:
    weights: list[torch.Tensor] = []  # after each update of epoch 1

    def poison(module: SequenceModule, data: SequenceDataModule) -> None:
        """From the fourth update of epoch 1 on, targets that no weights can meet."""
        if module.updates == 7:
            weights.append(module.parameters_.vector.detach().clone())
            if len(weights) == 3:
                data.train.targets.fill_(math.inf)

    epochs, module = train(settings, after_chunk=poison)
    assert module.stop_reason == "diverged"
    assert len(epochs) == 2
    last = epochs[-1]
    assert last.last
    assert last.diverged_at == 3
    assert len(last.losses) == len(last.norms) == len(last.clipped) == 3  # the finite ones only
    assert all(map(math.isfinite, last.metrics.values()))
    assert "train/loss" not in last.metrics
    assert torch.equal(module.parameters_.vector, weights[2])  # nothing was updated after the third


def test_held_out_loss_that_is_not_finite_is_a_divergence_too(settings: Config) -> None:
    def poison(module: SequenceModule, data: SequenceDataModule) -> None:
        if module.updates == 7:
            data.val.targets.fill_(math.inf)

    epochs, module = train(settings, after_chunk=poison)
    assert module.stop_reason == "diverged"
    assert len(epochs) == 2
    assert "val/loss" not in epochs[-1].metrics
    assert len(epochs[-1].losses) == 7  # training itself was sound


def test_snapshot_is_plain_and_holds_a_copy(settings: Config) -> None:
    snapshots: list[dict[str, Any]] = []
    modules: list[SequenceModule] = []
    _, module = train(
        settings,
        after_chunk=lambda module, data: modules.append(module),
        ask=lambda epoch: snapshots.append(modules[-1].snapshot(epoch)),
    )
    assert [s["epoch"] for s in snapshots] == list(range(6))
    assert [s["updates"] for s in snapshots] == [7, 14, 17, 20, 21, 22]
    assert [s["schedule"]["stage"] for s in snapshots] == [0, 1, 1, 2, 2, 2]  # already moved on
    heads = [s["model"]["head.weight"] for s in snapshots]
    assert not any(torch.equal(a, b) for a, b in pairwise(heads))
    assert torch.equal(heads[-1], module.network.head.weight)
    assert set(snapshots[0]) >= {"epoch", "updates", "train_seconds", "model", "optimizer", "schedule", "random"}


@pytest.mark.parametrize("fails", [False, True])
def test_nothing_of_a_run_outlives_it(here: Path, small: Compose, monkeypatch: pytest.MonkeyPatch, fails: bool) -> None:
    """Memory that a trial had on a GPU is the next one's; no garbage collection is needed for that."""
    alive: list[weakref.ref[Any]] = []
    configure = SequenceModule.configure_optimizers

    def with_fixed_steps(module: SequenceModule) -> torch.optim.Optimizer:
        optimizer = configure(module)
        module._fixed = FixedSteps()  # which train on the CPU too
        alive.extend(map(weakref.ref, (module, module._fixed, module.network, module.parameters_, module.trainer)))
        return optimizer

    def after_epoch(epoch: Epoch) -> bool:
        if fails:
            raise KeyError
        return False

    made: list[weakref.ref[Any]] = []
    fixed_step = FixedStep.__init__

    def remembered(step: FixedStep, *given: Any) -> None:
        fixed_step(step, *given)
        made.append(weakref.ref(step))

    monkeypatch.setattr(SequenceModule, "configure_optimizers", with_fixed_steps)
    monkeypatch.setattr(FixedStep, "__init__", remembered)
    gc.collect()
    gc.disable()
    try:
        with suppress(KeyError):
            fit(small("epochs=1"), RunContext(after_epoch=after_epoch))
        assert (len(alive), len(made)) == (5, 1)
        assert not [ref() for ref in (*alive, *made) if ref() is not None]
    finally:
        gc.enable()
