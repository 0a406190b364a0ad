"""One update of the same work: this project's chunk loop against what one would write or use instead.

    python benchmarks/chunk_step.py [--rounds N] [--passes N] [--chunks N] [--both]
    PEERS_PYTHON=/path/to/python python benchmarks/chunk_step.py      # Keras, JAX and TensorFlow live there

An update: 200 steps of 15 series, 128 features a step; two dense and two recurrent layers of 64 with noise between,
forward, backward, gradient norm bounded to 1, Adam. Each contender is a process of its own on one core with one thread,
makes a pass untimed and then waits. In every round each makes its timed passes in turn while the others sleep, so
a machine that slows down slows all. ``--both`` runs two of each at once, one a core: a trial on each.

A pass is 20 updates long unless ``--chunks`` says otherwise (100 is the article's length), so that a run takes a few
minutes; what comes once a pass, like one logged loss, weighs five times as much then.

Prints, an update: wall time over all passes, core time (of all threads of the process), and the ratios of both to ours,
medians over the rounds. The losses of the untimed pass and of the last show that all learn the same; parameters differ
by the second trained bias a gate of PyTorch's LSTM only. Ours runs with the compiled layers where they were built, with
PyTorch's, and in bf16; it computes its inputs from prices chunk by chunk, while they lie ready for all others. What is
not installed says so.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from machine import machine

PEERS = Path(__file__).parent / "peers"
PEERS_PYTHON = os.environ.get("PEERS_PYTHON", sys.executable)
PEERS_PYTHON = str(Path(shutil.which(PEERS_PYTHON) or PEERS_PYTHON).absolute())  # a venv's link is not followed


class Process:
    """A contender at work, after its untimed pass.

    Attributes:
        facts: what it said of itself.
    """

    def __init__(self, name: str, command: list[str], core: int | None, folder: str, stack: ExitStack):
        self.name = name
        self._log = Path(folder) / f"{name}, core {core}.log"
        with self._log.open("w") as log, on_core(core):  # from the start: libraries count the cores at their import
            self._process = subprocess.Popen(
                command,
                cwd=folder,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
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
        command: a file of peers/ and its options.
        needs: packages that the interpreter must have.
        answers: a list a round; in it those of all its processes.
    """

    name: str
    command: Sequence[str]
    needs: Sequence[str] = ()
    python: str = sys.executable
    processes: list[Process] = field(default_factory=list)
    answers: list[list[dict[str, Any]]] = field(default_factory=list)

    def installed(self) -> bool:
        look = "import sys; from importlib.util import find_spec; sys.exit(not all(map(find_spec, sys.argv[1:])))"
        return subprocess.run([self.python, "-c", look, *self.needs]).returncode == 0

    def start(self, core: int | None, folder: str, stack: ExitStack) -> None:
        script, *options = self.command
        command = [self.python, str(PEERS / script), *options, folder]
        self.processes.append(Process(self.name.strip(), command, core, folder, stack))

    def take_turn(self, passes: int) -> None:
        """A round: all its processes at once."""
        for process in self.processes:
            process.ask(passes)
        self.answers.append([process.answer() for process in self.processes for _ in range(passes)])

    def medians(self, key: str) -> list[float]:
        """Of each round."""
        return [statistics.median(answer[key] for answer in answers) for answers in self.answers]


def contenders() -> list[Contender]:
    return [
        Contender("ours", ["ours.py"]),
        Contender("  with PyTorch's layers", ["ours.py", "--kernels=torch"]),
        Contender("  in bf16", ["ours.py", "--precision=bf16"]),
        Contender("plain PyTorch loop", ["plain_torch.py"]),
        Contender("Lightning recipe, no logger", ["lightning_recipe.py", "--logger=none"]),
        Contender("  with MLflow, a loss a pass", ["lightning_recipe.py", "--logger=mlflow"]),
        Contender("  with MLflow, every loss", ["lightning_recipe.py", "--logger=mlflow-each"]),
        Contender("Keras on JAX", ["keras_stateful.py", "--backend=jax"], ("keras", "jax"), PEERS_PYTHON),
        Contender(
            "Keras on TensorFlow", ["keras_stateful.py", "--backend=tensorflow"], ("keras", "tensorflow"), PEERS_PYTHON
        ),
    ]


@contextmanager
def on_core(core: int | None) -> Iterator[None]:
    """Processes started within stay on this core; None: anywhere."""
    if core is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def row(contender: Contender, ours: Contender) -> str:
    name = f"{contender.name:<29}"
    if not contender.processes:
        return name + "not installed"
    first = contender.processes[0].facts
    walls = [one["wall_ms"] for answers in contender.answers for one in answers]
    cores = [one["core_ms"] for answers in contender.answers for one in answers]
    ratios = [
        statistics.median(a / b for a, b in zip(contender.medians(key), ours.medians(key), strict=True))
        for key in ("wall_ms", "core_ms")
    ]
    columns = [statistics.median(walls), min(walls), max(walls), statistics.median(cores), *ratios]
    losses = first["loss"], contender.answers[-1][-1]["loss"]
    numbers = "".join(f"{value:9.2f}" for value in columns)
    return f"{name}{numbers}{first['parameters']:12,}{losses[0]:9.3f}{losses[1]:9.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="turns of each (5)")
    parser.add_argument("--passes", type=int, default=2, help="timed passes a turn (2)")
    parser.add_argument("--chunks", type=int, default=20, help="updates a pass (20)")
    parser.add_argument("--both", action="store_true", help="two of each at once, one a core")
    options = parser.parse_args()
    cores: list[int | None] = [None, None]
    if hasattr(os, "sched_getaffinity"):
        cores = [*sorted(os.sched_getaffinity(0))]
    cores = cores[: 2 if options.both else 1]
    if options.both and len(cores) < 2:
        sys.exit("--both needs two cores")
    everyone = contenders()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        subprocess.run([sys.executable, str(PEERS / "article.py"), folder, str(options.chunks)], check=True)
        taking_part = [contender for contender in everyone if contender.installed()]
        for contender in taking_part:
            for core in cores:
                contender.start(core, folder, stack)
        for _ in range(options.rounds):
            for contender in taking_part:
                contender.take_turn(options.passes)
    versions = {k: v for contender in taking_part for k, v in contender.processes[0].facts["versions"].items()}
    where = "two at once, one a core" if options.both else "one core"
    print(machine())
    print(", ".join(f"{name} {number}" for name, number in versions.items()))
    print(f"an update, {where}; {options.rounds} rounds of {options.passes} passes of {options.chunks} updates")
    columns = "".join(f"{title:>9}" for title in ("wall ms", "min", "max", "core ms", "ratio", "of core"))
    print(f"{'':<29}{columns}{'parameters':>12}{'loss':>9}{'at end':>9}")
    for contender in everyone:
        print(row(contender, everyone[0]))


if __name__ == "__main__":
    main()
