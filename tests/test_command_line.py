"""A wrong command costs nothing: every mistake gets its line, and nothing is written; a right one exits as promised."""

import io
import math
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from conftest import CONF, ROOT, SMALL
from mlflow import MlflowClient

from tbptt.cli.command_line import CommandError, checked
from tbptt.cli.help_page import help_text
from tbptt.cli.main import run
from tbptt.config.typed import FLAGS
from tbptt.options.option import GROUPS
from tbptt.system.runtime import Interrupted, PastHydra

ABOVE_0 = "a number above 0"
FROM_0 = "a whole number from 0"
FROM_1 = "a whole number from 1"
CHUNKS = "a list of whole numbers from 1"
OPTIMIZERS = "adadelta, adagrad, adam, adamw, momentum, muon, rmsprop, sgd"

# What is typed, the key that the line begins with, and what the line must say: what it got, what it takes.
VALUES = [
    ("clip=0", "clip", ["got 0", ABOVE_0, "null"]),
    ("clip=-1", "clip", ["got -1", ABOVE_0]),
    ("clip=nan", "clip", ["got nan", ABOVE_0]),
    ("clip=inf", "clip", ["got inf", ABOVE_0]),
    ("clip=text", "clip", ["got 'text'", ABOVE_0]),
    ("clip=true", "clip", ["got True", ABOVE_0]),
    ("clip=[1]", "clip", ["got [1]", ABOVE_0]),
    ("clip_mode=nrom", "clip_mode", ["got 'nrom'", "norm, tensor_norm, value, std"]),
    ("schedule.chunks=[]", "schedule.chunks", ["got []", CHUNKS]),
    ("schedule.chunks=[10,0]", "schedule.chunks", ["got [10, 0]", CHUNKS]),
    ("schedule.chunks=[-2]", "schedule.chunks", ["got [-2]", CHUNKS]),
    ("schedule.chunks=[1.5]", "schedule.chunks", ["got [1.5]", CHUNKS]),
    ("schedule.chunks=10", "schedule.chunks", ["got 10", CHUNKS]),
    ("schedule.chunks=[20001,1]", "schedule.chunks", ["got [20001, 1]", "20000"]),
    ("schedule.patience=0", "schedule.patience", ["got 0", FROM_1, "null"]),
    ("schedule.stage_epochs=0", "schedule.stage_epochs", ["got 0", FROM_1, "auto", "null"]),
    ("data.window=0", "data.window", ["got 0", FROM_1]),
    ("data.length=0", "data.length", ["got 0", FROM_1]),
    ("data.length=1000000000", "data.length", ["got 1000000000", "of memory", "are free"]),
    ("data.n_series=two", "data.n_series", ["got 'two'", FROM_1]),
    ("data.val_series=0", "data.val_series", ["got 0", FROM_1]),
    ("data.gamma=1", "data.gamma", ["got 1", "from 0 and below 1"]),
    ("task.gamma=1", "task.gamma", ["got 1", "from 0 and below 1"]),
    ("data.gamma=1", "data.gamma", ["its name is task.gamma now"]),
    ("data.gamma=-0.1", "data.gamma", ["got -0.1", "from 0 and below 1"]),
    ("data.fee=-1", "data.fee", ["got -1", "a number from 0"]),
    ("data.fee_unit=percent", "data.fee_unit", ["got 'percent'", "price, change_std"]),
    ("data.horizon=-1", "data.horizon", ["got -1", FROM_0, "auto"]),
    ("data.features=returns", "data.features", ["got 'returns'", "lagged_change, one_step_change"]),
    ("data.frequencies=[1]", "data.frequencies", ["got [1", "two numbers"]),
    ("data.phase=1", "data.phase", ["got 1", "one of 0, random"]),
    ("data.phase=rnd", "data.phase", ["got 'rnd'", "one of 0, random"]),
    ("data.phase=false", "data.phase", ["got False", "one of 0, random"]),
    ("data.phase=null", "data.phase", ["got null", "one of 0, random"]),
    ("data.seed=-1", "data.seed", ["got -1", FROM_0]),
    ("seed=-1", "seed", ["got -1", FROM_0]),
    ("optimizer.lr=0", "optimizer.lr", ["got 0", ABOVE_0]),
    ("optimizer.lr=-1", "optimizer.lr", ["got -1", ABOVE_0]),
    ("optimizer.lr=inf", "optimizer.lr", ["got inf", ABOVE_0]),
    ("epochs=0", "epochs", ["got 0", FROM_1]),
    ("epochs=1.5", "epochs", ["got 1.5", FROM_1]),
    ("epochs=true", "epochs", ["got True", FROM_1]),
    ("eval_every=0", "eval_every", ["got 0", FROM_1]),
    ("model.hidden=[]", "model.hidden", ["got []", "at least one"]),
    ("model.dense=[0]", "model.dense", ["got [0]", "whole numbers from 1"]),
    ("model.cell=rnn", "model.cell", ["got 'rnn'", "lstm, gru"]),
    ("model.noise_std=-1", "model.noise_std", ["got -1", "a number from 0"]),
    ("objective=val/los", "objective", ["got 'val/los'", "val/loss", "train/eval_loss"]),
    ("objective=[val/loss,foo]", "objective", ["foo", "val/loss", "train/eval_loss"]),
    ("precision=16", "precision", ["got 16", "32, bf16", "fp16 is refused"]),
    ("precision=fp16", "precision", ["got 'fp16'", "32, bf16", "loss scaling"]),
    ("device=tpu", "device", ["got 'tpu'", "auto, cpu, cuda"]),
    ("progress=loud", "progress", ["got 'loud'", "auto, plain, none"]),
    ("tracking.update_points=-1", "tracking.update_points", ["got -1", FROM_0]),
    ("tracking.experiment=''", "tracking.experiment", ["got ''", "a text"]),
    ("tracking.uri=foo://bar", "tracking.uri", ["got 'foo://bar'", "sqlite:///PATH", "http"]),
    ("tracking.uri=mlruns", "tracking.uri", ["got 'mlruns'", "sqlite:///PATH"]),
    ("tracking.uri=postgres://host/db", "tracking.uri", ["postgres://host/db", "did you mean postgresql?"]),
    ("tracking.uri=sqlite:////proc/new/x.db", "tracking.uri", ["/proc/new/x.db", "cannot be written"]),
    ("tracking.uri=sqlite:///notes.txt", "tracking.uri", ["notes.txt", "no SQLite database"]),
    ("tracking.uri=sqlite:///folder", "tracking.uri", ["folder", "a directory"]),
    # too large for what takes them
    ("seed=18446744073709551616", "seed", ["got 18446744073709551616", FROM_0, "at most 9223372036854775807"]),
    ("epochs=9223372036854775808", "epochs", [FROM_1, "at most 9223372036854775807"]),
    ("schedule.chunks=[9223372036854775808]", "schedule.chunks", [CHUNKS, "at most 9223372036854775807"]),
    ("threads=100000", "threads", ["from 1 to 1024"]),
    ("data.fee=1e308", "data.fee", ["got 1e+308", "a number from 0", "at most 1e+30"]),
    ("data.frequencies=[1e308,0]", "data.frequencies", ["two numbers", "at most 1e+30"]),
    ("data.horizon=10000000", "data.horizon", ["got 10000000", "at most 20000"]),
    ("data.horizon=20001", "data.horizon", ["got 20001", "at most 20000"]),
    ("data.gamma=0.999999", "data.gamma", ["got 0.999999", "at most 1000000", "auto: 4605168"]),
    ("data.n_series=10000000", "data.n_series", ["got 10000000", "from 1 to 100000"]),
    ("data.n_series=100000", "data.n_series", ["got 100000", "of memory", "are free"]),
    (f"model.hidden=[{','.join(1001 * '8')}]", "model.hidden", ["… (1001 of them)", "at most 1000"]),
    (f"tracking.experiment={'x' * 257}", "tracking.experiment", ["(259 characters)", "at most 256 characters"]),
    ("data.horizon=1000000000000", "data.horizon", ["got 1000000000000", "of memory", "are free"]),
    ("data.window=1000000000000", "data.window", ["got 1000000000000", "of memory", "are free"]),
    ("model.hidden=[1000000000]", "model", ["[1000000000]", "of memory", "are free"]),
    # names
    ("optimizer=adm", "optimizer", ["got 'adm'", OPTIMIZERS, "did you mean adam?"]),
    ("optimizer=null", "optimizer", ["null", OPTIMIZERS]),
    ("data=artical", "data", ["got 'artical'", "article, market, prices", "did you mean article?"]),
    ("optimzer=adam", "optimzer", ["unknown", "did you mean optimizer?"]),
    ("clipp=1", "clipp", ["unknown", "did you mean clip?"]),
    ("optimizer.lrr=1", "optimizer.lrr", ["unknown", "did you mean optimizer.lr?"]),
    ("tracking.url=x", "tracking.url", ["unknown", "did you mean tracking.uri?"]),
    ("+foo=1", "foo", ["unknown"]),
    ("++foo=1", "foo", ["unknown"]),
    ("+optimizer.foo=1", "optimizer.foo", ["unknown"]),
    ("schedule.start=3", "schedule.start", ["schedule=geometric"]),
    ("data.columns=[a]", "data.columns", ["a key of data=market and data=prices, and another data is chosen"]),
    ("data.path=a.csv", "data.path", ["a key of data=prices, and another data is chosen"]),
    ("optimizer.alpha=0.5", "optimizer.alpha", ["optimizer=rmsprop"]),
    # grammar
    ("clip", "clip", ["takes key=value"]),
    ("clip=[1", "clip=[1", ["takes key=value"]),
    ("clip=1,2", "clip", ["got 1,2", "add -m"]),
    ("schedule.chunks=[1],[2]", "schedule.chunks", ["got [1],[2]", "add -m"]),
    ("clip=interval(0.1,10)", "clip", ["add -m"]),
    ("clip=${nowhere}", "clip", ["nowhere"]),
]

