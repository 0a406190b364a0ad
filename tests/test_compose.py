"""Configs are Hydra's, however they were composed."""

import pytest
from conftest import CONF
from hydra import compose
from omegaconf import OmegaConf

from tbptt.config import compose as composing
from tbptt.config.compose import ConfigSource
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
