"""What is trained is never a surprise: the same words before training, in MLflow, in tags, in a study's report."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import mlflow.data
import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, SMALL
from mlflow import MlflowClient
from omegaconf import DictConfig
from pages import page_of
from studies import HOSTILE, made_study, made_trial

from tbptt.config import checks
from tbptt.config.schema import TrackingConfig
from tbptt.data.options import OF_ROWS, ArticleData, DataConfig, MarketData, PricesData, SplitData, TableData
from tbptt.data.panel import DataError, Findings, Panel, Series
from tbptt.data.panels.inputs import FORMS
from tbptt.data.split import Split, load_split
from tbptt.evaluation.data_words import data_lines, described, warning_lines, wrapped
from tbptt.reports.page import write_report
from tbptt.runs.context import RunContext
from tbptt.runs.dataset import dataset_of, tags_of
from tbptt.runs.fit import fit
from tbptt.runs.progress import Progress
from tbptt.runs.tracking import Store
from tbptt.studies.described import FILE, data_of, keep_data, lines_of
from tbptt.system.secrets import hidden
from tbptt.tasks.options import Forecast

WINDOW, AHEAD, WARM = 8, 2, 5
TASK = Forecast(horizons=[1, AHEAD])
DATA = PricesData(path="prices.csv", window=WINDOW)
TAKES = "takes level, log1p, change, log_change, from_price"
WALK = 100 + np.random.default_rng(1).standard_normal(400).cumsum()
LEFT_OUT = {
    "Volume": "volume",
    **dict.fromkeys(("Open", "High", "Low"), "prices of the same asset; data.inputs takes them"),
}
FINDINGS = Findings(
    "prices.csv",
    400,
    ("newest first: reversed", "delimiter ';' (data.delimiter)"),
    LEFT_OUT,
    ("Close: row 7, 2024-01-09: a change of 61 standard deviations",),
    "Date",
)


def days(n: int, every: str = "D") -> np.ndarray:
    return np.datetime64("2024-01-01", every) + np.arange(n)


def panel_of(lengths: dict[str, int], times: np.ndarray | None = None, **more: Any) -> Panel:
    """Random walks that end in the last row, each with the inputs that the panel names."""
    rows, rng = max(lengths.values()), np.random.default_rng(7)
    series = {
        name: Series(
            100 + rng.standard_normal(n).cumsum(),
            np.arange(rows - n, rows),
            rng.standard_normal((n, len(more.get("inputs", ())))),
        )
        for name, n in lengths.items()
    }
    return Panel(series, shared=times is not None, times=times, **{"findings": FINDINGS, **more})


def split_of(panel: Panel) -> Split:
    """Three fifths train, a fifth each is to choose and to judge by, cut as the docstring of Split says."""
    parts: dict[str, dict[str, Any]] = {name: {} for name in ("train", "val", "test")}
    rows_of: dict[str, dict[str, Any]] = {name: {} for name in parts}
    for name, series in panel.series.items():
        n, before = len(series.prices), WINDOW + WARM
        val, test = 3 * n // 5, 4 * n // 5
        for part, cut in (("train", slice(val)), ("val", slice(val - before, test)), ("test", slice(test - before, n))):
            parts[part][name], rows_of[part][name] = series.prices[cut], series.rows[cut]
    warm = {part: dict.fromkeys(panel.series, WARM) for part in ("val", "test")}
    longest = max(len(each.prices) for each in panel.series.values())
    one = np.ones(len(panel.series))
    whole = {"warm": warm, "rows": longest, "window": WINDOW, "ahead": AHEAD}
    return Split(**parts, **whole, shared_scale=False, change_std=one, rows_of=rows_of, panel=panel)


def said(panel: Panel, data: DataConfig = DATA) -> list[str]:
    return data_lines(described(data, TASK, split_of(panel)))


# --- the lines ------------------------------------------------------------------------------------------------------


def test_lines_say_what_was_read_what_is_trained_and_the_steps_of_each_part() -> None:
    panel = panel_of({"Close": 400}, days(400), inputs=("volume:log1p",))
    about = described(DATA, TASK, split_of(panel), ["Close looks like returns"])
    # 240 prices train: 8 to look back, then 230 steps, then 2 that targets see. The first step is row 8, the last 237.
    few = "(at most about 20 independent observations, fewer than 30: too short to tell)"
    assert data_lines(about) == [
        "data: prices.csv, 400 rows, 2024-01-01 to 2025-02-03 by Date (newest first: reversed; delimiter ';' "
        "(data.delimiter))",
        "data: trains Close;",
        "      inputs: volume:log1p;",
        "      left out: Volume (volume), Open, High, Low (prices of the same asset; data.inputs takes them)",
        "data: steps: 230 trained on, 2024-01-09 to 2024-08-25;",
        f"      78 to choose by, 2024-08-28 to 2024-11-13 {few[:-6]}",
        "          tell);",
        f"      78 to judge by, 2024-11-16 to 2025-02-01 {few[:-6]}",
        "          tell)",
    ]
    assert warning_lines(about) == [
        "warning: Close: row 7, 2024-01-09: a change of 61 standard deviations",
        "warning: Close looks like returns",
    ]


def test_series_are_named_with_their_rows_where_these_differ() -> None:
    assert said(panel_of({"A": 400, "B": 300}, findings=Findings()))[1] == (
        "data: trains 2 series: A (400 rows), B (300 rows)"
    )
    assert said(panel_of({"A": 400, "B": 400}, findings=Findings()))[1] == "data: trains 2 series: A, B"
    many = panel_of({f"S{i:02}": 400 for i in range(18)}, findings=Findings())
    assert said(many)[1] == "data: trains 18 series: S00, S01, S02, S03, S04, S05 and 12 more"
    assert said(many)[0] == "data: prices.csv, 400 rows"


def test_times_of_several_series_are_the_first_and_the_last_of_all() -> None:
    lines = " ".join(
        said(panel_of({"A": 400, "B": 300}, days(400), findings=Findings("/home/me/prices.csv", 400, time="t")))
    )
    assert lines.startswith("data: prices.csv, 400 rows, 2024-01-01 to 2025-02-03 by t ")
    # A is 400 long and begins at day 0, B 300 and at day 100: their training parts end before days 240 and 280.
    assert f"{230 + 170} trained on, 2024-01-09 to {days(400)[280 - 1 - AHEAD]};" in lines


@pytest.mark.parametrize(
    ("times", "zone", "span"),
    [
        (days(400), None, "2024-01-01 to 2025-02-03"),
        (days(400), "Europe/Berlin", "2024-01-01 01:00 to 2025-02-03 01:00 Europe/Berlin"),
        (
            days(400) + np.timedelta64(5, "h"),
            "America/New_York",
            "2024-01-01 00:00 to 2025-02-03 00:00 America/New_York",
        ),
        (
            days(90) + np.timedelta64(5, "h"),
            "America/New_York",
            "2024-01-01 00:00 to 2024-03-30 01:00 America/New_York",
        ),
        (days(60) + np.timedelta64(5, "h"), "America/New_York", "2024-01-01 to 2024-02-29"),
        (days(400, "m"), "UTC", "2024-01-01 00:00 to 2024-01-01 06:39 UTC"),
        (days(400, "s"), None, "2024-01-01 00:00:00 to 2024-01-01 00:06:39"),
        (days(400, "ms"), None, "2024-01-01 00:00:00.000000 to 2024-01-01 00:00:00.399000"),
        (days(400, "m"), "Atlantis", "2024-01-01 00:00 to 2024-01-01 06:39 Atlantis"),
    ],
)
def test_times_are_as_long_as_they_have_to_be_and_in_their_zone(times: np.ndarray, zone: str | None, span: str) -> None:
    panel = panel_of({"A": len(times)}, times, zone=zone, findings=Findings("/home/me/prices.csv", 400))
    assert said(panel)[0] == f"data: prices.csv, 400 rows, {span}"


def test_a_fold_is_named_and_a_part_that_is_not_there_is_none() -> None:
    split = split_of(panel_of({"A": 400}, findings=Findings()))
    lines = data_lines(described(replace(DATA, fold="2/4"), TASK, replace(split, test={}, rows_of={})))
    few = "(at most about 20 independent observations, fewer than 30: too short to tell)"
    assert lines[2:] == [
        "data: steps in fold 2/4: 230 trained on;",
        f"      78 to choose by {few};",
        "      none to judge by",
    ]
    short = split_of(panel_of({"A": 40}, findings=Findings()))
    short = replace(short, val={}, test={})
    assert data_lines(described(DATA, TASK, short))[2:] == [
        "data: steps: 14 trained on; none to choose by; none to judge by"
    ]


def test_a_source_without_a_path_is_called_as_it_calls_itself() -> None:
    panel = panel_of({"A": 400}, findings=Findings("quotes of my own", 900))
    assert said(panel, MarketData(window=WINDOW))[0] == "data: quotes of my own, 900 rows"
    assert said(replace(panel, findings=Findings()), MarketData("market", window=WINDOW))[0] == "data: market, 400 rows"


def test_generated_series_keep_their_line() -> None:
    data = ArticleData(n_series=3, val_series=2, length=120, window=8)
    assert data_lines(described(data, TASK, load_split(data, TASK))) == [
        "data: 3 series of 130 rows; steps: 360 trained on, 240 to choose by (2 independent series, fewer than 10), "
        "none to judge by"
    ]


def test_a_line_is_cut_at_blanks_and_nothing_in_it_moves_the_cursor() -> None:
    lines = wrapped("data: trains " + "name\x1b[31m\n " * 40 + "x" * 200)
    assert max(map(len, lines[:-1])) <= 120
    assert lines[-1] == "      " + "x" * 200
    assert all(line.isprintable() for line in lines)


@pytest.mark.parametrize(("mode", "shown"), [("plain", True), ("none", False), ("silent", False)])
def test_warnings_are_shown_without_progress_too_but_not_by_each_trial(
    mode: str, shown: bool, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    Progress(mode, 1, "val/loss").about(["data: some"], ["warning: odd"])
    assert capsys.readouterr() == ("", "data: some\nwarning: odd\n" if shown else "")
    assert caplog.messages == (["warning: odd"] if mode == "none" else [])


# --- MLflow ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def panels(monkeypatch: pytest.MonkeyPatch) -> Callable[[Panel], None]:
    """Makes data=prices give a panel, whatever its file holds, and lets splits carry it."""

    def given(panel: Panel) -> None:
        monkeypatch.setattr(PricesData, "prices", lambda self: panel)

        def split(data: Any, task: Any, found: Any = None) -> Split:
            made = load_split(data, task, found)
            if made.panel is not None:
                return made
            sizes = {name: len(each.rows) for name, each in panel.series.items()}
            ends = {"train": {name: len(made.train[name]) for name in made.train}, "test": sizes}
            before = {n: made.window + made.warm["test"][n] for n in made.train}
            ends["val"] = {n: sizes[n] - max(0, len(made.test.get(n, ())) - before[n]) for n in made.train}
            rows_of = {
                part: {n: panel.series[n].rows[ends[part][n] - len(p) : ends[part][n]] for n, p in array.items()}
                for part, array in (("train", made.train), ("val", made.val), ("test", made.test))
            }
            return replace(made, panel=panel, rows_of=rows_of)

        for module in ("tbptt.tasks.prepare", "tbptt.config.checks", "tbptt.data.split"):
            monkeypatch.setattr(f"{module}.load_split", split)

    return given


PRICES = [
    *(word for word in SMALL if not word.startswith("data.") and "gamma" not in word),
    *(
        "data=prices",
        "data.path=prices.csv",
        "data.window=8",
        "data.warm_steps=5",
        "task=forecast",
        "task.horizons=[1,2]",
    ),
]


def test_a_run_shows_its_data_as_a_dataset_and_in_tags(
    here: Path, config: Callable[..., DictConfig], panels: Any, caplog: pytest.LogCaptureFixture
) -> None:
    panels(panel_of({"Close": 400, "Other": 300}, days(400)))
    cfg = config(*PRICES, "data.reading=auto", "epochs=1")
    run = MlflowClient(f"sqlite:///{here / 'mlruns' / 'mlflow.db'}").get_run(fit(cfg).run_id)
    (given,) = run.inputs.dataset_inputs
    tags = run.data.tags
    assert (given.dataset.name, given.dataset.source_type) == ("prices.csv", "local")
    assert given.dataset.digest == tags["data.fingerprint"][:16]
    assert mlflow.data.get_source(given.dataset).uri == "prices.csv"
    assert [(tag.key, tag.value) for tag in given.tags] == [("mlflow.data.context", "training")]
    assert [(c["name"], c["type"]) for c in json.loads(given.dataset.schema)["mlflow_colspec"]] == [
        *(("Date", "datetime"), ("Close", "double"), ("Other", "double"))
    ]
    profile = json.loads(given.dataset.profile)
    assert (profile["rows"], profile["series"], profile["first"], profile["last"]) == (
        400,
        2,
        "2024-01-01",
        "2025-02-03",
    )
    assert profile["steps trained on"] > profile["steps to choose by"] > 0
    assert {name: tags[f"data.{name}"] for name in ("series", "first", "last", "rows", "left_out", "warnings")} == {
        "series": "2 series: Close (400 rows), Other (300 rows)",
        "first": "2024-01-01",
        "last": "2025-02-03",
        "rows": "400",
        "left_out": "Volume (volume), Open, High, Low (prices of the same asset; data.inputs takes them)",
        "warnings": FINDINGS.warnings[0],
    }
    assert caplog.messages == [f"warning: {FINDINGS.warnings[0]}"]  # with progress=none


def test_a_run_of_the_article_has_its_dataset_and_no_names_in_tags(
    here: Path, small: Callable[..., DictConfig]
) -> None:
    client = MlflowClient(f"sqlite:///{here / 'mlruns' / 'mlflow.db'}")
    runs = [client.get_run(fit(small("epochs=1", f"seed={seed}"), RunContext(show=False)).run_id) for seed in (1, 2)]
    first, second = (run.inputs.dataset_inputs[0].dataset for run in runs)
    assert (first.name, first.digest, first.source_type) == (second.name, second.digest, second.source_type)
    assert (first.name, first.source_type, first.schema) == ("article", "code", None)
    assert {tag for tag in runs[0].data.tags if tag.startswith("data.")} == {
        "data.fingerprint",
        "data.test_fingerprint",
    }


def test_two_hundred_series_of_long_names_fit_into_what_mlflow_takes(tmp_path: Path) -> None:
    names = {f"{'ä' * 240}{i:03}": 400 for i in range(200)}
    findings = Findings(
        "x" * 9000, 400, ("y" * 9000,), {f"{name} out": name for name in names}, tuple(names), "t" * 999
    )
    panel = panel_of(names, days(400), findings=findings, inputs=tuple(f"{name}:level" for name in names))
    about = described(replace(DATA, path="x" * 9000), TASK, split_of(panel))
    store = Store(TrackingConfig(uri=f"sqlite:///{tmp_path}/mlflow.db"))
    run = store.start_run("long", tags_of(about))
    store.client.log_inputs(run.id, [dataset_of(about, "ab" * 32)])
    found = store.client.get_run(run.id)
    tags = {name: value for name, value in found.data.tags.items() if name.startswith("data.")}
    assert tags == tags_of(about)
    assert max(map(len, tags.values())) <= 8000
    for name, of in (("series", about["series"]), ("inputs", about["inputs"])):
        shown = tags[f"data.{name}"]
        more = int(shown.split(" and ")[-1].split()[0])
        assert len(shown) > 7500
        assert shown.count("ä" * 240) + more == len(of) == 200
    (given,) = found.inputs.dataset_inputs
    assert len(given.dataset.name) == 500
    columns = json.loads(given.dataset.schema)["mlflow_colspec"]
    assert len(columns) == 401
    assert max(len(column["name"]) for column in columns) == 200


def test_a_path_from_the_environment_is_kept_as_it_was_typed(
    here: Path, config: Callable[..., DictConfig], panels: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_FOLDER", "/home/canary7")
    panels(panel_of({"Close": 400}, days(400), findings=FINDINGS))
    cfg = config(*PRICES, "data.reading=auto", "data.path=${oc.env:SECRET_FOLDER}/prices.csv", "epochs=1")
    assert checks.problems(cfg) == []
    run = MlflowClient(f"sqlite:///{here / 'mlruns' / 'mlflow.db'}").get_run(fit(cfg).run_id)
    assert run.data.tags["data.source"] == "$SECRET_FOLDER/prices.csv"
    assert json.loads(run.inputs.dataset_inputs[0].dataset.source) == {"uri": "$SECRET_FOLDER/prices.csv"}
    assert b"canary7" not in (here / "mlruns" / "mlflow.db").read_bytes()


def test_secrets_are_hidden_wherever_they_are_in_plain_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_TOKEN", "canary7")
    plain = {"a": ["b", {"c": "d", "e": None}], "f": 1.5}
    assert hidden(plain) == plain
    secret = {"a": ["xcanary7", {"canary7": "https://me:word@host/x", "e": None}], "f": 1.5}
    assert hidden(secret) == {"a": ["x$MY_TOKEN", {"$MY_TOKEN": "https://…@host/x", "e": None}], "f": 1.5}


# --- studies and their report ---------------------------------------------------------------------------------------


class PlanOf:
    """The part of a study's plan that is needed here."""

    def __init__(self, cfg: DictConfig, *searched: str, folds: int | None = None):
        from types import SimpleNamespace

        self.cfg, self.space = cfg, SimpleNamespace(dimensions=[SimpleNamespace(key=key) for key in searched])
        self.settings = SimpleNamespace(folds=folds, fold_window="expanding")


