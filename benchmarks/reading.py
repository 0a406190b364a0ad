"""A long file on its way to the network, against what pandas alone takes to read it.

    python benchmarks/reading.py [--rows N] [--rounds N]

The file has a row a minute: time, open, high, low, close, volume, VWAP and spread, as text and as Parquet. In every
round each contender is a process of its own, one after the other:

- pandas: ``read_csv`` with the times parsed, or ``read_parquet``; it is told which column has the times
- panel: ``data.prices()``, which finds out what the file holds, checks it and makes the series with five other inputs
- prepared: that, split, scaled, with targets, ready to train on

Prints processor time and the peak of memory above the imports, medians over the rounds, and the ratios to pandas.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from machine import machine

INPUTS = ["volume:log1p", "vwap:from_price", "high:from_price", "low:from_price", "spread"]
CONTENDERS = {
    "pandas": """
import pandas as pd
def work(path):
    return pd.read_parquet(path) if path.endswith("parquet") else pd.read_csv(path, parse_dates=["time"])
""",
    "panel": f"""
import torch
from tbptt.data.options import PricesData
def work(path):
    return PricesData(name="prices", path=path, reading="auto", split="time", inputs={INPUTS!r}).prices()
""",
    "prepared": f"""
import torch
from tbptt.data.options import PricesData
from tbptt.tasks.options import QValues
from tbptt.tasks.prepare import prepare
def work(path):
    data = PricesData(name="prices", path=path, reading="auto", split="time", inputs={INPUTS!r}, test_fraction=0.2)
    return prepare(data, QValues(name="q_values", gamma=0.9, fee=1.3, fee_unit="change_std", horizon="auto"))
""",
}
MEASURE = """
import json, sys, time
def peak():  # of this program alone; what getrusage says begins at the peak of the process that started it
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
import pandas, pyarrow.csv, pyarrow.parquet
before, began = peak(), time.process_time()
kept = work(sys.argv[1])
print(json.dumps([time.process_time() - began, (peak() - before) / 1e6]))
"""


def write(folder: Path, rows: int) -> list[Path]:
    random = np.random.default_rng(0)
    close = 100 + random.normal(0, 0.1, rows).cumsum()
    table = pd.DataFrame(
        {
            "time": pd.date_range("2015-01-01", periods=rows, freq="1min"),
            "open": close.round(2),
            "high": (close + 0.2).round(2),
            "low": (close - 0.2).round(2),
            "close": (close + 0.01 * random.normal(size=rows)).round(2),
            "volume": random.integers(1, 100_000, rows),
            "vwap": (close + 0.03).round(3),
            "spread": random.random(rows).round(4),
        }
    )
    paths = [folder / "prices.csv", folder / "prices.parquet"]
    table.to_csv(paths[0], index=False)
    table.to_parquet(paths[1])
    return paths


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    print(machine())
    with tempfile.TemporaryDirectory() as folder:
        for path in write(Path(folder), given.rows):
            found: dict[str, list[list[float]]] = {name: [] for name in CONTENDERS}
            for _ in range(given.rounds):
                for name, code in CONTENDERS.items():
                    done = [sys.executable, "-c", code + MEASURE, str(path)]
                    found[name].append(json.loads(subprocess.run(done, check=True, capture_output=True).stdout))
            print(f"\n{path.name}: {given.rows:,} rows × 8 columns, {path.stat().st_size / 1e6:.0f} MB")
            seconds = {name: statistics.median(s for s, _ in each) for name, each in found.items()}
            for name, each in found.items():
                memory = statistics.median(m for _, m in each)
                ratio = seconds[name] / seconds["pandas"]
                print(f"  {name:10} {seconds[name]:6.2f} s  {ratio:5.1f} × pandas  {memory:5.2f} GB")


if __name__ == "__main__":
    main()
