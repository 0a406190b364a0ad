"""Descriptions in MLflow: nothing of a user's becomes Markdown, nothing that somebody wrote there is overwritten."""

import shlex
import signal
from collections.abc import Callable

import pytest
from conftest import CONF, SMALL
from mlflow import MlflowClient
from omegaconf import DictConfig

from tbptt.config.compose import ConfigSource
from tbptt.config.plain import plain
from tbptt.runs import description
from tbptt.runs.context import RunContext
from tbptt.runs.description import added, bullets, code, escaped, section, tags_for, unfinished
from tbptt.runs.epoch import Epoch
from tbptt.runs.fit import fit
from tbptt.system.runtime import Interrupted

NOTE = "mlflow.note.content"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a *b* _c_ `d`", r"a \*b\* \_c\_ \`d\`"),
        ("<script>x</script> & [y](javascript:z)", r"&lt;script&gt;x&lt;/script&gt; &amp; \[y\](javascript:z)"),
        ("# head\n- item\n12. item\n    code\n===", "\\# head  \n&#45; item  \n&#49;2. item  \ncode  \n&#61;=="),
        ("bell\a end", "bell end"),
    ],
)
def test_a_text_is_shown_as_it_is(text: str, shown: str) -> None:
    assert escaped(text) == shown


def test_a_section_is_replaced_and_taken_away_and_the_rest_stays() -> None:
    notes, command = escaped("mine\n\n### Result\n\nnot a section"), section("Command", code("a\n### Result\n\nb"))
    begun = tags_for(f"{notes}\n\n{command}", {})
    once = begun | added(begun, "Result", bullets(["one"]))
    twice = once | added(once, "Result", bullets(["two"]))
    assert twice[NOTE] == f"{notes}\n\n### Result\n\n- two\n\n{command}"
    assert twice | unfinished(twice) == begun


def test_without_notes_too() -> None:
    begun = tags_for(section("Command", code("a")), {})
    once = begun | added(begun, "Result", bullets(["one"]))
    assert once[NOTE] == "### Result\n\n- one\n\n### Command\n\n    a"
    assert once | unfinished(once) == begun


def test_what_somebody_wrote_or_removed_stays_so() -> None:
    begun = tags_for(section("Command", code("a")), {})
    edited = {**begun, NOTE: begun[NOTE] + "\n\nBetter than yesterday's."}
    removed = {description.DIGEST: begun[description.DIGEST]}
    own = {NOTE: "written before"}
    for before in (edited, removed, own):
        assert tags_for("x", before) == {}
        assert added(before, "Result", "x") == {}
        assert unfinished(before) == {}
    assert tags_for("x", {}) != {}


def test_a_run_says_how_to_train_it_again_and_what_came_out(
    here: object, small: Callable[..., DictConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("A_TOKEN", "s3cret-s3cret")
    words = [*SMALL, "optimizer=rmsprop", "notes='see *s3cret-s3cret*'", "+tags={desk: fx}", "study.seeds=[1,2]"]
    cfg = small("optimizer=rmsprop", "notes='see *s3cret-s3cret*'", "+tags={desk: fx}")
    result = fit(cfg, RunContext(overrides=words))
    tags = MlflowClient(f"sqlite:///{here}/mlruns/mlflow.db").get_run(result.run_id).data.tags
    assert tags["desk"] == "fx"
    note = tags[NOTE]
    assert note.startswith("see \\*$A\\_TOKEN\\*\n\n### Result\n\n- best epoch ")
    assert f"**{result.best.values[0]:.6g}** val/loss" in note
    assert "- stopped: epochs" in note
    command = note[note.index("### This run again") :].splitlines()[2]
    again = shlex.split(command.removeprefix("    python train.py "))
    with ConfigSource(CONF).opened():
        composed = ConfigSource(CONF).compose(again)
    same = {key: value for key, value in plain(cfg).items() if key not in ("notes", "tags", "progress", "study")}
    assert same == {key: plain(composed)[key] for key in same}


def test_a_run_made_from_another_file_names_the_one_it_left(here: object, small: Callable[..., DictConfig]) -> None:
    result = fit(small("epochs=1"))
    note = MlflowClient(f"sqlite:///{here}/mlruns/mlflow.db").get_run(result.run_id).data.tags[NOTE]
    folder = f"{here}/mlruns/artifacts/{result.run_id}/artifacts"
    assert f"    python train.py --config-dir {folder} --config-name config" in note


def test_a_description_that_is_edited_while_the_run_trains_stays(
    here: object, small: Callable[..., DictConfig]
) -> None:
    client = MlflowClient(f"sqlite:///{here}/mlruns/mlflow.db")
    begun: list[str] = []

    def edit(epoch: Epoch) -> bool:
        client.set_tag(begun[0], NOTE, "mine")
        return False

    fit(small("epochs=1"), RunContext(on_start=begun.append, after_epoch=edit))
    tags = client.get_run(begun[0]).data.tags
    assert tags[NOTE] == "mine"
    assert tags["stop.reason"] == "epochs"


def test_a_run_that_goes_on_has_the_result_of_its_end_only(here: object, small: Callable[..., DictConfig]) -> None:
    client = MlflowClient(f"sqlite:///{here}/mlruns/mlflow.db")
    begun: list[str] = []

    def stop(epoch: Epoch) -> bool:
        if epoch.number == 1:
            raise Interrupted(signal.SIGINT)
        return False

    with pytest.raises(Interrupted):
        fit(small(), RunContext(on_start=begun.append, after_epoch=stop))
    first = client.get_run(begun[0]).data.tags[NOTE]
    assert "- best epoch " in first
    assert "- stopped: interrupted" in first
    name = client.get_run(begun[0]).info.run_name

    def look(epoch: Epoch) -> bool:
        assert "### Result" not in client.get_run(begun[0]).data.tags[NOTE]
        return False

    assert fit(small(), RunContext(resume=begun[0], after_epoch=look)).run_id == begun[0]
    last = client.get_run(begun[0])
    assert last.data.tags[NOTE].count("### Result") == 1
    assert "- stopped: epochs" in last.data.tags[NOTE]
    assert last.info.run_name == name
