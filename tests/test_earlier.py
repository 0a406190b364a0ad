"""Defaults of conf/ that have changed: what was begun before goes on with those of then."""

import math
import shutil
from collections.abc import Callable, Iterator
from contextlib import chdir
from dataclasses import fields
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from conftest import CONF, ROOT, SMALL
from forked import command
from mlflow import MlflowClient
from omegaconf import DictConfig, OmegaConf

from tbptt.cli.command_line import checked
from tbptt.config import earlier
from tbptt.config.checks import as_before, keys
from tbptt.config.compose import CommandError, ConfigSource, composed, parsed
from tbptt.config.earlier import CHANGES, Change, earlier_words, with_what_was_done_then
from tbptt.config.plain import HEADER, rerunnable
from tbptt.config.schema import register
from tbptt.options.option import GROUPS, OF_A_RUN, default_of
from tbptt.options.own import is_own
from tbptt.studies.begun import as_begun
from tbptt.studies.best_of import best_of
from tbptt.studies.plan import Plan, make_plan
from tbptt.studies.planned import one_command, plan_of
from tbptt.studies.records import StudyRecord
from tbptt.studies.study import Study

STORAGE = "sqlite:///sweeps/optuna.db"
GRAPHS = "cuda_graphs=false"
RUN = [GRAPHS, "model.noise_from=pool", "lr_schedule=constant", "seed=2"]  # of any data
ARTICLE = [*RUN, "data.test_series=0"]
MARKET = [*RUN, "data.split=each", "data.test_fraction=0", "data.warm_steps=0", "task.gamma=0.99"]
FILE = [*RUN, "data.reading=plain", *MARKET[len(RUN) :]]
OLD = "gamma+clip-c753d64e"  # in tests/before/
OLD_WORDS = [
    *("data.gamma=0.8,0.9,0.95", "clip=2,0.05", *(w for w in SMALL if not w.startswith(("task.gamma", "epochs")))),
    *("device=cpu", "kernels=torch", "tracking.update_points=2", "epochs=4", "study.seeds=[0,1]"),
    *("study/pruner=asha", "study.pruner.reduction_factor=2"),
]


@pytest.fixture
def before(tmp_path: Path) -> Iterator[Path]:
    """A copy of what an earlier version began, as the working directory."""
    shutil.copytree(ROOT / "tests" / "before", tmp_path / "project")
    with chdir(tmp_path / "project"):
        register()
        yield tmp_path / "project"


def planned(*words: str) -> Plan:
    """What a command would run; without what is said about it."""
    source = ConfigSource(CONF)
    with source.opened():
        plan = make_plan(source, parsed(words)[0])
    return as_begun(plan, words)


# --- the table --------------------------------------------------------------------------------------------------------


def _value(cfg: DictConfig, key: str) -> Any:
    return OmegaConf.select(cfg, f"{key}.name" if key in GROUPS else key)


@pytest.mark.parametrize(
    "change", [c for step in CHANGES for c in step], ids=lambda c: "-".join([c.key, *c.options[:1]])
)
def test_what_the_table_says_of_a_default_is_in_conf_and_in_the_schema(
    change: Change, config: Callable[..., DictConfig]
) -> None:
    if change.group is None:
        assert _value(config(), change.key) == change.now
    newest = [c for step in CHANGES for c in step if (c.key, c.options) == (change.key, change.options)][-1]
    for option in change.options:
        cfg = config(f"{change.group}={option}", *(["data.path=x.csv"] if option == "prices" else []))
        assert _value(cfg, change.key) == newest.now
        with_it = composed_with(cfg, change.key, change.was)
        assert {change.key, f"{change.key}.name"} & as_before(with_it) or change.key == "task.gamma"
    assert {f.default for f in fields(GROUPS["task"]["q_values"]) if f.name == "gamma"} == {0.99}


def composed_with(cfg: DictConfig, key: str, value: Any) -> DictConfig:
    cfg = cfg.copy()
    OmegaConf.update(cfg, key, GROUPS[key][value](name=value) if key in GROUPS else value)
    return cfg


@pytest.mark.parametrize("group", OF_A_RUN)
def test_every_new_key_whose_default_in_conf_is_another_is_in_the_table(
    group: str, config: Callable[..., DictConfig]
) -> None:
    """Else studies that are older than the key would end."""
    for option, schema in GROUPS[group].items():
        if is_own(schema):
            continue
        cfg = config(f"{group}={option}", *(["data.path=x.csv"] if option == "prices" else []))
        new = {f"{group}.{f.name}": f for f in fields(schema) if f.metadata.get("new") and f.name != "name"}
        others = {key for key in new if OmegaConf.select(cfg, key) != default_of(new[key])}
        listed = {c.key for step in CHANGES for c in step if c.group == group and option in c.options}
        assert others <= listed
    assert len(list(keys(config()))) > 40


