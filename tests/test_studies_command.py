"""tbptt studies: what it lists, what it says of one, what it removes, and what it never touches."""

import contextlib
import datetime
import json
import re
import shutil
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import CONF
from holding import held_elsewhere, made_model, run_with_files, worker_elsewhere
from mlflow.entities import ViewType
from rich.cells import cell_len
from studies import BEGAN, STORAGE, made_study, made_trial

from tbptt.cli import studies as command
from tbptt.config.schema import TrackingConfig
from tbptt.runs import removing
from tbptt.runs.pending import CLAIM, JOURNAL, pending_folder
from tbptt.runs.tracking import Store
from tbptt.studies import living, removal
from tbptt.studies.listed import ago
from tbptt.studies.study import Study
from tbptt.system.claims import is_held_here

URI = "sqlite:///mlruns/mlflow.db"
NOTE = {"seed": 2, "seeds": 3, "epoch": 4, "epochs": 50, "held_out": 0.61, "seconds_left": 130.0}
Typed = Callable[..., tuple[int, str, str]]


@pytest.fixture
def store(here: Path) -> Store:
    return Store(TrackingConfig(uri=URI))


@pytest.fixture
def typed(here: Path, capsys: pytest.CaptureFixture[str]) -> Typed:
    """Gives ``tbptt studies WORDS``: its exit status and what it printed."""

    def run(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        status = command.main(words, CONF)
        shown = capsys.readouterr()
        assert "Traceback" not in shown.err
        return status, shown.out, shown.err

    return run


def a_study(store: Store, name: str = "a-study", **more: object) -> tuple[Study, str, list[str]]:
    """A study of a complete and a failed trial, of two runs with a model, and of a parent run."""
    parent = store.start_run(name, {"study.name": name})
    runs = []
    for status in ("FINISHED", "FAILED"):
        runs.append(run_with_files(store, status, study=name))
        store.client.set_tag(runs[-1], "mlflow.parentRunId", parent.id)
        store.client.log_metric(runs[-1], "val/loss", 0.5)
    run = store.run(runs[0])
    assert run
    made_model(store, run)
    trials = [
        made_trial(values=[0.5], params={"clip": 0.5}, run_ids=runs[:1]),
        made_trial("FAIL", params={"clip": 2.0}, run_ids=runs[1:], reason="so"),
    ]
    study = made_study(trials, name=name, parent_run=parent.id, tracking_uri=URI, **more)  # type: ignore[arg-type]
    folder = Path("sweeps", name)
    (folder / "0" / ".hydra").mkdir(parents=True)
    (folder / "report.html").write_bytes(b"0" * 100)
    parent.finish("FINISHED")
    return study, parent.id, runs


def all_runs(store: Store) -> set[str]:
    return {run.info.run_id for run in store.client.search_runs([store.experiment], run_view_type=ViewType.ALL)}


def rows_about(store: Store, run: str) -> int:
    """The rows of MLflow's database that belong to a run."""
    tables = ("runs", "metrics", "latest_metrics", "params", "tags")
    with sqlite3.connect(store.folder / "mlflow.db") as database:
        counts = (f"SELECT count(*) FROM {table} WHERE run_uuid = ?" for table in tables)
        models = database.execute("SELECT count(*) FROM logged_models WHERE source_run_id = ?", (run,)).fetchone()[0]
        return int(models) + sum(database.execute(query, (run,)).fetchone()[0] for query in counts)


# --- list and status ------------------------------------------------------------------------------------------------


def test_studies_are_listed_with_their_state_their_trials_and_their_best(store: Store, typed: Typed) -> None:
    a_study(store)
    a_study(store, "stopped", n_trials=9)
    with worker_elsewhere(Path("sweeps")) as who:
        study = a_study(store, "running", n_trials=9)[0]
        study.optuna.add_trial(made_trial("RUNNING", params={"clip": 1.0}, worker=json.loads(who)))
        status, out, err = typed()
        assert (status, err) == (0, "")
        head, *rows = [[cell.strip() for cell in line.split("  ") if cell] for line in out.splitlines()]
        assert head == ["study", "state", "trials", "best", "workers", "last sign of life", "size"]
        ended = [*("1/9, 1 failed", "0.5"), "2024-01-01 10:00", "160 bytes"]  # a report of 100, six checkpoints of 10
        assert (
            rows
            == [
                ["running", "running", "1/9, 1 failed", "0.5", "1", *ended[2:]],  # it begins, and nothing is noted yet
                ["a-study", "finished", "1/2, 1 failed", *ended[1:]],
                ["stopped", "stopped", *ended],
            ]
        )
        assert typed("list")[1] == out == typed(f"study.storage={STORAGE}")[1]
    assert "running  stopped " in typed()[1]  # its process has ended, and nobody has put that down yet


def test_running_studies_come_first_then_those_that_were_seen_last(store: Store, typed: Typed) -> None:
    day = datetime.timedelta(days=1)
    for name, days in (("old", 0), ("older", -9), ("new", 3)):
        trial = made_trial(values=[0.5], params={"clip": 0.5})
        trial.datetime_complete = BEGAN + days * day
        made_study([trial], name=name)
    made_study([], name="empty")
    with worker_elsewhere(Path("sweeps")) as who:
        worker = json.loads(who)
        for name, seconds in (("heard", 15), ("silent", 4000)):
            at = NOTE | {"at": time.time() - seconds}
            made_study([made_trial("RUNNING", params={"clip": 1.0}, worker=worker, progress=at)], name=name)
        rows = [re.split("  +", line) for line in typed()[1].splitlines()[1:]]
        status = typed("status", "heard")[1].splitlines()
    assert [row[0] for row in rows] == ["heard", "silent", "new", "old", "older", "empty"]
    assert re.fullmatch(r"1\d s ago", rows[0][4])
    assert rows[1][4] == "1 h ago"
    assert [row[-2] for row in rows[2:5]] == [f"2024-01-{d} 10:00" for d in ("04", "01")] + ["2023-12-23 10:00"]
    assert status[0] == "study heard: running, 1 worker"
    at = status.index(f"  worker: {worker['host']}, process {worker['pid']}")
    assert re.fullmatch(
        r"    trial 0: seed 2/3  epoch 4/50  held-out 0.61  2:10 left  \(noted 1\d s ago\)", status[at + 1]
    )
    assert re.fullmatch(r"  last sign of life: 1\d s ago", status[at + 2])
    assert "to go on" not in status[-1]


@pytest.mark.parametrize(
    ("age", "says"),
    [
        (-30, "0 s ago"),
        (12.4, "12 s ago"),
        (59.4, "59 s ago"),
        (60, "1 min ago"),
        (3599, "59 min ago"),
        (3600, "1 h ago"),
        (86399, "23 h ago"),
        (86400, "2023-12-31 10:00"),
        (-3600, "2024-01-01 11:00"),  # a clock that is wrong is no sign that it was just now
    ],
)
def test_a_moment_is_an_age_or_a_date(age: float, says: str) -> None:
    assert ago(BEGAN.timestamp() - age, BEGAN.timestamp()) == says


def test_on_a_narrow_terminal_names_lose_their_middle_and_elsewhere_they_are_whole(
    store: Store, typed: Typed, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["schedule.chunks-clip-model.hidden-3f9ac01d", "schedule.chunks-clip-model.hidden-77a01e55", "数" * 30]
    for name in names:
        made_study([made_trial(values=[0.5], params={"clip": 0.5})], name=name)
    whole = typed()[1]
    assert all(f"{name}  " in whole for name in names)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    for width in (80, 70):
        monkeypatch.setenv("COLUMNS", str(width))
        head, *rows = typed()[1].splitlines()
        assert all(cell_len(line) <= width for line in (head, *rows))
        assert max(map(cell_len, (head, *rows))) >= width - 1  # all the room is used
        assert {row.split("  ")[0][-2:] for row in rows} == {"1d", "55", "数数"}
        assert {re.split("  +", row)[-2] for row in rows} == {"2024-01-01 10:00"}
    monkeypatch.setenv("COLUMNS", "300")
    assert typed()[1] == whole


def test_a_study_whose_metric_is_gone_is_said_below_the_others(store: Store, typed: Typed) -> None:
    made_study([made_trial(values=[0.5], params={"clip": 0.5})])
    made_study([], name="gone", objectives=("val/loss",)).optuna.set_user_attr("objectives", ["val/of_mine"])
    status, out, _ = typed()
    assert status == 0
    assert out.splitlines()[1].startswith("a-study  finished")
    says = "its objective val/of_mine is not there; takes the file in own/ that brings this metric"
    assert out.splitlines()[2:] == [f"study gone: {says}"]


def test_what_is_listed_is_only_read(store: Store, typed: Typed) -> None:
    study = a_study(store)[0]
    study.optuna.add_trial(made_trial("RUNNING", params={"clip": 1.0}, worker={"host": "gone", "pid": 1}))
    study.close()
    with contextlib.closing(sqlite3.connect("sweeps/optuna.db")) as database:
        before = list(database.iterdump())
        assert typed()[0] == typed("status", "a-study")[0] == 0
        assert list(database.iterdump()) == before


def test_one_study_is_told_of_with_what_goes_on(store: Store, typed: Typed) -> None:
    a_study(store, n_trials=9, commands=["python train.py -m clip=1", "python train.py -m clip=1,2"])
    status, out, _ = typed("status", "sweeps/a-study")
    assert status == 0
    lines = [line.strip() for line in out.splitlines()]
    assert lines[:5] == [
        "study a-study: stopped",
        "trials: 1 complete, 1 failed, of 9",
        "budget: 9 trials, 7 still to begin",
        "last sign of life: 2024-01-01 10:00",
        "best: trial 0  val/loss 0.5  clip=0.5",
    ]
    assert "train it again: python train.py --config-dir sweeps/a-study --config-name best" in lines
    assert "use it: python predict.py a-study data.path=FILE" in lines
    assert any(line.startswith("report: sweeps/a-study/report.html, of ") for line in lines)
    assert lines[-2:] == ["to go on: give the command that began it again:", "python train.py -m clip=1,2"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["stats"], "studies: got 'stats'; takes list, status, remove, clean (did you mean status?)"),
        (["status"], "the following arguments are required: study; see tbptt studies status --help"),
        (["status", "a-stud"], f"STUDY: got 'a-stud'; takes a study of {STORAGE}: a-study (did you mean a-study?)"),
        (["remove", "b", "--yes"], f"STUDY: got 'b'; takes a study of {STORAGE}: a-study"),
        (["remove", "a-study"], "--yes: missing; takes it where nobody can be asked"),
        (["remove", "a-study", "--yse"], "unrecognized arguments: --yse"),
        (["clean", "a-study"], "the following arguments are required: --keep"),
        (["clean", "a-study", "--keep", "all"], "invalid choice: 'all'"),
        (["list", "clip=1"], "clip=1: unknown here; takes study.storage=URI and tracking.uri=URI"),
        (["clean", "a-study", "--keep", "best", "tracking.uri=sqlite:///no/m.db"], "tracking.uri: there is no store"),
    ],
)
def test_a_mistake_costs_a_line_and_removes_nothing(store: Store, typed: Typed, words: list[str], says: str) -> None:
    _, _, runs = a_study(store)
    before = all_runs(store)
    status, _, err = typed(*words)
    assert status == 2
    assert says in err
    assert len(err.splitlines()) == 1
    assert all_runs(store) == before
    assert (store.folder / "artifacts" / runs[0] / "artifacts" / "checkpoints" / "best.ckpt").exists()


