"""study.pack: a worker that trains several trials at once leaves what it would have left one by one."""

import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from mlflow import MlflowClient
from optuna.trial import FrozenTrial, TrialState
from test_folds import Planned, plan, prepared

from tbptt.config.compose import CommandError
from tbptt.runs.lane import Epochs, Lane
from tbptt.studies import worker
from tbptt.studies.pack import OF_TINY, Pack, pack_of
from tbptt.studies.records import TrialRecord
from tbptt.studies.study import Study, state_of
from tbptt.studies.worker_spec import WorkerSpec
from tbptt.system.runtime import Interrupted
from tbptt.tasks.prepare import PreparedLast
from tbptt.training.pack import Together

__all__ = ["plan"]  # a fixture
# Of different optimizers, clip values, and chunks, so of different stages.
POINTS = ["optimizer=adam,rmsprop", "clip=0.5,2", "schedule.chunks=[3,1],[2,2]", "epochs=3"]


def run(planned: Planned, *words: str) -> Study:
    study, spec = prepared(planned, *words)
    worker.work(spec)
    return study


def told(trial: FrozenTrial) -> dict[str, Any]:
    """What a trial left in the study and in MLflow, but for times and ids."""
    record = TrialRecord.of(trial)
    client = MlflowClient(f"sqlite:///{Path('mlruns/mlflow.db').absolute()}")
    runs = []
    for run_id in record.run_ids:
        found = client.get_run(run_id)
        metrics = {n: v for n, v in found.data.metrics.items() if "time/" not in n}
        curve = [(point.step, point.value) for point in client.get_metric_history(run_id, "train/chunk_loss")]
        files = sorted(info.path for info in client.list_artifacts(run_id))
        status = found.info.status, found.data.tags.get("stop.reason"), found.info.run_name.split(" ", 1)[1]
        runs.append((status, metrics, sorted(curve), files, len(found.outputs.model_outputs)))
    kept = {
        name: getattr(record, name)
        for name in ("curves", "stop_reason", "best_epochs", "values_by_seed", "baseline", "metrics")
    }
    return {"state": state_of(trial), "values": trial.values, "seen": trial.intermediate_values, **kept, "runs": runs}


def by_point(study: Study) -> dict[str, dict[str, Any]]:
    return {str(sorted(t.params.items())): told(t) for t in study.trials() if t.state != TrialState.FAIL}


@pytest.fixture
def whole(plan: Planned) -> dict[str, dict[str, Any]]:
    """What the study leaves where its trials run one by one."""
    return by_point(run(plan, *POINTS, "study.name=one", "study.pack=1"))


def test_a_pack_leaves_what_trials_one_by_one_leave(plan: Planned, whole: dict[str, dict[str, Any]]) -> None:
    found = by_point(run(plan, *POINTS, "study.name=many", "study.pack=3"))
    assert len(found) == 8
    assert found == whole
    assert {trial["state"] for trial in found.values()} == {"complete"}