def kept(study: Any, about: dict[str, Any], store: Store) -> None:
    parent = store.start_run(study.name, {})
    study.optuna.set_user_attr("parent_run", parent.id)
    Path("sweeps", study.name).mkdir(exist_ok=True)
    keep_data(study.name, parent, about)


def test_a_study_keeps_its_data_with_its_parent_run_and_its_report_shows_them(
    here: Path, config: Callable[..., DictConfig], panels: Any
) -> None:
    panels(panel_of({"Close": 400, HOSTILE: 300}, days(400), inputs=("Volume",)))
    about = data_of(PlanOf(config(*PRICES, "data.reading=auto", "data.split=each"), "clip"))  # type: ignore[arg-type]
    study, store = made_study([made_trial(values=[1.0])]), Store(config().tracking)
    kept(study, about, store)
    parent = store.client.get_run(study.record.parent_run or "")
    assert parent.inputs.dataset_inputs[0].dataset.digest == about["fingerprint"][:16]
    assert parent.data.tags["data.first"] == "2024-01-01"
    (here / "sweeps" / study.name / FILE).unlink()  # as on another machine: the parent run has it too
    found = page_of(write_report(study, store))
    train, val, test = (about["parts"][part] for part in ("train", "val", "test"))
    each = [one["steps"] for one in about["series"]]
    assert found.tables["data"][0] == [
        *("series", "first", "last", "rows", "steps trained on", "steps to choose by", "steps to judge by")
    ]
    assert found.tables["data"][1] == [
        *("Close", "2024-01-01", "2025-02-03", "400"),
        *(f"{each[0][part]}" for part in ("train", "val", "test")),
    ]
    assert found.tables["data"][2][:4] == [HOSTILE, "2024-04-10", "2025-02-03", "300"]
    assert found.tables["data"][3] == [
        *("all", "", "", "", f"{train['steps']}{train['first']} to {train['last']}"),
        *(f"{p['steps']}{p['first']} to {p['last']}{p['evidence']}" for p in (val, test)),
    ]
    assert train["steps"] == sum(one["train"] for one in each)
    assert "prices.csv, 400 rows, 2024-01-01 to 2025-02-03 by Date." in found.text
    assert "Found out: newest first: reversed; delimiter ';' (data.delimiter)." in found.text
    assert (
        "Left out: Volume (volume), Open, High, Low (prices of the same asset; data.inputs takes them)." in found.text
    )
    assert "Other inputs of a step: Volume." in found.text
    assert [text for text in found.lines if text == FINDINGS.warnings[0]]
    assert ("p", {"class": "warning"}) in found.elements