def test_help_is_given_and_nothing_made(here: Path, typed: Typed) -> None:
    assert typed("--help")[:2] == (0, command.usage() + "\n")
    with pytest.raises(SystemExit) as ended:
        typed("remove", "--help")
    assert not ended.value.code
    assert typed("list")[:2] == typed()[:2] == (0, f"no study yet in {STORAGE}\n")
    assert list(here.iterdir()) == []


def test_help_says_what_is_typed_and_what_goes(
    here: Path, typed: Typed, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TBPTT_COMMAND", "python -m tbptt")
    assert typed("--help")[1].startswith("usage: python -m tbptt studies [list]\n       python -m tbptt studies status")
    with pytest.raises(SystemExit):
        typed("clean", "--help")
    shown = " ".join(capsys.readouterr().out.split())
    assert shown.startswith("usage: python -m tbptt studies clean")
    assert "best: all of them. last: those of the best epoch" in shown


def test_a_report_takes_no_key_of_training(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from tbptt.cli.main import report

    a_study(store)
    written = Path("sweeps/a-study/report.html").read_bytes()
    assert report(["a-study", "clip=3"], CONF) == 2
    assert capsys.readouterr().err == "clip=3: unknown here; takes study.storage=URI and tracking.uri=URI\n"
    assert report(["nothing"], CONF) == 2
    assert report(["../other/sweeps/a-study"], CONF) == 2
    assert Path("sweeps/a-study/report.html").read_bytes() == written
    assert report(["--help"], CONF) == 0
    assert "STUDY|verdict.csv [--verdict | --figures FOLDER | --watch" in capsys.readouterr().out


# --- remove ---------------------------------------------------------------------------------------------------------


def test_a_study_is_removed_for_good_and_no_other(store: Store, typed: Typed) -> None:
    _, parent, runs = a_study(store)
    other = a_study(store, "another")
    alone = run_with_files(store, study="")
    orphan = run_with_files(store)  # begun, but its trial does not know of it yet
    store.client.set_tag(orphan, "mlflow.parentRunId", parent)
    namesake = run_with_files(store)  # of a study of this name that is kept elsewhere
    pending = pending_folder(store.folder, runs[1])
    pending.mkdir(parents=True)
    (pending / JOURNAL).write_text("")
    assert min(rows_about(store, run) for run in (parent, *runs)) > 3

    status, out, err = typed("remove", "sweeps/a-study", "--yes")
    assert (status, err) == (0, "")
    assert out.splitlines() == ["study a-study: 2 trials, 4 runs, 0.0 MB of files", "study a-study is removed"]
    assert all_runs(store) == {other[1], *other[2], alone, namesake}
    assert [rows_about(store, run) for run in (parent, *runs, orphan)] == [0] * 4
    left = {path.name for path in (store.folder / "artifacts").iterdir()}
    assert left >= all_runs(store) - {other[1]}
    assert not left & {parent, *runs, orphan}
    assert len(list((store.folder / "artifacts" / "models").iterdir())) == 1
    assert not pending.exists()
    assert {path.name for path in Path("sweeps").iterdir() if path.name[0] != "."} == {"another", "optuna.db"}
    assert set(Study.records(STORAGE)) == {"another"}
    assert typed("status", "a-study")[0] == 2


def test_the_runs_stay_where_that_is_asked_for(store: Store, typed: Typed) -> None:
    _, parent, runs = a_study(store)
    assert "0 runs" in typed("remove", "a-study", "--yes", "--keep-runs")[1]
    assert all_runs(store) == {parent, *runs}
    assert not Path("sweeps/a-study").exists()
    assert Study.records(STORAGE) == {}


@pytest.mark.parametrize(("answer", "removed"), [("y\n", True), ("n\n", False), ("\n", False)])
def test_on_a_terminal_it_is_asked(
    store: Store, typed: Typed, answer: str, removed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    import io

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    a_study(store)
    monkeypatch.setattr("sys.stdin", Terminal(answer))
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    status, out, _ = typed("remove", "a-study")
    assert status == 0
    assert (
        "2 trials, 3 runs" in out.partition("remove study a-study for good?")[0]
    )  # first what goes, then the question
    assert (Study.records(STORAGE) == {}) == removed
    assert ("nothing was removed" in out) != removed


@pytest.mark.parametrize("at", ["remove_run_for_good", "rmtree", "delete_study"])
def test_an_interrupted_removal_is_given_again_and_finishes(
    store: Store, typed: Typed, at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_study(store)
    keeps = a_study(store, "another")
    real, calls = {"remove_run_for_good": removing.compat.remove_run_for_good, "rmtree": shutil.rmtree}, 0

    def stops(*words: object, **named: object) -> None:
        nonlocal calls
        calls += 1
        if calls == 2 or at == "delete_study":
            raise KeyboardInterrupt
        real[at](*words, **named)  # type: ignore[arg-type]

    place = {"remove_run_for_good": removing.compat, "rmtree": removing.shutil, "delete_study": removal.optuna}[at]
    with monkeypatch.context() as patch:
        patch.setattr(place, at, stops)
        assert typed("remove", "a-study", "--yes")[0] == 130
    assert "a-study" in Study.records(STORAGE)
    assert typed("remove", "a-study", "--yes")[0] == 0
    assert all_runs(store) == {keeps[1], *keeps[2]}
    assert not [p for p in (store.folder / "artifacts").iterdir() if p.name not in {keeps[1], *keeps[2], "models"}]
    assert set(Study.records(STORAGE)) == {"another"}


def test_a_folder_that_is_not_here_is_no_study_of_this_folder(store: Store, typed: Typed, tmp_path: Path) -> None:
    _, parent, runs = a_study(store)
    other = tmp_path / "other" / "sweeps" / "a-study"
    other.mkdir(parents=True)
    says = "which is not sweeps/a-study of the working folder; takes a study's name, or its folder sweeps/NAME"
    for what in (str(other), "../nowhere/sweeps/a-study", "./a-study", f"{other.parent}/../sweeps/a-study/"):
        for words in (["remove", what, "--yes"], ["clean", what, "--keep", "best"], ["status", what]):
            status, _, err = typed(*words)
            assert (status, err) == (2, f"STUDY: got {what!r}, {says}\n")
    assert unchanged(store, parent, runs)
    assert typed("status", str(Path("sweeps/a-study").resolve()))[0] == 0
    assert typed("remove", "./sweeps/a-study/", "--yes")[0] == 0


# --- what is in use -------------------------------------------------------------------------------------------------


def unchanged(store: Store, parent: str, runs: list[str]) -> bool:
    files = [store.artifact(run, f"checkpoints/{name}.ckpt") for run in runs for name in ("best", "last")]
    return all_runs(store) == {parent, *runs} and all(files) and Path("sweeps/a-study/report.html").exists()


def test_a_run_that_a_living_process_holds_is_not_removed_and_nothing_else_is(store: Store, typed: Typed) -> None:
    _, parent, runs = a_study(store)
    with held_elsewhere(pending_folder(store.folder, runs[1])):
        status, _, err = typed("remove", "a-study", "--yes")
        assert (status, len(err.splitlines())) == (2, 1)
        assert f"run {runs[1]} is being trained by another process" in err
        assert unchanged(store, parent, runs)
    assert typed("remove", "a-study", "--yes")[0] == 0  # a process that has ended holds nothing


def test_a_study_whose_trial_a_living_process_runs_is_not_removed(store: Store, typed: Typed) -> None:
    study, parent, runs = a_study(store)
    with worker_elsewhere(Path("sweeps")) as who:
        study.optuna.add_trial(made_trial("RUNNING", params={"clip": 1.0}, worker=json.loads(who), run_ids=[]))
        status, _, err = typed("remove", "a-study", "--yes")
        assert (status, len(err.splitlines())) == (2, 1)
        assert f"study a-study runs ({json.loads(who)['host']}, process {json.loads(who)['pid']}); stop it first" in err
        assert unchanged(store, parent, runs)
    assert typed("remove", "a-study", "--yes")[0] == 0


def test_a_registered_model_keeps_its_study(store: Store, typed: Typed) -> None:
    _, parent, runs = a_study(store)
    store.client.create_registered_model("mine")
    store.client.create_model_version("mine", "file:///files", run_id=runs[0])
    status, _, err = typed("remove", "a-study", "--yes")
    assert status == 2
    assert f"run {runs[0]} is registered as model mine, version 1; delete that first" in err
    assert unchanged(store, parent, runs)


@pytest.mark.parametrize("name", ["..", "."])
def test_a_name_that_somebody_else_gave_removes_nothing_outside(
    store: Store, typed: Typed, name: str, here: Path
) -> None:
    """A storage that was sent may name a study, or a run, as a folder above."""
    made_study([made_trial(values=[0.5], params={"clip": 0.5}, run_ids=[".."])], name=name, parent_run="..")
    run = run_with_files(store, study=name)
    with contextlib.closing(sqlite3.connect(store.folder / "mlflow.db")) as database, database:
        for table in ("runs", "tags"):
            database.execute(f"UPDATE {table} SET run_uuid = '..' WHERE run_uuid = ?", (run,))
    (here / "precious").touch()
    (store.folder / "precious").touch()
    study = Study.existing(name, STORAGE)
    assert removal.remove(study, store).runs == []
    assert {path.name for path in here.iterdir()} == {"precious", "mlruns", "sweeps"}
    assert {path.name for path in Path("mlruns").iterdir()} >= {"precious", "mlflow.db", "artifacts"}
    assert Path("sweeps/optuna.db").exists()
    assert Study.records(STORAGE) == {}
    assert removing.drop_checkpoints(store, "..", "best") == 0


def test_a_link_in_place_of_a_study_s_folder_is_not_followed(store: Store, typed: Typed, tmp_path: Path) -> None:
    a_study(store)
    shutil.rmtree("sweeps/a-study")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "precious").touch()
    Path("sweeps/a-study").symlink_to(tmp_path / "elsewhere")
    assert typed("remove", "a-study", "--yes")[0] == 0
    assert (tmp_path / "elsewhere" / "precious").exists()


def test_a_study_whose_sweep_lives_without_a_running_trial_is_not_removed(store: Store, typed: Typed) -> None:
    """Workers that start, a report that is written: the sweep holds the parent run, for its whole life."""
    _, parent, runs = a_study(store)
    run = store.run(parent)
    assert run
    ours = pending_folder(store.folder, parent) / CLAIM
    with living.swept(store, run):
        assert is_held_here(ours)
        with living.swept(store, run):  # a second sweep of this process lets the first one's claim be
            pass
        assert is_held_here(ours)
    assert not ours.parent.exists()
    with held_elsewhere(ours.parent):
        with living.swept(store, run):  # another terminal may share the study
            assert not is_held_here(ours)
        for more in ([], ["--keep-runs"]):
            status, _, err = typed("remove", "a-study", "--yes", *more)
            says = "study a-study runs (its sweep is at work on this machine); stop it first"
            assert (status, err) == (2, f"STUDY: got 'a-study'; {says}\n")
        assert unchanged(store, parent, runs)
    assert typed("remove", "a-study", "--yes")[0] == 0


def test_a_store_without_the_study_s_runs_removes_nothing(store: Store, typed: Typed) -> None:
    _, parent, runs = a_study(store)
    wrong = "sqlite:///mlruns/other.db"
    Store(TrackingConfig(uri=wrong))
    status, _, err = typed("remove", "a-study", "--yes", f"tracking.uri={wrong}")
    assert (status, len(err.splitlines())) == (2, 1)
    assert f"3 of its 3 runs are not in {wrong} (the study names {URI}); takes tracking.uri=URI" in err
    assert unchanged(store, parent, runs)
    store.client.delete_run(runs[1])  # in MLflow, which still has it
    assert typed("remove", "a-study", "--yes")[0] == 0


def test_the_runs_of_a_study_are_those_of_the_store_that_it_names(store: Store, typed: Typed) -> None:
    own = Store(TrackingConfig(uri="sqlite:///x.db"))
    study, parent, runs = a_study(own)
    study.optuna.set_user_attr("tracking_uri", "sqlite:///x.db")
    assert "3 runs" in typed("remove", "a-study", "--yes")[1]
    assert not {parent, *runs} & all_runs(own)


# --- clean ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keep", ["best", "last"])
def test_a_clean_up_leaves_the_best_trial_and_a_run_that_is_held(store: Store, typed: Typed, keep: str) -> None:
    study, _, runs = a_study(store)
    more = [run_with_files(store) for _ in range(2)]
    for run in more:
        study.optuna.add_trial(made_trial(values=[0.75], params={"clip": 1.0}, run_ids=[run]))
    with held_elsewhere(pending_folder(store.folder, more[0])):
        status, out, err = typed("clean", "a-study", "--keep", keep)
    freed = 30 if keep == "best" else 10
    assert (status, err) == (0, "")
    assert out.splitlines() == [
        f"study a-study: 1 run lost checkpoints, {freed} bytes are free",
        f"left alone: run {more[0]} is being trained by another process",
    ]
    assert [store.artifact(run, "checkpoints/best.ckpt") is not None for run in (*runs, *more)] == [
        True,
        True,
        True,
        False,
    ]
    assert (store.artifact(more[1], "checkpoints/last.ckpt") is None) == (keep == "best")