# Files of prices, and what the line about each must say. The first column is the key.
FILES = [
    ("missing.csv", [], "data.path", ["missing.csv", "does not exist"]),
    ("folder", [], "data.path", ["folder", "is a folder without Parquet files"]),
    ("empty.csv", [], "data.path", ["empty.csv", "is empty"]),
    ("one_row.csv", [], "data.path", ["one_row.csv", "1 row"]),
    ("words.csv", [], "data.columns", ["words.csv", "no column of prices", "a: texts"]),
    ("text.csv", [], "data.path", ["text.csv", "column a", "line 52", "'hello'"]),
    ("gap.csv", [], "data.gaps", ["gap.csv", "column a", "line 52", "blank", "data.gaps=drop"]),
    ("short.csv", [], "data.path", ["100 prices", "at least 175"]),
    ("gap.csv", ["data.columns=[b,c]"], "data.columns", ["gap.csv", "no column c", "a, b"]),
    ("notes.txt", [], "data.path", ["notes.txt"]),
    ("broken.parquet", [], "data.path", ["broken.parquet", "cannot be read"]),
    ("words.parquet", [], "data.columns", ["words.parquet", "no column of prices", "a: texts"]),
    ("gap.parquet", [], "data.gaps", ["gap.parquet", "column a", "row 51", "blank", "data.gaps=carry"]),
    ("gap.parquet", ["data.columns=[b]"], "data.columns", ["gap.parquet", "no column b", "a"]),
    ("huge.csv", [], "data.path", ["a changes by up to 1e+308", "held-out part"]),
    ("infinite.parquet", [], "data.path", ["infinite.parquet", "column a", "row 3", "not a finite number"]),
]


