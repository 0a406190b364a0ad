"""What a config's key takes: in words, for help and errors, and as a test."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple


class Takes(NamedTuple):
    """What a key takes, in words and as a test; ``options`` are its values where they are few."""

    text: str
    test: Callable[[Any], bool]
    options: tuple[object, ...] = ()


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


MOST = 2**63 - 1  # what PyTorch, NumPy and SQLite have room for
LARGEST = 1e30  # products of a few larger numbers overflow


def whole(low: int, *also: object, high: int = MOST) -> Takes:
    others = "".join(f", or {'null' if v is None else v}" for v in also)
    most = f" to {high}" if high < MOST else ""
    return Takes(f"a whole number from {low}{most}{others}", lambda v: v in also or (_is_int(v) and low <= v <= high))


def number(low: float, high: float = math.inf, *, open_low: bool = False, null: bool = False) -> Takes:
    """A number from ``low`` (above it with ``open_low``) and below ``high``, at most ``LARGEST``."""
    text = f"a number {'above' if open_low else 'from'} {low:g}" + (f" and below {high:g}" if high < math.inf else "")
    return Takes(
        text + (", or null" if null else ""),
        lambda v: (
            (null and v is None)
            or (
                not isinstance(v, bool)
                and isinstance(v, int | float)
                and (low < v if open_low else low <= v)
                and v < high
                and v <= LARGEST
            )
        ),
    )


def one_of(*values: object) -> Takes:
    shown = (str(v).lower() if isinstance(v, bool) else str(v) for v in values)
    return Takes("one of " + ", ".join(shown), lambda v: v in values, values)


def list_of(
    items: str, item: Takes, low: int = 1, high: float = math.inf, null: bool = False, different: bool = False
) -> Takes:
    """``items`` says in the plural what ``item`` says of one."""
    at_least = ", at least one" if low and high == math.inf else ""
    return Takes(
        f"a list of {items}{at_least}" + (", or null" if null else ""),
        lambda v: (
            (null and v is None)
            or (
                isinstance(v, list | tuple)
                and low <= len(v) <= high
                and all(item.test(i) for i in v)
                and not (different and len(set(v)) < len(v))
            )
        ),
    )


TEXT = Takes("a text", lambda v: isinstance(v, str) and bool(v.strip()))
