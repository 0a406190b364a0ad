"""What was begun before goes on: runs, a study and checkpoints made by the code of commit 7eb98b3, in tests/before/.

expected.json there has what that code gives when it goes on with them. Training is float32 with PyTorch's layers, so
numbers are compared within rounding, which differs between machines.
"""

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from conftest import CONF, ROOT
from forked import command
from mlflow import MlflowClient
from omegaconf import OmegaConf

from tbptt import inputs, load_run
from tbptt.cli.command_line import checked
from tbptt.cli.main import report
from tbptt.config.compose import CommandError, ConfigSource, parsed
from tbptt.config.earlier import earlier_words
from tbptt.config.schema import register
from tbptt.studies.plan import make_plan

BEFORE = ROOT / "tests" / "before"
EXPECTED: dict[str, Any] = json.loads((BEFORE / "expected.json").read_text())
RUNS: dict[str, str] = EXPECTED["runs"]
STUDY: str = EXPECTED["study"]["name"]
ROUNDING = 1e-4  # relative, of float32 over a hundred updates


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what was begun, which no test changes."""
    return copied(tmp_path_factory.mktemp("begun") / "project")


@pytest.fixture(scope="module")
def joined(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy in which the study's command was given again."""
    folder = copied(tmp_path_factory.mktemp("joined") / "project")
    ran(folder, *EXPECTED["study"]["words"])
    return folder


def copied(folder: Path) -> Path:
    shutil.copytree(BEFORE, folder)
    return folder


def ran(folder: Path, *words: str) -> None:
    """``python train.py WORDS``, which must end well."""
    outputs = folder.with_name("outputs")
    outputs.mkdir(exist_ok=True)
    process = command(folder, *words, outputs=outputs)
    process.join()
    assert process.exitcode == 0, (outputs / "err").read_text()


def client() -> MlflowClient:
    """Of the store in the working folder; absolute, as MLflow keeps what it has opened by its URI."""
    return MlflowClient(f"sqlite:///{Path.cwd()}/mlruns/mlflow.db")


def study() -> optuna.Study:
    return optuna.load_study(study_name=STUDY, storage=f"sqlite:///{Path.cwd()}/sweeps/optuna.db")


def curve(run_id: str, name: str) -> list[float]:
    """All points of a metric by step; a step that is there twice would show."""
    points = sorted(client().get_metric_history(run_id, name), key=lambda p: p.step)
    return [p.value for p in points]


def assert_curves(run_id: str, which: str) -> None:
    for name, values in EXPECTED["curves"][which].items():
        assert curve(run_id, name) == pytest.approx(values, rel=ROUNDING), name


@pytest.mark.parametrize("which", ["interrupted", "prices"])
def test_an_interrupted_run_goes_on_to_the_same_losses(which: str, tmp_path: Path) -> None:
    run_id, folder = RUNS[which], copied(tmp_path / "project")
    with chdir(folder):
        kept = {name: curve(run_id, name) for name in EXPECTED["curves"][which]}
        assert len(kept["val/loss"]) == 2
        ran(folder, f"resume={run_id}", "progress=none")
        assert_curves(run_id, which)
        assert all(curve(run_id, name)[: len(values)] == values for name, values in kept.items())
        info = client().get_run(run_id)
        assert (info.info.status, info.data.tags["stop.reason"]) == ("FINISHED", "epochs")
        assert Path(info.info.artifact_uri.removeprefix("file://")).is_relative_to(folder)


def test_the_study_is_joined_by_its_command_and_completed(begun: Path, joined: Path) -> None:
    with chdir(begun):
        before = study().trials
    with chdir(joined):
        assert [p.name for p in Path("sweeps").iterdir() if p.is_dir() and p.name != ".alive"] == [STUDY]
        after = study().trials
        assert len(after) == len(EXPECTED["trials"])
        for found, expected in zip(after, EXPECTED["trials"], strict=True):
            assert (found.number, found.state.name, found.params) == (
                expected["number"],
                expected["state"],
                expected["params"],
            )
            reported = [found.intermediate_values[i] for i in sorted(found.intermediate_values)]
            assert reported == pytest.approx(expected["reported"], rel=ROUNDING)
            by_seed = found.user_attrs.get("values_by_seed")
            assert (by_seed is None) == (expected["by_seed"] is None)
            if by_seed:
                assert [v for (v,) in by_seed] == pytest.approx([v for (v,) in expected["by_seed"]], rel=ROUNDING)
        done = Counter(tuple(t.params.values()) for t in after if t.state.name in ("COMPLETE", "PRUNED"))
    assert sorted(done.items()) == [((gamma, clip), 1) for gamma in (0.8, 0.9, 0.95) for clip in (0.05, 2.0)]
    for was, found in zip(before[:4], after, strict=False):
        assert was.state.is_finished()
        assert (was.state, was.values, was.user_attrs) == (found.state, found.values, found.user_attrs)


def test_the_trial_that_was_stopped_goes_on_in_its_run(joined: Path) -> None:
    with chdir(joined):
        (stopped,) = (t for t in study().trials if t.state.name == "FAIL")
        (again,) = (t for t in study().trials if t.user_attrs.get("retry_of") == stopped.number)
        assert again.state.name == "COMPLETE"
        assert again.user_attrs["run_ids"][0] == stopped.user_attrs["run_ids"][0]
        assert len(curve(stopped.user_attrs["run_ids"][0], "val/loss")) == 4


