"""The values that a config's key takes: in words, for help and errors, and as a test."""

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from tbptt.system.stores import without_password


class Takes(NamedTuple):
    """The values that a key takes.

    Attributes:
        words: the values in words. A function if they change when options of the user's own are added.
        test: whether a value is one of them.
        options: all of the values, if there are only a few.
    """

    words: str | Callable[[], str]
    test: Callable[[Any], bool]
    options: tuple[object, ...] = ()

    @property
    def text(self) -> str:
        return self.words if isinstance(self.words, str) else self.words()


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


MOST = 2**63 - 1  # the largest whole number of PyTorch, NumPy and SQLite
LARGEST = 1e30  # products of a few larger numbers overflow
MOST_ITEMS = 1000  # of a list: more layers, stages or seeds than anybody needs, and still fast to read and to show
MOST_SHOWN = 200  # characters of a wrong value


def whole(low: int, *also: object, high: int = MOST) -> Takes:
    others = "".join(f", or {'null' if v is None else v}" for v in also)
    most = f" to {high}" if high < MOST else ""
    return Takes(f"a whole number from {low}{most}{others}", lambda v: v in also or (_is_int(v) and low <= v <= high))


def number(
    low: float, high: float = math.inf, *, open_low: bool = False, closed_high: bool = False, null: bool = False
) -> Takes:
    """A number from ``low`` (with ``open_low``: above it), below ``high`` (with ``closed_high``: up to it), and at most
    ``LARGEST``."""
    below = f" and {'at most' if closed_high else 'below'} {high:g}" if high < math.inf else ""
    text = f"a number {'above' if open_low else 'from'} {low:g}{below}"
    return Takes(
        text + (", or null" if null else ""),
        lambda v: (
            (null and v is None)
            or (
                not isinstance(v, bool)
                and isinstance(v, int | float)
                and (low < v if open_low else low <= v)
                and (v <= high if closed_high else v < high)
                and v <= LARGEST
            )
        ),
    )


def one_of(*values: object) -> Takes:
    shown = ("null" if v is None else str(v).lower() if isinstance(v, bool) else str(v) for v in values)
    return Takes("one of " + ", ".join(shown), lambda v: v in values, values)


class OneOfKnown(Takes):
    """One of the names in a table that files of the user's own may still extend. ``names`` returns those of now."""

    names: Callable[[], Iterable[str]]

    def __new__(cls, names: Callable[[], Iterable[str]]) -> "OneOfKnown":
        made = super().__new__(cls, "", lambda value: value in tuple(names()))
        made.names = names
        return made

    @property
    def text(self) -> str:
        return "one of " + ", ".join(self.names())

    @property
    def options(self) -> tuple[object, ...]:
        return tuple(self.names())


def list_of(
    items: str, item: Takes, low: int = 1, high: float = MOST_ITEMS, null: bool = False, different: bool = False
) -> Takes:
    """A list of ``low`` to ``high`` items that each pass ``item``'s test. ``items`` describes them, in the plural."""
    at_least = ", at least one" if low == 1 else ""
    at_most = f", at most {high}" if low < high < math.inf else ""
    return Takes(
        f"a list of {items}{at_least}{at_most}" + (", or null" if null else ""),
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


def text(most: int) -> Takes:
    return Takes(f"a text of at most {most} characters", lambda v: TEXT.test(v) and len(v) <= most)


def wrong_value(name: str, value: object, takes: str) -> str:
    """The line about a wrong value. All such lines have this form."""
    numbers = [n for n in (value if isinstance(value, list | tuple) else [value]) if isinstance(n, int | float)]
    if most := next(
        (m for m, kind in ((MOST, int), (LARGEST, float)) for n in numbers if type(n) is kind and n > m), 0
    ):
        takes += f", at most {most if isinstance(most, int) else f'{most:g}'}"
    return f"{name}: got {'null' if value is None else _shown(value)}; takes {takes}"


def _shown(value: object) -> str:
    """A value as a line shows it: without passwords, and cut after MOST_SHOWN characters."""
    shown = without_password(repr(value))
    if len(shown) <= MOST_SHOWN:
        return shown
    length = f"{len(value)} of them" if isinstance(value, list | tuple) else f"{len(shown)} characters"
    return f"{shown[:MOST_SHOWN]}… ({length})"
