"""The verdict on the article's claims: measures by hand, intervals, each claim turned by the curves that decide it."""

import math
from collections.abc import Callable
from pathlib import Path
from statistics import median

import pytest
from conftest import CONF, ROOT
from mlflow.entities import Metric, Param
from studies import made_study, made_trial

from tbptt.article.claims import (
    ARMS,
    MEAN,
    METRICS,
    RunCurves,
    Runs,
    bootstrap,
    curves_of,
    overall,
    read_curves,
    verdict,
    write_curves,
)
from tbptt.article.page import figure
from tbptt.cli import main
from tbptt.config.schema import TrackingConfig
from tbptt.runs.tracking import Store

EPOCHS = 60
Loss = Callable[[int], float]


def a_run(figure: str, seed: int = 0, online: Loss = lambda i: 1.0, frozen: Loss | None = None) -> RunCurves:
    frozen = frozen or online
    curves = {name: [0.0] * EPOCHS for name in METRICS}
    curves["train/loss"] = [online(i) for i in range(EPOCHS)]
    curves["val/loss"] = [frozen(i) for i in range(EPOCHS)]
    curves["train/eval_loss"] = [frozen(i) if i % 5 == 4 else math.nan for i in range(EPOCHS)]
    curves["time/train_seconds"] = [2.0 * (i + 1) for i in range(EPOCHS)]
    return RunCurves(figure, seed, 1.2, curves)


def falling_to(end: float, fast: float = 10.0) -> Loss:
    return lambda i: end + (1 - end) * math.exp(-i / fast)


def spiking(end: float) -> Loss:
    return lambda i: falling_to(end)(i) * (2.0 if i % 20 == 14 else 1.0)


# Curves with which all that the article says is so.
AS_SAID: dict[str, Loss] = {
    "fig1_sgd": falling_to(0.8, 30),
    "fig2_rmsprop": spiking(0.4),
    "fig2_adam": spiking(0.3),
    "fig3_rmsprop_clip": falling_to(0.4),
    "fig3_adam_clip": falling_to(0.3),
    "fig4_sgd_schedule": falling_to(0.7, 5),
    "fig5_adam_clip_schedule": falling_to(0.2, 3),
}


def claims(**changed: Loss | tuple[Loss, Loss]) -> dict[str, str]:
    """The verdict on each claim where some figures' curves are others: one loss, or an online and a frozen one."""
    runs = []
    for name in ARMS:
        loss = changed.get(name, AS_SAID[name])
        online, frozen = loss if isinstance(loss, tuple) else (loss, loss)
        runs += [a_run(name, seed, online, frozen) for seed in range(3)]
    return {row["name"]: row["verdict"] for row in verdict(Runs(runs))}


def test_measures_are_those_of_their_definitions() -> None:
    run = a_run("fig1_sgd", online=lambda i: 1.0 if i < 10 else 0.5, frozen=lambda i: 1.2 - 0.02 * i)
    assert run.final("train/loss") == 0.5
    assert run.final("val/loss") == median(1.2 - 0.02 * i for i in range(50, 60))
    assert run.final("train/eval_loss") == median([1.2 - 0.02 * 54, 1.2 - 0.02 * 59])
    assert run.area("train/loss", 20) == 0.75
    # Measured after epochs 4, 9, …, and a line between them: before the first it is level.
    level = 1.2 - 0.02 * 4
    assert run.area("train/eval_loss", 10) == pytest.approx(
        (5 * level + sum(1.2 - 0.02 * i for i in range(5, 10))) / 10
    )
    assert run.area("train/loss", 2 * EPOCHS) == pytest.approx((10 + 110 * 0.5) / 120)  # the last loss stays
    assert run.to_half("train/loss") == (11, 22.0)
    assert run.to_half("val/loss") == (31, 62.0)  # half of 1.2
    assert a_run("fig1_sgd").to_half("train/loss") is None


def test_a_spike_is_a_stretch_of_epochs_above_the_lowest_so_far() -> None:
    losses = [1.0, 0.5, 0.8, 0.9, 0.5, 0.74, 0.4, 1.0] + [0.4] * (EPOCHS - 8)
    count, epochs, largest = a_run("fig2_adam", online=losses.__getitem__).spikes("train/loss")
    assert (count, epochs, largest) == (2, 3, 2.5)
    assert a_run("fig2_adam", online=falling_to(0.1)).spikes("train/loss")[:2] == (0, 0)


