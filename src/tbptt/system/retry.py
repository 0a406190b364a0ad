"""Retries of calls that may succeed later: the server does not answer, or another process has locked a file."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from tenacity import RetryCallState

LOOK_EVERY = 0.1  # seconds between two calls of ``check`` while waiting
T = TypeVar("T")


def retry(
    call: Callable[[], T],
    may_pass: Callable[[BaseException], bool],
    seconds: float,
    check: Callable[[], None] = lambda: None,
    *,
    first_wait: float = 0.5,
    longest_wait: float = 10.0,
    before_wait: Callable[[BaseException], None] = lambda error: None,
    at_the_end: Callable[[BaseException], BaseException] | None = None,
) -> T:
    """Call until it succeeds, and return what ``call`` returned.

    Args:
        may_pass: whether an error is temporary. Other errors are raised at once.
        seconds: how long to retry, counted from the first call; 0 calls once.
        check: called while waiting; may raise to stop at once.
        first_wait, longest_wait: seconds between two calls. Each wait is twice the last one, up to the longest.
        before_wait: called with the error before each wait.
        at_the_end: turns the last error into the one to raise when the time is over; None raises the last error itself.
    """

    from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_exponential  # late: it imports tornado

    def wait(duration: float) -> None:
        until = time.monotonic() + duration
        while (left := until - time.monotonic()) > 0:
            check()
            time.sleep(min(left, LOOK_EVERY))

    def give_up(state: "RetryCallState") -> T:
        error = _error(state)
        if at_the_end is None:
            raise error
        raise at_the_end(error) from error

    return Retrying(
        retry=retry_if_exception(lambda error: isinstance(error, Exception) and may_pass(error)),
        stop=stop_after_delay(seconds),
        wait=wait_exponential(first_wait, longest_wait),
        sleep=wait,
        before_sleep=lambda state: before_wait(_error(state)),
        retry_error_callback=give_up,
    )(call)


def _error(state: "RetryCallState") -> BaseException:
    assert state.outcome is not None
    error = state.outcome.exception()
    assert error is not None
    return error
