"""predict.py --stream: each row answered, with the numbers of one go over all rows."""

import io
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
from conftest import CONF, ROOT
from hydra import compose, initialize_config_dir

import tbptt
from tbptt.config.schema import register
from tbptt.runs.fit import fit
from tbptt.serving.predictor import Predictor
from tbptt.serving.rows_of_text import NO_TIME, Columns, Form, times_of
from tbptt.serving.source import find
from tbptt.serving.state_file import Until
from tbptt.serving.stream import MOST, READ, Reader, Stream, columns_of
from tbptt.serving.trained import trained as trained_of

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(tbptt.__file__).parents[1])}
URI = "sqlite:///mlruns/mlflow.db"
FEW = [
    *("data=prices", "data.reading=auto", "data.window=8", "data.test_fraction=0", "data.warm_steps=0"),
    *("model.dense=[]", "model.hidden=[4]", "schedule=fixed", "schedule.chunks=[5]", "epochs=1", "progress=none"),
]
RUNS = {
    "two": ["data.path=two.csv", "task.gamma=0.5", "data.columns=[A,B]"],
    "one": ["data.path=one.csv", "task=forecast", "task.horizons=[1,10]"],
    "inputs": [
        *("data.path=two.csv", "data.columns=[A,B]", "data.inputs=['volume:log1p','A:change',volume:log_change]"),
        *("data.gaps=carry", "task=forecast"),
    ],
}


class Trained(NamedTuple):
    folder: Path
    runs: dict[str, str]


def table(gaps: bool = False) -> pd.DataFrame:
    random, days = np.random.default_rng(8), 300
    found = pd.DataFrame({"Date": pd.bdate_range("2020-01-01", periods=days).strftime("%Y-%m-%d")})
    found["A"] = 100 + random.normal(0, 1, days).cumsum()
    found["B"] = 50 + random.normal(0, 0.5, days).cumsum()
    found["volume"] = random.integers(1000, 9000, days).astype(float)
    if gaps:
        found.loc[[40, 41, 90], "B"] = np.nan
    return found


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("trained")
    register()
    with pytest.MonkeyPatch.context() as patch, initialize_config_dir(str(CONF), version_base="1.3"):
        patch.chdir(folder)
        table().to_csv("two.csv", index=False)
        table()[["Date", "A"]].to_csv("one.csv", index=False)
        table(gaps=True).to_csv("gaps.csv", index=False)
        words = [f"tracking.uri={URI}", *FEW]
        runs = {name: fit(compose("config", [*words, *more])).run_id for name, more in RUNS.items()}
    return Trained(folder, runs)


