"""Did a network learn the clock? Series of the article's process that start at another time are predicted as well, or
they are not.

    python benchmarks/clock.py RUN [RUN ...] [--series N] [--uri URI]

All of the article's series start at t = 0, so a network could learn how large the waves are after so many steps, as the
clock does (``tbptt.evaluation.baselines``). A run (``data=article``; its id, or the path of a checkpoint) is evaluated,
with frozen weights and its own scale, on

- val: the series that its epochs were chosen by;
- N (48) series that it has not met, which start at t = 0 as its own;
- the same N series, with the same walks and noise, each started at a random time (``data.phase=random``).

Beside its loss are those of the run's training mean and of the clock that was fitted to its training series. A minute a
run. Train some runs with, for example

    python train.py optimizer=adam lr_schedule=constant clip=1.4 schedule=fixed 'schedule.chunks=[6]' epochs=40 seed=5
"""

import argparse
from dataclasses import replace
from typing import cast

from machine import machine
from omegaconf import OmegaConf
from torch import Tensor

from tbptt.data.options import ArticleData
from tbptt.data.prices import Prices
from tbptt.data.sequences import Sequences
from tbptt.data.split import load_split
from tbptt.evaluation.baselines import CLOCK, MEAN, baselines_of
from tbptt.evaluation.losses import measure_and_predict
from tbptt.serving.load import load_run
from tbptt.tasks.options import TaskConfig
from tbptt.tasks.prepare import of_rows, prepare


def loss_of(prediction: Tensor, of: Sequences) -> float:
    """Of a standardised prediction, (B, T, O)."""
    return float(of.loss(prediction, 0, of.length)) / of.count(0, of.length)


def lines(run: str, uri: str | None, count: int) -> list[str]:
    network, scaler, config = load_run(run, uri)
    data = OmegaConf.to_object(config.data)
    if not isinstance(data, ArticleData):
        raise SystemExit(f"{run}: got a run with data={config.data.name}; takes one with data=article")
    task = cast(TaskConfig, OmegaConf.to_object(config.task))
    prepared = prepare(data, task)
    baselines = baselines_of(prepared)

    def sequences(series: dict[str, Prices]) -> Sequences:
        return of_rows(series, {}, scaler, prepared.split.change_std, data, task)

    def fresh(phase: object) -> dict[str, Prices]:
        return load_split(replace(data, test_series=count, phase=phase), task).test

    found = []
    for name, series in (
        (f"val, {data.val_series} series", prepared.split.val),
        (f"{count} others, phase 0", fresh(0)),
        (f"the same {count}, phase random", fresh("random")),
    ):
        part = sequences(series)
        known = baselines.predict(part)
        mean, clock = loss_of(known[MEAN], part), loss_of(known[CLOCK], part)
        loss = loss_of(measure_and_predict(network, part, ())[1], part)
        found.append(f"  {name:<28}{mean:8.3f}{clock:8.3f}{loss:9.3f}{1 - loss / mean:9.3f}{1 - clock / mean:9.3f}")
    said = f"seed {config.seed}, data.phase={data.phase}"
    return [f"{run} ({said})", f"  {'':<28}    mean   clock  network  skill  clock's", *found]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", metavar="RUN")
    parser.add_argument("--series", type=int, default=48, help="how many that the run has not met (48)")
    parser.add_argument("--uri", help="the store of the runs, where it is not the default")
    options = parser.parse_args()
    print(machine())
    for run in options.runs:
        print("\n".join(lines(run, options.uri, options.series)), flush=True)


if __name__ == "__main__":
    main()
