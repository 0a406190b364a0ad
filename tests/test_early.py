"""A signal while the command's own imports run ends it without a traceback; other programs keep their handlers."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

# The first large import, which meets the signal.
STOPPED = """
import os, signal, time
os.kill(os.getpid(), signal.NUMBER)
time.sleep(60)
"""


def answer(command: list[str], name: str, folder: Path, ignored: bool = False) -> subprocess.CompletedProcess[str]:
    (folder / "stubs").mkdir()
    (folder / "stubs" / "hydra.py").write_text(
        STOPPED.replace("NUMBER", name).replace("60", "0.1" if ignored else "60")
    )
    (folder / "stubs" / "tbptt").write_text(CONSOLE)
    path = os.pathsep.join([str(folder / "stubs"), str(ROOT / "src"), str(ROOT)])
    env = {**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
    before = signal.signal(signal.SIGINT, signal.SIG_IGN) if ignored else None
    try:
        return subprocess.run(
            [sys.executable, *command], cwd=folder, env=env, capture_output=True, text=True, timeout=100
        )
    finally:
        if before is not None:
            signal.signal(signal.SIGINT, before)


# What the installer writes for [project.scripts].
CONSOLE = "import sys\nfrom tbptt.cli.tool import console\nif __name__ == '__main__':\n    sys.exit(console())\n"
WAYS = {
    "train.py": [str(ROOT / "train.py")],
    "report.py": [str(ROOT / "report.py")],
    "module": ["-m", "tbptt", "train"],
    "console": ["stubs/tbptt", "train"],
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("name", "status"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_a_signal_during_the_first_imports_is_one_line(way: str, name: str, status: int, tmp_path: Path) -> None:
    done = answer([*WAYS[way], "epochs=1"], name, tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (status, "", f"stopped by {name}\n")
    assert [path.name for path in tmp_path.iterdir()] == ["stubs"]


def test_a_program_that_imports_the_command_is_interrupted_as_it_was(tmp_path: Path) -> None:
    program = "try:\n    import tbptt.cli.train\nexcept KeyboardInterrupt:\n    print('its own way')"
    done = answer(["-c", program], "SIGINT", tmp_path)
    assert (done.returncode, done.stdout) == (0, "its own way\n"), done.stderr


def test_so_is_one_that_runs_it_as_main(tmp_path: Path) -> None:
    run = f"runpy.run_path({str(ROOT / 'train.py')!r}, run_name='__main__')"
    program = (
        f"import runpy, sys\nsys.argv = ['train.py']\ntry:\n    {run}\nexcept KeyboardInterrupt:\n    print('own')"
    )
    done = answer(["-c", program], "SIGINT", tmp_path)
    assert (done.returncode, done.stdout) == (0, "own\n"), done.stderr


def test_a_background_job_that_ignores_ctrl_c_goes_on_to_do_so(tmp_path: Path) -> None:
    done = answer([str(ROOT / "train.py")], "SIGINT", tmp_path, ignored=True)
    assert "stopped" not in done.stderr
    assert done.returncode == 1  # the stand-in is no Hydra
