"""tracking.keep: which checkpoints and models a study keeps; what is in use is never touched."""

import re
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import CONF, SMALL
from holding import ALL, held_elsewhere, run_with_files
from studies import made_study, made_trial

from tbptt.config.compose import ConfigSource, parsed
from tbptt.config.schema import TrackingConfig, register
from tbptt.runs import removing
from tbptt.runs.pending import JOURNAL, claim_run, let_go, pending_folder
from tbptt.runs.resume import resume_problems
from tbptt.runs.tracking import Run, Store
from tbptt.serving.load import load_run
from tbptt.studies import retention, sweep, worker
from tbptt.studies.best_of import Chosen
from tbptt.studies.plan import make_plan
from tbptt.studies.records import TrialRecord
from tbptt.studies.retention import Retention, beaten_runs, clean, clean_at_the_end, drop_all
from tbptt.system.runtime import StopSignals

URI = "sqlite:///mlruns/mlflow.db"
BEST_ONLY = "its study kept only its best trial's checkpoints (tracking.keep=best)"
LAST = ("last.ckpt", "last.previous.ckpt")


@pytest.fixture
def store(here: Path) -> Store:
    return Store(TrackingConfig(uri=URI))


def files_of(store: Store, run_id: str) -> tuple[str, ...]:
    run = store.run(run_id)
    assert run is not None
    return tuple(sorted(path.name for path in (run.folder / "checkpoints").glob("*")))


def models(store: Store) -> list[str]:
    """The ids of all models, and that each has its files, and no other model has any."""
    found = [m.model_id for m in store.client.search_logged_models([store.experiment])]
    assert {p.parents[1].name for p in Path("mlruns").rglob("MLmodel")} == set(found)
    return sorted(found)


# --- which runs are beaten ------------------------------------------------------------------------------------------


def test_only_ended_trials_that_are_beaten_lose_any() -> None:
    def trial(number: int, state: str, values: Sequence[float] = (), runs: str = "", **attrs: Any) -> Any:
        made = made_trial(state if state != "WAITING" else "RUNNING", values, run_ids=runs.split(), **attrs)
        made.number = number
        if state == "WAITING":
            from optuna.trial import TrialState

            made.state = TrialState.WAITING
        return made

    trials = [
        trial(0, "COMPLETE", [0.5], "a b"),
        trial(1, "PRUNED", runs="c"),
        trial(2, "RUNNING", runs="d"),
        trial(3, "FAIL", runs="e", requeued=False),  # study.retries, or a resumed study, may take it up again
        trial(4, "FAIL", runs="f g", requeued=True, died=True),
        trial(5, "COMPLETE", [0.25], "f h", retry_of=4, resume=["f", "g"]),
        trial(6, "COMPLETE", [0.4], "i j"),
        trial(7, "FAIL", runs="j", requeued=True, died=True),  # has the run of a complete trial, and will go on with it
        trial(8, "WAITING", resume=["b"], retry_of=9),
    ]
    assert beaten_runs(trials, ["val/loss"]) == {0: ["a"], 1: ["c"], 6: ["i"]}
    assert beaten_runs(trials, ["time/timesteps_per_second"]) == {1: ["c"], 5: ["f", "h"], 6: ["i"]}
    assert beaten_runs(trials[1:5], ["val/loss"]) == {}  # nothing is complete, so nothing is beaten


def test_with_several_objectives_the_pareto_front_keeps_all() -> None:
    values = [(1.0, 4.0), (2.0, 2.0), (3.0, 3.0), (4.0, 1.0)]
    trials = [made_trial(values=v, run_ids=[f"r{i}"]) for i, v in enumerate(values)]
    for number, trial in enumerate(trials):
        trial.number = number
    assert beaten_runs(trials, ["val/loss", "time/epoch_seconds"]) == {2: ["r2"]}


# --- what is removed ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("keep", "left", "freed"), [("best", (), 60), ("last", LAST, 40)])
def test_a_beaten_run_loses_its_checkpoints_and_its_model_and_says_so(
    store: Store, keep: str, left: tuple[str, ...], freed: int
) -> None:
    lost, stays = run_with_files(store, model=True), run_with_files(store, model=True)
    assert len(models(store)) == 2
    assert removing.drop_checkpoints(store, lost, keep) == freed
    assert files_of(store, lost) == left
    assert files_of(store, stays) == ALL
    (model,) = models(store)
    assert store.client.get_logged_model(model).source_run_id == stays
    said = "its study kept only the last checkpoint of trials that are beaten (tracking.keep=last), which is there"
    if keep == "best":
        said = f"{BEST_ONLY}: takes the study's name, which means its best trial, or train this one again"
    with pytest.raises(ValueError, match=re.escape(f"run {lost} has no checkpoint best.ckpt: {said}")):
        load_run(lost)
    assert removing.drop_checkpoints(store, lost, keep) == 0


