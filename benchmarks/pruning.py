"""What pruning saves and what it costs, replayed on real loss curves.

    python benchmarks/pruning.py [SEEDS]

benchmarks/data/curves.json holds the held-out loss of every epoch of the trials of an unpruned random search (the file
says which). Each seed shuffles them and runs them through Optuna's ask and tell with each pruner: a trial costs the
epochs it was given. Prints, over the seeds, the share of the epochs used and how far the best value lies above the
unpruned search's.
"""

import json
import random
import statistics
import sys
from pathlib import Path

import optuna
from optuna.trial import TrialState

from tbptt.config.schema import PrunerConfig
from tbptt.options.option import GROUPS
from tbptt.studies.samplers import build_pruner

CURVES = Path(__file__).parent / "data" / "curves.json"


def replay(curves: list[list[float]], pruner: optuna.pruners.BasePruner, seed: int) -> tuple[float, float]:
    """Share of the epochs used, and the best value found over the best there is."""
    order = list(curves)
    random.Random(seed).shuffle(order)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed), pruner=pruner)
    used = 0
    for curve in order:
        trial = study.ask()
        for epoch, value in enumerate(curve):
            used += 1
            trial.report(value, epoch)
            if epoch < len(curve) - 1 and trial.should_prune():
                study.tell(trial, state=TrialState.PRUNED)
                break
        else:
            study.tell(trial, min(curve))
    return used / sum(map(len, order)), study.best_value / min(map(min, order))


def main() -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    seeds = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    saved = json.loads(CURVES.read_text())
    curves = saved["val/loss"]
    print(f"{len(curves)} trials of {max(map(len, curves))} epochs: {saved['command']}")
    print(f"{'pruner':<12}{'epochs used, of all':>24}{'best, over the unpruned best':>34}")
    for name in ("none", "auto", "asha", "hyperband"):
        schema = GROUPS["study/pruner"]["median" if name == "auto" else name]
        config: PrunerConfig = schema(name="median" if name == "auto" else name)
        results = [replay(curves, build_pruner(config, max(map(len, curves)), False), seed) for seed in range(seeds)]
        share, best = zip(*results, strict=True)
        print(
            f"{config.name:<12}{statistics.median(share):>10.1%} ({min(share):.1%}-{max(share):.1%})"
            f"{statistics.median(best) - 1:>18.2%} ({min(best) - 1:.2%}-{max(best) - 1:.2%})"
        )


if __name__ == "__main__":
    main()