def test_bootstrap_takes_every_choice_of_few_seeds_and_draws_of_many() -> None:
    assert bootstrap([0.3, 0.3, 0.3]) == pytest.approx((0.3, 0.3, 0.3))
    # Of 27 resamples of three values, the extreme ones are 1/27 each: more than 2.5 %.
    assert bootstrap([0.0, 0.0, 3.0]) == pytest.approx((1.0, 0.0, 3.0))
    mean, low, high = bootstrap([float(i % 2) for i in range(100)])
    assert mean == 0.5
    assert (low, high) == pytest.approx((0.5 - 1.96 * 0.05, 0.5 + 1.96 * 0.05), abs=0.02)
    with pytest.raises(ValueError, match="no seed in common"):
        bootstrap([])


def test_all_holds_where_the_curves_are_as_the_article_says() -> None:
    assert set(claims().values()) == {"holds"}


@pytest.mark.parametrize(
    ("changed", "turned"),
    [
        ({"fig2_adam": spiking(0.75)}, {"C1": "holds in part", "C2": "does not hold"}),
        ({"fig2_rmsprop": AS_SAID["fig2_adam"]}, {"C2": "undecided"}),
        ({"fig2_rmsprop": falling_to(0.4)}, {"C3": "does not hold"}),
        ({"fig3_adam_clip": spiking(0.3)}, {"C4": "does not hold"}),
        ({"fig3_adam_clip": falling_to(0.5)}, {"C5": "does not hold"}),
        ({"fig4_sgd_schedule": falling_to(0.9, 60)}, {"C6": "holds in part"}),
        ({"fig4_sgd_schedule": (falling_to(0.5, 2), falling_to(1.1))}, {"C6": "holds online, frozen in part"}),
        ({"fig5_adam_clip_schedule": (falling_to(0.2, 3), falling_to(0.9, 5))}, {"C7": "holds only online"}),
        ({"fig5_adam_clip_schedule": falling_to(0.5, 9)}, {"C7": "does not hold"}),
    ],
)
def test_each_claim_turns_with_the_curves_that_decide_it(changed: dict[str, Loss], turned: dict[str, str]) -> None:
    found = claims(**changed)
    assert {name: found[name] for name in turned} == turned


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        (["holds", "holds", "holds"], "holds"),
        (["holds", "holds", "undecided"], "holds only online"),
        (["undecided", "holds", "holds"], "holds only frozen"),
        (["undecided", "undecided", "holds"], "undecided"),
        (["does not hold", "undecided", "holds"], "does not hold"),
    ],
)
def test_views_make_one_word(answers: list[str], said: str) -> None:
    assert overall(answers) == said


def test_epochs_are_drawn_and_kept_from_1(tmp_path: Path) -> None:
    run = a_run("fig1_sgd", online=lambda i: 2.0 - i / EPOCHS)
    run.curves["schedule/chunks"] = [100.0] * 30 + [50.0] * 30
    drawn = figure("a title", {"fig1_sgd": "#000000"}, Runs([run]))
    assert drawn is not None
    online, marks = drawn.data[0], next(trace for trace in drawn.data if trace.mode == "markers")
    assert (online.x[0], online.x[-1]) == (1, EPOCHS)
    assert (marks.x[0], marks.y[0]) == (31, run.curves["train/loss"][30])
    write_curves([run], tmp_path / "curves.csv")
    rows = (tmp_path / "curves.csv").read_text().splitlines()
    assert [row.split(",")[2] for row in (rows[1], rows[-1])] == ["1", str(EPOCHS)]


def test_what_was_not_run_yet_is_named() -> None:
    found = {row["name"]: row["verdict"] for row in verdict(Runs([a_run("fig1_sgd"), a_run("fig4_sgd_schedule")]))}
    assert found["C2"] == "no run yet of fig2_rmsprop, fig2_adam"