@pytest.fixture
def files(here: Path) -> Path:
    """A working directory with files to stumble over."""
    fifty = [str(i) for i in range(50)]
    (here / "folder").mkdir()
    contents = {
        "empty.csv": "",
        "one_row.csv": "a\n1\n",
        "words.csv": "a\nx\ny\nz\n",
        "text.csv": "\n".join(["a", *fifty, "hello", *fifty]),
        "gap.csv": "\n".join(["a,b", *(f"{i},{i}" for i in fifty), ",5", *(f"{i},{i}" for i in fifty)]),
        "huge.csv": "\n".join(["a", *60 * fifty, "1e308", *fifty]),
        "short.csv": "\n".join(["a", *fifty, *fifty]),
        "broken.parquet": "PAR1 and no more",
        "notes.txt": "neither prices nor a database",
    }
    for name, content in contents.items():
        (here / name).write_text(content)
    numbers = [float(i) for i in range(100)]
    tables: dict[str, list[object]] = {
        "words.parquet": ["x", "y", "z"],
        "gap.parquet": [*numbers[:50], None, *numbers],
        "infinite.parquet": [1.0, 2.0, math.inf, *numbers],
    }
    for name, column in tables.items():
        pd.DataFrame({"a": column}).to_parquet(here / name)
    return here