@pytest.mark.parametrize("content", [None, "", "[]", "[" * 10**5, '{"source": 7}', "link", "wrong"])
def test_a_study_without_it_or_with_another_file_has_no_such_section(here: Path, content: str | None) -> None:
    study = made_study([made_trial(values=[1.0])])
    folder = here / "sweeps" / study.name
    folder.mkdir()
    about = {**described(DATA, TASK, split_of(panel_of({"A": 400}))), "fingerprint": "", "varies": []}
    if content == "link":
        (here / "elsewhere").write_text(json.dumps(about))
        (folder / FILE).symlink_to(here / "elsewhere")
    elif content is not None:
        about["series"][0]["steps"]["val"] = "many"
        (folder / FILE).write_text(json.dumps(about) if content == "wrong" else content)
    assert "data" not in page_of(write_report(study)).tables
    if content == "wrong":
        about["series"][0]["steps"]["val"] = 7
        (folder / FILE).write_text(json.dumps(about))
        assert page_of(write_report(study)).tables["data"][1] == ["A", "400", "230", "7", "78"]


def test_of_many_series_the_report_shows_the_first(here: Path) -> None:
    study = made_study([made_trial(values=[1.0])])
    about = described(DATA, TASK, split_of(panel_of({f"S{i}": 60 for i in range(70)}, findings=Findings())))
    (here / "sweeps" / study.name).mkdir()
    (here / "sweeps" / study.name / FILE).write_text(json.dumps({**about, "varies": []}))
    rows = page_of(write_report(study)).tables["data"]
    assert [row[0] for row in rows[-3:]] == ["S49", "20 more, in data.json", "all"]