def test_curves_come_back_as_they_were_written(tmp_path: Path) -> None:
    runs = [a_run(name, seed, AS_SAID[name]) for name in ARMS for seed in (0, 1)]
    write_curves(runs, tmp_path / "curves.csv")
    again = read_curves(tmp_path / "curves.csv")
    assert [(r.figure, r.seed, r.baseline) for r in again] == [(r.figure, r.seed, r.baseline) for r in runs]
    for a, b in zip(runs, again, strict=True):
        for name in METRICS:
            assert b.curves[name] == pytest.approx(a.curves[name], rel=1e-4, nan_ok=True)


def test_curves_are_read_from_the_runs_of_complete_trials(here: Path) -> None:
    store = Store(TrackingConfig(uri="sqlite:///mlruns/mlflow.db"))
    kept = [a_run("fig2_adam", seed, lambda i, seed=seed: 1 / (i + seed + 1)) for seed in (3, 4)]
    run_ids = []
    for run in kept:
        run_id = store.start_run("a run", {MEAN: str(run.baseline)}).id
        points = [
            Metric(name, value, 0, epoch)
            for name, curve in run.curves.items()
            for epoch, value in enumerate(curve)
            if not math.isnan(value)
        ]
        store.client.log_batch(run_id, points, [Param("seed", str(run.seed))])
        run_ids.append(run_id)
    study = made_study(
        [
            made_trial(values=[0.5], params={"figure": "fig2_adam"}, run_ids=run_ids),
            made_trial("RUNNING", params={"figure": "fig1_sgd"}, run_ids=["gone"]),
            made_trial("RUNNING"),  # handed back: it has no point yet
        ]
    )
    found = curves_of(study, store)
    assert [(r.figure, r.seed, r.baseline) for r in found] == [("fig2_adam", 3, 1.2), ("fig2_adam", 4, 1.2)]
    for a, b in zip(kept, found, strict=True):
        for name in METRICS:
            assert b.curves[name] == pytest.approx(a.curves[name], nan_ok=True)


def test_a_loss_that_is_higher_is_said_to_be(here: Path) -> None:
    rows = verdict(Runs([a_run(name, 0, AS_SAID[name]) for name in ("fig2_rmsprop", "fig2_adam")]))
    assert rows[1]["numbers"][0].startswith("Adam lower by 0.1")
    swapped = {"fig2_rmsprop": AS_SAID["fig2_adam"], "fig2_adam": AS_SAID["fig2_rmsprop"]}
    rows = verdict(Runs([a_run(name, 0, loss) for name, loss in swapped.items()]))
    assert rows[1]["numbers"][0].startswith("Adam higher by 0.1")


def test_the_committed_results_say_what_the_docs_say(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, drawn in (("article", 5), ("article-fee-0", 5)):
        kept = ROOT / "docs" / "results" / f"{name}.csv"
        assert main.report([str(kept), "--verdict"], CONF) == 0
        folder = f"{name}.csv"  # not the folder of a study that has the name
        assert capsys.readouterr().out.strip() == f"sweeps/{folder}/verdict.html"
        assert (here / "sweeps" / folder / "verdict.csv").read_text() == kept.read_text()
        page = (here / "sweeps" / folder / "verdict.html").read_text()
        assert page.count('class="plot"') == drawn
        assert "http" not in page.split("</script>", 1)[1].replace("http://www.w3.org", "")
        told = (ROOT / "docs" / "article.md").read_text()
        for line in (here / "sweeps" / folder / "verdict.md").read_text().splitlines():
            if line.startswith("| "):
                assert line in told


def test_mistakes_get_one_line(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made_study([made_trial(values=[1.0], params={"clip": 1.0})], name="other")
    Path("empty.csv").write_text("figure,seed\n")
    Path("wrong.csv").write_text("a run")
    for words, said in (
        (["other"], "study other has no figure; takes one of sweep=article"),
        (["none.csv"], "there is no such file"),
        (["empty.csv"], "lacks the columns"),
        (["unknown"], "takes a study of"),
        ([], "usage: python report.py"),
    ):
        assert main.report([*words, "--verdict"], CONF) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert said in line
    assert not list(here.glob("sweeps/*/verdict.*"))
