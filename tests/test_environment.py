"""MLflow's own variables count where a key was not typed, and are kept by name only."""

import sys
from pathlib import Path

import hydra
import pytest
from conftest import CONF, SMALL
from mlflow import MlflowClient

from tbptt import load_run
from tbptt.cli.command_line import checked
from tbptt.cli.main import job, run
from tbptt.config.compose import CommandError
from tbptt.system.stores import absolute_uri

URI = 'tracking.uri=${oc.env:MLFLOW_TRACKING_URI,"sqlite:///mlruns/mlflow.db"}'
EXPERIMENT = "tracking.experiment=${oc.env:MLFLOW_EXPERIMENT_NAME,tbptt}"


@pytest.fixture(autouse=True)
def _variables(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///elsewhere/runs.db")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")


def test_a_run_goes_where_the_environment_says_and_says_so(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py", *SMALL, "epochs=1", "progress=plain"])
    assert run(hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(job), CONF) == 0
    told = capsys.readouterr()
    assert told.err.startswith(
        "starting (tracking.uri from MLFLOW_TRACKING_URI, tracking.experiment from MLFLOW_EXPERIMENT_NAME): loading"
    )
    *_, opens, page, use = told.out.splitlines()
    assert use.startswith("use it: python predict.py ")
    assert opens.endswith("mlflow ui --backend-store-uri $MLFLOW_TRACKING_URI")
    assert page.startswith("then open: http://127.0.0.1:5000/#/experiments/1/runs/")
    assert [path.name for path in here.iterdir()] == ["elsewhere"]
    client = MlflowClient(absolute_uri("sqlite:///elsewhere/runs.db"))
    (found,) = client.search_runs([e.experiment_id for e in client.search_experiments() if e.name == "mine"])
    assert found.data.params["tracking.uri"] == URI.removeprefix("tracking.uri=")  # kept as it was said
    network, _, config = load_run(found.info.run_id)
    assert network.hidden == [8]
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME")
    assert config.tracking.experiment == "tbptt"  # where the variable is gone, the default


@pytest.mark.parametrize("words", [["epochs=1"], ["-m", "clip=1,2", "epochs=1"]])
def test_it_counts_for_single_runs_and_sweeps(words: list[str]) -> None:
    assert checked(words, CONF) == [*words, URI, EXPERIMENT]


def test_what_was_typed_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["tracking.uri=sqlite:///own.db", "tracking.experiment=own"]
    assert checked(words, CONF) == words
    assert checked(words[:1], CONF) == [words[0], EXPERIMENT]


def test_an_empty_variable_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    assert checked([], CONF) == [EXPERIMENT]


def test_what_cannot_be_used_is_told_by_the_variables_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "./mlruns-of-old")
    with pytest.raises(CommandError) as error:
        checked([], CONF)
    (line,) = error.value.lines
    assert line.startswith("tracking.uri: got '$MLFLOW_TRACKING_URI'; takes sqlite:///PATH")


def test_no_other_variable_names_an_experiment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_OF_MINE", "sesame-open")
    with pytest.raises(CommandError) as error:
        checked(["tracking.experiment=${oc.env:SECRET_OF_MINE}"], CONF)
    assert error.value.lines[0].startswith(
        "tracking.experiment: got ${oc.env:SECRET_OF_MINE} from the environment, which would be kept"
    )
