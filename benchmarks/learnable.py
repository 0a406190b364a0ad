"""What can be learnt at all of the article's targets: a scale from nothing to everything, on which to read a loss.

    python benchmarks/learnable.py [--fee F ...] [--draws N] [OVERRIDE ...]

Held-out mean squared error, in the units of ``val/loss``, of

- the mean: predicting the training mean;
- ridge regression on the inputs, the 128 changes, and on them and their absolute values; its penalty is the one that
  does best on the last fifth of the training series;
- an oracle that knows the price without its noise, past and future, and the price of now: the mean over ``--draws``
  (200) draws of all other noise, which with many draws nobody can beat who does not know the noise.

For ``--fee`` 0 and 0.02, on the article's data or as overrides of ``data.*`` say. A minute.
"""

import argparse
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from machine import machine
from omegaconf import OmegaConf
from torch import Tensor

from tbptt.config.compose import ConfigSource
from tbptt.config.schema import register
from tbptt.data.options import ArticleData
from tbptt.data.prices import HELD_OUT, waves
from tbptt.data.sequences import Sequences
from tbptt.data.split import load_split
from tbptt.tasks.options import QValues
from tbptt.tasks.prepare import Prepared, prepare

CONF = Path(__file__).parents[1] / "conf"
PENALTIES = [10.0**k for k in range(-2, 9)]
CHUNK = 1000  # steps at once


def rows(sequences: Sequences, some: slice, absolute: bool) -> "list[tuple[Tensor, Tensor]]":
    """Inputs with a one behind them, and targets, of some of the series: (N, D), (N, 2), a span of time each."""
    found = []
    for start in range(0, sequences.length, CHUNK):
        stop = min(start + CHUNK, sequences.length)
        x = sequences.features(start, stop)[some].double().flatten(0, 1)
        split = [x, x.abs()] if absolute else [x]
        y = sequences.targets[some, start:stop].double().flatten(0, 1)
        found.append((torch.cat([*split, torch.ones(len(x), 1, dtype=torch.float64)], dim=1), y))
    return found


def ridge(sequences: Sequences, some: slice, absolute: bool) -> tuple[Tensor, Tensor]:
    """The sums that every penalty needs: XᵀX and Xᵀy."""
    pairs = rows(sequences, some, absolute)
    return sum((x.T @ x for x, _ in pairs), torch.zeros(())), sum((x.T @ y for x, y in pairs), torch.zeros(()))


def solved(sums: tuple[Tensor, Tensor], penalty: float) -> Tensor:
    """The weights; the constant is not penalised."""
    xx, xy = sums
    ridge = penalty * torch.eye(len(xx), dtype=torch.float64)
    ridge[-1, -1] = 0
    return torch.linalg.solve(xx + ridge, xy)


def error(weights: Tensor, sequences: Sequences, some: slice, absolute: bool) -> float:
    """Mean squared error."""
    pairs = rows(sequences, some, absolute)
    total = sum(float((x @ weights - y).square().sum()) for x, y in pairs)
    return total / sum(y.numel() for _, y in pairs)


def ridge_loss(data: Prepared, absolute: bool) -> float:
    """Held-out loss with the penalty that is best on training series that were left out of the fit."""
    left_out = max(1, data.train.batch // 5)
    fitted, tested = slice(0, data.train.batch - left_out), slice(data.train.batch - left_out, None)
    sums = ridge(data.train, fitted, absolute)
    best = min(PENALTIES, key=lambda penalty: error(solved(sums, penalty), data.train, tested, absolute))
    everything = slice(None)
    return error(solved(ridge(data.train, everything, absolute), best), data.val, everything, absolute)


def oracle_loss(settings: ArticleData, task: QValues, data: Prepared, draws: int) -> float:
    """Held-out loss of the mean over the noise, given the price without it and the price of now.

    Q_t(buy) + p_t and Q_t(sell) - p_t do not depend on the noise of now, only on what comes.
    """
    split = load_split(settings, task)
    held_out = np.stack(list(split.val.values()))[:, settings.window :]  # (B, N) prices from the first step on
    count, length = len(held_out), held_out.shape[1] + settings.window
    frequencies = (settings.frequencies[0], settings.frequencies[1])
    clean = waves(count, length, seed=settings.seed, part=HELD_OUT, frequencies=frequencies)[:, settings.window :]
    random = np.random.default_rng(0)
    signs = np.array([1.0, -1.0])
    mean: Any = 0.0
    for _ in range(draws):
        noisy = np.round(clean + settings.noise_std * random.standard_normal(clean.shape), 2)
        mean = mean + (task.targets(noisy, split.change_std) + signs * noisy[:, :-1, None]) / draws
    prediction = torch.from_numpy(mean - signs * held_out[:, :-1, None])[:, : data.val.length]
    scaled = data.scaler.scale_targets(prediction)
    return float((scaled - data.val.targets.double()).square().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fee", type=float, nargs="+", default=[0.0, 0.02])
    parser.add_argument("--draws", type=int, default=200, help="of the oracle (200)")
    parser.add_argument("overrides", nargs="*", help="of data.*")
    options = parser.parse_args()
    register()
    print(machine())
    source = ConfigSource(CONF)
    for fee in options.fee:
        with source.opened():
            cfg = source.compose([f"task.fee={fee}", *options.overrides])
        settings = cast(ArticleData, OmegaConf.to_object(cfg.data))
        task = cast(QValues, OmegaConf.to_object(cfg.task))
        data = prepare(settings, task)
        print(f"\nfee {fee:g}: held-out loss of")
        losses = {
            "the training mean": data.baseline,
            "ridge regression on the inputs": ridge_loss(data, absolute=False),
            "the same, and their absolute values": ridge_loss(data, absolute=True),
            f"an oracle, {options.draws} draws": oracle_loss(settings, task, data, options.draws),
        }
        for name, loss in losses.items():
            print(f"  {name:<38}{loss:8.4f}   {1 - loss / data.baseline:6.1%} of the mean's explained")


if __name__ == "__main__":
    main()
