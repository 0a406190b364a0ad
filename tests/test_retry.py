"""What may pass is tried again, with growing waits and not for ever; anything else is raised at once."""

import time
from collections.abc import Callable
from itertools import pairwise

import pytest

from tbptt.system.retry import retry


class Away(Exception):
    """What may pass."""


def is_away(error: BaseException) -> bool:
    return isinstance(error, Away)


class Clock:
    """Stands for the time, which passes only while something sleeps, and on each call of :meth:`failing`."""

    def __init__(self) -> None:
        self.now, self.calls = 0.0, [0.0]

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def failing(self, times: int, error: BaseException) -> Callable[[], str]:
        """A call that fails so many times."""
        self.calls.clear()

        def call() -> str:
            self.calls.append(self.now)
            if len(self.calls) <= times:
                raise error
            return "done"

        return call


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", lambda: clock.now)
    monkeypatch.setattr(time, "sleep", clock.sleep)
    return clock


def test_waits_double_up_to_the_longest(clock: Clock) -> None:
    told: list[BaseException] = []
    call = clock.failing(6, error := Away())
    assert retry(call, is_away, 100.0, before_wait=told.append) == "done"
    waits = [round(after - before, 3) for before, after in pairwise(clock.calls)]
    assert waits == [0.5, 1.0, 2.0, 4.0, 8.0, 10.0]
    assert told == [error] * 6
    assert retry(clock.failing(3, Away()), is_away, 100.0, longest_wait=0.2) == "done"
    assert [round(after - before, 3) for before, after in pairwise(clock.calls)] == [0.2, 0.2, 0.2]


def test_the_last_error_is_raised_when_the_time_is_over(clock: Clock) -> None:
    error = Away("still")
    with pytest.raises(Away) as caught:
        retry(clock.failing(99, error), is_away, 3.0)
    assert caught.value is error
    assert [round(at, 3) for at in clock.calls] == [0.0, 0.5, 1.5, 3.5]
    with pytest.raises(KeyError, match="what to say") as instead:
        retry(clock.failing(99, error), is_away, 0.0, at_the_end=lambda error: KeyError("what to say"))
    assert instead.value.__cause__ is error
    assert len(clock.calls) == 1


@pytest.mark.parametrize("error", [ValueError("no outage"), KeyboardInterrupt()])
def test_what_cannot_pass_is_raised_at_once(clock: Clock, error: BaseException) -> None:
    with pytest.raises(type(error)) as caught:
        retry(clock.failing(99, error), lambda each: not isinstance(each, ValueError), 100.0)
    assert caught.value is error
    assert len(clock.calls) == 1


def test_a_check_ends_the_wait_within_a_moment(clock: Clock) -> None:
    def check() -> None:
        if clock.now > 1.0:
            raise InterruptedError

    with pytest.raises(InterruptedError) as caught:
        retry(clock.failing(99, Away()), is_away, 100.0, check)
    assert caught.value.__context__ is None
    assert [round(at, 3) for at in clock.calls] == [0.0, 0.5]
    assert clock.now < 1.3