@pytest.fixture
def there(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> Trained:
    monkeypatch.chdir(trained.folder)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return trained


Made = Callable[..., tuple[Stream, list[str]]]


@pytest.fixture
def made(there: Trained) -> Made:
    def found(name: str, header: str, skip: bool = False, form: Form | None = None) -> tuple[Stream, list[str]]:
        network, said = trained_of(find(there.runs[name])), []  # type: ignore[var-annotated]
        columns, _ = columns_of(network, header.encode(), form or Form(), "Date")
        predictor, until = Predictor(network, len(columns.names)), Until.start(columns.names, network.inputs)
        carry = network.config.data.gaps == "carry"
        return Stream(predictor, columns, form or Form(), until, skip, said.append, carry), said

    return found


def answers(stream: Stream, lines: list[str], every: int) -> pd.DataFrame:
    """The answers to blocks of so many lines."""
    text = stream.header()
    for start in range(0, len(lines), every):
        block = "".join(f"{line}\n" for line in lines[start : start + every])
        answered, stops = stream.answers(block.encode())
        text += answered
        if stops:
            break
    return pd.read_csv(io.BytesIO(text))


def in_one_go(run: str, path: str, column: str, series: str) -> pd.Series:
    """By time."""
    whole = tbptt.predict(run, path)
    own = whole[whole["series"] == series]
    return pd.Series(own[column].to_numpy(), index=own["time"].dt.strftime("%Y-%m-%d"))


def deviation(run: str) -> float:
    return float(tbptt.load_run(run)[1].target_std.min())


# --- numbers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("every", [1, 7, 1000])
@pytest.mark.parametrize(("name", "path"), [("two", "two.csv"), ("inputs", "gaps.csv")])
def test_answers_are_the_numbers_of_one_go(there: Trained, made: Made, name: str, path: str, every: int) -> None:
    rows = pd.read_csv(path)[["volume", "B", "Date", "A"]]  # in another order
    header, *lines = rows.to_csv(index=False).splitlines()
    stream, said = made(name, header)
    found = answers(stream, lines, every)
    assert said == []
    assert found["time"].tolist() == rows["Date"].tolist()
    for series in "AB":
        for column in ("buy", "sell", "side") if name == "two" else ("h1",):
            expected = in_one_go(there.runs[name], path, column, series)
            got = found.set_index("time")[f"{series}.{column}"]
            assert got.iloc[:8].isna().all()
            got = got.dropna()
            assert list(got.index) == list(expected.index)
            np.testing.assert_allclose(got, expected, atol=1e-5 * deviation(there.runs[name]), rtol=0)


def test_a_series_whose_price_is_missing_waits(there: Trained, made: Made) -> None:
    rows = table(gaps=True)[["Date", "A", "B"]]
    header, *lines = rows.to_csv(index=False).splitlines()
    found = answers(made("two", header)[0], lines, 50)
    expected = answers(made("two", header)[0], rows.dropna().to_csv(index=False).splitlines()[1:], 50)
    assert found["B.buy"].isna().sum() == 8 + 3
    np.testing.assert_allclose(found["B.buy"].dropna(), expected["B.buy"].dropna(), atol=1e-6)
    assert found["A.buy"].isna().sum() == 8


def test_numbers_alone_are_prices_of_the_only_series(there: Trained) -> None:
    prices = table()["A"]
    done = run(there, "one", "\n".join(map(str, prices)))  # without a last newline
    found = pd.read_csv(io.StringIO(done.stdout))
    assert found["row"].tolist() == list(range(1, 301))
    for column in ("h1", "h10"):
        expected = in_one_go(there.runs["one"], "one.csv", column, "A")
        np.testing.assert_allclose(found[column].iloc[8:], expected, atol=1e-5 * deviation(there.runs["one"]), rtol=0)


def test_another_delimiter_and_decimal(there: Trained, made: Made) -> None:
    form = Form.of(None, ",", "%d.%m.%Y")
    assert form.delimiter == ";"
    rows = table()[["Date", "A", "B"]].assign(Date=pd.to_datetime(table()["Date"]).dt.strftime("%d.%m.%Y"))
    header, *lines = rows.to_csv(index=False, sep=";", decimal=",").splitlines()
    stream, said = made("two", header, form=form)
    found = answers(stream, lines, 64)
    assert said == []
    expected = answers(made("two", "Date,A,B")[0], table()[["Date", "A", "B"]].to_csv().splitlines()[:0], 1)
    assert list(expected.columns) == list(found.columns)
    np.testing.assert_allclose(
        found["A.buy"].iloc[8:], in_one_go(there.runs["two"], "two.csv", "buy", "A"), atol=1e-6, rtol=0
    )
    with pytest.raises(ValueError, match=r"data\.delimiter: got ',', which is data\.decimal, too"):
        Form.of(",", ",", None)


# --- wrong rows -----------------------------------------------------------------------------------------------------

WRONG = {
    "2020-01-08,1": ": has 2 fields; takes 3",
    "2020-01-08,1,2,3": ": has 4 fields; takes 3",
    "2020-01-08,abc,2": " (2020-01-08): 'abc' in A is not a number",
    "2020-01-08,inf,2": " (2020-01-08): 'inf' in A is not a number",
    "2020-01-08,1,1_0": " (2020-01-08): '1_0' in B is not a number",
    "2020-01-06,1,2": ": 2020-01-06 is not after the time before it",
    "2020-01-07,1,2": ": 2020-01-07 is not after the time before it",
    "yesterday,1,2": ": 'yesterday' is not a time",
    "2020-01-08,\udcff,2": ": is no text",
}


@pytest.mark.parametrize("every", [1, 400])
@pytest.mark.parametrize("wrong", list(WRONG))
def test_a_wrong_row_is_told_and_leaves_no_trace(made: Made, wrong: str, every: int) -> None:
    header, *lines = table()[["Date", "A", "B"]].iloc[:40].to_csv(index=False).splitlines()
    assert lines[4].startswith("2020-01-07")
    mixed = [line.encode(errors="surrogateescape") for line in (*lines[:5], wrong, *lines[5:])]
    stream, said = made("two", header, skip=True)
    text = stream.header()
    for start in range(0, len(mixed), every):
        text += stream.answers(b"".join(line + b"\n" for line in mixed[start : start + every]))[0]
    found = pd.read_csv(io.BytesIO(text), skip_blank_lines=False)
    assert said == [f"row 6{WRONG[wrong]}"]
    assert len(found) == 41
    assert found.iloc[5, 1:].isna().all()
    expected = answers(made("two", header)[0], lines, 1000)
    pd.testing.assert_frame_equal(found.drop(index=5).reset_index(drop=True), expected, atol=1e-6, rtol=0)


def test_a_wrong_row_stops_the_stream_if_not_told_otherwise(there: Trained) -> None:
    header, *lines = table()[["Date", "A", "B"]].iloc[:40].to_csv(index=False).splitlines()
    text = "\n".join([header, *lines[:20], "2021-01-01,\x1b[2J,2", *lines[20:]])
    done = run(there, "two", text)
    assert done.returncode == 1
    assert done.stderr == "row 21 (2021-01-01): '\\x1b[2J' in A is not a number\n"
    assert len(done.stdout.splitlines()) == 1 + 20
    skipped = run(there, "two", text, "--on-error", "skip")
    assert skipped.returncode == 0
    assert len(skipped.stdout.splitlines()) == 1 + 41
    assert skipped.stderr == done.stderr


def test_what_the_header_lacks_is_told(there: Trained) -> None:
    network = trained_of(find(there.runs["two"]))
    for header, says in (
        ("Date,A", "the header has no B "),
        ("Date,A,B,A", "the header has 'A' twice"),
        ("1.5", "the header has no A, B "),
    ):
        with pytest.raises(ValueError, match=f"^{says}"):
            columns_of(network, header.encode(), Form(), None)
    done = run(there, "two", "Date,A\x1b\n2020-01-01,1\n")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "the header has no A, B (it has: Date, A?); the first line names the fields\n"


def test_mistakes_in_keys_and_header_end_it_before_any_answer(there: Trained, tmp_path: Path) -> None:
    path = tmp_path / "two.state"
    tbptt.predict(there.runs["two"], "two.csv", state=path)
    kept, other = path.read_bytes(), tmp_path / "other.state"
    tbptt.predict(there.runs["inputs"], "two.csv", state=other)
    not_one = tmp_path / "prices.csv"
    not_one.write_text("Date,A,B\n")
    for text, words, says in (
        ("Date,A,B\n", ["data.delimiter=."], "data.delimiter: got '.', which is data.decimal, too"),
        ("Date;A;B\n", [], 'say data.delimiter=";"'),
        ("Date,A,B\n", ["--state", str(other)], "is a state of other series or inputs"),
        ("Date,A,B\n", ["--state", str(not_one)], "prices.csv', which is no file that --state has written"),
        ("A,B\n1,2\n", ["--state", str(path)], "the rows of the state have times, those of the stream none"),
    ):
        done = run(there, "two", text, *words)
        assert (done.returncode, done.stdout) == (2, "")
        assert says in done.stderr
        assert len(done.stderr.splitlines()) == 1
    assert path.read_bytes() == kept


def test_blank_lines_are_no_rows(there: Trained, made: Made) -> None:
    header, *lines = table()[["Date", "A", "B"]].iloc[:40].to_csv(index=False).splitlines()
    with_blank = [*lines[:20], "", "\r", "  ", *lines[20:], ""]
    for every in (1, 400):
        stream, said = made("two", header)
        pd.testing.assert_frame_equal(answers(stream, with_blank, every), answers(made("two", header)[0], lines, every))
        assert said == []
    done = run(there, "one", "\n\r\n" + "\n\n".join(map(str, table()["A"].iloc[:12])))
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 13)


