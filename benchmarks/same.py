"""Whether two source trees compute the same, bit for bit: what a change that should change no number is held against.

    python benchmarks/same.py BEFORE_SRC NOW_SRC [--only CONFIG ...]

Twelve small configs, which between them have every cell, optimizer, clip mode and schedule, run in both trees: by
commands only, ``train.py`` beside each ``src``, as the names of modules may differ. Compared are all curves in MLflow
but times, ``updates.parquet``, the weights in ``last.ckpt`` and ``best.ckpt``, how each run ended, and the trials of a
study. A metric ``val/NAME`` that only the second tree measures is no difference. On the CPU, about three minutes on two
cores. Exit status 1 if anything differs, or a command fails.
"""

import argparse
import os
import random
import re
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
import torch
from machine import machine
from pyarrow import parquet

COMMON = ["device=cpu", "progress=none", "data.window=16", "model.dense=[16]", "model.hidden=[16]", "eval_every=2"]
ARTICLE = ["data.n_series=4", "data.val_series=2", "data.length=1200", "data.gamma=0.9", "epochs=5"]
PRICES = ["data=prices", "data.path=prices.csv", "data.gamma=0.9", "epochs=5"]
SEARCH = "clip=tag(log,interval(0.01,10))"
STUDY, STOPPED = "a study, pruned", "stopped and resumed"
CONFIGS = {
    "sgd, no clip": [*ARTICLE, "optimizer=sgd", "clip=null"],
    "momentum, gru, value": [*ARTICLE, "optimizer=momentum", "model.cell=gru", "clip=0.02", "clip_mode=value"],
    "rmsprop, tensor_norm": [*ARTICLE, "optimizer=rmsprop", "clip=0.1", "clip_mode=tensor_norm", "schedule=fixed"],
    "adam, std, torch": [*ARTICLE, "optimizer=adam", "clip=1", "clip_mode=std", "kernels=torch"],
    "adamw, geometric": [
        *ARTICLE,
        "optimizer=adamw",
        "clip=0.05",
        "schedule=geometric",
        "schedule.start=20",
        "schedule.stages=3",
    ],
    "adagrad, gru, full": [*ARTICLE, "optimizer=adagrad", "model.cell=gru", "schedule=full", "kernels=torch"],
    "adadelta, two layers": [*ARTICLE, "optimizer=adadelta", "model.dense=[16,8]", "model.hidden=[16,8]"],
    "segments": [*ARTICLE, "data.length=6000", "clip=0.1", "schedule.chunks=[5,2,1]", "segment_length=400", "epochs=3"],
    "series of two lengths": [*PRICES, "schedule.chunks=[20,5]", "segment_length=40"],
    "bf16": [*ARTICLE, "precision=bf16"],
    STUDY: [*ARTICLE, "-m", SEARCH, "study.n_trials=6", "study.name=one", "study/pruner=asha"],
    STOPPED: [*ARTICLE, "data.length=3000", "schedule.chunks=[100,50,10,1]", "epochs=16"],
}

RUNS = """
SELECT run_uuid, artifact_uri, status,
    (SELECT count(*) FROM metrics m WHERE m.run_uuid = r.run_uuid AND m.key = 'val/loss')
FROM runs r JOIN experiments e USING (experiment_id) WHERE e.name = ? ORDER BY start_time, run_uuid
"""


@dataclass
class Left:
    """What one tree left of one config; empty with what a command said where it failed.

    Attributes:
        numbers: all that is compared, by name; a difference is named by it.
        layers: which layers computed.
        ends: how often its runs stopped for which reason.
    """

    numbers: dict[str, Any] = field(default_factory=dict)
    layers: str = ""
    ends: dict[str, int] = field(default_factory=dict)
    failure: str = ""


class Tree:
    """One source tree, and a folder in which it runs."""

    def __init__(self, source: Path, folder: Path):
        self.source, self.folder = source.resolve(), folder
        folder.mkdir()
        write_prices(folder / "prices.csv")

    def begin(self, name: str, words: list[str]) -> "subprocess.Popen[str]":
        command = [sys.executable, str(self.source.parent / "train.py"), *words, f"tracking.experiment={slug(name)}"]
        known = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_") and k != "PYTHONPATH"}
        environment = {**known, "PYTHONPATH": str(self.source), "CUDA_VISIBLE_DEVICES": ""}
        return subprocess.Popen(
            command, cwd=self.folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def run(self, name: str) -> Left:
        """Run a config; what it left."""
        words = [*COMMON, *CONFIGS[name]]
        process = self.begin(name, words)
        if name == STOPPED:
            self.stop_within(process, name)
            if failure := ended(process, 130):
                return Left(failure=failure)
            ((run_id, *_),) = self.query(RUNS, slug(name))
            process = self.begin(name, [f"resume={run_id}", "device=cpu", "progress=none"])
        return Left(failure=failure) if (failure := ended(process, 0)) else self.read(name)

    def stop_within(self, process: "subprocess.Popen[str]", name: str) -> None:
        """SIGINT once its third epoch is in the store."""
        while process.poll() is None and not any(epochs >= 3 for (*_, epochs) in self.query(RUNS, slug(name))):
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)

    def query(self, text: str, *values: str) -> list[tuple[Any, ...]]:
        """What the store of runs answers; nothing while it is not there."""
        path = self.folder / "mlruns" / "mlflow.db"
        if not path.exists():
            return []
        with closing(sqlite3.connect(path, timeout=60)) as opened:
            try:
                return opened.execute(text, values).fetchall()
            except sqlite3.OperationalError:  # its tables are being made
                return []

    def read(self, name: str) -> Left:
        left = Left()
        runs = self.query(RUNS, slug(name))
        for i, (run_id, uri, status, _) in enumerate(runs):
            tags = dict(self.query("SELECT key, value FROM tags WHERE run_uuid = ?", run_id))
            left.layers = tags.get("versions.kernels", left.layers)
            reason = tags.get("stop.reason", "none")
            left.ends[reason] = left.ends.get(reason, 0) + 1
            of = f"run {i}: " if len(runs) > 1 else ""
            left.numbers[f"{of}end"] = (status, reason, tags.get("baseline.val_loss"), tags.get("versions.kernels"))
            for key, points in self.curves(run_id).items():
                left.numbers[f"{of}{key}"] = points
            for key, value in weights_and_updates(Path(uri.removeprefix("file://"))):
                left.numbers[f"{of}{key}"] = value
        if name == STUDY:
            study = optuna.load_study(study_name="one", storage=f"sqlite:///{self.folder}/sweeps/optuna.db")
            left.numbers["trials"] = [(t.state.name, t.params, t.values, t.intermediate_values) for t in study.trials]
        return left

    def curves(self, run_id: str) -> dict[str, list[tuple[int, str]]]:
        """Each metric's points by step, as exact texts; without times."""
        found: dict[str, list[tuple[int, str]]] = {}
        query = "SELECT key, step, value, is_nan FROM metrics WHERE run_uuid = ? ORDER BY key, step, value"
        for key, step, value, is_nan in self.query(query, run_id):
            if "time/" not in key:
                found.setdefault(key, []).append((step, "nan" if is_nan else float(value).hex()))
        return found


