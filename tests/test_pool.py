"""Workers that wait for their order: without one they leave, and leave nothing behind."""

import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from tbptt import pool
from tbptt.hydra_node import LAUNCHERS
from tbptt.plan import Order

ORDER = Order("conf", "config", None, ["clip=1,2"], "parent")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers whose imports take no time: they copy their order to its log."""
    code = "import json, sys; l = sys.stdin.readline(); l and open(json.loads(l)['log'], 'a').write(l); sys.exit(not l)"
    popen = pool.subprocess.Popen
    monkeypatch.setattr(pool.subprocess, "Popen", lambda command, **more: popen([sys.executable, "-c", code], **more))


def test_without_an_order_a_worker_leaves(here: Path, quick: None) -> None:
    worker = pool.WorkerProcess(0)
    assert worker.poll() is None
    assert worker.wait() == 1
    assert list(here.iterdir()) == []


def test_an_order_reaches_a_worker_that_waits(here: Path, quick: None) -> None:
    worker = pool.WorkerProcess(0)
    worker.give(ORDER, Path("workers.log"))
    assert worker.wait() == 0
    assert '"overrides": ["clip=1,2"]' in Path("workers.log").read_text()


def test_one_that_has_died_says_so_by_its_status(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    popen = pool.subprocess.Popen
    monkeypatch.setattr(
        pool.subprocess, "Popen", lambda command, **more: popen([sys.executable, "-c", "raise SystemExit(3)"], **more)
    )
    worker = pool.WorkerProcess(0)
    worker._process.wait()
    worker.give(ORDER, Path("workers.log"))
    assert worker.poll() == 3


def test_those_that_wait_are_stopped(quick: None) -> None:
    workers = [pool.WorkerProcess(slot) for slot in range(2)]
    pool.stop(workers)
    assert [worker.poll() for worker in workers] == [-15, -15]
    pool.stop(workers)  # again, as a sweep's end does with those that it had used


@pytest.mark.parametrize(
    ("workers", "dry_run", "launcher", "started"),
    [(3, False, "basic", 3), (3, True, "basic", 0), (3, False, "joblib", 0)],
)
def test_who_is_started_early(
    monkeypatch: pytest.MonkeyPatch, workers: int, dry_run: bool, launcher: str, started: int
) -> None:
    monkeypatch.setattr(pool, "WorkerProcess", lambda slot: slot)
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    study = {"workers": workers, "dry_run": dry_run, "n_trials": None}
    config = OmegaConf.create({"study": study, "hydra": {"launcher": {"_target_": LAUNCHERS[launcher]}}})
    assert len(pool.early(config)) == started


def test_workers_take_the_gpus_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,3")
    monkeypatch.setattr(pool.subprocess, "Popen", lambda _, env, **__: seen.append(env["CUDA_VISIBLE_DEVICES"]))
    for slot in range(3):
        pool.WorkerProcess(slot)
    assert seen == ["0", "3", "0"]