def test_the_tasks_names_stay_as_they_are(made: Made) -> None:
    stream, _ = made("two", "Date,A,B")
    assert stream.header() == stream.header()


def test_a_hole_between_state_and_stream_is_told(made: Made) -> None:
    header, *lines = table()[["Date", "A", "B"]].iloc[:60].to_csv(index=False).splitlines()
    stream, said = made("two", header)
    answers(stream, lines[:20], 7)
    for first, says in ((20, 0), (27, 1)):
        told: list[str] = []
        again = Stream(stream.predictor, stream.columns, stream.form, replace(stream.until), False, told.append)
        answers(again, lines[first:], 1)
        assert len(told) == says
    assert told[0].startswith("a hole between the state and the new rows, 2020-01-28T00:00:00 to 2020-02-07T00:00:00: ")
    assert "10 days, and rows are usually 1 day apart (3 days at most)" in told[0]
    assert said == []


# --- the process ----------------------------------------------------------------------------------------------------


def command(there: Trained, name: str, *words: str) -> list[str]:
    (best,) = there.folder.glob(f"mlruns/**/{there.runs[name]}/**/best.ckpt")
    return [sys.executable, str(ROOT / "predict.py"), str(best), "--stream", *words]


def run(there: Trained, name: str, text: str, *words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command(there, name, *words), input=text, capture_output=True, text=True, env=ENVIRONMENT, timeout=200
    )


