"""The package outside the repository: a wheel in an environment of its own, used from an empty folder."""

import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from dataclasses import dataclass
from pathlib import Path

import mlflow
import pytest
from conftest import ROOT

pytestmark = pytest.mark.slow  # a minute and more; .ci/run runs it
PARTS = ("src", "conf", "setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE", "train.py", "report.py")
LITTLE = ["data.n_series=2", "data.val_series=1", "data.test_series=1", "data.length=250", "data.window=8"]
LITTLE += ["task.gamma=0.9", "model.dense=[4]", "model.hidden=[4]", "schedule.chunks=[5]", "schedule=fixed", "epochs=1"]
# An optimizer, and a word of who ran which code.
MINE = """
import tbptt
from tbptt.extend import OptimizerConfig

with open("ran", "a") as file:
    file.write(tbptt.__file__ + "\\n")

class Mine(OptimizerConfig, options=["mine"]):
    torch_name = "SGD"
"""


def ended_well(*command: object, cwd: Path, **more: str) -> str:
    """What a command printed, in an environment in which Python finds nothing of this repository."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "TBPTT"))}
    words = [str(word) for word in command]
    done = subprocess.run(words, cwd=cwd, env={**env, **more}, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
    return done.stdout + done.stderr


def built(source: Path, into: Path, **more: str) -> Path:
    """The wheel of a folder with a pyproject.toml."""
    words = ["wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--no-cache-dir", "-w", into]
    ended_well(sys.executable, "-m", "pip", *words, ".", cwd=source, **more)
    (wheel,) = into.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project, in which building leaves what it leaves."""
    folder = tmp_path_factory.mktemp("source")
    left = shutil.ignore_patterns("__pycache__", "*.so", "*.egg-info")
    for name in PARTS:
        part = ROOT / name
        shutil.copytree(part, folder / name, ignore=left) if part.is_dir() else shutil.copy(part, folder)
    return folder


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(source, tmp_path_factory.mktemp("wheel"))


@dataclass
class Installed:
    """An environment with the wheel, and with what this one has beside tbptt."""

    venv: Path
    home: Path

    def ended_well(self, *command: object, cwd: Path) -> str:
        program, *words = command
        own = {"HOME": str(self.home), "PYTHONDONTWRITEBYTECODE": "1"}
        own["MPLCONFIGDIR"] = str(self.venv.with_name("matplotlib"))  # which makes folders when it is imported
        return ended_well(self.venv / "bin" / str(program), *words, cwd=cwd, **own)

    def files(self) -> set[Path]:
        return {path for top in (self.venv, self.home) for path in top.rglob("*")}


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    folder = tmp_path_factory.mktemp("installed")
    venv, home = folder / "venv", folder / "home"
    home.mkdir()
    ended_well(sys.executable, "-m", "venv", "--without-pip", venv, cwd=folder)
    python = venv / "bin" / "python"
    packages = Path(ended_well(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder)[:-1])
    # After its own packages. The .pth files of that folder, such as an editable install's, do not count there.
    (packages / "others.pth").write_text(sysconfig.get_path("purelib"))
    words = ["--python", python, "install", "--quiet", "--no-deps", "--no-index", "--ignore-installed", wheel]
    ended_well(sys.executable, "-m", "pip", *words, cwd=folder)
    return Installed(venv, home)


def carried(wheel: Path) -> set[str]:
    """The files of a wheel that are no Python, but for what describes it."""
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if not name.endswith(".py") and ".dist-info/" not in name}


def expected() -> set[str]:
    files = {f"tbptt/{file.relative_to(ROOT)}" for file in (ROOT / "conf").rglob("*.yaml")}
    here = ROOT / "src"
    others = (
        file for file in (here / "tbptt").rglob("*") if file.suffix not in (".py", ".pyc", ".so") and file.is_file()
    )
    return files | {str(file.relative_to(here)) for file in others}


def test_the_wheel_carries_configs_templates_and_sources(wheel: Path) -> None:
    assert {"tbptt/conf/base.yaml", "tbptt/models/native/kernels.c", "tbptt/reports/templates/head.html"} < expected()
    layers = {name for name in carried(wheel) if name.startswith("tbptt/models/_kernels_")}
    assert carried(wheel) - layers == expected()
    sets = 3 if platform.machine() in ("x86_64", "AMD64") else 1
    assert len(layers) == (sets if shutil.which("cc") else 0)
    with zipfile.ZipFile(wheel) as archive:
        modules = {name for name in archive.namelist() if name.endswith(".py")}
    here = ROOT / "src"
    assert modules == {str(file.relative_to(here)) for file in here.rglob("*.py")}