def test_a_run_without_checkpoints_says_so_where_it_is_to_go_on(
    store: Store, config: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_with_files(store)
    removing.drop_checkpoints(store, run, "best")
    (line,) = resume_problems(config(f"resume={run}", f"tracking.uri={URI}"), ["resume", "tracking.uri"], False)
    assert f"it has no checkpoint: {BEST_ONLY}" in line


def test_a_run_in_use_is_left_alone(store: Store) -> None:
    others, own, running, undelivered, registered, free = (run_with_files(store, model=i > 3) for i in range(6))
    claim_run(pending_folder(store.folder, own))
    store.client.update_run(running, status="RUNNING")
    pending_folder(store.folder, undelivered).mkdir(parents=True)
    (pending_folder(store.folder, undelivered) / JOURNAL).write_text("")
    model = next(m for m in models(store) if store.client.get_logged_model(m).source_run_id == registered)
    store.client.create_registered_model("mine")
    files = store.client.get_logged_model(model).artifact_location
    store.client.create_model_version("mine", files, run_id=registered)  # as for models:/m-…, whose run it takes
    with held_elsewhere(pending_folder(store.folder, others)):
        done = drop_all(store, [others, own, running, undelivered, registered, free], "best")
    assert (done.runs, done.freed) == (1, 60)
    assert [line.partition(" ")[2].partition(" ")[2] for line in done.left] == [
        "is being trained by another process",
        "is being trained by this process",
        "is RUNNING",
        "may still be resumed, or its store does not have all of it yet",
        "is registered as model mine, version 1; delete that first, on the model's page in MLflow or by "
        "MlflowClient(URI).delete_model_version('mine', '1')",
    ]
    for run in (others, own, running, undelivered, registered):
        assert files_of(store, run) == ALL
    assert files_of(store, free) == ()
    assert models(store) == [model]
    let_go(pending_folder(store.folder, own))
    assert drop_all(store, [own], "best").runs == 1
    assert not pending_folder(store.folder, own).exists()


def test_nothing_outside_a_run_s_folder_is_removed(store: Store, here: Path) -> None:
    run = store.run(run_with_files(store))
    assert run is not None
    shutil.rmtree(run.folder / "checkpoints")
    (here / "elsewhere").mkdir()
    (here / "elsewhere" / "best.ckpt").touch()
    (run.folder / "checkpoints").symlink_to(here / "elsewhere")
    (why,) = drop_all(store, [run.id], "best").left
    assert "is a link" in why
    assert (here / "elsewhere" / "best.ckpt").exists()


@pytest.fixture
def listener() -> Iterator[tuple[str, list[str]]]:
    """A server that anybody's database may name: its address, and the requests that came."""
    asked: list[str] = []

    class Listens(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(f"{self.command} {self.path} {self.headers.get('Authorization')}")
            self.send_response(404)
            self.end_headers()

        do_DELETE = do_PUT = do_POST = do_HEAD = do_GET

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Listens) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}", asked
        server.shutdown()


@pytest.mark.parametrize("scheme", ["http", "https", "mlflow-artifacts", "s3"])
def test_a_database_does_not_say_which_server_is_asked_or_told_to_delete(
    store: Store, listener: tuple[str, list[str]], scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    at, asked = listener
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "secret-token")
    run_id = run_with_files(store, model=True)
    (model,) = models(store)
    place = f"{scheme}://{at}/api/2.0/mlflow-artifacts/artifacts/1/{run_id}"
    with sqlite3.connect("mlruns/mlflow.db") as database:
        database.execute("UPDATE runs SET artifact_uri = ?", (f"{place}/artifacts",))
        database.execute("UPDATE logged_models SET artifact_location = ?", (place,))
    (why,) = drop_all(store, [run_id], "best").left
    assert why.startswith(f"run {run_id} keeps its files at {scheme}://{at}/")
    if scheme != "s3":  # which a user may have chosen: it is read, and nothing is removed there
        for what in (run_id, f"models:/{model}"):
            with pytest.raises(ValueError, match=f"its files are at {scheme}://{at}/") as error:
                load_run(what, tracking_uri=URI)
            assert "\n" not in str(error.value)
        assert store.artifact(run_id, "nothing.csv") is None
    assert asked == []
    folder = Path("mlruns/artifacts", run_id, "artifacts", "checkpoints")
    assert tuple(sorted(path.name for path in folder.iterdir())) == ALL


def test_checkpoints_are_removed_from_a_folder_of_the_run_s_own_only(store: Store, here: Path) -> None:
    run_id = run_with_files(store)
    elsewhere = here / "a" / "b" / "c" / "artifacts"
    shutil.move(here / "mlruns" / "artifacts" / run_id / "artifacts", elsewhere)
    (here / "mlruns" / "artifacts" / run_id).rmdir()
    with sqlite3.connect("mlruns/mlflow.db") as database:
        database.execute("UPDATE runs SET artifact_uri = ?", (elsewhere.as_uri(),))
    (why,) = drop_all(store, [run_id], "best").left
    assert why == f"run {run_id} keeps its files: {elsewhere} is no folder of its own"
    assert files_of(store, run_id) == ALL


# --- when -----------------------------------------------------------------------------------------------------------


