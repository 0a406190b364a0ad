"""What a worker notes of a running trial: the newest, every few seconds, at no cost and no risk to the trial."""

import threading
from collections.abc import Callable
from typing import Any

import pytest

from tbptt.runs.epoch import Epoch
from tbptt.studies.trial_progress import TrialProgress

DEADLINE = 30  # seconds until something is taken to hang


class Storage:
    """Keeps what is noted; says when it did."""

    def __init__(self, act: Callable[[], None] = lambda: None):
        self.noted: list[dict[str, Any]] = []
        self.act, self.wrote = act, threading.Semaphore(0)

    def set_trial_user_attr(self, trial_id: int, key: str, value: dict[str, Any]) -> None:
        assert (trial_id, key) == (7, "progress")
        self.noted.append(value)
        self.wrote.release()
        self.act()


def epoch(number: int, seconds: float = 2.0) -> Epoch:
    metrics = {"time/epoch_seconds": seconds, "val/loss": 0.5}
    return Epoch(number, 0, 0, 1, metrics, 0, [], [], [], None, False, False)


def test_an_epoch_is_noted_with_the_time_left_over_all_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    storage = Storage()
    monkeypatch.setattr("tbptt.studies.trial_progress.time.time", lambda: 1e9)
    with TrialProgress(storage, 7, epochs=10, seeds=3) as shown:
        shown.epoch(epoch(3), run=1)
        assert storage.wrote.acquire(timeout=DEADLINE)
    (noted,) = storage.noted
    of_seeds = {"seed": 2, "seeds": 3, "fold": 1, "folds": 1, "at": 1e9}
    assert noted == {**of_seeds, "epoch": 4, "epochs": 10, "held_out": 0.5, "seconds_left": 2.0 * (6 + 10)}


def test_between_two_notes_only_the_newest_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tbptt.studies.trial_progress.EVERY", 0.1)
    storage = Storage()
    with TrialProgress(storage, 7, epochs=1000, seeds=1) as shown:
        for number in range(1000):
            shown.epoch(epoch(number), run=0)
        while not storage.noted or storage.noted[-1]["epoch"] < 1000:
            assert storage.wrote.acquire(timeout=DEADLINE)
    assert len(storage.noted) < 50


def test_a_storage_that_fails_or_hangs_neither_fails_nor_holds_the_trial() -> None:
    def fails() -> None:
        raise ConnectionError("away")

    hangs = threading.Event()
    for storage in (Storage(fails), Storage(lambda: bool(hangs.wait(DEADLINE)) and None)):
        with TrialProgress(storage, 7, epochs=10, seeds=1) as shown:
            shown.epoch(epoch(0), run=0)
            assert storage.wrote.acquire(timeout=DEADLINE)
            shown.epoch(epoch(1), run=0)
    hangs.set()