def test_a_study_says_what_differs_between_its_trials_and_its_last_fold(
    config: Callable[..., DictConfig], panels: Any
) -> None:
    panels(panel_of({"Close": 400}, days(400), findings=Findings("/home/me/prices.csv", 400)))
    plan: Any = PlanOf(config(*PRICES, "data.reading=auto"), "clip", "data.window", "task.horizons", folds=4)
    lines, warnings = lines_of(data_of(plan))
    assert lines[-1] == "data: of the first point; these differ between trials: data.window, task.horizons"
    assert any(line.startswith("data: steps in fold 4/4: ") for line in lines)
    assert warnings == []


# --- what is told of the data before anything is written -------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "lines"),
    [
        (
            ["data.reading=plain", "data.time=Date"],
            ["data.time: got 'Date'; takes null: it has no effect with data.reading=plain"],
        ),
        (
            ["data.reading=plain", "data.inputs=[volume]", "data.gaps=drop", "data.delimiter=tab", "data.header=2"],
            [
                "data.inputs: got ['volume']; takes []: it has no effect with data.reading=plain",
                "data.gaps: got 'drop'; takes refuse: it has no effect with data.reading=plain",
                "data.delimiter: got 'tab'; takes null: it has no effect with data.reading=plain",
                "data.header: got 2; takes null: it has no effect with data.reading=plain",
            ],
        ),
        (
            ["data.time=none", "data.time_format=s"],
            ["data.time_format: got 's'; takes null: it has no effect with data.time=none"],
        ),
        (["data.time=t", "data.time_format=s", "data.gaps=drop", "data.by=ticker", "data.decimal=','"], []),
        (["data.reading=plain"], []),
    ],
)
def test_keys_without_effect_are_refused(
    typed: list[str], lines: list[str], config: Callable[..., DictConfig], panels: Any
) -> None:
    panels(panel_of({"Close": 400}))
    assert checks.problems(config(*PRICES, *typed)) == lines