def test_words_undo_what_changed_and_nothing_else(config: Callable[..., DictConfig]) -> None:
    market = config("data=market")
    assert earlier_words(config(), []) == ARTICLE
    assert earlier_words(market, []) == MARKET
    assert earlier_words(market, ["data.warm_steps", "task.gamma"]) == MARKET[: len(RUN) + 2]
    assert earlier_words(market, ["data"], ["task.gamma"]) == MARKET[:-1]
    assert earlier_words(market, [], ["data"]) == RUN
    assert earlier_words(config("data=market", "task=forecast"), []) == MARKET[:-1]
    kept = [word for word in ARTICLE if not word.startswith("lr_schedule")]
    assert earlier_words(config("optimizer=sgd", "model=minlstm"), []) == kept
    # All optimizers had the same schedule then.
    assert sorted(earlier_words(config("optimizer=sgd"), [], ["optimizer"])) == sorted(ARTICLE)
    # When Adam had by_chunk and momentum did not, no word fits both.
    assert earlier_words(config("optimizer=momentum"), [], ["optimizer"], begun=4) == []
    assert earlier_words(config("optimizer=momentum"), [], begun=4) == ["lr_schedule=constant"]
    assert earlier_words(config("optimizer=adam"), [], begun=4) == []
    assert earlier_words(config(), ["lr_schedule"], ["model"]) == [GRAPHS, "seed=2", ARTICLE[-1]]
    of_a_file = composed_with(market, "data.test_fraction", 0.3)  # a file of the user's
    assert earlier_words(of_a_file, []) == [word for word in MARKET if word != "data.test_fraction=0"]
    assert earlier_words(config("data=market", *MARKET), []) == []
    assert earlier_words(market, [], begun=1) == MARKET[: len(RUN) + 1]
    assert earlier_words(market, [], begun=2) == RUN
    assert earlier_words(market, [], begun=len(CHANGES)) == []
    assert earlier_words(config("data=prices", "data.path=p.csv"), []) == FILE


def test_an_own_option_has_the_defaults_of_its_own_yaml(config: Callable[..., DictConfig]) -> None:
    cfg = config("data=market")
    OmegaConf.update(cfg, "data.name", "mine")
    assert earlier_words(cfg, []) == RUN


