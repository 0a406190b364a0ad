"""The commands and the Python of README.md and docs/using.md, in their order in one folder a page, on little data."""

import csv
import re
import shlex
import statistics
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hydra
import mlflow
import numpy as np
import pytest
import torch
from conftest import CONF, ROOT
from hydra.core.global_hydra import GlobalHydra
from mlflow import MlflowClient
from mlflow.entities import Metric, Param

from tbptt.cli import main, predict, studies
from tbptt.cli.main import job, run
from tbptt.reports import page
from tbptt.runs.context import RunContext
from tbptt.serving.load import load_run
from tbptt.system import runtime
from tbptt.system.runtime import StopSignals

PAGES = ("README.md", "docs/using.md")
LITTLE = ["data.window=8", "task.gamma=0.9", "model.dense=[4]", "model.hidden=[4]", "epochs=1", "progress=none"]
SERIES = ["data.n_series=2", "data.val_series=1", "data.length=450"]  # of the article's process
NOT_RUN = {  # what a command begins with, and why it is not run here
    "make train": "installs from a network",
    "make test": "is what runs this",
    "make server": "tests/test_cluster.py starts the same servers",
    "make lock": "asks a package index",
    "make audit": "asks a package index",
    "export ": "is the shell's",
    "source ": "is the shell's",
    "read ": "asks a person for a password",
    "pip install": "installs from a network",
    "python -m tbptt": "tests/test_package.py gives it, where it is installed",
    "tbptt ": "tests/test_package.py gives it, where it is installed",
    ".venv/bin/": "installs from a network",
    "mlflow ui": "tests/test_browser.py opens it; its options are looked up",
    "mlflow server": "serves; its options are looked up",
    "mlflow models serve": "tests/test_pyfunc.py serves one",
    "curl ": "asks that server",
    "python -m pytest": "its files are looked up",
    "python benchmarks/": "takes minutes; its options are looked up",
    "python report.py article": "tests/test_verdict.py",
    "python predict.py mine --stream": "tests/test_stream.py",
    "python export.py": "tests/test_export_command.py, tests/test_onnx.py",
    "python report.py docs/results": "tests/test_verdict.py",
    "python report.py first --figures": "tests/test_papers.py, where there is a browser",
    "python report.py STUDY --figures": "tests/test_papers.py, where there is a browser",
    "python report.py first --watch": "serves until it is stopped; tests/test_live.py",
    "python report.py STUDY --watch": "serves until it is stopped; tests/test_live.py",
    "python train.py resume=RUN_ID tracking.uri=…": "needs a server",
    "tbptt studies remove": "the page goes on with the study; tests/test_studies_command.py",
}
SEEN_IN_BLOCKS = (
    "python predict.py --help",
    "python report.py STUDY",
    "python train.py --help",
    "python train.py resume=RUN_ID",
)  # of PAGES, or nearly


def fenced(page: str) -> list[str]:
    """A page cut at its fences: text, what is in a block after its language, text, …"""
    return re.split(r"^ *```", (ROOT / page).read_text(), flags=re.MULTILINE)


def blocks(page: str, *languages: str) -> list[str]:
    """The fenced blocks of a page that are not the content of a file."""
    before, *parts = fenced(page)
    texts = [before, *parts[1::2]]  # what is around the blocks
    found = [block.split("\n", 1) for block in parts[::2]]
    return [
        code for (name, code), text in zip(found, texts, strict=False) if name in languages and "`:" not in text[-5:]
    ]


def commands(page: str) -> Iterator[str]:
    for block in blocks(page, "sh", "bash"):
        for line in block.replace("\\\n", " ").splitlines():
            for command in re.sub(r"(^|\s)#.*", "", line).split("&&"):
                if command.strip():
                    yield " ".join(command.split())


def in_text(page: str) -> list[str]:
    """The commands that a page names within its sentences."""
    spans = [span for text in fenced(page)[::2] for span in re.findall(r"`([^`]+)`", text)]
    return [" ".join(s.split()) for s in spans if re.match(r"(python|make|mlflow|pip|\.venv/bin/\w+) ", s)]


def why_not_run(command: str) -> str:
    return next((why for start, why in NOT_RUN.items() if command.startswith(start)), "")


class StoppedAtOnce(StopSignals):
    """SIGINT after the first chunk of the second epoch, of one that has 100."""

    looks = 0

    def check(self) -> None:
        self.looks += 1
        if self.looks > 105:
            self.signum = 2
        super().check()