def test_keys_of_a_texts_form_are_refused_with_parquet(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "of_another_name.dat").write_bytes(b"PAR1")
    (tmp_path / "text.csv").write_text("Close")
    form: dict[str, Any] = {"delimiter": ";", "header": 1, "names": ["a"]}
    for name in ("folder", "of_another_name.dat", "missing.PARQUET", "missing.pq"):
        data = PricesData(path=str(tmp_path / name), reading="auto", by="a", **form)
        assert data.unused() == dict.fromkeys(form, "Parquet, which says its form itself")
    for name in ("text.csv", "missing.csv", "text.csv\0"):
        assert PricesData(path=str(tmp_path / name), reading="auto", **form).unused() == {}


@pytest.mark.parametrize(
    ("date", "form", "refused"),
    [
        ("%Y-%m-%d", "ms", True),
        ("%Y-%m-%d", "day_first", True),
        ("%d.%m.%Y", "day_first", False),
        ("%Y-%m-%d", "%Y-%m-%d", False),
    ],
)
@pytest.mark.parametrize("time", [None, "date"])
def test_a_time_format_that_no_column_needs_is_refused(
    time: str | None, date: str, form: str, refused: bool, config: Callable[..., DictConfig], here: Path
) -> None:
    texts = np.datetime_as_string(days(60))
    prices = 100 + np.random.default_rng(1).standard_normal(60).cumsum()
    rows = [f"{datetime.strptime(t, '%Y-%m-%d').strftime(date)},{p:.4f}" for t, p in zip(texts, prices, strict=True)]
    Path("prices.csv").write_text("date,Close\n" + "\n".join(rows))
    given = {"data.time": time, "data.time_format": form, "data.reading": "auto", "data.test_fraction": 0}
    words = [f"{key}={'null' if value is None else value}" for key, value in given.items()]
    line = f"prices.csv, column date: data.time_format={form} has no effect on its times; leave it out"
    assert checks.problems(config(*PRICES, *words)) == ([f"data.time_format: {line}"] if refused else [])