def test_its_parent_run_is_the_one_that_it_had(joined: Path) -> None:
    with chdir(joined):
        joined_study, runs = study(), client().search_runs(["1"])
        parent = joined_study.user_attrs["parent_run"]
        assert {r.info.run_id for r in runs if r.data.tags.get("mlflow.runName") == STUDY} == {parent}
        children = [r for r in runs if r.data.tags.get("mlflow.parentRunId") == parent]
        ids = {run_id for t in joined_study.trials for run_id in t.user_attrs.get("run_ids", [])}
        assert {r.info.run_id for r in children} == ids
        assert client().get_run(parent).info.status == "FINISHED"


def test_its_report_is_written_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with chdir(copied(tmp_path / "project")):
        kept = Path("sweeps", STUDY, "trials.csv").read_text().splitlines()
        assert report([STUDY], CONF) == 0
        assert capsys.readouterr().out.strip().endswith("report.html")
        page = Path("sweeps", STUDY, "report.html").read_text()
        assert STUDY in page
        assert "data.gamma" in page
        written = Path("sweeps", STUDY, "trials.csv").read_text().splitlines()
        assert len(written) == len(kept) == 7
        assert [line.split(",")[:5] for line in written[1:]] == [line.split(",")[:5] for line in kept[1:]]


def test_the_best_point_is_trained_again_from_its_file(tmp_path: Path) -> None:
    folder = copied(tmp_path / "project")
    ran(folder, "--config-dir", f"sweeps/{STUDY}", "--config-name", "best")
    with chdir(folder):
        (newest,) = client().search_runs(["1"], order_by=["attributes.start_time DESC"], max_results=1)
        assert newest.info.run_id not in RUNS.values()
        assert_curves(newest.info.run_id, "best")


@pytest.mark.parametrize("which", [*RUNS, "study"])
def test_a_loaded_network_predicts_the_same(which: str, begun: Path) -> None:
    expected = EXPECTED["predictions"][which]
    with chdir(begun):
        network, scaler, cfg = load_run(RUNS.get(which, f"sweeps/{STUDY}/best.ckpt"))
    x = inputs(torch.tensor(expected["prices"], dtype=torch.float64), scaler, cfg)
    with torch.no_grad():
        y, _ = network(x, network.zero_state(batch=len(x)))
    for found, values in ((x, "inputs"), (y, "predictions"), (scaler.to_price_units(y), "q")):
        torch.testing.assert_close(found, torch.tensor(expected[values], dtype=found.dtype), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([f"resume={RUNS['finished']}"], "that run has ended (epochs); epochs above 3 would let it go on"),
        ([f"resume={RUNS['interrupted']}", "clip=3"], "clip: a resumed run keeps its own"),
        ([f"resume={RUNS['interrupted']}", "data.gamma=0.5"], "data.gamma: a resumed run keeps its own"),
        (["resume=" + "0" * 32], "takes the id of a run in"),
    ],
)
def test_what_was_refused_on_resume_still_is(words: list[str], says: str, begun: Path) -> None:
    with chdir(begun), pytest.raises(CommandError) as caught:
        checked(words, CONF)
    (line,) = caught.value.lines
    assert says in line


def test_a_run_whose_prices_have_changed_is_still_refused(tmp_path: Path) -> None:
    with chdir(copied(tmp_path / "project")):
        path = Path("prices.csv")
        path.write_text(path.read_text().replace("50.", "51."))
        with pytest.raises(CommandError, match="the data are not those that the run was begun with"):
            checked([f"resume={RUNS['prices']}"], CONF)


@pytest.fixture(scope="module")
def source() -> Iterator[ConfigSource]:
    register()
    opened = ConfigSource(CONF)
    with opened.opened():
        yield opened


@pytest.mark.parametrize("known", EXPECTED["names"], ids=lambda known: known["name"])
def test_a_command_without_a_name_is_still_the_same_study(
    known: dict[str, Any], source: ConfigSource, begun: Path
) -> None:
    """With the defaults of then, under which its study is looked for."""
    overrides = parsed(known["words"])[0]
    with chdir(begun):
        plan = make_plan(source, overrides)
        searched = [dimension.key for dimension in plan.space.dimensions]
        words = earlier_words(plan.cfg, [o.key_or_group for o in overrides], searched)
        plan = make_plan(source, [*overrides, *parsed(words)[0]])
    assert (plan.name, plan.digest) == (known["name"], known["digest"])


def test_going_on_with_earlier_defaults_is_said_and_recorded(joined: Path) -> None:
    said = joined.with_name("outputs") / "err"
    words = "cuda_graphs=false model.noise_from=pool lr_schedule=constant seed=2 data.test_series=0"
    assert f"study {STUDY}: was begun by an earlier version: it goes on with {words} as then" in said.read_text()
    with chdir(joined):
        (again,) = (t for t in study().trials if t.user_attrs.get("retry_of") is not None)
        configs = [OmegaConf.load(p) for p in Path("sweeps", STUDY).glob("*/.hydra/config.yaml")]
        assert client().get_run(again.user_attrs["run_ids"][0]).info.status == "FINISHED"
    ran_now = [cfg for cfg in configs if "test_series" in cfg.data]
    assert len(ran_now) >= 2
    assert {cfg.data.test_series for cfg in ran_now} == {0}
