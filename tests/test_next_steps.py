"""The commands that a study says come next: what they are, and that they run as they stand."""

import os
import shlex
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import ROOT
from studies import Away, made_study, made_trial

from tbptt.config.schema import TrackingConfig
from tbptt.reports.answer import answer
from tbptt.reports.evidence import Tried
from tbptt.runs.tracking import Store
from tbptt.studies import judged_best
from tbptt.studies.next_steps import keep_command, next_steps, study_again
from tbptt.studies.parent_run import COMMAND, describe_begin
from tbptt.studies.study import Study
from tbptt.studies.sweep import _say_result
from tbptt.system.typed_command import note_typed

TYPED = ["-m", "schedule.chunks=[10,2,1],[5,1]", "clip=0.5,1", "study.name=a-study"]
AGAIN = "python train.py -m 'schedule.chunks=[10,2,1],[5,1]' clip=0.5,1 study.name=a-study"


@pytest.fixture(autouse=True)
def _nothing_typed() -> Any:
    note_typed([])
    yield
    note_typed([])


def plan(**settings: Any) -> Any:
    return SimpleNamespace(settings=SimpleNamespace(**{"fresh": False, "seeds": None, **settings}))


def two_trials(**more: Any) -> Study:
    trials = [made_trial(values=[value], params={"clip": value}) for value in (0.5, 0.75)]
    return made_study(trials, **{"commands": [AGAIN], **more})


def steps_of(study: Study) -> dict[str, str]:
    return dict(next_steps(study, study.trials()))


# --- what is kept ---------------------------------------------------------------------------------------------------


def test_the_commands_of_a_study_are_kept_each_once_the_newest_last(here: Path) -> None:
    study = made_study([])
    keep_command(study, plan())  # begun from Python
    assert study.record.commands == ()
    assert study_again(study.record) == ""
    for words in (TYPED, TYPED, [*TYPED, "study.n_trials=9"], TYPED):
        note_typed(words)
        keep_command(study, plan())
    assert study.record.commands == [f"{AGAIN} study.n_trials=9", AGAIN]
    assert study_again(study.record) == AGAIN


def test_of_a_fresh_study_the_command_is_kept_that_goes_on_with_it(here: Path) -> None:
    note_typed(["-m", "clip=1,2", "study.fresh=true"])
    study = made_study([], name="it's mine-2")
    keep_command(study, plan(fresh=True))
    words = shlex.split(study_again(study.record))
    assert words[:5] == ["python", "train.py", "-m", "clip=1,2", "study.fresh=true"]
    assert words[5:] == ["study.name=it's mine-2", "study.fresh=false"]


