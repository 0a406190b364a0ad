"""How a contender of benchmarks/chunk_step.py takes its turns; NumPy is all that a peer's interpreter needs for it.

An untimed pass first, then what it is in a line of JSON; from then on, for every line on stdin, a timed pass and its
times in a line of JSON. It ends with stdin.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

STEPS = 200  # of a chunk


def parser(doc: str | None) -> argparse.ArgumentParser:
    """What every contender takes."""
    arguments = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("folder", type=Path, help="where article.py wrote inputs and targets")
    return arguments


def load(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Inputs (B, T, W) and targets (B, T, 2), float32."""
    return np.load(folder / "inputs.npy"), np.load(folder / "targets.npy")


class Turns:
    """The clocks of one contender. Made right before the untimed pass.

    Args:
        updates: of a pass.
        parameters: how many are trained.
        versions: of the packages that do the work.
    """

    def __init__(self, updates: int, parameters: int, versions: dict[str, str]):
        self.updates = updates
        self._wall = self._core = 0.0
        self._facts: dict[str, Any] | None = {
            "parameters": parameters,
            "updates": updates,
            "versions": versions,
        }

    def another(self, loss: float) -> bool:
        """End the pass under way, which had this mean loss, and wait for the next; False where there is none."""
        wall, core = time.perf_counter(), time.process_time()
        if self._facts is not None:
            answer, self._facts = self._facts, None
        else:
            answer = {
                "wall_ms": 1000 * (wall - self._wall) / self.updates,
                "core_ms": 1000 * (core - self._core) / self.updates,  # of all threads
            }
        print(json.dumps({**answer, "loss": loss}), flush=True)
        more = bool(sys.stdin.readline())
        self._wall, self._core = time.perf_counter(), time.process_time()
        return more

    def take(self, one_pass: Callable[[], float]) -> None:
        """All turns of a contender whose pass is a function that returns its mean loss."""
        while self.another(one_pass()):
            pass
