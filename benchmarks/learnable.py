"""What can be learnt at all of the article's targets: a scale from nothing to everything, on which to read a loss.

    python benchmarks/learnable.py [--fee F ...] [--draws N] [OVERRIDE ...]

Held-out mean squared error, in the units of ``val/loss``, of

- the mean: predicting the training mean;
- a clock that sees no price: least squares on the number of the step (``tbptt.evaluation.baselines``);
- ridge regression on the inputs, the 128 changes, and on them and their absolute values;
- the same on how far the price is from its causal moving averages, exponential ones of LENGTHS, and on the absolute
  values of that; and also on the moving averages of these absolute values over MEMORY steps: how much the price has
  moved of late;
- an oracle that knows the price without its noise, past and future, and the price of now: the mean over ``--draws``
  (200) draws of all other noise, which with many draws nobody can beat who does not know the noise.

The penalty of a ridge regression is the one that does best on the last fifth of the training series.

Beside each loss that of the decision alone, the mean squared error of half of Q(buy) - Q(sell). The loss is the sum of
this and of that of the mean of both, which decides nothing.

For ``--fee`` 0 and 0.02, on the article's data or as overrides of ``data.*`` say: with ``data.phase=random`` no clock
helps. Two minutes.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from machine import machine
from numpy.typing import NDArray
from omegaconf import OmegaConf
from torch import Tensor

from tbptt.config.compose import ConfigSource
from tbptt.config.schema import register
from tbptt.data.options import ArticleData
from tbptt.data.prices import HELD_OUT, waves
from tbptt.data.sequences import Sequences
from tbptt.data.split import load_split
from tbptt.evaluation.baselines import CLOCK, MEAN, baselines_of
from tbptt.tasks.options import QValues
from tbptt.tasks.prepare import Prepared, prepare

CONF = Path(__file__).parents[1] / "conf"
PENALTIES = [10.0**k for k in range(-2, 9)]
LENGTHS = (2, 8, 32, 128)  # spans of the moving averages of the price
MEMORY = 1000
CHUNK = 1000  # steps at once

Inputs = Callable[[Sequences, int, int], Tensor]  # of the steps from start to stop: (B, K, D) float64


class Loss(NamedTuple):
    """Mean squared errors: of both outputs, and of half their difference."""

    both: float
    decision: float


def loss_of(prediction: Tensor, target: Tensor) -> Loss:
    """Of standardised outputs, (..., 2)."""
    wrong = prediction.double() - target.double()
    return Loss(float(wrong.square().mean()), float(((wrong[..., 0] - wrong[..., 1]) / 2).square().mean()))


# --- linear in something ---------------------------------------------------------------------------------------------


def changes(sequences: Sequences, start: int, stop: int) -> Tensor:
    return sequences.features(start, stop).double()


def and_absolute(sequences: Sequences, start: int, stop: int) -> Tensor:
    x = changes(sequences, start, stop)
    return torch.cat([x, x.abs()], dim=-1)


def averages_of(prices: NDArray[np.float64], memory: bool) -> NDArray[np.float64]:
    """Of prices (B, N), (B, N, D): what is said above of moving averages; that at a step knows nothing later."""
    import pandas as pd

    def average(values: NDArray[np.float64], span: int) -> NDArray[np.float64]:
        return pd.DataFrame(values.T).ewm(span=span).mean().to_numpy().T

    away = [prices - average(prices, span) for span in LENGTHS]
    moved = [np.abs(each) for each in away]
    return np.stack([*away, *moved, *([average(each, MEMORY) for each in moved] if memory else [])], axis=-1)


def moving_averages(data: Prepared, memory: bool) -> Inputs:
    """:func:`averages_of` as inputs, of variance 1 over the training series."""
    known, window = {}, data.split.window
    for sequences, series in ((data.train, data.split.train), (data.val, data.split.val)):
        prices = np.stack(list(series.values()))
        known[id(sequences)] = torch.from_numpy(averages_of(prices, memory)[:, window : window + sequences.length])
    scale = known[id(data.train)].flatten(0, 1).std(0)
    return lambda sequences, start, stop: known[id(sequences)][:, start:stop] / scale


def rows(sequences: Sequences, some: slice, inputs: Inputs) -> "list[tuple[Tensor, Tensor]]":
    """Inputs with a one behind them, and targets, of some of the series: (N, D), (N, 2), a span of time each."""
    found = []
    for start in range(0, sequences.length, CHUNK):
        stop = min(start + CHUNK, sequences.length)
        x = inputs(sequences, start, stop)[some].flatten(0, 1)
        y = sequences.targets[some, start:stop].double().flatten(0, 1)
        found.append((torch.cat([x, torch.ones(len(x), 1, dtype=torch.float64)], dim=1), y))
    return found


def sums(pairs: "list[tuple[Tensor, Tensor]]") -> tuple[Tensor, Tensor]:
    """What every penalty needs: XᵀX and Xᵀy."""
    return sum((x.T @ x for x, _ in pairs), torch.zeros(())), sum((x.T @ y for x, y in pairs), torch.zeros(()))


def solved(of: tuple[Tensor, Tensor], penalty: float) -> Tensor:
    """The weights; the constant is not penalised."""
    xx, xy = of
    ridge = penalty * torch.eye(len(xx), dtype=torch.float64)
    ridge[-1, -1] = 0
    return torch.linalg.solve(xx + ridge, xy)


def error(weights: Tensor, pairs: "list[tuple[Tensor, Tensor]]") -> Loss:
    return loss_of(torch.cat([x @ weights for x, _ in pairs]), torch.cat([y for _, y in pairs]))


def ridge_loss(data: Prepared, inputs: Inputs) -> Loss:
    """Held-out loss with the penalty that is best on training series that were left out of the fit."""
    fitted = slice(0, data.train.batch - max(1, data.train.batch // 5))
    some, tested = sums(rows(data.train, fitted, inputs)), rows(data.train, slice(fitted.stop, None), inputs)
    best = min(PENALTIES, key=lambda penalty: error(solved(some, penalty), tested).both)
    everything = slice(None)
    return error(solved(sums(rows(data.train, everything, inputs)), best), rows(data.val, everything, inputs))


# --- the oracle ------------------------------------------------------------------------------------------------------


def oracle_loss(settings: ArticleData, task: QValues, data: Prepared, draws: int) -> Loss:
    """Held-out loss of the mean over the noise, given the price without it and the price of now.

    Q_t(buy) + p_t and Q_t(sell) - p_t do not depend on the noise of now, only on what comes.
    """
    split = load_split(settings, task)
    held_out = np.stack(list(split.val.values()))[:, settings.window :]  # (B, N) prices from the first step on
    count, length = len(held_out), held_out.shape[1] + settings.window
    frequencies = (settings.frequencies[0], settings.frequencies[1])
    process: Any = {"seed": settings.seed, "frequencies": frequencies, "phase": settings.phase}
    clean = waves(count, length, part=HELD_OUT, **process)[:, settings.window :]
    random = np.random.default_rng(0)
    signs = np.array([1.0, -1.0])
    mean: Any = 0.0
    for _ in range(draws):
        noisy = np.round(clean + settings.noise_std * random.standard_normal(clean.shape), 2)
        mean = mean + (task.targets(noisy, split.change_std) + signs * noisy[:, :-1, None]) / draws
    prediction = torch.from_numpy(mean - signs * held_out[:, :-1, None])[:, : data.val.length]
    return loss_of(data.scaler.scale_targets(prediction), data.val.targets)


def losses_of(settings: ArticleData, task: QValues, data: Prepared, draws: int) -> dict[str, Loss]:
    known = baselines_of(data).predict(data.val)
    return {
        "the training mean": loss_of(known[MEAN], data.val.targets),
        "a clock that sees no price": loss_of(known[CLOCK], data.val.targets),
        "ridge regression on the inputs": ridge_loss(data, changes),
        "the same, and their absolute values": ridge_loss(data, and_absolute),
        "on distances from moving averages": ridge_loss(data, moving_averages(data, memory=False)),
        f"the same, and how they were over {MEMORY:,} steps": ridge_loss(data, moving_averages(data, memory=True)),
        f"an oracle, {draws} draws": oracle_loss(settings, task, data, draws),
    }


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
        losses = losses_of(settings, task, prepare(settings, task), options.draws)
        mean = losses["the training mean"]
        print(f"\nfee {fee:g}, phase {settings.phase}: held-out loss, and that of the decision alone, of")
        for name, (both, decision) in losses.items():
            shares = f"{1 - both / mean.both:6.1%} of the mean's explained", f"{1 - decision / mean.decision:6.1%}"
            print(f"  {name:<46}{both:8.4f}   {shares[0]} {decision:9.4f}   {shares[1]}", flush=True)


if __name__ == "__main__":
    main()
