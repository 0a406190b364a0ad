"""Notes and tags of a run's own words: what they take, where they go, and what they leave as it is."""

import re
import sys
from collections.abc import Callable
from pathlib import Path

import hydra
import pytest
from conftest import CONF, SMALL
from mlflow import MlflowClient
from omegaconf import DictConfig
from studies import made_study, made_trial

from tbptt.cli.command_line import checked
from tbptt.cli.main import job, run
from tbptt.config.compose import CommandError, ConfigSource, parsed
from tbptt.options.labels import tag_problem
from tbptt.reports.page import write_report
from tbptt.studies.plan import make_plan

TAGS = "tags={desk: fx, run by: me, year: 2024}"


@pytest.mark.parametrize(
    ("word", "line"),
    [
        (
            "tags={mlflow.user: x}",
            "tags: got the name 'mlflow.user', which MLflow or tbptt use themselves; takes another",
        ),
        (
            "tags={study.name: x}",
            "tags: got the name 'study.name', which MLflow or tbptt use themselves; takes another",
        ),
        ("tags={worker: x}", "tags: got the name 'worker', which MLflow or tbptt use themselves; takes another"),
        ("tags=3", "tags: got 3; takes a mapping of names and texts, as in {desk: fx}"),
        ("tags.desk=fx", "tags.desk: unknown key; did you mean tags={desk: …}?"),
        ("tags={a//b: x}", "tags: got the name 'a//b'; takes one that could be a path"),
        ("notes=" + 4001 * "x", "; takes a text of at most 4000 characters, or null"),
        ("notes=${oc.env:HOME}", "notes: got ${oc.env:HOME} from the environment, which would be kept with the run"),
        ("tags={a: ${oc.env:HOME}}", "tags.a: got ${oc.env:HOME} from the environment"),
        ("tags={a: 'https://me:pass@host/'}", "tags: got a URL with a password or token in it"),
    ],
)
def test_a_wrong_label_gets_one_line(here: Path, word: str, line: str) -> None:
    with pytest.raises(CommandError) as error:
        checked([word], CONF)
    assert len(error.value.lines) == 1
    assert line in error.value.lines[0]


@pytest.mark.parametrize("word", ["tags={a: b},{c: d}", "notes=one,two", "tags.a=b,c"])
def test_labels_are_never_searched(here: Path, word: str) -> None:
    with pytest.raises(CommandError) as error:
        checked(["-m", "clip=1,2", word], CONF)
    assert len(error.value.lines) == 1
    assert f"{word.split('=')[0]}: is never searched; takes one value" in error.value.lines[0]


def test_names_that_mlflow_takes_are_taken() -> None:
    assert tag_problem({"desk": "", "run by": "me", "a.b/c-d:e_f": "x", "ünïcode": "y"}) is None
    assert tag_problem({f"t{i}": "" for i in range(51)}) == "got 51 tags; takes at most 50"
    assert tag_problem({"a": "x" * 1001}) is not None


def test_a_study_is_the_same_with_other_labels(here: Path, config: Callable[..., DictConfig]) -> None:
    names = set()
    for words in ([], ["notes=hello"], [TAGS], ["tracking.system_metrics=true"]):
        config()  # registers the schema
        source = ConfigSource(CONF)
        with source.opened():
            plan = make_plan(source, parsed([*SMALL, "clip=1,2", *words])[0])
        names.add(plan.name)
        assert not {"notes", "tags"} & {key.split(".")[0] for key in plan.spec["config"]}
    assert len(names) == 1


def test_a_run_has_its_labels_and_its_config_keeps_them(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    main = hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(job)
    monkeypatch.setattr(sys, "argv", ["train.py", *SMALL, "epochs=1", "notes=for *me*, only", TAGS])
    assert run(main, CONF) == 0
    client = MlflowClient(f"sqlite:///{here}/mlruns/mlflow.db")
    (found,) = client.search_runs(["1"])
    tags = found.data.tags
    assert (tags["desk"], tags["run by"], tags["year"]) == ("fx", "me", "2024")
    assert tags["mlflow.note.content"].startswith("for \\*me\\*, only\n\n### Result\n\n")
    assert "python train.py data.n_series=3 " in tags["mlflow.note.content"]
    assert not [name for name in found.data.params if name.startswith(("tags", "notes"))]
    folder = here / "mlruns" / "artifacts" / found.info.run_id / "artifacts"
    again = ["--config-dir", str(folder), "--config-name", "config", "tags={desk: rates}", "epochs=2"]
    monkeypatch.setattr(sys, "argv", ["train.py", *again])
    assert run(main, CONF) == 0
    newest = client.search_runs(["1"], order_by=["attributes.start_time DESC"])[0]
    assert {newest.data.tags[name] for name in ("desk", "run by")} == {"rates", "me"}
    assert newest.info.run_name == "adam epochs 2 clip 1 s0"


def test_a_report_shows_the_labels_of_its_study_as_text(here: Path) -> None:
    study = made_study([made_trial(values=[1.0])], notes="<b>mine</b>\nof two lines", tags={"desk": "<i>fx"})
    page = write_report(study).read_text()
    assert "&lt;b&gt;mine&lt;/b&gt;\nof two lines" in page
    assert "desk: &lt;i&gt;fx" in page
    other = made_study([made_trial(values=[1.0])], name="other", notes=3, tags={"desk": 3})
    assert not {'<p class="notes">', "desk: "} & set(
        re.findall('<p class="notes">|desk: ', write_report(other).read_text())
    )