def refused(argv: list[str]) -> list[str]:
    """The lines about a wrong command, after a look that it left nothing behind."""
    before = listing(Path.cwd())
    with pytest.raises(CommandError) as caught:
        checked(argv, CONF)
    assert listing(Path.cwd()) == before
    return caught.value.lines


def listing(folder: Path) -> dict[str, int]:
    """What is there, but for what Python has compiled: another test may import a module meanwhile."""
    found = (p for p in folder.rglob("*") if "__pycache__" not in p.parts)
    return {str(p.relative_to(folder)): p.lstat().st_size if p.is_file() else -1 for p in found}


def assert_says(line: str, key: str, parts: list[str]) -> None:
    assert line.startswith(f"{key}: "), line
    assert "\n" not in line
    for part in parts:
        assert part in line, f"{part!r} is not in {line!r}"


@pytest.mark.parametrize(("word", "key", "parts"), VALUES, ids=[word for word, *_ in VALUES])
def test_mistake_gets_one_line_with_key_got_and_takes(word: str, key: str, parts: list[str], files: Path) -> None:
    lines = refused([word])
    assert len(lines) == 1, lines
    assert_says(lines[0], key, parts)


@pytest.mark.parametrize(("name", "more", "key", "parts"), FILES, ids=[" ".join([f[0], *f[1]]) for f in FILES])
def test_file_that_cannot_be_used_gets_one_line(
    name: str, more: list[str], key: str, parts: list[str], files: Path
) -> None:
    lines = refused(["data=prices", f"data.path={name}", *more])
    assert len(lines) == 1, lines
    assert_says(lines[0], key, parts)


def test_missing_path_gets_one_line(files: Path) -> None:
    (line,) = refused(["data=prices"])
    assert_says(line, "data.path", ["missing", "CSV or Parquet"])


def test_market_column_that_is_not_there_gets_one_line(files: Path) -> None:
    (line,) = refused(["data=market", "data.columns=[gold]"])
    assert_says(line, "data.columns", ["gold", "sp500, nasdaq, wti"])


def test_chunks_are_held_against_the_longest_series_of_a_file(files: Path) -> None:
    Path("two.csv").write_text("a,b\n" + "".join(f"{i % 7},{i % 5 if i < 60 else ''}\n" for i in range(100)))
    small = ["data=prices", "data.path=two.csv", "data.split=each", "data.window=8", "data.horizon=3"]
    steps = 100 - 20 - 20 - 2 - 3 - 8 + 1  # trained steps window..n-v-t-2-horizon
    (line,) = refused([*small, f"schedule.chunks=[{steps + 1}]"])
    assert_says(line, "schedule.chunks", [f"got [{steps + 1}]", str(steps)])
    assert checked([*small, f"schedule.chunks=[{steps}]"], CONF)


def test_geometric_start_above_the_length_is_refused(files: Path) -> None:
    (line,) = refused(["schedule=geometric", "schedule.start=20001"])
    assert_says(line, "schedule.start", ["got 20001", "20000"])