def line_of(process: "subprocess.Popen[bytes]") -> bytes:
    """The next line, which is there without any more input."""
    assert process.stdout is not None
    found = b""
    while not found.endswith(b"\n"):
        assert select.select([process.stdout], [], [], 120)[0], "no answer"
        found += os.read(process.stdout.fileno(), 1)
    return found


def test_each_row_is_answered_at_once_and_a_signal_keeps_the_state(there: Trained, tmp_path: Path) -> None:
    header, *lines = table()[["Date", "A", "B"]].to_csv(index=False).splitlines()
    state = tmp_path / "state"
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command(there, "two", "--state", str(state)), stdin=pipe, stdout=pipe, stderr=pipe, env=ENVIRONMENT
    ) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.write(f"{header}\n".encode())
        process.stdin.flush()
        assert line_of(process) == b"time,A.buy,A.sell,A.side,B.buy,B.sell,B.side\n"
        found = []
        for line in lines[:20]:
            process.stdin.write(f"{line}\n".encode())
            process.stdin.flush()
            found.append(line_of(process).decode())
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
        assert process.stderr.read() == b""
    done = run(there, "two", "\n".join([header, *lines[20:]]), "--state", str(state))
    assert done.returncode == 0
    got = pd.read_csv(
        io.StringIO("".join([done.stdout.splitlines()[0] + "\n", *found, *done.stdout.splitlines(True)[1:]]))
    )
    for series in "AB":
        for column in ("buy", "sell", "side"):
            expected = in_one_go(there.runs["two"], "two.csv", column, series)
            np.testing.assert_allclose(got[f"{series}.{column}"].iloc[8:], expected, atol=1e-5, rtol=0)
    # A file goes on where a stream stopped.
    assert len(tbptt.predict(there.runs["two"], "two.csv", state=state)) == 0


