"""Processes that are killed or run out of memory: progress only grows, nothing is lost, nothing runs twice."""

import json
import os
import random
import resource
import signal
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from conftest import SMALL
from forked import command
from omegaconf import DictConfig

from tbptt.runs.fit import fit
from tbptt.system.liveness import is_alive

DEADLINE = 600


def rows(path: Path, query: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=60)) as database:
        return list(database.execute(query))


def progress(folder: Path) -> dict[str, int]:
    """How much both stores hold: complete trials, and points of each run."""
    try:
        (complete,) = rows(folder / "sweeps/optuna.db", "select count(*) from trials where state = 'COMPLETE'")
        points = rows(folder / "mlruns/mlflow.db", "select run_uuid, count(*) from metrics group by 1")
    except sqlite3.OperationalError:  # they are only being made
        return {}
    return {"complete": complete[0], **dict(points)}


def workers(folder: Path) -> list[dict[str, Any]]:
    """The processes that hold a trial now."""
    query = (
        "select value_json from trial_user_attributes a join trials t on a.trial_id = t.trial_id "
        "where key = 'worker' and state = 'RUNNING'"
    )
    with suppress(sqlite3.OperationalError):
        return [w for (text,) in rows(folder / "sweeps/optuna.db", query) if is_alive(w := json.loads(text))]
    return []


@pytest.mark.parametrize("pack", [1, 3])
@pytest.mark.parametrize(("kills", "trials", "epochs"), [(5, 6, 60), pytest.param(25, 12, 200, marks=pytest.mark.slow)])
def test_killed_at_random_moments_a_study_ends_whole(
    here: Path, small: Callable[..., DictConfig], kills: int, trials: int, epochs: int, pack: int
) -> None:
    chance = random.Random(kills)
    clips = [0.1 * (i + 1) for i in range(trials)]
    run = [f"epochs={epochs}", "schedule.patience=null", "schedule.stage_epochs=20", "model.noise_std=0.1"]
    words = ["-m", *SMALL, *run, f"clip={','.join(f'{c:.1f}' for c in clips)}", "study.workers=2", "study.name=killed"]
    words += ["study.retries=1000", f"study.pack={pack}"]
    folder = here / "study"
    folder.mkdir()
    head = command(folder, *words)
    victims = ["head"] * (kills // 3) + ["worker"] * (kills - kills // 3)
    chance.shuffle(victims)
    before: dict[str, int] = {}
    deadline = time.monotonic() + DEADLINE
    try:
        while head.exitcode != 0:
            assert time.monotonic() < deadline, (victims, before)
            time.sleep(chance.uniform(0.05, 0.6))
            now = progress(folder)
            assert all(now.get(what, 0) >= count for what, count in before.items()), (before, now)
            before = now
            at_work = workers(folder)
            if head.exitcode is not None and head.exitcode != 0:
                assert head.exitcode == -signal.SIGKILL, (folder / "err").read_text()
                if not at_work:  # they follow their head
                    head = command(folder, *words)
            elif victims and at_work:
                if victims[-1] == "head":
                    head.kill()
                    head.join()
                    victims.pop()
                else:
                    with suppress(ProcessLookupError):
                        os.kill(chance.choice(at_work)["pid"], signal.SIGKILL)
                        victims.pop()
    finally:
        head.kill()
    assert not victims, "too little work for so many kills"

    optuna, mlflow = folder / "sweeps/optuna.db", folder / "mlruns/mlflow.db"
    for path in (optuna, mlflow):
        assert rows(path, "pragma integrity_check") == [("ok",)]
    states = dict(rows(optuna, "select state, count(*) from trials group by 1"))
    assert states["COMPLETE"] == trials
    assert set(states) == {"COMPLETE", "FAIL"}
    query = "select param_value from trial_params p join trials t on p.trial_id = t.trial_id where state = 'COMPLETE'"
    assert sorted(index for (index,) in rows(optuna, query)) == list(range(trials))
    query = "select status, count(*) from runs r join tags t on r.run_uuid = t.run_uuid where key = 'trial.number'"
    statuses = dict(rows(mlflow, f"{query} group by 1"))
    assert statuses["FINISHED"] == trials
    assert set(statuses) <= {"FINISHED", "KILLED"}  # KILLED: before its first epoch had ended, and begun anew
    assert not rows(mlflow, "select 1 from runs where status = 'RUNNING'")

    # The curves are those of a study that nothing happened to.
    for clip in (clips[0], clips[-1]):
        whole = fit(small(*run, f"clip={clip:.1f}")).run_id
        query = "select m.step, m.value from metrics m where key = 'val/loss' and run_uuid = '{}' order by step"
        (killed_id,) = [
            run_id
            for (run_id,) in rows(
                mlflow,
                "select r.run_uuid from runs r join params p on r.run_uuid = p.run_uuid "
                f"where p.key = 'clip' and p.value = '{clip:.1f}' and status = 'FINISHED'",
            )
        ]
        expected = rows(here / "mlruns/mlflow.db", query.format(whole))
        assert len(expected) == epochs
        assert rows(mlflow, query.format(killed_id)) == expected


def test_a_trial_that_runs_out_of_memory_fails_and_the_others_go_on(here: Path) -> None:
    whole = ["data.length=600", "schedule.chunks=[1]", "epochs=1"]
    head = command(here, "-m", *SMALL, *whole, "model.dense=[8],[1000000],[9]", "study.name=large")
    resource.prlimit(head.pid, resource.RLIMIT_AS, (8 << 30, 8 << 30))  # a million outputs of 1,800 steps take 7 GB
    head.join()
    assert head.exitcode == 1
    (line,) = [line for line in (here / "err").read_text().splitlines() if line.startswith("trial ")]
    assert line.startswith("trial 1 failed: RuntimeError: out of memory: ")
    states = rows(here / "sweeps/optuna.db", "select state from trials order by number")
    assert states == [("COMPLETE",), ("FAIL",), ("COMPLETE",)]
    query = "select r.status, t.value from runs r join tags t on r.run_uuid = t.run_uuid where t.key = 'stop.reason'"
    assert sorted(rows(here / "mlruns/mlflow.db", query)) == [
        *[("FAILED", "error"), ("FINISHED", "epochs"), ("FINISHED", "epochs")]
    ]
