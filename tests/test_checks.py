"""A composed config is held against what its keys take: every problem, a line each, and nothing written."""

from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import CONF
from omegaconf import DictConfig, OmegaConf

from tbptt.config.checks import keys, problems, unknown_key
from tbptt.config.moved import MOVED

Compose = Callable[..., DictConfig]

SHIPPED = [
    f"{group}={path.stem}"
    for group in ("data", "model", "optimizer", "schedule", "callback")
    for path in sorted((CONF / group).glob("*.yaml"))
]


@pytest.mark.parametrize("choice", SHIPPED)
def test_shipped_options_pass_their_own_checks(choice: str, config: Compose, here: Path) -> None:
    more = []
    if choice == "data=prices":
        Path("p.csv").write_text("a\n" + "".join(f"{i % 7}\n" for i in range(6000)))
        more = ["data.path=p.csv"]
    before = sorted(here.rglob("*"))
    assert problems(config(choice, *more)) == []
    assert sorted(here.rglob("*")) == before


@pytest.mark.parametrize("choice", SHIPPED)
def test_every_key_says_what_it_takes(choice: str, config: Compose) -> None:
    cfg = config(choice)
    known = {name: takes for name, _, _, takes in keys(cfg)}
    group, _, option = choice.partition("=")
    for leaf in OmegaConf.load(CONF / group / f"{option}.yaml"):
        if leaf != "defaults" and f"{group}.{leaf}" not in MOVED:  # which says the default of another key
            assert known[f"{group}.{leaf}"].text
    assert {"clip", "clip_mode", "epochs", "seed", "objective", "tracking.uri", "tracking.update_points"} <= set(known)


def test_every_problem_of_a_config_is_told_once(config: Compose, here: Path) -> None:
    cfg = config("clip=0", "epochs=0", "optimizer.lr=-1", "task.gamma=1", "schedule.chunks=[]", "tracking.uri=x")
    found = [line.split(": ")[0] for line in problems(cfg)]
    assert sorted(found) == ["clip", "epochs", "optimizer.lr", "schedule.chunks", "task.gamma", "tracking.uri"]


def test_key_outside_the_schema_is_told_with_the_nearest(config: Compose) -> None:
    cfg = config("+clip_mod=norm", "+model.dens=[1]", "+tracking.deep.er=1")
    lines = problems(cfg)
    assert [line.split(": ")[0] for line in lines] == ["model.dens", "tracking.deep.er", "clip_mod"]
    assert "did you mean model.dense?" in lines[0]
    assert "did you mean clip_mode?" in lines[2]


def test_only_a_near_name_is_suggested() -> None:
    assert unknown_key("optimizr", ["optimizer", "clip"]) == "optimizr: unknown key; did you mean optimizer?"
    assert unknown_key("zzz", ["optimizer", "clip"]) == "zzz: unknown key"


def test_wrong_data_does_not_hide_behind_chunks_nor_make_up_problems(config: Compose) -> None:
    lines = problems(config("data.length=0", "schedule.chunks=[30000]"))
    assert [line.split(": ")[0] for line in lines] == ["data.length"]


@pytest.mark.parametrize(("chunks", "fits"), [(119, True), (120, True), (121, False)])
def test_as_many_chunks_as_steps_fit_and_no_more(chunks: int, fits: bool, small: Compose) -> None:
    lines = problems(small(f"schedule.chunks=[{chunks},1]"))
    assert (lines == []) is fits


def test_series_that_never_changes_is_told(config: Compose, here: Path) -> None:
    Path("flat.csv").write_text("a,b\n" + "".join(f"{i % 7},5\n" for i in range(200)))
    (line,) = problems(
        config("data=prices", "data.path=flat.csv", "data.columns=[a,b]", "data.window=8", "task.horizon=3")
    )
    assert line.startswith("data.path: ")
    assert "b never changes" in line
    assert "5" in line


def test_value_that_refers_to_nothing_is_told_and_the_rest_still_checked(config: Compose) -> None:
    lines = problems(config("clip=${oc.env:TBPTT_NOWHERE}", "epochs=0"))
    assert [line.split(": ")[0] for line in lines] == ["clip", "epochs"]
    assert "TBPTT_NOWHERE" in lines[0]


def test_value_that_refers_to_another_is_checked_as_what_it_is(config: Compose) -> None:
    assert problems(config("eval_every=${epochs}")) == []
    (line,) = problems(config("clip=${task.fee}", "task.fee=0"))
    assert line.startswith("clip: got 0")


@pytest.mark.parametrize("device", ["cpu", "auto"])
@pytest.mark.parametrize(
    ("word", "line"),
    [
        ("precision=tf32", "precision: got 'tf32', which only GPUs have; takes 32 or bf16 here"),
        ("cuda_graphs=true", "cuda_graphs: got True, which only GPUs have; takes false here"),
    ],
)
def test_what_only_gpus_have_is_refused_without_one(
    config: Compose, here: Path, monkeypatch: pytest.MonkeyPatch, device: str, word: str, line: str
) -> None:
    for reason, lines in (("PyTorch sees none", [line]), (None, [line] if device == "cpu" else [])):
        monkeypatch.setattr("tbptt.config.checks.why_no_gpu", lambda reason=reason: reason)
        assert problems(config(word, f"device={device}")) == lines


@pytest.mark.parametrize("value", ["maybe", "1", "null", "on"])
def test_graphs_are_asked_for_in_three_words(config: Compose, value: str) -> None:
    (line,) = problems(config(f"cuda_graphs={value}"))
    assert line.startswith("cuda_graphs: got ")
    assert line.endswith("; takes one of true, false, auto")
    for word in ("cuda_graphs=auto", "cuda_graphs=false", "device=cpu"):
        assert problems(config(word, "device=cpu")) == [], "what only GPUs have is not asked for"


def test_a_graph_holds_no_step_that_does_not_say_that_it_can(config: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = config("cuda_graphs=true", "device=cuda")
    assert problems(cfg, here=False) == []  # another machine, with a GPU, will train
    monkeypatch.setattr("tbptt.training.options.Adam.capturable", False)
    (line,) = problems(cfg, here=False)
    assert line.startswith("cuda_graphs: got True, and optimizer=adam does not say that a graph can hold its step")
    assert problems(config("device=cuda"), here=False) == []