def slug(name: str) -> str:
    """A config's name as that of an experiment."""
    return re.sub(r"\W+", "-", name)


def ended(process: "subprocess.Popen[str]", status: int) -> str:
    """Wait for a command; what it said, where it ended with another status."""
    _, said = process.communicate(timeout=300)
    if process.returncode == status:
        return ""
    return f"exit status {process.returncode} instead of {status}: {(said.strip().splitlines() or [''])[-1]}"


def weights_and_updates(artifacts: Path) -> Iterator[tuple[str, Any]]:
    """What a run's files hold, by name; of a study's parent run nothing."""
    table = artifacts / "updates.parquet"
    if table.exists():
        for name, column in parquet.read_table(table).to_pydict().items():
            yield f"updates.parquet {name}", list(map(repr, column))
    for name in ("last.ckpt", "best.ckpt"):
        path = artifacts / "checkpoints" / name
        if path.exists():
            for key, weight in torch.load(path, map_location="cpu", weights_only=True)["model"].items():
                yield f"{name} {key}", (tuple(weight.shape), str(weight.dtype), weight.flatten().tolist())


def write_prices(path: Path) -> None:
    """Two series, the second of which ends earlier."""
    step, prices, lines = random.Random(0), [100.0, 40.0], ["a,b"]
    for i in range(900):
        prices = [price + step.gauss(0, 0.3) for price in prices]
        lines.append(f"{prices[0]:.2f},{prices[1]:.2f}" if i < 700 else f"{prices[0]:.2f},")
    path.write_text("\n".join(lines) + "\n")


def differences(before: Left, now: Left) -> list[str]:
    """What differs between what two trees left, a line each."""
    if before.failure or now.failure:
        return [f"{which}: {left.failure}" for which, left in (("before", before), ("now", now)) if left.failure]
    if not before.numbers:
        return ["neither left anything"]
    names = dict.fromkeys([*before.numbers, *now.numbers])
    return [_one(n, before.numbers.get(n), now.numbers.get(n)) for n in names if _differ(n, before, now)]


def _differ(name: str, before: Left, now: Left) -> bool:
    if name in now.numbers and name not in before.numbers and "val/" in name:
        return False  # a metric of held-out predictions that is measured now: it changes no other number
    return bool(before.numbers.get(name) != now.numbers.get(name))


def _one(name: str, before: Any, now: Any) -> str:
    if before is None or now is None:
        return f"{name}: only {'now' if before is None else 'before'}"
    if isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        at = next(i for i, (a, b) in enumerate(zip(before, now, strict=True)) if a != b)
        return f"{name}: from its entry {at} of {len(before)} on: {before[at]} was, {now[at]} is"
    return f"{name}: {str(before)[:60]} was, {str(now)[:60]} is"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("before", type=Path, help="the src folder of the one tree")
    parser.add_argument("now", type=Path, help="that of the other")
    parser.add_argument("--only", nargs="+", choices=CONFIGS, default=list(CONFIGS), metavar="CONFIG")
    asked = parser.parse_args()
    began, wrong = time.perf_counter(), 0
    print(machine())
    print(f"{'config':24}{'layers':26}{'numbers':>8}  result", flush=True)
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(2) as pool:
        trees = [Tree(asked.before, Path(folder, "before")), Tree(asked.now, Path(folder, "now"))]
        for name in asked.only:
            before, now = pool.map(lambda tree, name=name: tree.run(name), trees)
            lines = differences(before, now)
            wrong += bool(lines)
            ends = ", ".join(f"{count} × {reason}" for reason, count in now.ends.items())
            result = f"{len(lines)} differ" if lines else f"equal ({ends})"
            print(f"{name:24}{now.layers:26}{len(now.numbers):>8}  {result}", flush=True)
            for line in lines[:5]:
                print(f"    {line}")
    print(f"{wrong} of {len(asked.only)} differ; {time.perf_counter() - began:.0f} s")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
