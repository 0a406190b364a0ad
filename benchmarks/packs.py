"""Finished trials an hour of a study of tiny trials: two processes that train one at a time, one pack, and two packs.

    python benchmarks/packs.py [--trials N] [--epochs N] [--rounds N] [--json FILE]

Real commands in temporary folders, in turn: start-up, stores and reports included. 4 series of 500 steps, the default
network, 10 epochs and 128 trials unless said otherwise, about seven minutes a round. The rate without what a study has
once is the difference between this study and one of an eighth of its trials.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from machine import machine
from throughput import clips, cpu_of_children

TRAIN = Path(__file__).parents[1] / "train.py"
WAYS = {
    "2 workers, one trial each": ["study.workers=2", "study.pack=1"],
    "1 worker, a pack of 16": ["study.workers=1", "study.pack=16"],
    "2 workers, packs of 16": ["study.workers=2", "study.pack=16"],
}


def seconds(way: list[str], trials: int, epochs: int) -> tuple[float, float]:
    """Seconds, and seconds of processor time, of a study of so many trials. Raises where not all trials finished."""
    words = ["data.n_series=4", "data.length=500", f"epochs={epochs}", "progress=none", *way]
    with tempfile.TemporaryDirectory() as folder:
        cpu, began = cpu_of_children(), time.perf_counter()
        command = [sys.executable, str(TRAIN), "-m", clips(trials), *words]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        took = time.perf_counter() - began, cpu_of_children() - cpu
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr}")
    return took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--json", type=Path)
    size = parser.parse_args()
    few = max(2, size.trials // 8)
    found: dict[str, dict[str, list[tuple[float, float]]]] = {name: {"few": [], "all": []} for name in WAYS}
    for _ in range(size.rounds):
        for name, way in WAYS.items():
            for which, trials in (("few", few), ("all", size.trials)):
                found[name][which].append(seconds(way, trials, size.epochs))
    print(machine())
    print(f"{size.trials} trials of {size.epochs} epochs, medians of {size.rounds}\n")
    print("| | trials an hour | without start and end | times as many | processor seconds a trial |")
    print("|---|--:|--:|--:|--:|")
    first: float | None = None
    for name, both in found.items():
        whole, cpu = (statistics.median(each[i] for each in both["all"]) for i in (0, 1))
        some = statistics.median(each[0] for each in both["few"])
        rate, steady = 3600 * size.trials / whole, 3600 * (size.trials - few) / (whole - some)
        first = first or steady
        print(f"| {name} | {rate:,.0f} | {steady:,.0f} | {steady / first:.2f} | {cpu / size.trials:.2f} |")
    if size.json:
        content: dict[str, Any] = {"machine": machine(), "trials": size.trials, "epochs": size.epochs, "seconds": found}
        size.json.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
