"""What a config's key takes: in words, for help and errors, and as a test."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple


class Takes(NamedTuple):
    """What a key takes, in words and as a test."""

    text: str
    test: Callable[[Any], bool]


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def whole(low: int, *also: object) -> Takes:
    others = "".join(f", or {'null' if v is None else v}" for v in also)
    return Takes(f"a whole number from {low}{others}", lambda v: v in also or (_is_int(v) and v >= low))


def number(low: float, high: float = math.inf, *, open_low: bool = False, null: bool = False) -> Takes:
    """A finite number from ``low`` (above it with ``open_low``) and below ``high``."""
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
            )
        ),
    )


def one_of(*values: object) -> Takes:
    return Takes("one of " + ", ".join(map(str, values)), lambda v: v in values)


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
