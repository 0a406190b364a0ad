"""Configs are Hydra's, however they were composed."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from conftest import CONF
from hydra import compose
from omegaconf import DictConfig, OmegaConf, open_dict

from tbptt.config import compose as composing
from tbptt.config.compose import ConfigSource, composed
from tbptt.config.schema import register


@pytest.fixture(autouse=True)
def _files_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """And not taken from what other tests have read, in folders of theirs."""
    monkeypatch.setattr(composing, "_chosen", composing._chosen.__wrapped__)


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["clip=0.5", "optimizer=rmsprop", "optimizer.alpha=0.8"],
        ["optimizer.lr=0.5", "schedule=geometric", "schedule.start=7", "study.trial=3", "clip=null"],
        ["schedule.chunks=[1,2]", "tracking.uri=${oc.env:HOME}", "clip=1", "clip=2"],
        ["study/sampler=gp", "study.n_trials=3", "objective=[val/loss,train/loss]"],
        ["sweep=clip", "clip=3"],
        ["hydra.verbose=true", "clip=1"],
        ["++seed=4", "clip=1"],
    ],
    ids=" ".join,
)
def test_values_on_top_of_a_choice_are_what_hydra_composes(words: list[str]) -> None:
    register()
    source = ConfigSource(CONF)
    with source.opened():
        source.compose([words[0]] if words else [])  # something else before
        for _ in range(2):
            cfg, hydra = source.compose_both(words)
            expected = compose("config", words, return_hydra_config=True)
            assert OmegaConf.to_yaml(hydra) == OmegaConf.to_yaml(expected.hydra)
            assert OmegaConf.to_yaml(OmegaConf.create({"hydra": expected.hydra})) not in OmegaConf.to_yaml(cfg)
            assert OmegaConf.to_yaml(cfg) == OmegaConf.to_yaml(OmegaConf.masked_copy(expected, list(cfg)))
            assert OmegaConf.get_type(cfg, "optimizer") is OmegaConf.get_type(expected, "optimizer")


def test_a_config_that_was_changed_leaves_the_next_alone() -> None:
    register()
    source = ConfigSource(CONF)
    with source.opened():
        cfg = source.compose(["clip=1"])
        cfg.optimizer.lr = 5.0
        cfg.schedule.chunks.append(9)
        again = source.compose(["clip=2"])
    assert again.optimizer.lr != 5.0
    assert 9 not in again.schedule.chunks


GROUPS = ("optimizer", "schedule", "lr_schedule", "data", "task", "model")
VALUES = ["clip=0.25", "data.n_series=3", "schedule.chunks=[4,2,1]", "model.dense=[[3]]", "study.trial=7", "seed=1"]
OPTIONS = [[f"{group}={path.stem}" for path in sorted((CONF / group).glob("*.yaml"))] for group in GROUPS]
# Each option of each group once at least.
CHOICES = [[options[i % len(options)] for options in OPTIONS] for i in range(max(map(len, OPTIONS)))]
WRONG = ["optimizer.nonsense=1", "clip=abc", "schedule.chunks=[1,x]", "optimizer=nonsense", "clip={a:1}", "model=1"]
OTHERS = ["+tags={desk: fx}", "notes='${seed} of, it'", "tracking.uri=${oc.env:HOME}", "optimizer.lr=${clip}"]


@pytest.fixture
def whole(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Once called, Hydra composes every config anew, with all of its words."""

    @cache
    def composed_by_hydra(source: ConfigSource, words: tuple[str, ...]) -> tuple[DictConfig, DictConfig]:
        cfg = compose(source.name, list(words), return_hydra_config=True)
        hydra = OmegaConf.masked_copy(cfg, ["hydra"])
        with open_dict(cfg):
            del cfg["hydra"]
        return cfg, hydra

    return lambda: monkeypatch.setattr(composing, "_composed", composed_by_hydra)


def test_quick_or_whole_a_points_config_files_and_problems_are_the_same(
    whole: Callable[[], None], tmp_path: Path
) -> None:
    register()
    source = ConfigSource(CONF)
    points = [[*choice, VALUES[0], f"study.trial={i}"] for i, choice in enumerate(CHOICES)]
    points += [[*VALUES, *OTHERS[:3]], [*reversed(VALUES), OTHERS[3]], [*WRONG, VALUES[0]], WRONG[:1]]

    def all_of(folder: Path) -> list[tuple[str, list[str], list[str]]]:
        found = []
        for i, words in enumerate(points):
            cfg, lines = composed(source, words)
            text = "none" if cfg is None else OmegaConf.to_yaml(cfg) + str(OmegaConf.get_type(cfg.optimizer))
            files = []
            if cfg is not None:
                source.save(folder / str(i), words)
                files = [path.read_text() for path in sorted((folder / str(i)).glob("*.yaml"))]
            found.append((text, lines, files))
        return found

    with source.opened():
        quick = all_of(tmp_path / "quick")
    with source.opened():
        whole()
        slow = all_of(tmp_path / "slow")
    assert quick == slow
    assert sum(len(files) == 3 for _, _, files in quick) > len(points) / 2
    assert any(lines for _, lines, _ in quick)


def test_a_config_that_was_changed_leaves_the_next_of_the_same_words_alone() -> None:
    register()
    source, words = ConfigSource(CONF), ["schedule.chunks=[4,2]", "+tags={desk: fx}"]
    with source.opened():
        cfg, hydra = source.compose_both(words)
        cfg.schedule.chunks.append(9)
        cfg.tags.desk = "bonds"
        again = source.compose([*words, "seed=3"])
    assert again.schedule.chunks == [4, 2]
    assert again.tags.desk == "fx"
    assert hydra.overrides.task == words
