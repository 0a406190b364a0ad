"""How often the verdicts are wrong where the truth is known.

    python benchmarks/calibration.py ROW [--seeds 0:1000]
    python benchmarks/calibration.py table

A row makes data of which the answer is known, once a seed, and asks for the verdict. It can be run in pieces, also at
the same time, and goes on where it was stopped: a seed that docs/results/calibration.csv has is not run again. Every
interval goes to that file, and each line that is printed, with its machine, to benchmarks/results/calibration.txt.
`table` prints the whole of what the file has as docs/evaluation.md shows it: how many verdicts of each word, the share
of "better than" with its exact 95 % interval, and whether it is what must come out.

What the rows train, with which settings, is in trained.py.

To add a row: a function from a seed to the verdict of each of its cases, and an entry of ROWS.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
import trained
from machine import machine
from pieces import keep, read
from scipy.stats import binomtest
from trained import autoregressive, walk

from tbptt.evaluation.chance import FEWEST, Verdict, Word, against_chance

BETTER: Word = "better than"
HERE = Path(__file__).parent
EVERY_INTERVAL = HERE.parent / "docs" / "results" / "calibration.csv"
PRINTED = HERE / "results" / "calibration.txt"
COLUMNS = ("row", "case", "seed", "word", "estimate", "low", "high", "observations")


@dataclass(frozen=True)
class Row:
    """What is tried once a seed, and for how many of the seeds "better than" may come out."""

    verdicts: Callable[[int], dict[str, Verdict]]  # from a seed: case -> verdict
    seeds: int
    most: int | None = None
    least: int | None = None
    for_comparison: tuple[str, ...] = ()  # cases of which nothing must come out

    def must(self, case: str) -> str:
        if (self.most is None and self.least is None) or case in self.for_comparison:
            return "no limit"
        return f"at most {self.most:,}" if self.least is None else f"at least {self.least:,}"

    def holds(self, better: int, short: int) -> bool:
        """A seed that is too short to tell counts against the row: as a wrong "better", or as one that was missed."""
        enough = self.least is None or better >= self.least
        return enough and (self.most is None or better + short <= self.most)


def test_function(seed: int) -> dict[str, Verdict]:
    """The mean of AR(1) noise, 30 blocks long, for each γ; the block length is the shortest that is used, 2/(1-γ)."""
    out = {}
    for gamma in (0.9, 0.99):
        block = 2 / (1 - gamma)
        noise = autoregressive(gamma, round(FEWEST * block), seed)
        out[f"γ = {gamma}"] = against_chance(noise, np.ones_like(noise), block)
    return out


def independent_series(seed: int) -> dict[str, Verdict]:
    """The mean of 12 independent values with mean 0: normal ones, and ones with one long tail."""
    random = np.random.default_rng(seed)
    long_tail = random.standard_exponential(12) - 1
    cases = {
        "normal": random.standard_normal(12),
        "a few large gains": long_tail,
        "a few large losses": -long_tail,
    }
    return {case: against_chance(values, np.ones(12), None) for case, values in cases.items()}


ROWS = {
    "test-function": Row(test_function, 1_000, most=90),
    "independent-series": Row(independent_series, 1_000),
    "walks-q": Row(lambda seed: trained.q_values(walk(8_000, seed)), 40, most=4),
    "walks-forecast": Row(lambda seed: trained.forecast(walk(3_000, seed)), 40, most=4),
    "walks-study": Row(lambda seed: trained.study(walk(3_000, seed)), 20, most=3),
    "ar": Row(
        lambda seed: trained.forecast_and_ridge(walk(5_000, seed, trained.PHI)),
        40,
        least=32,
        for_comparison=("ridge",),
    ),
    "ar-shuffled": Row(lambda seed: trained.forecast(walk(5_000, seed, trained.PHI), trained.SHUFFLED), 40, most=4),
}


def run(name: str, seeds: range) -> None:
    """Run what is not in the file yet, a seed at a time, each written at once."""
    there = {int(line["seed"]) for line in read(EVERY_INTERVAL) if line["row"] == name}
    for seed in seeds:
        if seed not in there:
            keep(
                EVERY_INTERVAL,
                COLUMNS,
                [as_line(name, case, seed, verdict) for case, verdict in ROWS[name].verdicts(seed).items()],
            )


def as_line(name: str, case: str, seed: int, verdict: Verdict) -> dict[str, str]:
    numbers = {key: getattr(verdict, key) for key in ("estimate", "low", "high", "observations")}
    shown = {key: "" if value is None else f"{value:.6g}" for key, value in numbers.items()}
    return {"row": name, "case": case, "seed": str(seed), "word": verdict.word, **shown}


@dataclass(frozen=True)
class Came:
    """What came out of one case of a row."""

    row: str
    case: str
    seeds: list[int]
    words: Counter[str]

    @property
    def share(self) -> str:
        """Of "better than", with its exact 95 % interval."""
        n, found = len(self.seeds), self.words[BETTER]
        rate = binomtest(found, n).proportion_ci(0.95, method="exact")
        return f"{found / n:.1%} ({rate.low:.1%} to {rate.high:.1%})"

    @property
    def held(self) -> str:
        """Whether it is what must come out; empty where nothing must, or seeds are missing."""
        row = ROWS[self.row]
        if row.must(self.case) == "no limit" or len(self.seeds) < row.seeds:
            return ""
        holds = row.holds(self.words[BETTER], self.words["too short to tell"])
        return "holds" if holds else "FAILS"


def came_out(lines: Sequence[dict[str, str]]) -> list[Came]:
    """By row and case, in the order of ROWS and of the lines."""
    found: dict[tuple[str, str], list[dict[str, str]]] = {}
    for line in lines:
        found.setdefault((line["row"], line["case"]), []).append(line)
    return [
        Came(row, case, sorted(int(line["seed"]) for line in mine), Counter(line["word"] for line in mine))
        for (row, case), mine in sorted(found.items(), key=lambda one: list(ROWS).index(one[0][0]))
    ]


def summary(lines: Sequence[dict[str, str]]) -> list[str]:
    """A line a case: counts, the share with its exact interval, what must come out."""
    out = []
    for one in came_out(lines):
        row = ROWS[one.row]
        missing = f" of {row.seeds} seeds" if len(one.seeds) < row.seeds else ""
        out.append(
            f"{one.row}, {one.case}, {len(one.seeds):,} seeds {one.seeds[0]}:{one.seeds[-1] + 1}: "
            + ", ".join(f"{one.words[word]} {word}" for word in get_args(Word))
            + f"; '{BETTER}' {one.share}, must be {row.must(one.case)}"
            + (f": {one.held}" if one.held else missing)
        )
    return out


def table(lines: Sequence[dict[str, str]]) -> list[str]:
    """The same as a table in Markdown, which docs/evaluation.md has."""
    heads = ["row", "case", "seeds", *get_args(Word), "“better than” in", "must be", ""]
    out = [f"| {' | '.join(heads)} |", "|---|---|" + "--:|" * 5 + "---|---|---|"]
    for one in came_out(lines):
        counts = [str(one.words[word]) for word in get_args(Word)]
        cells = [
            f"`{one.row}`",
            one.case,
            f"{len(one.seeds):,}",
            *counts,
            one.share,
            ROWS[one.row].must(one.case),
            one.held,
        ]
        out.append(f"| {' | '.join(cells)} |".replace("%", " %"))
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("row", choices=[*ROWS, "table"])
    parser.add_argument("--seeds", help="from:to, without the last; all of the row's where it is left out")
    given = parser.parse_args()
    if given.row == "table":
        print(*table(read(EVERY_INTERVAL)), sep="\n")
        return
    first, last = map(int, given.seeds.split(":")) if given.seeds else (0, ROWS[given.row].seeds)
    run(given.row, range(first, last))
    lines = [line for line in read(EVERY_INTERVAL) if line["row"] == given.row and first <= int(line["seed"]) < last]
    PRINTED.parent.mkdir(exist_ok=True)
    with PRINTED.open("a", encoding="utf-8") as file:
        for line in [
            " ".join(["python benchmarks/calibration.py", *sys.argv[1:]]),
            machine(),
            *summary(lines),
        ]:
            print(line)
            print(line, file=file)
        print(file=file)


if __name__ == "__main__":
    main()
