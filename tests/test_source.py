"""Finding a trained network by the name of a study, its folder, a run or a file."""

import shutil
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from conftest import CONF, SMALL
from hydra import compose, initialize_config_dir
from studies import STORAGE, made_study, made_trial

from tbptt import load_run
from tbptt.config.schema import register
from tbptt.runs.fit import fit
from tbptt.serving.source import find


class Trained(NamedTuple):
    folder: Path
    runs: list[str]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Three runs of a network, of seeds 1, 2 and 3, and the studies that name them."""
    folder = tmp_path_factory.mktemp("trained")
    register()
    with pytest.MonkeyPatch.context() as patch, initialize_config_dir(str(CONF), version_base="1.3"):
        patch.chdir(folder)
        runs = [fit(compose("config", [*SMALL, "epochs=1", f"seed={seed}"])).run_id for seed in (1, 2, 3)]
        uri = {"tracking_uri": "sqlite:///mlruns/mlflow.db"}
        trials = [
            made_trial(values=[0.5], run_ids=runs[:1]),
            made_trial(values=[0.2], run_ids=runs[1:2]),
            made_trial("PRUNED", run_ids=runs[2:]),
        ]
        made_study(trials, name="search", **uri)
        seeds = {"space": {}, "config": {}, "seeds": [1, 2, 3]}
        made_study([made_trial(values=[0.4], by_seed=[0.5, 0.4, 0.3], run_ids=runs)], name="seeds", spec=seeds, **uri)
        made_study([made_trial("PRUNED", run_ids=runs[:1])], name="none-yet", **uri)
        made_study([made_trial(values=[0.5], run_ids=runs[:1])], name="away", tracking_uri="https://runs.example.org")
        for name in ("search", "sent", "bare"):
            Path("sweeps", name).mkdir()
    (best,) = folder.glob(f"mlruns/**/{runs[0]}/**/best.ckpt")
    shutil.copy(best, folder / "sweeps" / "sent" / "best.ckpt")
    shutil.copy(best, folder / "sweeps" / "search" / "best.ckpt")  # as of an earlier trial: it is not the best one's
    return Trained(folder, runs)


@pytest.fixture
def there(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> Trained:
    monkeypatch.chdir(trained.folder)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return trained


def line(what: str, **arguments: str) -> str:
    with pytest.raises(ValueError, match=r"\w") as error:
        find(what, **arguments)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("what", ["search", "sweeps/search", "sweeps/search/", "./sweeps/search"])
def test_a_study_is_its_best_trials_run(there: Trained, what: str) -> None:
    found = find(what)
    assert found.run_id == there.runs[1]
    assert found.said == "study search"
    assert found.why == (f"study search: trial 1, the best of 2 complete trials by val/loss (0.2); run {there.runs[1]}")
    assert torch.equal(load_run(what)[0].head.weight, load_run(there.runs[1])[0].head.weight)


def test_of_several_seeds_it_is_the_luckiest_and_that_is_said(there: Trained) -> None:
    found = find("seeds")
    assert found.run_id == there.runs[2]
    assert "the only complete trial by val/loss (0.4)" in found.why
    assert found.why.endswith("seed 3, the luckiest of trial 0's 3 seeds: val/loss 0.3; their mean is 0.4")
    assert find("seeds", which="last").content["config"]["seed"] == 3


def test_a_run_and_a_file_leave_no_choice(there: Trained) -> None:
    found = find(there.runs[0])
    assert (found.why, found.run_id, found.said) == ("", there.runs[0], f"run {there.runs[0]}")
    assert find("sweeps/sent/best.ckpt").content["config"]["seed"] == 1


def test_a_folder_whose_study_is_in_no_storage_has_its_file(there: Trained, tmp_path: Path) -> None:
    found = find("sweeps/sent")
    assert found.run_id is None
    assert found.why == (f"sweeps/sent/best.ckpt, as {STORAGE} has no study 'sent': which trial it is of is not known")
    assert "has the best checkpoint only" in line("sent", which="last")
    # A folder elsewhere is not taken for the study of the same name here.
    shutil.copytree("sweeps/sent", tmp_path / "search")
    assert find(tmp_path / "search").content["config"]["seed"] == 1
    assert line("sweeps/bare").startswith(f"sweeps/bare has no best.ckpt, and {STORAGE} has no study 'bare'; takes a")


def test_a_known_study_is_meant_by_its_name_whatever_folder_is_there(there: Trained) -> None:
    Path("search").mkdir()
    try:
        assert find("search").run_id == there.runs[1]
    finally:
        Path("search").rmdir()


def test_a_command_names_only_the_stores_that_the_user_named(there: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the store that a study names counts, as it does in Python."""
    from tbptt.cli.ending import OF_STORES, keys_of, stores_named

    def named(*words: str) -> tuple[str | None, str | None]:
        return stores_named(keys_of(words, CONF, OF_STORES), words)

    assert named() == (None, None)
    own = ("tracking.uri=sqlite:///mlruns/mlflow.db", f"study.storage={STORAGE}")
    assert named(*own) == ("sqlite:///mlruns/mlflow.db", STORAGE)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///other.db")
    assert named() == ("sqlite:///other.db", None)


def test_what_is_nothing_is_told_what_there_is(there: Trained, tmp_path: Path) -> None:
    assert line("serach") == (
        f"got 'serach': {STORAGE} has no such study; takes a run's id, a study (there are 'away', 'none-yet', "
        "'search', 'seeds'), a file .ckpt, or a registered model models:/NAME@ALIAS; did you mean search?"
    )
    empty = f"sqlite:///{tmp_path}/optuna.db"
    assert "a study (there is none)" in line("search-", storage=empty)
    assert list(tmp_path.iterdir()) == []
    assert "a database of something else" in line("nothing", storage="sqlite:///mlruns/mlflow.db")
    assert line("none-yet") == "study none-yet: none of its 1 trials is complete yet"
    for what in ("", ".", "/", "sweeps/"):
        assert "takes a run's id" in line(what)


def test_a_server_that_a_study_names_is_not_asked_unless_the_user_names_it(
    there: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tbptt.serving import of_study

    asked: list[str] = []
    monkeypatch.setattr(of_study, "of_run", lambda run, uri, which: asked.append(uri) or find("sweeps/sent/best.ckpt"))
    assert line("away") == (
        "study away: its runs are in https://runs.example.org; say so: tracking.uri=https://runs.example.org"
    )
    assert asked == []
    find("away", tracking_uri="https://other.example.org")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://runs.example.org")
    find("away")
    assert asked == ["https://other.example.org", "https://runs.example.org"]
