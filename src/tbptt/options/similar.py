"""The name that a user may have meant."""

import difflib
from collections.abc import Collection


def similar(name: str, known: Collection[str]) -> str | None:
    """The known name that is most like one that is not; None if there is none."""
    return next(iter(difflib.get_close_matches(name, list(known), n=1)), None)


def did_you_mean(name: str, known: Collection[str]) -> str:
    """The similar name in brackets, behind a list of known ones; empty if there is none."""
    near = similar(name, known)
    return f" (did you mean {near}?)" if near else ""
