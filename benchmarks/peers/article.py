"""The work that all contenders of benchmarks/chunk_step.py share: the article's data and settings.

    python benchmarks/peers/article.py FOLDER [CHUNKS]

Writes the standardised inputs and targets of 15 series, CHUNKS (100) times 200 steps long, for those that do not
have this project's data pipeline.
"""

import sys
from pathlib import Path
from typing import cast

import numpy as np
from omegaconf import OmegaConf
from turns import STEPS

from tbptt.config.compose import ConfigSource
from tbptt.config.schema import Config, register
from tbptt.runs.datamodule import SequenceDataModule

CONF = Path(__file__).parents[2] / "conf"


def article(chunks: int) -> Config:
    """The default run, ``chunks`` updates an epoch, each on 200 steps of every series."""
    register()
    source = ConfigSource(CONF)
    with source.opened():
        cfg = source.compose(["schedule=fixed", f"schedule.chunks=[{chunks}]", f"data.length={chunks * STEPS}"])
    return cast(Config, OmegaConf.to_object(cfg))


def main() -> None:
    folder, chunks = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 100
    training = SequenceDataModule(article(chunks).data, article(chunks).task).training
    np.save(folder / "inputs.npy", training.features(0, training.length).contiguous().numpy())
    np.save(folder / "targets.npy", training.targets.contiguous().numpy())


if __name__ == "__main__":
    main()
