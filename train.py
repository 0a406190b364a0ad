"""Train one run, or with -m a sweep of them: python train.py --help"""

from tbptt.system import early  # first: what follows takes a third of a second

if __name__ == "__main__":
    early.end_quietly()

from pathlib import Path

import hydra
from omegaconf import DictConfig

from tbptt.cli.main import job, run
from tbptt.system.endings import leave

CONF = Path(__file__).resolve().parent / "conf"  # wherever this is called from, through links, too


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
def main(cfg: DictConfig) -> float | tuple[float, ...] | None:
    return job(cfg)


if __name__ == "__main__":
    leave(run(main, CONF))
