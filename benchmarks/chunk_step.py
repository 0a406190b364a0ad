"""One update of the same work: this project's chunk loop against what one would write or use instead.

    python benchmarks/chunk_step.py [--rounds N] [--passes N] [--chunks N] [--both] [--only KEY,KEY] [--json FILE]
    python benchmarks/chunk_step.py --again FILE                      # the table of what was measured before
    PEERS_PYTHON=/path/to/python python benchmarks/chunk_step.py      # Keras, JAX and TensorFlow live there

An update: 200 steps of 15 series, 128 features a step; two dense and two recurrent layers of 64 with noise between,
forward, backward, gradient norm bounded to 1, Adam. Each contender is a process of its own on one core with one thread,
makes a pass untimed and then waits. In every round each makes its timed passes in turn while the others sleep, so
a machine that slows down slows all. ``--both`` runs two of each at once, one a core: a trial on each.

A pass is 20 updates long unless ``--chunks`` says otherwise (100 is the article's length), so that a run takes a few
minutes; what comes once a pass, like one logged loss, weighs five times as much then. ``--only ours,torch,loop``
compares these alone, in seconds.

Prints, an update: wall time over all passes, core time (of all threads of the process), and the ratios of both to ours
(to the first contender, where ours takes no part), medians over the rounds. The losses of the untimed pass and of the
last show that all learn the same; parameters differ by the second trained bias a gate of PyTorch's LSTM only.

Every round begins with the peak of the core: the most float32 multiply-adds that it does, by instruction set, on both
cores at once with ``--both`` (native/fma_peak.c, built with the C compiler). The matrix products of an update at that
peak are its floor (floor.py), and ``x floor`` is core time as a multiple of the round's floor, of those that compute
in float32. A GRU has a floor of its own, and so has what is held to an instruction set: as on a core without a better.

Ours runs with the compiled layers where they were built, in the instruction set that is chosen for this processor and
in each that it has (TBPTT_KERNELS), with PyTorch's, and in bf16; with a GRU in place of the LSTM; the last column says
which layers it took. It computes its inputs from prices chunk by chunk, while they lie ready for all others. What is
not installed says so.

``--json`` keeps every pass: machine, versions, sizes, the peaks of every round, wall and core ms and loss of each pass
of each process. The table is made of that alone. What a page shows is kept in benchmarks/results/.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chunk_table import for_a_page, table
from floor import SETS, Peak, processor_sets
from machine import machine, on_core

PEERS = Path(__file__).parent / "peers"
PEERS_PYTHON = os.environ.get("PEERS_PYTHON", sys.executable)
PEERS_PYTHON = str(Path(shutil.which(PEERS_PYTHON) or PEERS_PYTHON).absolute())  # a venv's link is not followed


class Process:
    """A contender at work, after its untimed pass.

    Attributes:
        facts: what it said of itself.
    """

    def __init__(
        self,
        name: str,
        command: list[str],
        environment: Mapping[str, str],
        core: int | None,
        folder: str,
        stack: ExitStack,
    ):
        self.name = name
        self._log = Path(folder) / f"{name}, core {core}.log"
        with self._log.open("w") as log, on_core(core):  # from the start: libraries count the cores at their import
            self._process = subprocess.Popen(
                command,
                cwd=folder,
                env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        stack.enter_context(self._process)
        stack.callback(self._process.kill)
        self.facts = self.answer()

    def ask(self, passes: int) -> None:
        """Let it make so many timed passes; does not wait for them."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n" * passes)
        self._process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        """Its next line of JSON; libraries may print others."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                return dict(json.loads(line))
        sys.exit(f"{self.name} ended early:\n{self._log.read_text()[-4000:]}")


@dataclass
class Contender:
    """What a row is about, and what was measured of it.

    Attributes:
        key: what ``--only`` calls it.
        command: a file of peers/ and its options.
        needs: packages that the interpreter must have.
        limited_to: the instruction set that its layers are held to.
        cell, float32: what its floor depends on.
        missing: why it does not take part.
        rounds: in each, of each of its processes, the answers of its passes.
    """

    key: str
    name: str
    command: Sequence[str]
    needs: Sequence[str] = ()
    python: str = sys.executable
    limited_to: str | None = None
    cell: str = "lstm"
    float32: bool = True
    missing: str = ""
    processes: list[Process] = field(default_factory=list)
    rounds: list[list[list[dict[str, Any]]]] = field(default_factory=list)

    def look(self) -> None:
        """Find out what it is missing."""
        look = "import sys; from importlib.util import find_spec; sys.exit(not all(map(find_spec, sys.argv[1:])))"
        if self.limited_to and self.limited_to not in processor_sets():
            self.missing = "not on this processor"
        elif subprocess.run([self.python, "-c", look, *self.needs]).returncode:
            self.missing = "not installed"

    def start(self, core: int | None, folder: str, stack: ExitStack) -> None:
        script, *options = self.command
        command = [self.python, str(PEERS / script), *options, folder]
        environment = {"TBPTT_KERNELS": self.limited_to} if self.limited_to else {}
        self.processes.append(Process(self.key, command, environment, core, folder, stack))

    def take_turn(self, passes: int) -> None:
        """A round: all its processes at once."""
        for process in self.processes:
            process.ask(passes)
        self.rounds.append([[process.answer() for _ in range(passes)] for process in self.processes])

    def record(self) -> dict[str, Any]:
        """What the table and ``--json`` have of it."""
        facts = self.processes[0].facts if self.processes else None
        said = {"key": self.key, "name": self.name, "set": self.limited_to, "cell": self.cell, "float32": self.float32}
        return {**said, "missing": self.missing, "facts": facts, "rounds": self.rounds}


def contenders() -> list[Contender]:
    gru = ["ours.py", "--cell=gru"]
    jax, tensorflow = (["keras_stateful.py", f"--backend={name}"] for name in ("jax", "tensorflow"))
    return [
        Contender("ours", "ours", ["ours.py"]),
        *(Contender(key, f"  held to {words}", ["ours.py"], limited_to=key) for key, words in SETS.items()),
        Contender("torch", "  with PyTorch's layers", ["ours.py", "--kernels=torch"]),
        Contender("bf16", "  in bf16", ["ours.py", "--precision=bf16"], float32=False),
        Contender("gru", "ours, GRU", gru, cell="gru"),
        Contender("gru-torch", "  with PyTorch's layers", [*gru, "--kernels=torch"], cell="gru"),
        Contender("loop", "plain PyTorch loop", ["plain_torch.py"]),
        Contender("lightning", "Lightning recipe, no logger", ["lightning_recipe.py", "--logger=none"]),
        Contender("mlflow", "  with MLflow, a loss a pass", ["lightning_recipe.py", "--logger=mlflow"]),
        Contender("mlflow-each", "  with MLflow, every loss", ["lightning_recipe.py", "--logger=mlflow-each"]),
        Contender("jax", "Keras on JAX", jax, ("keras", "jax"), PEERS_PYTHON),
        Contender("tensorflow", "Keras on TensorFlow", tensorflow, ("keras", "tensorflow"), PEERS_PYTHON),
    ]


def measure(everyone: list[Contender], cores: list[int | None], options: argparse.Namespace) -> dict[str, Any]:
    """Let all take their turns.

    Returns:
        What the table is made of.
    """
    peaks = []
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        subprocess.run([sys.executable, str(PEERS / "article.py"), folder, str(options.chunks)], check=True)
        sizes = json.loads(Path(folder, "sizes.json").read_text())
        peak = Peak(folder)
        for contender in everyone:
            contender.look()
        taking_part = [contender for contender in everyone if not contender.missing]
        for contender in taking_part:
            for core in cores:
                contender.start(core, folder, stack)
        for _ in range(options.rounds):
            if not peak.missing:
                peaks.append(peak.measure(cores))
            for contender in taking_part:
                contender.take_turn(options.passes)
    return {
        "machine": machine(),
        "both": len(cores) > 1,
        "rounds": options.rounds,
        "passes": options.passes,
        "updates": options.chunks,
        "sizes": sizes,
        "no_peak": peak.missing,
        "peaks": peaks,  # GFLOP/s: in each round, of each core, by instruction set
        "contenders": [contender.record() for contender in everyone],
    }


def chosen(words: str | None) -> list[Contender]:
    """Those that ``--only`` names, in the table's order."""
    everyone = contenders()
    keys = words.split(",") if words else [contender.key for contender in everyone]
    unknown = set(keys) - {contender.key for contender in everyone}
    if unknown:
        sys.exit(f"--only takes {', '.join(one.key for one in everyone)}; got {', '.join(sorted(unknown))}")
    return [contender for contender in everyone if contender.key in keys]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="turns of each (5)")
    parser.add_argument("--passes", type=int, default=2, help="timed passes a turn (2)")
    parser.add_argument("--chunks", type=int, default=20, help="updates a pass (20)")
    parser.add_argument("--both", action="store_true", help="two of each at once, one a core")
    parser.add_argument("--only", metavar="KEY,KEY", help=", ".join(one.key for one in contenders()))
    parser.add_argument("--json", type=Path, metavar="FILE", help="where every pass is kept")
    parser.add_argument("--again", type=Path, metavar="FILE", help="print the table of such a file; measure nothing")
    parser.add_argument("--markdown", action="store_true", help="with --again: as docs/performance.md has it")
    options = parser.parse_args()
    if options.again:
        record = json.loads(options.again.read_text())
        print("\n".join(for_a_page(record) if options.markdown else table(record)))
        return
    everyone = chosen(options.only)
    cores: list[int | None] = [None, None]
    if hasattr(os, "sched_getaffinity"):
        cores = [*sorted(os.sched_getaffinity(0))]
    cores = cores[: 2 if options.both else 1]
    if options.both and len(cores) < 2:
        sys.exit("--both needs two cores")
    record = measure(everyone, cores, options)
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(record) + "\n")
    print("\n".join(table(record)))


if __name__ == "__main__":
    main()
