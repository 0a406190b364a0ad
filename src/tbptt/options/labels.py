"""What a user says about a run in words of their own, ``notes`` and ``tags``: what they may be."""

import posixpath
import re
from collections.abc import Mapping
from typing import Any

from tbptt.options.takes import TEXT, Takes

MOST_NOTES = 4000  # characters; twice as many, as each may be escaped, still fit into MLflow's description
MOST_TAGS, LONGEST_NAME, LONGEST_VALUE = 50, 100, 1000
# The names of tags that MLflow and this project set themselves, by what is before their first dot, and whole.
_TAKEN = ("mlflow", "study", "trial", "data", "git", "versions", "own", "stop", "baseline", "verdict", "test", "best")
_TAKEN_WHOLE = ("device", "worker", "description.sha256")

NOTES = Takes(
    f"a text of at most {MOST_NOTES} characters, or null",
    lambda v: v is None or (TEXT.test(v) and len(v) <= MOST_NOTES),
)
TAGS = Takes("a mapping of names and texts, as in {desk: fx}", lambda v: isinstance(v, Mapping))


def tag_problem(tags: Mapping[Any, Any]) -> str | None:
    """What is wrong with a run's tags, and what would be right; None if they are right."""
    if len(tags) > MOST_TAGS:
        return f"got {len(tags)} tags; takes at most {MOST_TAGS}"
    for name, value in tags.items():
        if not isinstance(name, str) or not re.fullmatch(r"\w[\w.\-: /]*", name) or len(name) > LONGEST_NAME:
            letters = f"letters, digits and _ . - : / or a space, at most {LONGEST_NAME} of them"
            return f"got the name {str(name)[:LONGEST_NAME]!r}; takes {letters}"
        if posixpath.normpath(name) != name or name != name.strip():  # MLflow may keep a tag as a file
            return f"got the name {name!r}; takes one that could be a path, without an empty part, or .., or a space"
        if name in _TAKEN_WHOLE or ("." in name and name.split(".")[0] in _TAKEN):
            return f"got the name {name!r}, which MLflow or tbptt use themselves; takes another"
        if not isinstance(value, str) or len(value) > LONGEST_VALUE:
            return f"got for {name!r} {str(value)[:40]!r}; takes a text of at most {LONGEST_VALUE} characters"
    return None