@pytest.fixture
def give(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str]]:
    """A command in this process, which is also a sweep's only worker: its status, and what it printed. Reports, three
    seconds each, are written of the studies that the pages go on with."""
    from tbptt.studies.worker import work

    write_report = page.write_report

    def report_of(study: Any, store: Any) -> Path:
        if study.name in ("mine", "first", "folds"):
            return write_report(study, store)
        for name in page.SHARED:
            (here / name).touch()
        return here / "report.html"

    monkeypatch.setattr(page, "write_report", report_of)
    monkeypatch.setattr("tbptt.studies.sweep._run_pool", lambda study, plan, spec, *_: work(spec))
    monkeypatch.setattr("tbptt.studies.pool.early", lambda config: [])
    monkeypatch.setenv("TBPTT_STORAGE", "sqlite:///sweeps/optuna.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlruns/mlflow.db")
    train = hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(job)

    def given(script: str, *words: str) -> tuple[int, str]:
        if script == "studies":
            return studies.main(words, CONF), "".join(capsys.readouterr())
        if script == "report.py":
            return main.report(list(words), CONF), "".join(capsys.readouterr())
        if script == "predict.py":
            return predict.main(list(words), CONF), "".join(capsys.readouterr())
        monkeypatch.setattr(sys, "argv", [script, *words])
        GlobalHydra.instance().clear()
        return run(train, CONF), "".join(capsys.readouterr())

    return given


def little(words: list[str]) -> list[str]:
    """What makes a command's data and networks small, and its searches short."""
    typed = {word.split("=")[0]: word.partition("=")[2] for word in words if "=" in word}
    if "resume" in typed:
        return []
    more = [*LITTLE, *(SERIES if "data" not in typed else [])]
    asked = int(typed.get("study.n_trials", "40" if "sweep" in typed and "study.best_of" not in typed else "0"))
    more += [f"study.n_trials={2 + (asked > 20)}"] if asked else []
    if "cluster" in typed:  # its servers are in test_cluster.py; that the command means something is seen here
        more += ["study.dry_run=true"]
    return more


def write_prices() -> None:
    """``prices.csv``, as the pages name it: two assets' closes on 400 weekdays, and a volume."""
    days = np.busday_offset("2023-01-02", np.arange(400))
    rng = np.random.default_rng(5)
    a, b = (start + rng.standard_normal(len(days)).cumsum() for start in (100, 50))
    rows = zip(days, a, b, rng.integers(1000, 90_000, len(days)), strict=True)
    lines = [f"{day},{close_a:.2f},{close_b:.2f},{volume}" for day, close_a, close_b, volume in rows]
    Path("prices.csv").write_text("\n".join(["date,close_a,close_b,volume_a", *lines]))


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_a_page_do_what_it_says(page: str, here: Path, give: Any, monkeypatch: Any) -> None:
    write_prices()
    with monkeypatch.context() as stopped:
        stopped.setattr(runtime, "StopSignals", StoppedAtOnce)
        stopped.setattr("tbptt.runs.context.RunContext", lambda **more: RunContext(signals=StoppedAtOnce(), **more))
        status, said = give("train.py", *LITTLE, *SERIES, "epochs=3")
    assert status == 130
    run_id = re.search(r"resume=(\w{32})", said)
    assert run_id, said
    given = []
    for command in commands(page):
        if why_not_run(command):
            continue
        python, script, *words = shlex.split(command.replace("RUN_ID", run_id[1]))
        assert (python, script) == ("tbptt", "studies") or python == "python", command
        if any(own in command for own in ("lion", "lars", "residual", "volatility", "val/wild", "limit_and_stop")):
            continue  # test_own.py adds them
        status, said = give(script, *words, *(little(words) if script == "train.py" else []))
        if "device=cuda" in words and not torch.cuda.is_available():
            assert (status, "this machine has no GPU" in said) == (2, True), command
            continue
        assert status == 0, f"{command}: {said}"
        assert said or "progress=none" in little(words), command
        given.append(command)
    assert len(given) >= 8
    searched(page)
    for code in blocks(page, "python"):
        if page == "README.md":
            code = "prices = torch.rand(2, 50, dtype=torch.float64).cumsum(1)\n" + code
        names: dict[str, Any] = {"torch": torch}
        exec(code.replace("RUN_ID", run_id[1]), names)
        if "table" in names:
            assert {"time", "series", "part", "buy", "true_buy", "side", "profit"} <= set(names["table"])
            if "q" not in names:
                continue
        if "tbptt.trials" in code:
            assert names["curves"]["trial"].nunique() == len(names["trials"]) > 0
            assert not names["updates"].empty
            continue
        assert names["q"].shape == names["y"].shape == (2, names["prices"].shape[1] - 8, 2)
        assert torch.isfinite(names["q"]).all()
        assert names["side"].shape == names["q"].shape[:2]