def test_the_market_has_its_own_times_and_no_gaps() -> None:
    keys = {field.name for field in fields(MarketData)}
    assert not keys & set(OF_ROWS)
    assert keys >= {"inputs", "split"}
    assert MarketData().unused() == ArticleData().unused() == PricesData("x").unused() == {}


@pytest.mark.parametrize(
    ("inputs", "line"),
    [
        (
            ["Volume", "Volume:level"],
            "prices.csv has one input Volume:level, and data.inputs names it twice: Volume, Volume:level",
        ),
        (
            ["spread", "volume:change", "VOLUME:change"],
            "prices.csv has one input Volume:change, and data.inputs names it twice: volume:change, VOLUME:change",
        ),
        (
            ["Volume:logchange"],
            f"prices.csv has Volume, but data.inputs has no form 'logchange'; {TAKES}; did you mean Volume:log_change?",
        ),
        (
            ["Volume:Change"],
            f"prices.csv has Volume, but data.inputs has no form 'Change'; {TAKES}; did you mean Volume:change?",
        ),
        (
            ["Volume:square"],
            f"prices.csv has Volume, but data.inputs has no form 'square'; {TAKES}",
        ),
    ],
)
def test_inputs_that_are_one_and_forms_that_are_none_are_refused(
    inputs: list[str], line: str, config: Callable[..., DictConfig], here: Path
) -> None:
    random = np.random.default_rng(1)
    rows = [
        f"{100 + x:.4f},{v},{v % 7}"
        for x, v in zip(random.standard_normal(60).cumsum(), random.integers(9, 999, 60), strict=True)
    ]
    Path("prices.csv").write_text("Close,Volume,spread\n" + "\n".join(rows))
    words = [*PRICES, "data.reading=auto", "data.test_fraction=0"]
    assert checks.problems(config(*words, f"data.inputs={json.dumps(inputs)}")) == [f"data.inputs: {line}"]
    assert checks.problems(config(*words, "data.inputs=['Volume','Volume:change','spread']")) == []


