"""What makes a search a placebo study: each trial has a surrogate of the data, and the surrogates differ in their
seed."""

from collections.abc import Collection, Sequence

from omegaconf import DictConfig

from tbptt.studies.space import IntRange

SURROGATE_SEED = "data.surrogate_seed"
MOST = 20_000  # surrogates: each is put in the queue beforehand
SEEDS = IntRange(SURROGATE_SEED, SURROGATE_SEED, (), 0, MOST - 1)  # a dimension of its space


def on_surrogates(cfg: DictConfig, fixed: Sequence[str], swept: Collection[str]) -> tuple[list[str], list[str]]:
    """The fixed overrides of a placebo study, with ``data.surrogate`` among them, and one line per error.

    Args:
        cfg: the config of some point.
        fixed: the overrides of the search, without the swept keys.
        swept: the keys that it searches.
    """
    lines = [
        f"{key}: swept, and study.placebo_of trains on one kind of surrogate with seeds from 0; takes no sweep"
        for key in ("data.surrogate", SURROGATE_SEED)
        if key in swept
    ]
    if any(word.startswith(f"{SURROGATE_SEED}=") for word in fixed):
        lines.append(f"{SURROGATE_SEED}: typed beside study.placebo_of, which counts it from 0; leave it out")
    if cfg.study.best_of is not None:
        lines.append(f"study.placebo_of: got {cfg.study.placebo_of!r} beside study.best_of; takes one of the two")
    return [*fixed, *([] if cfg.data.surrogate is not None else ["data.surrogate=shuffle"])], lines