def test_a_place_is_filled_as_soon_as_it_is_free(plan: Planned, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[list[int]] = []
    train = Epochs.train

    def counted(self: Epochs, lanes: Any) -> None:
        sizes.append([lane.config.epochs for lane in lanes])
        train(self, lanes)

    monkeypatch.setattr(Epochs, "train", counted)
    study = run(plan, "clip=0.5,2", "epochs=1,3", "study.pack=3")
    assert study.counts().complete == 4
    assert sizes == [[1, 3, 1], [3, 3], [3, 3], [3]]


def test_a_pack_that_is_interrupted_goes_on(
    plan: Planned, whole: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    study, spec = prepared(plan, *POINTS, "study.name=stopped", "study.pack=3")
    stopped_in(monkeypatch, spec, epoch=2)
    counts = study.counts()
    assert (counts.running, counts.failed, counts.complete) == (0, 0, 0)
    again = [t for t in study.trials() if state_of(t) == "run again"]
    assert [len(TrialRecord.of(t).curves["val/loss"]) for t in again] == [1, 1, 1]
    worker.work(spec)
    assert by_point(study) == whole
    client = MlflowClient(f"sqlite:///{Path('mlruns/mlflow.db').absolute()}")
    runs = client.search_runs(["1"], "tags.`study.name` = 'stopped' and tags.`trial.number` != ''")
    assert {r.info.status for r in runs} == {"FINISHED"}
    assert len(runs) == 8  # the interrupted ones went on


def stopped_in(monkeypatch: pytest.MonkeyPatch, spec: WorkerSpec, epoch: int) -> None:
    """Work until a signal comes within the training of that epoch of the pack, counted from 1."""
    begun: list[int] = []

    def train(self: Epochs, lanes: list[Lane]) -> None:
        begun.append(len(lanes))
        if len(begun) == epoch:
            raised = self.check

            def check() -> None:
                with_signal[0].signals.signum = signal.SIGTERM
                raised()

            self.check = check
        trains(self, lanes)

    trains, with_signal = Epochs.train, []
    init = Pack.__init__

    def kept(self: Pack, of: worker.Worker, *more: Any) -> None:
        with_signal.append(of)
        init(self, of, *more)

    with monkeypatch.context() as patch:
        patch.setattr(Epochs, "train", train)
        patch.setattr(Pack, "__init__", kept)
        with pytest.raises(Interrupted):
            worker.work(spec)


def test_of_a_pack_only_the_trial_that_fails_fails(plan: Planned, monkeypatch: pytest.MonkeyPatch) -> None:
    validate = Lane.validate

    def broken(self: Lane, sequences: Any) -> None:
        if self.config.clip == 2:
            raise RuntimeError("broken on purpose")
        validate(self, sequences)

    monkeypatch.setattr(Lane, "validate", broken)
    study = run(plan, "clip=0.5,1,2,3", "study.pack=4")
    assert [state_of(t) for t in study.trials()] == ["complete", "complete", "failed", "complete"]
    assert TrialRecord.of(study.trials()[2]).reason.startswith("RuntimeError: broken on purpose")


def test_an_error_that_concerns_all_trials_of_a_kind_fails_them_and_ends(
    plan: Planned, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = Together.train

    def broken(self: Together, rows: Any, *more: Any) -> Any:
        if rows[0].network.cell == "gru":
            raise MemoryError("no room for the pack")
        return train(self, rows, *more)

    monkeypatch.setattr(Together, "train", broken)
    study = run(plan, "clip=0.5,2", "model.cell=lstm,gru", "study.pack=4")
    assert sorted(state_of(t) for t in study.trials()) == ["complete", "complete", "failed", "failed"]


def test_a_pack_without_room_goes_on_with_half_of_its_trials(plan: Planned, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    train = Together.train

    def short_of_memory(self: Together, rows: Any, *more: Any) -> Any:
        sizes.append(len(rows))
        if len(rows) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return train(self, rows, *more)

    monkeypatch.setattr(Together, "train", short_of_memory)
    study = run(plan, "clip=0.5,1,2,3", "study.pack=4")
    assert study.counts().complete == 4
    assert study.counts().failed == 0  # their retries are not used up
    assert sizes == [4, 2, 2, 2, 2]


def test_on_a_gpu_a_pack_is_as_large_as_what_its_first_trial_took_allows(
    plan: Planned, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    train = Epochs.train

    def counted(self: Epochs, lanes: Any) -> None:
        sizes.append(len(lanes))
        train(self, lanes)

    monkeypatch.setattr(Epochs, "train", counted)
    monkeypatch.setattr(worker, "pack_of", lambda *_: (128, True))
    for name, value in (("mem_get_info", (35, 100)), ("max_memory_allocated", 10), ("memory_reserved", 5)):
        monkeypatch.setattr(torch.cuda, name, lambda device, value=value: value)
    assert run(plan, "clip=0.5,1,2,3,4", "epochs=2").counts().complete == 5
    assert sizes[:2] == [1, 3]  # four fifths of 40, each 10


def test_trials_are_pruned_in_a_pack(plan: Planned) -> None:
    pruner = ["study/pruner=median", "study.pruner.n_startup_trials=1", "study.pruner.patience=0"]
    words = ["optimizer.lr=interval(1e-9,1e-1)", "study/sampler=random", "study.n_trials=8", "epochs=6", *pruner]
    study = run(plan, *words, "study.pack=4")
    states = [state_of(t) for t in study.trials()]
    assert states.count("pruned") >= 2
    assert states.count("complete") + states.count("pruned") == 8
    for trial in study.trials():
        length = len(TrialRecord.of(trial).curves["val/loss"])
        assert (length < 6) == (state_of(trial) == "pruned")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["clip=0.5,2,3"], 3),
        ([f"clip={','.join(map(str, range(1, 40)))}"], OF_TINY),
        ([f"clip={','.join(map(str, range(1, 40)))}", "study.workers=4"], 10),
        (["clip=0.5,2,3", "study.pack=2"], 2),
        (["clip=0.5,2,3", "study.pack=200"], 3),
        (["clip=0.5,2,3", "study.max_failures=1"], 1),
        (["clip=interval(0.5,2)", "study.n_trials=30"], 1),  # a sampler learns from one trial after the other
        (["clip=interval(0.5,2)", "study.n_trials=30", "study.pack=8"], 8),
    ],
)
def test_how_many_trials_train_at_once(
    plan: Planned, monkeypatch: pytest.MonkeyPatch, words: list[str], expected: int
) -> None:
    monkeypatch.setattr("tbptt.studies.pack.OF_TINY", OF_TINY)
    assert pack_of(plan(*words), PreparedLast()) == (expected, False)


def test_large_trials_train_one_by_one(plan: Planned, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tbptt.studies.pack.OF_TINY", OF_TINY)
    planned = plan("clip=0.5,2")
    assert pack_of(planned, PreparedLast()) == (2, False)
    monkeypatch.setattr("tbptt.studies.pack.TINY", 100)
    assert pack_of(planned, PreparedLast()) == (1, False)


def test_data_that_cannot_be_read_are_the_trials_matter(plan: Planned, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tbptt.studies.pack.OF_TINY", OF_TINY)
    planned = plan("clip=0.5,2")
    Path("prices.csv").unlink()
    assert pack_of(planned, PreparedLast()) == (1, False)


def test_a_wrong_size_is_told(plan: Planned) -> None:
    for wrong in ("0", "'many'", "1.5"):
        with pytest.raises(CommandError) as error:
            plan("clip=0.5,2", f"study.pack={wrong}")
        assert error.value.lines == [f"study.pack: got {wrong}; takes a whole number from 1 to 10000, or auto"]