def test_a_worker_looks_at_its_own_trials_and_the_end_at_all(store: Store) -> None:
    runs = [run_with_files(store) for _ in range(4)]
    study = made_study([made_trial(values=[v], run_ids=[r]) for v, r in zip((0.4, 0.3), runs[:2], strict=True)])
    tracking = TrackingConfig(uri=URI, keep="best")
    own = Retention(study, tracking)
    own.ended(1)
    assert [files_of(store, run) for run in runs] == [ALL] * 4  # trial 0 is another worker's
    for values, run in (([0.35], runs[2]), ([0.2], runs[3])):
        study.optuna.add_trial(made_trial(values=values, run_ids=[run]))
    own.ended(2)
    own.ended(3)
    assert [files_of(store, run) for run in runs] == [ALL, (), (), ALL]  # trial 1 was the best until trial 3
    Retention(study, TrackingConfig(uri=URI)).ended(0)
    assert files_of(store, runs[0]) == ALL  # tracking.keep=all
    other = run_with_files(store, study="another")
    clean_at_the_end(study, store, "best")
    assert [files_of(store, run) for run in (*runs, other)] == [(), (), (), ALL, ALL]


def test_a_clean_up_that_was_less_goes_on_and_one_that_was_more_stays(store: Store) -> None:
    runs = [run_with_files(store) for _ in range(2)]
    study = made_study([made_trial(values=[v], run_ids=[r]) for v, r in zip((0.4, 0.3), runs, strict=True)])
    assert clean(study, store, "last").runs == 1
    assert files_of(store, runs[0]) == LAST
    assert clean(study, store, "last").runs == 0
    assert clean(study, store, "best").runs == 1
    assert files_of(store, runs[0]) == ()
    assert clean(study, store, "last").runs == clean(study, store, "all").runs == 0
    assert files_of(store, runs[1]) == ALL


def test_a_store_that_does_not_answer_costs_a_warning_and_no_trial(
    store: Store, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [run_with_files(store) for _ in range(2)]
    study = made_study([made_trial(values=[v], run_ids=[r]) for v, r in zip((0.4, 0.3), runs, strict=True)])

    def away(*_: Any) -> None:
        raise ConnectionError("it is away")

    with monkeypatch.context() as patch:
        patch.setattr(retention, "drop_checkpoints", away)
        Retention(study, TrackingConfig(uri=URI, keep="best")).ended(0)
        clean_at_the_end(study, store, "best")
    assert caplog.text.count("it is away") == 2
    clean_at_the_end(study, store, "best")
    assert files_of(store, runs[0]) == ()


def test_files_on_a_server_go_through_its_artifact_store(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The repository's own delete_artifacts is called for what is listed, and where it has none that is said once."""
    runs = [run_with_files(store, model=True) for _ in range(3)]
    monkeypatch.setattr(Run, "is_local", property(lambda _: False, lambda *_: None), raising=False)
    monkeypatch.setattr(store, "path", None)
    asked = []

    class Repository:
        def __init__(self, can: bool):
            self.can = can

        def list_artifacts(self) -> list[Any]:
            return [SimpleNamespace(file_size=30)]

        def delete_artifacts(self, path: str | None = None) -> None:
            if not self.can:
                raise NotImplementedError
            asked.append(path)

    monkeypatch.setattr(removing, "get_artifact_repository", lambda uri, tracking_uri: Repository(True))
    assert removing.drop_checkpoints(store, runs[0], "last") == 10
    assert asked == ["checkpoints/best.ckpt"]
    monkeypatch.setattr(removing, "get_artifact_repository", lambda uri, tracking_uri: Repository(False))
    done = drop_all(store, runs[1:], "best")
    assert done.runs == 0
    assert done.left == ["files cannot be removed from file:; remove them on the server"]


# --- a whole study --------------------------------------------------------------------------------------------------


def test_a_study_keeps_its_best_trial_only(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trained by a real worker, and ended as a sweep is; the key is in no study's digest."""
    register()
    words = [*SMALL, "clip=0.01,1,2", "study.seeds=[0,1]", "epochs=2", "study/pruner=none"]
    source = ConfigSource(CONF)
    with source.opened():
        plain, plan = (make_plan(source, parsed([*words, *more])[0]) for more in ([], ["tracking.keep=best"]))
    assert (plain.name, plain.spec) == (plan.name, plan.spec)
    study, store = sweep._opened(plan, plan.name, StopSignals())
    parent = sweep._prepare(study, plan, store, plan.points(), Chosen(), sweep._spec(plan))
    worker.work(sweep._worker_spec(plan, study.name, [*words, "tracking.keep=best"], parent))
    best = study.optuna.best_trial.number
    kept = {t.number: [files_of(store, run) for run in TrialRecord.of(t).run_ids] for t in study.trials()}
    assert kept[best] == [ALL, ALL]
    for number in (number for number in kept if number != best):
        assert kept[number] == [(), ()]
        for run in TrialRecord.of(study.trials()[number]).run_ids:
            assert files_of(store, run) == ()
            assert store.artifact(run, "updates.parquet") is not None
    load_run(TrialRecord.of(study.trials()[best]).run_ids[0])
    assert not list(Path("mlruns/pending").glob("*"))