def test_cuda_without_a_gpu_is_refused(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    (line,) = refused(["device=cuda"])
    assert_says(line, "device", ["got 'cuda'", "no GPU", "auto or cpu"])


PASSWORDS = [
    "postgresql://me:hunter2@host/db",
    "mysql+pymysql://me:hunter2@host/db",
    "http://me:hunter2@host:5000",
    "https://me:hunter2@host",
    "postgres://me:hunter2@host/db",  # a kind that there is not, which is shown as it was typed
    "postgresql://me:hunter2#@host/db",  # a password that a URL would have to quote
    "postgresql://me:hunter2/@host/db",
    "postgresql://host/db?user=me&password=hunter2",
    "sqlite:///a.db,postgresql://me:hunter2@host/db",  # several values, which are shown too
]


@pytest.mark.parametrize("uri", PASSWORDS)
def test_password_in_a_uri_is_refused_and_not_shown(uri: str, files: Path) -> None:
    lines = refused([f"tracking.uri={uri}" if "?" not in uri and "#" not in uri else f"tracking.uri='{uri}'"])
    assert lines[0].startswith("tracking.uri: ")
    assert "hunter2" not in "\n".join(lines)


def test_all_mistakes_are_told_at_once(files: Path) -> None:
    wrong = {
        "clip=0": "clip",
        "epochs=1.5": "epochs",
        "optimizer=adm": "optimizer",
        "foo=1": "foo",
        "+bar=1": "bar",
        "clip_mode=nrom": "clip_mode",
        "schedule.chunks=[0]": "schedule.chunks",
        "data.gamma=1": "data.gamma",
        "tracking.uri=foo://bar": "tracking.uri",
        "seed": "seed",
        "device=tpu,cpu": "device",
    }
    lines = refused(list(wrong))
    assert sorted(line.split(": ")[0] for line in lines) == sorted(wrong.values())


@pytest.mark.parametrize(
    ("argv", "key", "got"),
    [
        (["clip=1,0"], "clip", "0"),
        (["optimizer=adam,adm"], "optimizer", "'adm'"),
        (["clip=choice(0.5,-1)", "optimizer.lr=0.1,0.2"], "clip", "-1"),
        (["optimizer.lr=0.1,0.2", "clip=interval(-1,3)"], "clip", "-1"),
        (["schedule.chunks=[10,1],[0]"], "schedule.chunks", "[0]"),
        (["model.noise_std=0,0.1", "epochs=0"], "epochs", "0"),
    ],
    ids=" ".join,
)
def test_bad_value_inside_a_sweep_is_refused(argv: list[str], key: str, got: str, files: Path) -> None:
    lines = refused(["-m", *argv])
    assert len(lines) == 1, lines
    assert lines[0].startswith(f"{key}: ")
    assert got in lines[0]


def test_config_folder_that_is_not_there_is_refused(files: Path) -> None:
    (line,) = refused(["--config-dir", "nowhere"])
    assert_says(line, "--config-dir", ["'nowhere'"])


def test_config_name_that_is_not_there_is_refused(files: Path) -> None:
    (line,) = refused(["--config-name", "nowhere"])
    assert "nowhere" in line


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["optimizer=rmsprop", "clip=null", "schedule.chunks=[100,1]"],
        ["schedule=geometric", "schedule.start=20000", "schedule.stages=3"],
        ["clip=0.5", "optimizer.lr=1e-3", "objective=[val/loss,time/train_seconds]", "precision=bf16"],
        ["tracking.uri=sqlite:///new/place/x.db"],
        ["task.horizon=0", "task.fee=0", "data.features=one_step_change"],
        ["task.horizon=20000"],
        ["-m", "data.phase=0,random"],
        ["task.gamma=0.99999"],
        ["task.gamma=0", "task.horizon=10000", "data.length=100", "schedule.chunks=[1]"],
        [f"tracking.experiment={'x' * 256}", f"model.hidden=[{','.join(1000 * '8')}]", "epochs=1000000000000"],
    ],
    ids=" ".join,
)
def test_right_command_goes_on_to_hydra_unchanged_and_leaves_nothing(argv: list[str], here: Path) -> None:
    assert checked(argv, CONF) == argv
    assert not list(here.iterdir())


# --- help -----------------------------------------------------------------------------------------------------


def test_help_lists_every_group_option_and_key(config: Callable[..., object]) -> None:
    text = help_text(CONF)
    for group in GROUPS:
        (line,) = [line for line in text.splitlines() if re.match(rf"\s+{group}\s", line)]
        for option in (CONF / group).glob("*.yaml"):
            assert option.stem in line
    # the contract's table, whose nested keys of every option must be there, not only those of the default ones
    promised = """data.n_series data.length data.val_series data.val_fraction data.seed data.window data.features
        task.gamma task.fee task.fee_unit task.horizon task.horizons
        data.noise_std data.frequencies data.phase data.path data.columns
        model.dense model.hidden model.cell model.noise_std model.init optimizer.lr clip clip_mode schedule.chunks
        schedule.start schedule.stages schedule.patience schedule.stage_epochs epochs eval_every seed device precision
        objective tracking.uri tracking.experiment tracking.update_points"""
    listed = {match[1]: match[2] for match in re.finditer(r"^\s+([\w.]+)=\S*\s+(\S.*)$", text, re.MULTILINE)}
    assert set(promised.split()) <= set(listed)
    assert "above 0" in listed["clip"]


