"""Runs on data of which the answer is known, for calibration.py: what is trained with which settings, and the verdicts.

All rows train with the same words, WORDS, on prices that are 1,000 and the sum of changes so far. WORDS were chosen on
the AR(1) series of seeds 1000 to 1007, which no row uses, so that what is there is found; then they were left as they
are. Of these eight, "better than the mean" came out for

- 4 with ``epochs=15 schedule=fixed schedule.chunks=[50] optimizer.lr=0.003`` and the default window of 128 lags, whose
  superfluous inputs cost ridge regression a third of its skill, too;
- 2 with 100 chunks, 2 with ``optimizer.lr=0.01``, 0 of the seven that were run with 0.001;
- 8 with the first words and ``data.window=16``, where ridge regression has 8 as well.
"""

import atexit
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, cast

import numpy as np
from hydra import compose, initialize_config_dir
from numpy.typing import NDArray
from omegaconf import DictConfig, OmegaConf
from scipy.signal import lfilter

from tbptt.config.schema import register
from tbptt.evaluation.chance import Verdict, Word, block_length, skill
from tbptt.evaluation.compared import superior
from tbptt.evaluation.judged import judge
from tbptt.evaluation.results import Judged
from tbptt.runs.context import RunContext
from tbptt.runs.fit import Result, fit
from tbptt.runs.judging import STEPS, kept
from tbptt.serving.load import load_run
from tbptt.tasks.prepare import prepare

Array = NDArray[np.float64]

CONF = Path(__file__).parents[1] / "conf"
WORDS = (
    "epochs=15",
    "schedule=fixed",
    "schedule.chunks=[50]",
    "optimizer.lr=0.003",
    "data.window=16",
    "lr_schedule=constant",
)
FORECAST = ("task=forecast", "task.horizons=[1]")
Q_VALUES = ("task=q_values", "task.gamma=0.9")
SHUFFLED = "data.surrogate=shuffle"
PHI = 0.3
TRIALS = [  # the points of a study, typed after WORDS
    (f"optimizer.lr={lr}", f"clip={clip}", f"schedule.chunks=[{chunks}]")
    for lr in (0.0003, 0.001, 0.003, 0.01)
    for clip, chunks in ((1.0, 50), (0.1, 100), ("null", 20))
]
LEVEL = 0.05  # of Hansen's test


# --- data ------------------------------------------------------------------------------------------------------------


def autoregressive(rho: float, steps: int, seed: int) -> Array:
    """A stationary AR(1) series, (steps,), with mean 0."""
    noise = np.random.default_rng(seed).standard_normal(steps)
    noise[0] /= np.sqrt(1 - rho**2)
    return cast(Array, lfilter([1.0], [1.0, -rho], noise))


def walk(rows: int, seed: int, phi: float = 0.0) -> Array:
    """Prices, (rows,): 1,000 and the sum of changes so far, which are normal, or AR(1) with ``phi``."""
    return 1_000 + np.cumsum(autoregressive(phi, rows, seed))


@cache
def folder() -> Path:
    """Where this process keeps its runs, until it ends: MLflow's tables take seconds to make, and are made once."""
    made = tempfile.TemporaryDirectory(prefix="calibration-")
    atexit.register(made.cleanup)
    return Path(made.name)


def written(prices: Array) -> Path:
    path = folder() / "prices.csv"
    path.write_text("price\n" + "".join(f"{price!r}\n" for price in prices.tolist()))
    return path


# --- runs ------------------------------------------------------------------------------------------------------------


def composed(prices: Array, words: Sequence[str]) -> DictConfig:
    """The config of ``python train.py data=prices data.path=... WORDS words``."""
    register()
    store = f"tracking.uri=sqlite:///{folder() / 'mlruns' / 'mlflow.db'}"
    where = ("data=prices", f"data.path={written(prices)}", store, "device=cpu", "progress=none")
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", [*where, *WORDS, *words])


def artifacts(run: Result) -> Path:
    (found,) = (folder() / "mlruns").rglob(f"{run.run_id}/artifacts")
    return found


def arrays(run: Result) -> dict[str, Array]:
    """A run's losses step by step, by part and name, and the length of a block."""
    with np.load(artifacts(run) / STEPS) as file:
        return {name: file[name].astype(np.float64) for name in file.files}


def judged(prices: Array, *words: str) -> tuple[Result, Judged]:
    """Train a run, as ``python train.py`` does, and what it comes to."""
    run = fit(composed(prices, words), RunContext(show=False))
    content = kept(artifacts(run))
    assert content is not None, f"{run.run_id} ended by {run.stop_reason} without a best epoch"
    return run, Judged.of(content)


# --- verdicts --------------------------------------------------------------------------------------------------------


def q_values(prices: Array) -> dict[str, Verdict]:
    """Of the loss against the mean's, and of the profit against that of the best of long, short and flat."""
    _, found = judged(prices, *Q_VALUES)
    assert found.decision is not None
    return {"loss": found.skill["mean"], "decision": found.decision}


def forecast(prices: Array, *words: str) -> dict[str, Verdict]:
    """Of the loss against the mean's."""
    _, found = judged(prices, *FORECAST, *words)
    return {"loss": found.skill["mean"]}


def forecast_and_ridge(prices: Array) -> dict[str, Verdict]:
    """The same, and of ridge regression on the same inputs, for comparison."""
    run, found = judged(prices, *FORECAST)
    steps = arrays(run)
    ridge, mean = steps["test/ridge"], steps["test/mean"]
    return {"loss": found.skill["mean"], "ridge": skill(ridge, mean, block_length(mean - ridge, 2))}


def study(prices: Array) -> dict[str, Verdict]:
    """Is the best of 12 trials better than the mean on val, as 12 were tried? And is the chosen one better on test?

    The trials go through ``fit`` as those of a sweep do, without test; which points are tried does not depend on what
    came out, so Optuna has no part in it. The chosen trial, the one with the best epoch on val, is then judged on test
    as at the end of a sweep. Hansen's test has no interval: the estimate is its p-value, and the word "better than"
    where it is below 0.05. A block is as long as the median of the trials', as in a study's report.
    """
    configs = [composed(prices, [*FORECAST, *point]) for point in TRIALS]
    prepared = prepare(*(cast(Any, OmegaConf.to_object(configs[0][key])) for key in ("data", "task")))
    context = RunContext(show=False, test=False, prepare=lambda data, task: prepared)
    runs = [run for run in (fit(cfg, context) for cfg in configs) if run.best.value is not None]
    steps = [arrays(run) for run in runs]
    losses, mean = np.stack([each["val/loss"] for each in steps]), steps[0]["val/mean"]
    block = float(np.median([each["val/block"] for each in steps]))
    p = superior(losses, mean, block)
    word: Word = "too short to tell" if p is None else "better than" if p < LEVEL else "cannot be told from"
    chosen = min(runs, key=lambda run: cast(float, run.best.value))
    network, _, _ = load_run(artifacts(chosen) / "checkpoints" / "best.ckpt")
    result, _ = judge([network], prepared, with_test=True)
    return {
        f"SPA p < {LEVEL}": Verdict(np.nan if p is None else p, None, None, mean.size / block, word),
        "chosen trial on test": result.skill["mean"],
    }
