"""The work that all contenders of benchmarks/chunk_step.py share: the article's data and settings.

    python benchmarks/peers/article.py FOLDER [CHUNKS]

Writes the standardised inputs and targets of 15 series, CHUNKS (100) times 200 steps long, for those that do not
have this project's data pipeline, and the sizes of an update (sizes.json), of which its floor follows.
"""

import json
import sys
from pathlib import Path
from typing import cast

import numpy as np
from omegaconf import OmegaConf
from turns import STEPS

from tbptt.config.compose import ConfigSource
from tbptt.config.schema import Config, register
from tbptt.tasks.prepare import prepare

CONF = Path(__file__).parents[2] / "conf"


def article(chunks: int, cell: str = "lstm", optimizer: str = "adam") -> Config:
    """The default run, ``chunks`` updates an epoch, each on 200 steps of every series; ``cell`` and ``optimizer`` as in
    a config."""
    register()
    source = ConfigSource(CONF)
    with source.opened():
        size = [f"schedule.chunks=[{chunks}]", f"data.length={chunks * STEPS}", f"model.cell={cell}"]
        cfg = source.compose(["schedule=fixed", f"optimizer={optimizer}", *size])
    return cast(Config, OmegaConf.to_object(cfg))


def sizes(config: Config) -> dict[str, object]:
    """What ``update_flops`` of benchmarks/floor.py takes."""
    layers = {"dense": list(config.model.dense), "hidden": list(config.model.hidden)}
    outside = {"inputs": config.data.input_size, "outputs": config.task.outputs}
    return {"batch": config.data.n_series, "steps": STEPS, **outside, **layers}


def main() -> None:
    folder, chunks = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 100
    config = article(chunks)
    (folder / "sizes.json").write_text(json.dumps(sizes(config)))
    train = prepare(config.data, config.task).train
    np.save(folder / "inputs.npy", train.features(0, train.length).contiguous().numpy())
    np.save(folder / "targets.npy", train.targets.contiguous().numpy())


if __name__ == "__main__":
    main()