def test_help_prints_keys_as_they_are_typed_and_says_what_each_means(config: Callable[..., Any], here: Path) -> None:
    lines = [line for line in help_text(CONF).splitlines() if re.match(r"  [\w.]+=", line)]
    words = [line.split()[0] for line in lines]
    assert {"data.frequencies=[0.0002,0.0002]", "study.seeds=null", "study.dry_run=false"} <= set(words)
    of_the_default = [word for word, line in zip(words, lines, strict=True) if "[" not in line.split("  ")[-2]]
    default = config()
    pasted = checked(["-m", "clip=1,2", *(w for w in words if not w.startswith("clip=") and w in of_the_default)], CONF)
    assert len(pasted) > 40
    cfg = config(*pasted[2:])
    cfg.clip = default.clip
    assert cfg == default
    without = [word.split("=")[0] for word, line in zip(words, lines, strict=True) if "  # " not in line]
    assert all(name.endswith(".name") for name in without)


def test_help_offers_no_flag_that_is_refused() -> None:
    text = help_text(CONF)
    assert "--config-path" not in text
    assert "--experimental-rerun" not in text
    assert all(f"  {flag} " in text for flag in FLAGS)


@pytest.mark.parametrize("flag", ["--help", "-h", "--hydra-help"])
def test_help_is_ours_by_any_name(
    flag: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ends(AssertionError("ran"), monkeypatch, (flag,)) == 0
    assert capsys.readouterr().out.strip() == help_text(CONF).strip()


def test_help_imports_nothing_slow(tmp_path: Path) -> None:
    done = train("--help", cwd=tmp_path, interpreter=["-X", "importtime"])
    assert done.returncode == 0
    assert "clip_mode" in done.stdout
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert "hydra" in imported  # the listing is there
    assert not imported & {"torch", "lightning", "pytorch_lightning", "mlflow", "optuna", "pandas", "sqlalchemy"}
    assert not list(tmp_path.iterdir())


# --- exit statuses --------------------------------------------------------------------------------------------


def ends(error: BaseException | None, monkeypatch: pytest.MonkeyPatch, argv: tuple[str, ...] = ()) -> int:
    """The status of a command whose training ends with ``error``."""

    def hydra_main() -> None:
        if error is not None:
            raise error

    monkeypatch.setattr(sys, "argv", ["train.py", *argv])
    return run(hydra_main, CONF)


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (None, 0, []),
        (PastHydra(ValueError("the file is gone")), 1, ["the file is gone"]),
        (PastHydra(RuntimeError("two\nlines")), 1, ["RuntimeError", "two lines"]),
        (PastHydra(Interrupted(signal.SIGINT)), 130, ["SIGINT"]),
        (PastHydra(Interrupted(signal.SIGTERM)), 143, ["SIGTERM"]),
        (KeyboardInterrupt(), 130, ["SIGINT"]),
    ],
    ids=["done", "ValueError", "RuntimeError", "SIGINT", "SIGTERM", "KeyboardInterrupt"],
)
def test_exit_status_and_one_line_say_how_it_ended(
    error: BaseException | None,
    status: int,
    words: list[str],
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    assert ends(error, monkeypatch) == status
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == (1 if words else 0)
    assert all(word in lines[0] for word in words)


def test_full_error_shows_the_traceback(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    assert ends(PastHydra(RuntimeError("broken")), monkeypatch) == 1
    assert "RuntimeError: broken" in capsys.readouterr().err


def test_wrong_command_never_reaches_training(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ends(AssertionError("trained"), monkeypatch, ("clip=0", "epochs=0")) == 2
    assert [line.split(":")[0] for line in capsys.readouterr().err.splitlines()] == ["clip", "epochs"]


# --- the real command -----------------------------------------------------------------------------------------


def train(*argv: str, cwd: Path, interpreter: list[str] | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *(interpreter or []), str(ROOT / "train.py"), *argv]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=100)


@pytest.mark.parametrize(
    ("argv", "keys"),
    [
        (["clip=0", "epochs=0", "optimzer=adam"], ["clip", "epochs", "optimzer"]),
        (["data=prices", "data.path=missing.csv"], ["data.path"]),
        (["tracking.uri=http://me:hunter2@host"], ["tracking.uri"]),
        (["clip=1,2"], ["clip"]),
        (["-m", "clip=1,-1"], ["clip"]),
    ],
    ids=lambda words: " ".join(words),
)
def test_real_command_refuses_with_status_2_and_writes_nothing(
    argv: list[str], keys: list[str], tmp_path: Path
) -> None:
    done = train(*argv, cwd=tmp_path)
    assert done.returncode == 2
    assert sorted(line.split(":")[0] for line in done.stderr.splitlines()) == sorted(keys)
    assert "hunter2" not in done.stdout + done.stderr
    assert done.stdout == ""
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("stop", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signal_ends_the_real_command_with_its_status_and_kills_the_run(
    stop: signal.Signals, status: int, tmp_path: Path
) -> None:
    endless = ["epochs=100000", "schedule.patience=null", "progress=plain"]
    command = [sys.executable, str(ROOT / "train.py"), *SMALL, *endless]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "starting: loading libraries\n"
        while not process.stderr.readline().startswith("epoch"):  # a phase that lasts is said, too
            assert process.poll() is None
        process.send_signal(stop)
        last = process.stderr.read().splitlines()[-1]
        assert process.wait(timeout=60) == status
    assert stop.name in last
    assert [p.name for p in tmp_path.iterdir()] == ["mlruns"]
    client = MlflowClient(f"sqlite:///{tmp_path}/mlruns/mlflow.db")
    (found,) = client.search_runs([e.experiment_id for e in client.search_experiments()])
    assert found.info.status == "KILLED"
    assert found.data.tags["stop.reason"] == "interrupted"


HERE = "import runpy, sys; sys.argv = ['train.py', *sys.argv[1:]]; runpy.run_path('train.py', run_name='__main__')"


@pytest.mark.slow
@pytest.mark.parametrize("way", ["profiler", "run_path", "link"])
def test_it_runs_however_it_is_started(way: str, tmp_path: Path) -> None:
    """Hydra and Python take the folder of the file for where it was called from."""
    link = tmp_path / "mine.py"
    link.symlink_to(ROOT / "train.py")
    words = [*SMALL, "epochs=1", f"tracking.uri=sqlite:///{tmp_path}/mlflow.db"]
    start = {"profiler": ["-m", "cProfile", "train.py"], "run_path": ["-c", HERE], "link": [str(link)]}[way]
    cwd = tmp_path if way == "link" else ROOT
    done = subprocess.run([sys.executable, *start, *words], cwd=cwd, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert ("function calls" in done.stdout) is (way == "profiler")  # which it prints after the run
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    (found,) = client.search_runs(["1"])
    assert found.info.status == "FINISHED"


@pytest.mark.parametrize("argv", [["--help"], ["clip=γ"], ["-m", "clip=γ…,×"], ["lr=0"]], ids=" ".join)
def test_any_encoding_can_be_printed_in(argv: list[str], here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with PYTHONIOENCODING=ascii or LC_ALL=C."""
    streams = [io.TextIOWrapper(io.BytesIO(), encoding="ascii") for _ in range(2)]
    monkeypatch.setattr(sys, "stdout", streams[0])
    monkeypatch.setattr(sys, "stderr", streams[1])
    status = ends(None, monkeypatch, tuple(argv))
    printed = []
    for stream in streams:
        stream.flush()
        printed.append(stream.buffer.getvalue())  # type: ignore[attr-defined]
    assert status == (0 if argv == ["--help"] else 2)
    assert bool(printed[0]) is (status == 0)
    assert (b"\\u03b3" in printed[1]) is ("γ" in "".join(argv))


def test_a_key_by_its_old_name_goes_on_to_hydra_by_its_new_one(here: Path) -> None:
    assert checked(["data.gamma=0.9", "data.fee=0"], CONF) == ["task.gamma=0.9", "task.fee=0"]