def test_a_closed_output_ends_it_quietly(there: Trained) -> None:
    header, *lines = table()[["Date", "A", "B"]].to_csv(index=False).splitlines()
    pipe = subprocess.PIPE
    with subprocess.Popen(command(there, "two"), stdin=pipe, stdout=pipe, stderr=pipe, env=ENVIRONMENT) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write(f"{header}\n{lines[0]}\n".encode())
        process.stdin.flush()
        line_of(process)
        line_of(process)
        process.stdout.close()
        process.stdin.write(f"{lines[1]}\n".encode())
        process.stdin.flush()
        assert process.wait(60) == 0
        assert process.stderr.read() == b""


def test_a_reader_takes_what_is_there_in_blocks_of_bounded_size() -> None:
    got, put = os.pipe()
    reader = Reader(got, lambda: False)
    os.write(put, b"1\n2\n3")
    assert reader.lines() == b"1\n2\n"
    os.write(put, b"4\n")
    assert reader.lines() == b"34\n"
    os.write(put, b"5")
    os.close(put)
    assert reader.lines() == b"5\n"
    assert reader.lines() == b""
    os.close(got)
    with Path("/dev/zero").open("rb") as zeros, pytest.raises(ValueError, match=r"a row of more than 8,388,608 bytes"):
        Reader(zeros.fileno(), lambda: False).lines()


def test_a_large_input_comes_in_blocks(tmp_path: Path) -> None:
    (tmp_path / "rows").write_bytes(b"123.456\n" * 400_000)
    with (tmp_path / "rows").open("rb") as file:
        reader, sizes = Reader(file.fileno(), lambda: False), []
        while block := reader.lines():
            sizes.append(len(block))
    assert sum(sizes) == 3_200_000
    assert max(sizes) <= MOST + READ
    assert len(sizes) < 20


def test_a_signal_ends_the_reader_while_it_waits() -> None:
    got, put = os.pipe()
    asked: list[int] = []
    reader = Reader(got, lambda: asked.append(1) or len(asked) > 3)  # type: ignore[func-returns-value]
    assert reader.lines() == b""
    os.close(got)
    os.close(put)


# --- fields ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("texts", "time_format", "seconds"),
    [
        (["1970-01-02", "1970-01-02T00:00:01Z", "1970-01-02 01:00:00+01:00"], None, [86400, 86401, 86400]),
        (["1500000000", "1500000000.5"], None, [1.5e9, 1.5e9 + 0.5]),
        (["1500000000000"], None, [1.5e9]),
        (["1500000000000000"], None, [1.5e9]),
        (["1500000000000000000"], None, [1.5e9]),
        (["5", "x"], "s", [5, None]),
        (["03.04.1970"], "day_first", [92 * 86400]),
        (["03/04/1970"], "month_first", [62 * 86400]),
        (["02|01|70", ""], "%d|%m|%y", [86400, None]),
    ],
)
def test_times(texts: list[str], time_format: str | None, seconds: list[float | None]) -> None:
    expected = [NO_TIME if each is None else round(each * 10**6) for each in seconds]
    assert times_of(texts, time_format).tolist() == expected


def test_columns_are_told_by_their_names() -> None:
    found = Columns.of(["volume", "Time", "b", "A", "x"], ["A", "B"], ["volume:log1p", "A:change"], None)
    assert (found.series, found.inputs, found.time, found.unused) == ([3, 2], [(0, "log1p"), (3, "change")], 1, ["x"])
    every = Columns.of(["when", "p", "q"], None, [], "when")
    assert (every.names, every.series, every.time) == (["p", "q"], [1, 2], 0)
    assert Columns.of(["p"], None, [], None).time is None
    with pytest.raises(ValueError, match=r"has no column Volume, which data\.inputs names"):
        Columns.of(["A"], ["A"], ["Volume"], None)


def test_rows_up_to_the_states_time_are_no_new_ones(made: Made) -> None:
    header, *lines = table()[["Date", "A", "B"]].iloc[:12].to_csv(index=False).splitlines()
    stream, said = made("two", header, skip=True)
    answers(stream, lines, 5)
    assert answers(stream, lines[-2:], 5).iloc[:, 1:].isna().all(axis=None)
    assert said == [f"row {row}: 2020-01-{day} is not after the time before it" for row, day in ((13, 15), (14, 16))]