def test_so_does_a_wheel_of_the_source_distribution_without_a_compiler(source: Path, tmp_path: Path) -> None:
    code = "from setuptools.build_meta import build_sdist; build_sdist('dist')"
    ended_well(sys.executable, "-c", code, cwd=source)
    (archive,) = (source / "dist").iterdir()
    shutil.unpack_archive(archive, tmp_path, filter="data")
    (unpacked,) = tmp_path.iterdir()
    assert carried(built(unpacked, tmp_path / "wheel", CC="false")) == expected()


def test_a_config_that_was_removed_since_the_last_build_is_not_carried(source: Path, tmp_path: Path) -> None:
    left = source / "conf" / "optimizer" / "left.yaml"
    left.touch()
    code = "from setuptools import setup; import sys; sys.argv[1:] = ['build_py']; exec(open('setup.py').read())"
    try:
        ended_well(sys.executable, "-c", code, cwd=source)
    finally:
        left.unlink()
    there = source / "build" / "lib"
    (folder,) = {path for path in source.glob("build/lib*") if (path / "tbptt" / "conf").is_dir()} or {there}
    assert (folder / "tbptt" / "conf" / "optimizer" / "left.yaml").is_file()
    ended_well(sys.executable, "-c", code, cwd=source)
    assert not (folder / "tbptt" / "conf" / "optimizer" / "left.yaml").exists()


def test_two_words_in_an_empty_folder_train_a_run(installed: Installed, tmp_path: Path) -> None:
    before = installed.files()
    said = installed.ended_well("tbptt", "train", *LITTLE, cwd=tmp_path)
    assert "compare runs: mlflow ui --backend-store-uri sqlite:///mlruns/mlflow.db" in said
    assert [path.name for path in tmp_path.iterdir()] == ["mlruns"]
    assert installed.files() == before
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlruns/mlflow.db")
    (run,) = client.search_runs([client.get_experiment_by_name("tbptt").experiment_id])
    assert run.info.status == "FINISHED"
    assert "val/loss" in run.data.metrics
    assert "git.sha" not in run.data.tags


def test_a_study_with_configs_and_code_of_the_working_folder(installed: Installed, tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "mine.py").write_text(MINE)
    conf = tmp_path / "conf"
    (conf / "optimizer").mkdir(parents=True)
    (conf / "optimizer" / "mine.yaml").write_text(
        "defaults: [/schema/optimizer@_here_: mine, _self_]\nname: mine\nlr: 0.125\n"
    )
    (conf / "config.yaml").write_text((ROOT / "conf" / "config.yaml").read_text() + "\nclip: 0.75\n")
    before = installed.files()
    words = ["-m", *LITTLE, "optimizer=mine,adam", "study.workers=2", "study.name=s"]
    said = installed.ended_well("tbptt", "train", *words, cwd=tmp_path)
    study = tmp_path / "sweeps" / "s"
    assert "rerun it: tbptt train --config-dir sweeps/s --config-name best" in said
    assert "use it: tbptt predict s data.path=FILE" in said
    table = (study / "trials.csv").read_text()
    assert "mine" in table
    assert "adam" in table
    (study / "report.html").unlink()
    said = installed.ended_well("python", "-m", "tbptt", "report", "s", cwd=tmp_path)
    assert said.endswith("sweeps/s/report.html\n")
    assert "<html" in (study / "report.html").read_text()
    best = ["--config-dir", "sweeps/s", "--config-name", "best", "optimizer=mine", "--cfg", "job"]
    shown = installed.ended_well("tbptt", "train", *best, cwd=tmp_path)
    assert "\nclip: 0.75\n" in shown
    assert "\n  lr: 0.125\n" in shown
    (tmp_path / "prices.csv").write_text("\n".join(["close", *(f"{100 + i % 7 + i / 10:.1f}" for i in range(60))]))
    said = installed.ended_well("tbptt", "predict", "s", "data.path=prices.csv", "--out", "predicted.csv", cwd=tmp_path)
    assert "study s: trial " in said
    assert len((tmp_path / "predicted.csv").read_text().splitlines()) == 1 + 60 - 8  # less the window
    assert "\ns " in "\n" + installed.ended_well("tbptt", "studies", "list", cwd=tmp_path)
    ran = (tmp_path / "ran").read_text().splitlines()
    assert len(ran) >= 6  # four commands, two workers
    assert {Path(file).is_relative_to(installed.venv) for file in ran} == {True}
    assert {path.name for path in tmp_path.iterdir()} == {
        "own",
        "conf",
        "mlruns",
        "sweeps",
        "ran",
        "prices.csv",
        "predicted.csv",
    }
    assert installed.files() == before