@pytest.mark.parametrize("shape", ["wide", "long"])
def test_a_column_of_prices_names_no_series(shape: str, config: Callable[..., DictConfig], here: Path) -> None:
    dates = np.datetime_as_string(days(60))
    rows = [f"{date},{x:.4f},{name}" for name in "ab" for date, x in zip(dates, WALK[:60] + ord(name), strict=True)]
    rows = rows[:60] if shape == "wide" else rows
    Path("prices.csv").write_text("Date,Close,name\n" + "\n".join(rows))
    words = [*PRICES, "data.reading=auto", "data.test_fraction=0"]
    (line,) = checks.problems(config(*words, "data.by=Close"))
    assert line.startswith(
        f"data.by: prices.csv, column Close: {len(rows)} different values in {len(rows)} rows are no "
    )
    assert checks.problems(config(*words, "data.by=name")) == []


def test_a_share_on_two_exchanges_is_told_as_what_it_is(config: Callable[..., DictConfig], here: Path) -> None:
    dates = np.datetime_as_string(days(60))
    of = [("N", "A"), ("Q", "A"), ("N", "B")]
    rows = [f"{date},{place},{name},{x:.4f}" for place, name in of for date, x in zip(dates, WALK[:60], strict=True)]
    Path("prices.csv").write_text("date,exchange,ticker,close\n" + "\n".join(rows))
    (line,) = checks.problems(config(*PRICES, "data.reading=auto"))
    assert line == (
        "data.by: prices.csv, columns date and ticker, line 62: 2024-01-01 is there twice for A, also in line 2; leave "
        "one of them out, or name with data.by the column that tells the series apart"
    )


def test_one_input_of_the_market_named_twice_is_refused() -> None:
    with pytest.raises(
        DataError, match=r"market has one input Volume:level, .* names it twice: volume, Volume:level"
    ) as raised:
        MarketData(name="market", inputs=["volume", "Volume:level"]).prices()
    assert raised.value.key == "data.inputs"


@dataclass
class _Bare(SplitData):
    """A source of one's own, which returns ``given``."""

    given: Any = None

    def prices(self) -> Any:
        return self.given


@dataclass
class _Tabular(TableData):
    given: Any = None

    def prices(self) -> Any:
        return self.given


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (pd.Series(WALK), "prices() of mine returned a Series; takes arrays by name, a DataFrame or a Panel"),
        ([1.0, 2.0], "prices() of mine returned a list; takes arrays by name, a DataFrame or a Panel"),
        (None, "prices() of mine returned a NoneType; takes arrays by name, a DataFrame or a Panel"),
        ({"a": 1.0}, "a is not a sequence of finite prices"),
    ],
)
def test_a_source_of_ones_own_that_returns_something_else_is_told_so(given: Any, line: str) -> None:
    data = _Bare(name="mine", given=given)
    with pytest.raises(DataError) as raised:
        load_split(data, TASK)
    assert checks._line_of(raised.value, data) == ("data", f"data: {line}")