def searched(page: str) -> None:
    """Every search that a page prints, in the store that its commands left: it finds the run that it describes, not
    one that differs; and what it asks for is there in real runs, but for what ends a run."""
    store = MlflowClient(f"sqlite:///{Path('mlruns/mlflow.db').absolute()}")
    experiment = store.get_experiment_by_name("tbptt").experiment_id
    real = store.search_runs([experiment])
    known = {
        f"{kind}.{name}" for run in real for kind in ("metrics", "params", "tags") for name in getattr(run.data, kind)
    }
    both = []
    for loss, optimizer, clip, study in ((0.4, "adam", "0.5", "first"), (0.6, "sgd", "2.0", "other")):
        run = store.create_run(experiment, tags={"study.name": study}).info.run_id
        metrics = [Metric(name, loss, 0, 0) for name in ("val/loss", "best/val/loss")]
        store.log_batch(run, metrics, [Param("optimizer.name", optimizer), Param("clip", clip)])
        both.append(run)
    for search in "".join(blocks(page, "mlflow")).splitlines():
        found = {run.info.run_id for run in store.search_runs([experiment], search)}
        assert found & set(both) == {both[0]}, search
        for kind, quoted, plain in re.findall(r"(metrics|params|tags)\.(?:`([^`]+)`|([\w.]+))", search):
            assert f"{kind}.{quoted or plain}" in known, search


# Its text, as importing it takes seconds.
MLFLOW = Path(mlflow.__file__).parent
MLFLOW_CLI = (MLFLOW / "cli" / "__init__.py").read_text() + (MLFLOW / "utils" / "cli_args.py").read_text()
MLFLOW_MODELS = (MLFLOW / "models" / "cli.py").read_text()
EVERY_PAGE = sorted(str(p.relative_to(ROOT)) for p in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])


@pytest.mark.parametrize("page", EVERY_PAGE)
def test_a_search_is_in_a_block_that_is_tried(page: str) -> None:
    texts = fenced(page)[::2]
    loose = [s for text in texts for s in re.findall(r"(?:metrics|params|tags)\.\S+ *(?:[<>=]|!=|I?LIKE)[^`]*", text)]
    assert loose == []
    assert page in PAGES or not blocks(page, "mlflow")


def named(page: str) -> list[str]:
    """The commands of a page that are not run above."""
    return [*(commands(page) if page not in PAGES else ()), *in_text(page)]


@pytest.mark.parametrize("page", EVERY_PAGE)
def test_the_commands_of_every_page_name_what_is_there(page: str) -> None:
    for command in named(page):
        match shlex.split(command):
            case ["make", target]:
                assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE), command
            case ["mlflow", "models", name, *words]:
                assert f"\ndef {name}(" in MLFLOW_MODELS, command
                assert all(f'"{word}"' in MLFLOW_MODELS + MLFLOW_CLI for word in words if word.startswith("--")), (
                    command
                )
            case ["mlflow", name, *words]:
                assert name == "ui" or f"\ndef {name}(" in MLFLOW_CLI, command
                assert all(f'"{word}"' in MLFLOW_CLI for word in words if word.startswith("--")), command
            case ["python", "-m", "pytest", *words]:
                assert all((ROOT / word).is_file() for word in words if word.endswith(".py")), command
            case ["python", script, *words] if script.startswith("benchmarks/"):
                compile(code := (ROOT / script).read_text(), script, "exec")
                assert all(f'"{word}"' in code for word in words if word.startswith("--")), command
            case ["python", "train.py", "-m", *_]:
                pass  # below
            case _:
                assert why_not_run(command) or command in SEEN_IN_BLOCKS, command


@pytest.mark.slow
@pytest.mark.parametrize("page", EVERY_PAGE)
def test_the_sweeps_of_other_pages_can_be_given(page: str, give: Any) -> None:
    """As dry runs, which create nothing; composing what a sweep may choose takes seconds."""
    for command in named(page):
        script, *words = shlex.split(command)[1:] or [""]
        if script == "train.py" and words[0] == "-m":
            words = [word for word in words if "best_of" not in word]  # of a study that is not there
            status, said = give(script, *words, *little(words), "study.dry_run=true")
            assert status == 0, f"{command}: {said}"
    assert not Path("sweeps").exists()
    assert not Path("mlruns").exists()


