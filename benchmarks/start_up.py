"""What is waited for before training: a command's start, `--help`, and the time between a worker's trials.

    python benchmarks/start_up.py [ROUNDS [TRIALS]]    # 3 and 4: about four minutes

Real commands in a temporary folder, at the article's length, against benchmarks/peers/hydra_recipe.py, in turn. Seconds
from the command to the end of its optimizer's first step; and, in a sweep with one worker, from the end of Lightning's
`Trainer.fit` of one trial to the first step of the next, with what of it closes the one and what opens the other.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import nullcontext
from itertools import pairwise
from pathlib import Path

from machine import machine, spread

HERE = Path(__file__).parent
TRAIN, PEER = str(HERE.parent / "train.py"), str(HERE / "peers" / "hydra_recipe.py")

# Python imports this at its start. It appends to the file that MARKS names: "step" at the first step of an optimizer
# and again at the first after each fit, "fit" at the end of each Trainer.fit, "claim" when a worker asks for a trial.
# With ENOUGH=1 the process ends at the first step.
SITECUSTOMIZE = """
import importlib.abc, importlib.util, os, sys, time

is_first = True

def mark(name):
    with open(os.environ["MARKS"], "a") as file:
        file.write(f"{name} {time.time()}\\n")

def after_step(*_):
    global is_first
    if is_first:
        is_first = False
        mark("step")
        if os.environ.get("ENOUGH"):
            os._exit(0)

def watch_steps(module):
    module.register_optimizer_step_post_hook(after_step)

def watch_fits(module):
    fit = module.Trainer.fit
    def marked(*args, **settings):
        global is_first
        fit(*args, **settings)
        mark("fit")
        is_first = True
    module.Trainer.fit = marked

def watch_claims(module):
    claim = module.Study.claim
    def marked(*args, **settings):
        mark("claim")
        return claim(*args, **settings)
    module.Study.claim = marked

WATCHED = {
    "torch.optim.optimizer": watch_steps,
    "pytorch_lightning.trainer.trainer": watch_fits,
    "tbptt.studies.study": watch_claims,
}

class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        watch = WATCHED.pop(name, None)
        if watch is None:
            return None
        spec = importlib.util.find_spec(name)
        run = spec.loader.exec_module
        def exec_module(module):
            run(module)
            watch(module)
        spec.loader.exec_module = exec_module
        return spec

sys.meta_path.insert(0, Finder())
"""


def marks(arguments: list[str], enough: bool = False, again: str | None = None) -> list[tuple[str, float]]:
    """Run a command in a folder of its own: what it marked, each with its seconds after the start; last, its end.

    Args:
        enough: whether to end it at its first step.
        again: a folder that a command has run in before, whose stores are there.
    """
    with nullcontext(again) if again else tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "sitecustomize.py").write_text(SITECUSTOMIZE)
        file = Path(folder) / "marks"
        file.write_text("")
        env = {**os.environ, "PYTHONPATH": folder, "MARKS": str(file), "ENOUGH": "1" if enough else ""}
        began = time.time()
        done = subprocess.run([sys.executable, *arguments], cwd=folder, env=env, capture_output=True, text=True)
        ended = time.time()
        if done.returncode:
            raise RuntimeError(f"{' '.join(arguments)}: {done.stderr}")
        lines = [line.split() for line in file.read_text().splitlines()]
    return [*((name, float(at) - began) for name, at in lines), ("end", ended - began)]


def main(rounds: int = 3, trials: int = 4) -> None:
    clip = "clip=" + ",".join(str(1 + i) for i in range(trials))
    ours, theirs = "train.py", "Hydra and Lightning"
    seconds: dict[tuple[str, str], list[float]] = defaultdict(list)
    for _ in range(rounds):
        for name, command in ((ours, TRAIN), (theirs, PEER)):
            seconds["--help", name].append(marks([command, "--help"])[-1][1])
            with tempfile.TemporaryDirectory() as folder:
                for what in ("to the first update", "  again, the stores there"):
                    seconds[what, name].append(dict(marks([command], enough=True, again=folder))["step"])
    sweeps = {
        ours: [TRAIN, "-m", clip, "epochs=1", "schedule=fixed", "schedule.chunks=[100]", "progress=none"],
        theirs: [PEER, "-m", clip, "epochs=1"],
    }
    for name, command in sweeps.items():
        seen = marks(command)
        seconds["to a sweep's first update", name].append(next(at for what, at in seen if what == "step"))
        between = [(what, at) for what, at in seen if what in ("fit", "step")]
        seconds["between two trials", name] = [
            b - a for (before, a), (after, b) in pairwise(between) if (before, after) == ("fit", "step")
        ]
        for what, (before, after) in {"closing": ("fit", "claim"), "opening": ("claim", "step")}.items():
            parts = [b - a for (first, a), (second, b) in pairwise(seen) if (first, second) == (before, after)]
            if parts:  # the first claim opens the first trial and the last is answered with none
                seconds[f"  of it {what}", name] = parts[-(trials - 1) :]
    print(machine())
    for what in dict.fromkeys(what for what, _ in seconds):
        for name in sweeps:
            if column := seconds.get((what, name)):
                print(f"{what:<28}{name:<22}{spread(column, 's')}")
        pairs = [seconds[what, name] for name in sweeps if (what, name) in seconds]
        if len(pairs) == 2:
            ratios = [a / b for a, b in zip(*pairs, strict=True)]
            print(f"{'':<28}{'ratio':<22}{spread(ratios, 'times')}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