def test_no_secret_is_kept_in_a_command(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_TOKEN", "very-secret")
    note_typed(["-m", "clip=1,2", "notes=very-secret"])
    study = made_study([])
    keep_command(study, plan())
    assert study_again(study.record) == "python train.py -m clip=1,2 notes=$MY_TOKEN"


def test_the_run_of_a_study_has_its_command_as_a_tag_that_can_be_searched(here: Path) -> None:
    store = Store(TrackingConfig(uri="sqlite:///mlruns/mlflow.db"))
    parent = store.start_run("a-study", {})
    made: Any = SimpleNamespace(
        space=SimpleNamespace(dimensions=[]), settings=SimpleNamespace(seeds=None), cfg=SimpleNamespace(tags={"a": "b"})
    )
    study = two_trials()
    describe_begin(parent, study, made, [])
    assert parent.tags()[COMMAND] == AGAIN
    found = store.client.search_runs([store.experiment], f"tags.{COMMAND} LIKE '%[5,1]%'")
    assert [run.info.run_id for run in found] == [parent.id]
    study.optuna.set_user_attr("commands", ["x" * 9000])  # longer than MLflow takes
    describe_begin(parent, study, made, [])
    assert parent.tags()[COMMAND] == "x" * 8000


def test_the_last_line_of_a_sweep_is_its_command(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cfg = SimpleNamespace(progress="plain", tracking=SimpleNamespace(uri="sqlite:///mlruns/mlflow.db"))
    made: Any = SimpleNamespace(cfg=cfg, space=SimpleNamespace(overrides=lambda point: []))
    store: Any = SimpleNamespace(experiment="1", client=Away())
    study = two_trials()
    _say_result(study, made, store)
    assert capsys.readouterr().out.splitlines()[-1] == f"again: {AGAIN}"
    study.optuna.set_user_attr("commands", None)
    _say_result(study, made, store)
    assert "again: " not in capsys.readouterr().out


# --- what comes next ------------------------------------------------------------------------------------------------


def test_each_next_step_is_a_command_with_what_it_does(here: Path) -> None:
    study = two_trials(tracking_uri="sqlite:///mlruns/mlflow.db", seeds_used=[11])
    (here / "sweeps/a-study").mkdir()
    (here / "sweeps/a-study/best.yaml").touch()
    steps = steps_of(study)
    new = "study.best_of=a-study study.name=a-study-again study.n_trials=5 'study.seeds=[10,12,13]'"
    placebo = "study.placebo_of=a-study study.name=a-study-placebo study.n_trials=20"
    assert list(steps.values()) == [
        AGAIN,
        "python train.py --config-dir sweeps/a-study --config-name best",
        "python predict.py a-study",
        f"{AGAIN} {new}",
        f"{AGAIN} {placebo}",
        "mlflow ui --backend-store-uri sqlite:///mlruns/mlflow.db",
        "python report.py a-study",
        "python report.py a-study --figures sweeps/a-study/figures",
    ]
    verdict = judged_best.answer(study, study.trials(), study.trials()[0])
    said = answer(study, study.trials(), verdict, Tried([], set()))
    assert said["commands"] == list(steps.items())
    assert any(
        line.endswith("with other seeds, on the same validation part: one of the next steps below.")
        for line in said["says"]
    )


def test_names_and_stores_are_said_where_they_have_to_be_and_quoted(here: Path) -> None:
    study = two_trials(name="it's mine", tracking_uri="https://mlflow.example:5000")
    study.storage_uri = "postgresql:///studies of us"
    at = ["study.storage=postgresql:///studies of us", "tracking.uri=https://mlflow.example:5000"]
    commands = [shlex.split(command) for command in steps_of(study).values()]
    assert ["python", "predict.py", "it's mine", *at] in commands
    assert ["python", "report.py", "it's mine", *at] in commands
    assert ["python", "report.py", "it's mine", "--figures", "sweeps/it's mine/figures", *at] in commands
    assert not any(command[0] == "mlflow" for command in commands)  # a server has its own UI
    study.optuna.set_user_attr("tracking_uri", "$MLFLOW_TRACKING_URI")  # it is not known, but the shell knows it
    assert any(c.endswith(' tracking.uri="$MLFLOW_TRACKING_URI"') for c in steps_of(study).values())


def test_what_does_not_apply_is_no_next_step(here: Path) -> None:
    chosen = [{"trial": 3, "value": 0.5, "point": {"clip": 0.5}}]
    first = AGAIN.split()[0]
    for name, made in {
        "no command is known": two_trials(name="old", commands=None),
        "of the best of another": two_trials(name="sure", chosen=chosen),
        "one trial": made_study([made_trial(values=[0.5], params={"clip": 0.5})], name="one", commands=[AGAIN]),
        "on surrogates": two_trials(name="surrogates", spec={"config": {"data.surrogate": "blocks"}}),
        "nothing is complete": made_study([], name="none", commands=[AGAIN]),
    }.items():
        commands = list(steps_of(made).values())
        has_best_of = any("study.best_of=" in command for command in commands)
        has_placebo = any("study.placebo_of=" in command for command in commands)
        assert (has_best_of, has_placebo) == (name == "on surrogates", name == "one trial"), name
        assert (AGAIN in commands) == (name != "no command is known")
        assert f"{first} report.py {made.name}" in commands
    said = answer(made, [], judged_best.answer(made, [], None), Tried([], set()))
    assert said["commands"] == next_steps(made, [])


@pytest.mark.slow  # it starts the program six times
def test_each_next_step_runs_as_it_stands(tmp_path: Path) -> None:
    for script in ("train.py", "report.py", "predict.py"):
        (tmp_path / script).symlink_to(ROOT / script)
    small = "data.n_series=3 data.val_series=2 data.length=120 data.window=8 model.dense=[8] model.hidden=[8] epochs=2"
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT / "src")}

    def run(line: str) -> str:
        done = subprocess.run(line, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, (line, done.stderr)
        return done.stdout

    typed = f"python train.py -m 'schedule.chunks=[10,1],[5]' clip=0.5,1 study.name=\"it's mine\" {small}"
    last = run(typed).splitlines()[-1]
    assert shlex.split(last) == ["again:", *shlex.split(typed)]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        steps = steps_of(Study.existing("it's mine", "sqlite:///sweeps/optuna.db"))
    assert last == f"again: {next(iter(steps.values()))}"
    ours = {what: c for what, c in steps.items() if not c.startswith("mlflow ") and "--figures" not in c}
    assert len(ours) == 6
    for command in ours.values():
        run(command.replace("study.n_trials=20", "study.n_trials=2"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        found = Study.every("sqlite:///sweeps/optuna.db")
        assert {name: len(s.trials()) for name, s in found.items() if isinstance(s, Study)} == {
            "it's mine": 4,  # none was run again
            "it's mine-again": 4,
            "it's mine-placebo": 2,
        }
        assert len(list(Path("mlruns/artifacts").iterdir())) >= 4 + 1 + 4 * 3 + 2