def test_a_frame_with_a_blank_is_told_of_a_key_that_its_source_has() -> None:
    frame = pd.DataFrame({"a": np.where(np.arange(400) == 7, np.nan, WALK)})
    blank = "mine, column a, row 8: a blank inside the series; data.gaps=drop leaves such rows out of the series, "
    blank += "data.gaps=carry repeats the price before"
    for source, line in (
        (
            _Bare(name="mine", given=frame),
            f"data: {blank}; mine has no data.gaps: it has one if it builds on TableData",
        ),
        (_Tabular(name="mine", given=frame), f"data.gaps: {blank}"),
    ):
        with pytest.raises(DataError) as raised:
            load_split(source, TASK)
        assert checks._line_of(raised.value, source)[1] == line
    with pytest.raises(DataError, match=r"^mine has no column b ") as raised:
        load_split(_Bare(name="mine", given=frame, columns=["b"]), TASK)
    assert raised.value.key == "data.columns"
    found = load_split(_Tabular(name="mine", given=frame, gaps="drop", window=8, warm_steps=0), TASK)
    assert found.rows == 399


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (DataError("prices.csv has no input vwap", "data.inputs"), "data.inputs: prices.csv has no input vwap"),
        (DataError("row 7 is blank"), "data.path: row 7 is blank"),
        (DataError("odd", "data.nothing"), "data.path: odd"),
        (DataError("prices.csv has no column t", "data.time"), "data.time: prices.csv has no column t"),
        (DataError("prices.csv has no column a", "data.columns"), "data.columns: prices.csv has no column a"),
        (DataError("prices() returned a list", "data"), "data: prices() returned a list"),
        (
            ValueError("prices.csv has no column x, which data.inputs names"),
            "data.path: prices.csv has no column x, which data.inputs names",
        ),
        (ValueError("a is too short"), "data.path: a is too short"),
    ],
)
def test_an_error_is_told_with_the_key_that_it_is_about(
    error: ValueError, line: str, config: Callable[..., DictConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    def prices(self: PricesData) -> Panel:
        raise error

    monkeypatch.setattr(PricesData, "prices", prices)
    assert checks.problems(config(*PRICES)) == [line]


# --- docs/data.md ---------------------------------------------------------------------------------------------------


def test_the_page_names_every_key_of_files_and_form_and_no_other() -> None:
    page = (ROOT / "docs" / "data.md").read_text()
    known = {field.name for field in fields(PricesData)}
    tags = {f"data.{name}" for name in ("series", "first", "last", "rows", "left_out", "found", "warnings", "json")}
    named = set(re.findall(r"data\.\w+", page)) - tags - {"data.md"}
    assert named <= {f"data.{name}" for name in known}
    new = {field.name for field in fields(PricesData) if field.metadata.get("new")}
    later = {"surrogate", "surrogate_seed", "fold", "fold_window", "test_fraction", "warm_steps"}  # evaluation.md
    assert {f"data.{name}" for name in new - later} <= named
    assert set(re.findall(r"`NAME:(\w+)`", page)) == set(FORMS)


def test_the_page_shows_the_lines_as_they_are() -> None:
    """Of its own numbers: what is shown is what these would be told as."""
    page = (ROOT / "docs" / "data.md").read_text()
    block = next(block for block in re.findall(r"```text\n(.*?)```", page, re.DOTALL) if block.startswith("data: "))
    flat = " ".join(block.split())
    about = described(DATA, TASK, split_of(panel_of({"Close": 400}, days(400), inputs=("Volume:log1p",))))
    head = re.match(r"data: prices.csv, ([\d,]+) rows, (\S+) to (\S+) by Date \((.*?)\) data: trains Close;", flat)
    assert head is not None
    read: dict[str, Any] = {"rows": int(head[1].replace(",", "")), "first": head[2], "last": head[3]}
    read["found"] = head[4].split("; ")
    read["warnings"] = [flat.partition("warning: ")[2]]
    read["left_out"] = {"Unnamed: 0": "a saved index"} | {name: LEFT_OUT[name] for name in ("Open", "High", "Low")}
    spans = re.findall(r"([\d,]+) (?:trained on|to choose by|to judge by), (\S+) to ([\d-]+)", block)
    evidence = [None, *re.findall(r"\((at most .*?)\)", block)]
    read["parts"] = {
        part: {"steps": int(steps.replace(",", "")), "first": first, "last": last, "evidence": said}
        for part, (steps, first, last), said in zip(("train", "val", "test"), spans, evidence, strict=True)
    }
    assert [*data_lines({**about, **read}), *warning_lines({**about, **read})] == block.splitlines()
