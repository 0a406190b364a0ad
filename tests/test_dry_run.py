"""study.dry_run=true: what would run and for how long, and nothing is created."""

import re
import sys
from collections.abc import Callable
from pathlib import Path

import hydra
import pytest
from conftest import CONF, SMALL

from tbptt.cli.main import job, run
from tbptt.studies import dry_run

Dry = Callable[..., list[str]]


@pytest.fixture
def dry(here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Dry:
    """Gives a whole command in this process; the lines it prints. Nothing may be left behind."""
    main = hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(job)

    def printed(*words: str) -> list[str]:
        monkeypatch.setattr(sys, "argv", ["train.py", "-m", "study.dry_run=true", *words])
        assert run(main, CONF) == 0
        shown = capsys.readouterr()
        assert shown.err == ""
        assert list(here.iterdir()) == []
        name, *lines = shown.out.splitlines()
        about = [line for line in lines if line.startswith("  data: ")]
        assert about[0].startswith("  data: ")
        return [name, *lines[len(about) :]]

    return printed


@pytest.fixture
def an_hour_an_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dry_run, "_seconds_an_epoch", lambda plan: 3600.0)


def test_a_grid_is_shown_point_by_point_with_its_time(dry: Dry) -> None:
    first, *lines = dry(*SMALL, "optimizer=adam,rmsprop", "clip=0.5,1,2")
    assert re.fullmatch(r"study optimizer\+clip-[0-9a-f]{8}", first)
    assert lines[:3] == [
        "  optimizer: choice(adam, rmsprop)",
        "  clip: choice(0.5, 1.0, 2.0)",
        "  every one of its 6 points:",
    ]
    assert lines[3:9] == [f"    optimizer={o} clip={c}" for o in ("adam", "rmsprop") for c in (0.5, 1.0, 2.0)]
    disk, last = lines[9:]
    assert re.fullmatch(r"  on disk about \S+ kB of curves and \S+ kB of checkpoints and models; .*", disk)
    found = re.fullmatch(
        r"  6 trials × 1 seed × 3 epochs, 1 at once: at least (\S+) hours of training; nothing was created", last
    )
    assert found
    assert 0 < float(found[1]) < 0.1


@pytest.mark.usefixtures("an_hour_an_epoch")
def test_the_hours_are_runs_times_epochs_over_workers(dry: Dry) -> None:
    *_, last = dry("clip=1,2,3,4", "study.seeds=[0,1]", "epochs=5", "study.workers=4")
    assert last == "  4 trials × 2 seeds × 5 epochs, 4 at once: at least 10 hours of training; nothing was created"


@pytest.mark.usefixtures("an_hour_an_epoch")
def test_a_search_shows_its_space_its_sampler_and_its_pruner(dry: Dry) -> None:
    name, *lines = dry("sweep=clip_schedule", "study/sampler=random", "study.n_trials=7", "epochs=3")
    assert name.startswith("study clip+chunks-")
    disk = lines.pop(-2)
    # Weights of 4 bytes, 512 of them frozen, with Adam's two moments and 16 kB: 961 kB, as measured; three times, and
    # the weights alone. The schedule's mean is 22.6 updates an epoch.
    curves = 7 * 3 * (19 + 2 * 22.6) * 261
    each = 3 * (4 * 79106 + 8 * 78594 + 16000) + 4 * 79106 + 16000
    said = f"{curves / 1e3:.3g} kB of curves and {7 * each / 1e6:.3g} MB of checkpoints and models"
    best = f"tracking.keep=best would leave {each / 1e6:.3g} MB"
    assert disk == f"  on disk about {said}; {best}; besides, twice the report and tables"
    assert lines == [
        "  clip: interval(0.1, 10), log",
        "  schedule.chunks: choice([10, 2, 1], [100, 50, 10, 2, 1], [1], [50, 10, 1])",
        "  sampler random, pruner auto",
        "  7 trials × 1 seed × 3 epochs, 1 at once: at least 21 hours of training where none "
        "is pruned; nothing was created",
    ]


@pytest.mark.usefixtures("an_hour_an_epoch")
def test_of_many_points_the_first_are_shown(dry: Dry) -> None:
    lines = dry("epochs=range(1,101)")
    assert lines[2:24] == [
        "  every one of its 100 points:",
        *(f"    epochs={i}" for i in range(1, 21)),
        "    … 80 more",
    ]


def test_a_search_that_ends_with_its_time_says_so(dry: Dry) -> None:
    *_, last = dry("clip=interval(0.1,1)", "study.timeout=90")
    assert last == "  trials until 90 s have passed; nothing was created"
