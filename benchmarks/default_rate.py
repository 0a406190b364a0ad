"""Which learning-rate schedule suits each optimizer at the default settings, and whether the default works everywhere.

    python benchmarks/default_rate.py run [PART] [--optimizer NAME ...] [--share I/N]
    python benchmarks/default_rate.py table

A run is `python train.py optimizer=NAME` with the words of a rule, at full size (15 series of 20,000 steps, 50 epochs).
There are two parts, with seeds that have nothing in common:

- `choose`: every rule of RULES, seeds 0 to 2, the prices of data.seed=0. By these a rule is chosen for each optimizer.
- `confirm`: the rules of CONFIRMED, seeds 10 to 19, the prices of data.seed=1, 2 and 3. They had no part in choosing.

A run takes two minutes on one core. The study can be run in pieces and goes on where it was stopped: a run that
docs/results/default_rate.csv has is not made again. `--share 0/2` and `--share 1/2` divide the work between two
processes. `table` prints what the file has, as docs/learning_rate.md shows it.
"""

import argparse
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import trained
from hydra import compose, initialize_config_dir
from machine import machine
from pieces import keep, read

from tbptt.config.schema import register
from tbptt.evaluation.results import Judged
from tbptt.runs.context import RunContext
from tbptt.runs.epoch import Epoch
from tbptt.runs.fit import fit
from tbptt.runs.judging import kept

RESULTS = Path(__file__).parents[1] / "docs" / "results" / "default_rate.csv"

BY_CHUNK = "lr_schedule=by_chunk lr_schedule.cap=0.1"
CONSTANT = "lr_schedule=constant"
ROOT = "lr_schedule=by_chunk lr_schedule.power=0.5 lr_schedule.cap=null"
RULES = {
    "adam": (CONSTANT, BY_CHUNK),
    "adamw": (CONSTANT, BY_CHUNK),
    "rmsprop": (
        CONSTANT,
        BY_CHUNK,
        "lr_schedule=by_chunk lr_schedule.cap=null",
        "lr_schedule=by_chunk lr_schedule.power=0.5 lr_schedule.cap=0.3",
    ),
    "muon": (CONSTANT, ROOT),
    "momentum": (CONSTANT, ROOT),
    "sgd": (CONSTANT, ROOT),
    "adagrad": (CONSTANT, BY_CHUNK, "lr_schedule=by_chunk lr_schedule.cap=null"),
    "adadelta": (CONSTANT, BY_CHUNK, ROOT),
}
CONFIRMED = {
    "adam": (BY_CHUNK, CONSTANT),
    "adamw": (BY_CHUNK,),
    "muon": (CONSTANT,),
    "rmsprop": (CONSTANT,),
    "momentum": (ROOT,),
    "adagrad": (CONSTANT,),
    "adadelta": (CONSTANT,),
    "sgd": (CONSTANT,),
}


class Point(NamedTuple):
    """What is run once."""

    part: str
    optimizer: str
    rule: str
    seed: int
    data_seed: int

    @property
    def words(self) -> list[str]:
        return [f"optimizer={self.optimizer}", *self.rule.split(), f"seed={self.seed}", f"data.seed={self.data_seed}"]


COLUMNS = (
    *Point._fields,
    "val_mean",
    "val_best",
    "val_last",
    "best_epoch",
    "test_mean",
    "test",
    "advantage_r2",
    "seconds",
)


def points(part: str) -> Iterator[Point]:
    """In an order in which a study that is stopped has something of every optimizer, its first rules first."""
    rules, seeds, data_seeds = {
        "choose": (RULES, range(3), (0,)),
        "confirm": (CONFIRMED, range(10, 20), (1, 2, 3)),
    }[part]
    for place in range(max(map(len, rules.values()))):
        for seed in seeds:
            for data_seed in data_seeds:
                for optimizer, some in rules.items():
                    if place < len(some):
                        yield Point(part, optimizer, some[place], seed, data_seed)


def run(point: Point) -> dict[str, str]:
    """Train, and what the best epoch comes to on val and on test."""
    register()
    store = f"tracking.uri=sqlite:///{trained.folder() / 'mlruns' / 'mlflow.db'}"
    epochs: list[Epoch] = []

    def see(epoch: Epoch) -> bool:
        epochs.append(epoch)
        return False

    with initialize_config_dir(str(trained.CONF), version_base="1.3"):
        cfg = compose("config", [store, "device=cpu", "progress=none", *point.words])
    result = fit(cfg, RunContext(show=False, after_epoch=see))
    content = kept(trained.artifacts(result))
    assert content is not None, f"{point} ended by {result.stop_reason} without a best epoch"
    judged = Judged.of(content)
    assert judged.test is not None
    numbers = {
        "val_mean": judged.val.baselines["mean"],
        "val_best": judged.val.metrics["loss"],
        "val_last": epochs[-1].metrics.get("val/loss", float("nan")),
        "test_mean": judged.test.baselines["mean"],
        "test": judged.test.metrics["loss"],
        "advantage_r2": judged.test.metrics["advantage_r2"],
    }
    shown = {name: f"{value:.5f}" for name, value in numbers.items()}
    seconds = sum(epoch.metrics["time/epoch_seconds"] for epoch in epochs)
    times = {"best_epoch": str(result.best.epoch), "seconds": f"{seconds:.0f}"}
    return {**{name: str(value) for name, value in point._asdict().items()}, **shown, **times}


def table(lines: Sequence[dict[str, str]]) -> list[str]:
    """In Markdown: a line for each part, optimizer and rule, with losses as shares of the mean's."""
    heads = (
        "part",
        "optimizer",
        "rule",
        "runs",
        "test loss / mean's, median (range)",
        "best val",
        "last val",
        "at most half",
    )
    out = [f"| {' | '.join(heads)} |", "|---|---|---|--:|---|---|---|--:|"]
    cells: dict[tuple[str, str, str], list[dict[str, str]]] = {}
    for line in lines:
        cells.setdefault((line["part"], line["optimizer"], line["rule"]), []).append(line)
    for (part, optimizer, rule), mine in sorted(cells.items()):
        test, best, last = (
            [float(line[name]) / float(line[mean]) for line in mine]
            for name, mean in (("test", "test_mean"), ("val_best", "val_mean"), ("val_last", "val_mean"))
        )
        half = sum(value <= 0.5 for value in test)
        shown = [f"{statistics.median(v):.2f} ({min(v):.2f} to {max(v):.2f})" for v in (test, best, last)]
        out.append(f"| {part} | {optimizer} | `{rule}` | {len(mine)} | {' | '.join(shown)} | {half} of {len(mine)} |")
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "table"))
    parser.add_argument("part", nargs="?", choices=("choose", "confirm"))
    parser.add_argument("--optimizer", nargs="+")
    parser.add_argument("--share", default="0/1")
    given = parser.parse_args()
    if given.what == "table":
        print(*table(read(RESULTS)), sep="\n")
        return
    print(machine())
    first, of = map(int, given.share.split("/"))
    parts = [given.part] if given.part else ["choose", "confirm"]
    wanted = [p for part in parts for p in points(part) if not given.optimizer or p.optimizer in given.optimizer]
    for point in wanted[first::of]:
        there = {tuple(line[name] for name in Point._fields) for line in read(RESULTS)}
        if tuple(map(str, point)) not in there:
            line = run(point)
            keep(RESULTS, COLUMNS, [line])
            print(*line.values(), flush=True)


if __name__ == "__main__":
    main()
