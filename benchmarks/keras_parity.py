"""Does it matter where eps is? RMSprop and Adam trained as they are and with Keras's eps, seed by seed.

    python benchmarks/keras_parity.py [--only rmsprop|adam] [--seeds N] [OVERRIDE ...]

Both runs of a seed begin with the same weights and see the same data and noise; all else is WORDS, and overrides behind
them. Shown are the held-out loss of frozen weights, the mean of the last five epochs, of both, and the mean of their
difference over seeds with its 95 % interval (Student's t). ``tests/test_keras.py`` holds the second of each pair
against Keras itself. About five minutes on a core.
"""

import argparse
import statistics
from math import sqrt
from pathlib import Path
from typing import Any, cast

import torch
from keras_eps import as_keras
from machine import machine
from omegaconf import DictConfig, OmegaConf
from scipy.stats import t

from tbptt.config.compose import ConfigSource
from tbptt.config.schema import register
from tbptt.evaluation.losses import evaluate
from tbptt.models.build import build_network
from tbptt.tasks.prepare import Prepared, prepare
from tbptt.training.chunks import train_pass
from tbptt.training.flat import FlatParameters
from tbptt.training.optimizers import optimizer_of
from tbptt.training.options import OptimizerConfig

CONF = Path(__file__).parents[1] / "conf"
WORDS = ("data.length=4000", "schedule=fixed", "schedule.chunks=[5]", "epochs=20", "optimizer.lr=0.003", "clip=1.0")
OPTIMIZERS = ("rmsprop", "adam")
LAST = 5  # epochs


def trained(cfg: DictConfig, data: Prepared, seed: int, keras: bool) -> float:
    """Train one network; its held-out loss, the mean of the last epochs."""
    torch.manual_seed(seed)
    network = build_network(cast(Any, OmegaConf.to_object(cfg.model)), cfg.data.window, data.task.outputs)
    parameters = FlatParameters(network)
    optimizer = optimizer_of(cast(OptimizerConfig, OmegaConf.to_object(cfg.optimizer)), parameters)
    optimizer = as_keras(optimizer) if keras else optimizer
    losses = []
    for _ in range(cfg.epochs):
        (chunks,) = cfg.schedule.chunks
        train_pass(network, parameters, optimizer, data.train, chunks, clip=cfg.clip, clip_mode=cfg.clip_mode)
        losses.append(evaluate(network, data.val).item())
    return statistics.mean(losses[-LAST:])


def interval(differences: list[float]) -> str:
    """Their mean, and half the width of its 95 % interval."""
    n = len(differences)
    half = float(t.ppf(0.975, n - 1)) * statistics.stdev(differences) / sqrt(n)
    return f"{statistics.mean(differences):+.4f} ± {half:.4f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=OPTIMIZERS, help="one of the two")
    parser.add_argument("--seeds", type=int, default=6, help="0 to N - 1 (6)")
    parser.add_argument("overrides", nargs="*", help="of the config")
    options = parser.parse_args()
    torch.set_num_threads(1)
    register()
    print(machine())
    source = ConfigSource(CONF)
    for name in (options.only,) if options.only else OPTIMIZERS:
        with source.opened():
            cfg = source.compose([f"optimizer={name}", *WORDS, *options.overrides])
        data = prepare(cast(Any, OmegaConf.to_object(cfg.data)), cast(Any, OmegaConf.to_object(cfg.task)))
        print(f"\n{name}: held-out loss (predicting the mean: {data.baseline:.3f})", flush=True)
        differences = []
        for seed in range(options.seeds):
            own, keras = (trained(cfg, data, seed, keras) for keras in (False, True))
            differences.append(keras - own)
            print(f"  seed {seed}   {own:.4f}   with Keras's eps {keras:.4f}   {keras - own:+.4f}", flush=True)
        print(f"  with Keras's eps higher by {interval(differences)}")


if __name__ == "__main__":
    main()