def test_inputs_are_those_that_training_sees(here: Path, give: Any) -> None:
    assert give("train.py", *LITTLE, *SERIES)[0] == 0
    import tbptt
    from tbptt.tasks.prepare import prepare

    (checkpoint,) = here.glob("mlruns/artifacts/**/best.ckpt")
    _, scaler, config = load_run(str(checkpoint))
    from omegaconf import OmegaConf

    from tbptt.data.split import load_split

    data: Any = OmegaConf.to_object(config.data)
    task: Any = OmegaConf.to_object(config.task)
    prepared = prepare(data, task)
    rows = list(load_split(data, task).val.values())
    prices = torch.tensor(rows[0])[None]
    x = tbptt.inputs(prices, scaler, config)
    steps = prepared.val.features.length
    assert torch.equal(x[:, :steps], prepared.val.features(0, steps))
    with pytest.raises(
        ValueError, match=r"prices: got \(1, 8\); takes any number of series of more than 8 prices each"
    ):
        tbptt.inputs(prices[:, :8], scaler, config)


@pytest.mark.parametrize("page", EVERY_PAGE)
def test_what_a_page_links_to_is_there(page: str) -> None:
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", (ROOT / page).read_text())
    missing = [to for to in links if "://" not in to and not ((ROOT / page).parent / to).exists()]
    assert not missing


def test_the_map_of_the_code_names_every_module() -> None:
    shown = (ROOT / "README.md").read_text().partition("## How it is built")[2].split("```")[1]
    of_package: dict[str, str] = {}
    package = ""
    for line in shown.splitlines():
        head = re.match(r"  (\w+)/ ", line)
        package = head[1] if head else package if line.startswith("    ") else ""
        of_package[package] = of_package.get(package, "") + line
    packages = [path.parent for path in (ROOT / "src" / "tbptt").glob("*/__init__.py")]
    for package in packages:
        words = set(re.findall(r"\w+", of_package[package.name]))
        assert {path.stem for path in package.rglob("*.py")} - {"__init__"} <= words, package.name
    assert len(packages) > 10


def rows_of(results: str) -> list[dict[str, str]]:
    with (ROOT / "docs" / "results" / f"{results}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def told_of_future_work() -> str:
    return (ROOT / "docs" / "future_work.md").read_text()


def losses_of(row: dict[str, str]) -> list[float]:
    return [float(value) for value in row["by_seed"].split()]


def in_words(losses: list[float]) -> str:
    return f"{statistics.fmean(losses):.3f} ({min(losses):.3f} to {max(losses):.3f})"


@pytest.mark.parametrize("study", ["future-work", "future-work-market"])
def test_what_each_key_explains_is_told_as_it_was_kept(study: str) -> None:
    for row in rows_of(f"{study}-explained"):
        share, chance = "{share:.2f} ({low:.2f} to {high:.2f})", row["chance"] and f"{float(row['chance']):.2f}"
        numbers = share.format(**{name: float(row[name]) for name in ("share", "low", "high")})
        assert f"| `{row['key']}` | {row['trials']} | {numbers} | {chance} |" in told_of_future_work()


def test_the_table_of_chunks_and_clip_is_that_of_the_kept_results() -> None:
    losses = {(row["schedule.chunks"], row["clip"]): losses_of(row) for row in rows_of("schedule-or-not")}
    assert len(losses) == 8
    for chunks in {chunks for chunks, _ in losses}:
        with_clip, without = losses[chunks, "1.4"], losses[chunks, "null"]
        better = sum(a < b for a, b in zip(with_clip, without, strict=True))
        line = f"| `{chunks}` | {in_words(with_clip)} | {in_words(without)} | {better} of {len(without)} |"
        assert line in told_of_future_work()


@pytest.mark.parametrize("study", ["future-work", "future-work-market"])
def test_the_best_five_are_told_as_they_were_kept(study: str) -> None:
    complete = [row for row in rows_of(study) if row["state"] == "COMPLETE"]
    assert len([row for row in rows_of(study) if row["state"] in ("COMPLETE", "PRUNED")]) == (
        40 if "market" in study else 60
    )
    again = rows_of(f"{study}-again")
    best = sorted(complete, key=lambda row: float(row["val/loss"]))[: len(again)]
    assert {row["chosen_trial"] for row in again} <= {row["trial"] for row in best}
    for row in again:
        schedule = (
            row["schedule.chunks"]
            if row["schedule"] == "article"
            else f"{row['schedule.start']}, {row['schedule.stages']}"
        )
        point = f"{row['optimizer']} | {float(row['clip']):.2g} {row['clip_mode']} | {row['schedule']} {schedule}"
        numbers = f"{float(row['chosen_value']):.3f} | {in_words(losses_of(row))}"
        assert f"| {point} | {numbers} |" in told_of_future_work()
