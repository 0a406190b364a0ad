"""What a command does until its first update: what it imports, and how often it looks for garbage meanwhile."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from conftest import CONF, ROOT

TINY = ["data.length=300", "epochs=1", "schedule=fixed", "schedule.chunks=[1]", "progress=none"]

# A script as train.py, which says what it finds at the moments that matter, as lines of JSON.
SAYS = """
import gc, json, os, sys
from pathlib import Path
from tbptt.cli import tool

def say(when):
    loaded = sorted({name.split(".")[0] for name in sys.modules})
    print(json.dumps({"when": when, "every": gc.get_threshold()[0], "kept": gc.get_freeze_count(), "loaded": loaded}))
    sys.stdout.flush()

def say_and_end(*_):
    say("training")
    os._exit(0)

def looking(name):
    do = found(name)
    def command(argv, conf):
        say("imports")
        import tbptt.runs.fit
        tbptt.runs.fit._trainer = say_and_end
        return do(argv, conf)
    return command

say("start")
found, tool._do = tool._do, looking
tool.script("train", Path(sys.argv.pop(1)))
"""

# A sweep's head, whose workers do nothing.
HEAD = """
import json, sys
import tbptt.studies.pool, tbptt.studies.sweep
from tbptt.cli import tool
tbptt.studies.pool.early = lambda config: []
tbptt.studies.sweep._run_workers = lambda *_: print(json.dumps(sorted({name.split(".")[0] for name in sys.modules})))
sys.exit(tool.main(["train", "-m", *sys.argv[1:]]))
"""


def done(folder: Path, *command: str, stdin: str = "") -> list[str]:
    """What a process prints that runs ``python COMMAND``."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT / "src")])}
    ended = subprocess.run(
        [sys.executable, *command], cwd=folder, env=env, input=stdin, capture_output=True, text=True, timeout=100
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.splitlines()


def test_a_run_imports_only_what_it_needs_and_collects_seldom_until_then(tmp_path: Path) -> None:
    (tmp_path / "says.py").write_text(SAYS)
    lines = done(tmp_path, "says.py", str(CONF), *TINY)
    found: dict[str, dict[str, Any]] = {(one := json.loads(line))["when"]: one for line in lines if line[:1] == "{"}
    start, imports, training = (found[when] for when in ("start", "imports", "training"))
    assert {"torch", "mlflow", "pytorch_lightning"} <= set(training["loaded"])
    # What a study, its report or the end of a run needs.
    assert not {"optuna", "plotly", "arch", "statsmodels", "sklearn", "onnx", "jinja2"} & set(training["loaded"])
    assert not {"torch", "mlflow", "tenacity", "jaxtyping"} & set(imports["loaded"])
    assert imports["every"] > 1000 * start["every"]
    assert imports["kept"] == 0
    assert training["every"] == start["every"]
    assert training["kept"] > 100_000  # what was imported is left out of each collection


def test_a_worker_collects_seldom_while_it_waits_for_its_work(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import atexit, gc\nusual = gc.get_threshold()[0]\n"
        "atexit.register(lambda: print(gc.get_threshold()[0] > 1000 * usual, gc.get_freeze_count()))\n"
    )
    assert done(tmp_path, "-m", "tbptt.studies.worker_process") == ["True 0"]


def test_the_head_of_a_sweep_needs_no_torch_before_its_workers_begin(tmp_path: Path) -> None:
    (loaded,) = [json.loads(line) for line in done(tmp_path, "-c", HEAD, *TINY, "clip=1,2") if line[:1] == "["]
    assert "optuna" in loaded
    assert not {"torch", "pytorch_lightning", "plotly"} & set(loaded)


def test_garbage_collection_is_set_back_once_and_left_alone_in_other_programs(tmp_path: Path) -> None:
    code = (
        "import gc\nfrom pathlib import Path\nfrom tbptt.cli import tool\nfrom tbptt.system import collecting\n"
        "usual = gc.get_threshold()\n"
        "try:\n    tool.script('train', Path())\nexcept SystemExit:\n    pass\n"
        "print(gc.get_threshold() == usual)\n"
        "collecting.as_usual()\nprint(gc.get_freeze_count())\n"
        "collecting.seldom()\ncollecting.seldom()\ncollecting.as_usual()\n"
        "print(gc.get_threshold() == usual, (kept := gc.get_freeze_count()) > 1000)\n"
        "more = [[] for _ in range(1000)]\ncollecting.as_usual()\nprint(gc.get_freeze_count() <= kept)\n"
    )
    (tmp_path / "another.py").write_text(code)
    _, *lines = done(tmp_path, "-m", "another", "--version")
    assert lines == ["True", "0", "True True", "True"]
