"""``python train.py`` and ``tbptt train``: Hydra's way into a run or a study."""

import sys
from collections.abc import Sequence
from pathlib import Path

import hydra
from omegaconf import DictConfig

from tbptt.cli.main import job, run


def train(cfg: DictConfig) -> float | tuple[float, ...] | None:
    """One run. It is defined here because Hydra names a job by its function's module."""
    return job(cfg)


def main(argv: Sequence[str], conf: Path) -> int:
    """Train what ``argv`` means and return the exit status (:func:`tbptt.cli.ending.ran`).

    Args:
        argv: flags and KEY=VALUE.
        conf: the folder of the shipped configs, absolute.
    """
    sys.argv[1:] = argv  # Hydra reads it
    return run(hydra.main(version_base="1.3", config_path=str(conf), config_name="config")(train), conf)