def test_a_default_that_changed_again_is_undone_as_far_as_the_study_is_old(
    config: Callable[..., DictConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    of = ("data", ("article",))
    steps = ((Change("data.test_series", *of, 0, 5),), (Change("data.val_series", *of, 2, 3),))
    monkeypatch.setattr(earlier, "CHANGES", (*steps, (Change("data.test_series", *of, 5, 12),)))
    assert earlier_words(config(), [], begun=0) == ["data.test_series=0", "data.val_series=2"]
    assert earlier_words(config(), [], begun=1) == ["data.test_series=5", "data.val_series=2"]
    assert earlier_words(config(), [], begun=2) == ["data.test_series=5"]
    assert earlier_words(config(), [], begun=3) == []


# --- studies ----------------------------------------------------------------------------------------------------------


def test_a_command_goes_on_with_the_study_that_it_began(before: Path, caplog: pytest.LogCaptureFixture) -> None:
    plan = planned(*OLD_WORDS)
    assert (plan.name, plan.earlier, plan.begun) == (OLD, tuple(ARTICLE), 0)
    assert plan.fixed[-len(ARTICLE) :] == tuple(ARTICLE)
    assert caplog.messages == [
        f"study {OLD}: was begun by an earlier version: it goes on with {' '.join(ARTICLE)} as then; study.fresh=true "
        "begins anew with today's defaults"
    ]


@pytest.mark.parametrize("more", ["study.fresh=true", "data.test_series=12", "data.val_series=3"])
def test_a_new_study_has_todays_defaults(more: str, before: Path, caplog: pytest.LogCaptureFixture) -> None:
    words = [w for w in OLD_WORDS if w.split("=")[0] != more.split("=")[0]]
    plan = planned(*words, more)
    assert plan.name != OLD
    assert (plan.earlier, plan.begun, plan.cfg.data.test_series) == ((), len(CHANGES), 12)
    assert caplog.messages == []


def test_a_study_with_todays_defaults_comes_before_the_one_that_an_earlier_version_began(before: Path) -> None:
    fresh = planned(*OLD_WORDS, "study.fresh=true")
    Study(fresh.name, STORAGE, ["val/loss"]).close()
    plan = planned(*OLD_WORDS)
    assert (plan.name, plan.earlier) == (fresh.name, ())


def test_a_study_that_was_begun_today_with_the_defaults_of_then_is_not_taken_for_an_earlier_one(here: Path) -> None:
    typed = planned("clip=1,2", *ARTICLE)
    study = Study(typed.name, STORAGE, ["val/loss"])
    StudyRecord.spec.write(study.optuna, typed.spec)
    StudyRecord.begun.write(study.optuna, typed.begun)
    study.close()
    plan = planned("clip=1,2")
    assert plan.name != typed.name
    assert plan.earlier == ()


def test_a_study_that_was_given_a_name_goes_on_too(before: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert planned(*OLD_WORDS, f"study.name={OLD}").earlier == tuple(ARTICLE)
    assert f"it goes on with {' '.join(ARTICLE)}" in caplog.text
    other = planned(*OLD_WORDS, "eval_every=4", f"study.name={OLD}")  # refused later, for what was typed alone
    assert other.earlier == tuple(ARTICLE)
    assert planned(*OLD_WORDS, "study.name=another").earlier == ()


def test_the_best_points_of_an_earlier_versions_study_are_trained_with_its_defaults(
    before: Path, caplog: pytest.LogCaptureFixture
) -> None:
    words = [w for w in OLD_WORDS if not w.startswith("study.seeds")]
    plan = planned(*words, f"study.best_of={OLD}", "study.seeds=[5,6]", "study.fresh=true")
    assert plan.earlier == tuple(ARTICLE)
    assert [c["trial"] for c in best_of(plan).trials]
    assert caplog.messages == [
        f"study {OLD}: was begun by an earlier version: what was chosen there is trained again with "
        f"{' '.join(ARTICLE)} as then"
    ]


def test_where_the_data_are_searched_it_is_said_that_defaults_have_changed(
    here: Path, caplog: pytest.LogCaptureFixture
) -> None:
    words = ["data=article,market", "data.window=64", *RUN]
    plan = planned(*words)
    study = Study(plan.name, STORAGE, ["val/loss"])
    StudyRecord.spec.write(study.optuna, plan.spec)
    assert caplog.messages == []
    assert planned(*words).earlier == ()
    (line,) = caplog.messages
    assert line.startswith(f"study {plan.name}: was begun with other defaults of data.test_series, data.test_fraction")
    StudyRecord.begun.write(study.optuna, len(CHANGES))
    study.close()
    caplog.clear()
    planned(*words)
    assert caplog.messages == []


def prices(path: Path, rows: int) -> None:
    lines = [f"{100 + 2 * math.sin(0.2 * t) + 0.03 * t:.2f},{50 + math.cos(0.35 * t):.2f}" for t in range(rows)]
    path.write_text("\n".join(["a,b", *lines]) + "\n")


def test_a_study_goes_on_to_which_todays_defaults_do_not_fit(here: Path) -> None:
    """A test part of a fifth leaves nothing to train on where 0.85 are held out."""
    prices(Path("prices.csv"), 200)
    words = ["data=prices", "data.path=prices.csv", "data.window=4", "task.horizon=8", "schedule=full", "clip=1,2"]
    words += ["data.val_fraction=0.85"]
    with pytest.raises(CommandError):
        checked(["-m", *words], CONF)
    was = planned(*words, *FILE)
    study = Study(was.name, STORAGE, ["val/loss"])
    StudyRecord.spec.write(study.optuna, was.spec)
    study.close()
    with one_command():
        assert checked(["-m", *words], CONF) == ["-m", *words]
        found = as_begun(plan_of(ConfigSource(CONF), words), words)
    assert (found.name, found.earlier) == (was.name, tuple(FILE))
    with pytest.raises(CommandError):
        checked(["-m", *words, "study.fresh=true"], CONF)
    with pytest.raises(CommandError, match="clip: got 'x'"):
        checked(["-m", *words[:-2], "clip=1,x", words[-1]], CONF)


# --- files that rerun a run -------------------------------------------------------------------------------------------


def test_a_file_that_reruns_a_run_has_what_was_done_then_for_what_it_does_not_say(before: Path) -> None:
    def cfg(*words: str) -> DictConfig:
        argv = checked(["--config-dir", f"sweeps/{OLD}", "--config-name", "best", *words], CONF)
        flags = dict(word.split("=", 1) for word in argv if word.startswith("--"))
        source = ConfigSource(Path(flags["--config-path"]), flags["--config-name"], CONF, shipped=CONF)
        with source.opened():
            found, wrong = composed(source, [word for word in argv if not word.startswith("--")])
        assert found is not None
        assert wrong == []
        return found

    then = cfg()
    assert (then.data.test_series, then.data.length, then.task.gamma) == (0, 120, 0.8)
    assert cfg("data.test_series=4").data.test_series == 4
    assert cfg("optimizer=sgd").data.test_series == 0
    assert cfg("optimizer=sgd").optimizer.name == "sgd"
    market = cfg("data=market", "data.gamma=0.9", "schedule=full")
    assert (market.data.test_fraction, market.data.warm_steps) == (0.2, 1000)  # of that, the file says nothing
    best = Path("sweeps", OLD, "best.yaml")
    best.write_text(best.read_text().replace(HEADER, "# mine\n"))
    assert cfg().data.test_series == 12


def test_a_whole_file_is_left_as_it_is(config: Callable[..., DictConfig], here: Path) -> None:
    text = rerunnable(config("data.test_series=7"))
    content = yaml.safe_load(text)
    assert with_what_was_done_then(content) == content
    Path("again.yaml").write_text(text)
    argv = checked(["--config-dir", ".", "--config-name", "again"], CONF)
    assert "--config-name=again" in argv
    assert "--config-name=again~" not in argv


def test_a_group_that_a_file_does_not_have_is_chosen_as_it_was_then() -> None:
    content = {"defaults": ["base", {"override data": "article"}, "_self_"], "data": {"name": "article", "window": 3}}
    found = with_what_was_done_then(content)
    assert found["defaults"] == [
        *(
            "base",
            {"override data": "article"},
            {"override task": "q_values"},
            {"override lr_schedule": "constant"},
            {"override callback": "none"},
            "_self_",
        )
    ]
    assert found["task"] == {"name": "q_values", "loss": "joint"}
    assert (found["data"]["window"], found["data"]["test_series"], found["data"]["surrogate"]) == (3, 0, None)
    assert "model" not in found
    for odd in ({}, {"defaults": "base", "data": 3}, {"data": {"name": ["x"]}, "defaults": []}):
        assert set(odd) <= set(with_what_was_done_then(odd))


def curve(folder: Path, newest: int) -> tuple[str, list[float]]:
    client = MlflowClient(f"sqlite:///{folder}/mlruns/mlflow.db")
    run = client.search_runs(["1"], order_by=["attributes.start_time DESC"])[newest].info.run_id
    points = sorted(client.get_metric_history(run, "val/loss"), key=lambda p: p.step)
    return run, [p.value for p in points]


def test_an_old_file_of_prices_reruns_to_the_same_losses(here: Path) -> None:
    prices(here / "prices.csv", 400)
    small = [w for w in SMALL if not w.startswith(("data.n_series", "data.val_series", "data.length", "task.gamma"))]
    words = [*small, "data=prices", "data.path=prices.csv", "task.horizon=8", "device=cpu", "kernels=torch"]

    def ran(*typed: str) -> None:
        process = command(here, *typed)
        process.join()
        assert process.exitcode == 0, Path("err").read_text()

    ran(*words, *FILE)
    run, losses = curve(here, 0)
    content = yaml.safe_load(next(Path("mlruns").rglob(f"{run}/artifacts/config.yaml")).read_text())
    for key in ("test_fraction", "warm_steps", "fold", "fold_window", "surrogate", "surrogate_seed"):
        del content["data"][key]
    Path("old.yaml").write_text(HEADER + yaml.safe_dump(content, sort_keys=False))
    ran("--config-dir", ".", "--config-name", "old")
    again, same = curve(here, 0)
    assert again != run
    assert same == losses
    Path("old.yaml").write_text(yaml.safe_dump(content, sort_keys=False))  # a config of one's own: today's defaults
    ran("--config-dir", ".", "--config-name", "old")
    assert curve(here, 0)[1] != losses


# --- whole commands ---------------------------------------------------------------------------------------------------


def test_a_fresh_study_is_trained_with_todays_defaults_beside_the_earlier_one(before: Path) -> None:
    was = {t.number: t.state for t in optuna.load_study(study_name=OLD, storage=STORAGE).trials}
    process = command(before, "-m", *OLD_WORDS, "study.fresh=true", "study.n_trials=1", outputs=before.parent)
    process.join()
    assert process.exitcode == 0, (before.parent / "err").read_text()
    assert "an earlier version" not in (before.parent / "err").read_text()
    fresh = planned(*OLD_WORDS, "study.fresh=true").name
    cfg = OmegaConf.load(Path("sweeps", fresh, "0", ".hydra", "config.yaml"))
    assert cfg.data.test_series == 12
    assert {t.number: t.state for t in optuna.load_study(study_name=OLD, storage=STORAGE).trials} == was
    assert Study.records(STORAGE)[fresh].begun == len(CHANGES)
