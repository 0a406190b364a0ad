"""Values of keys as a study keeps them, as they are typed, and as they are read."""

import json
import re
from typing import Any

Value = None | bool | int | float | str  # lists are kept as JSON texts: what Optuna stores well, and can compare


def stored(value: Any) -> Value:
    """A config's value as the study keeps it: lists as JSON text."""
    return value if value is None or isinstance(value, bool | int | float | str) else json.dumps(value)


def text_of(value: Value) -> str:
    """A stored value as it is typed on the command line."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if not isinstance(value, str):
        return str(value)
    if value.startswith("[") and isinstance(items := _from_json(value), list):
        return "[" + ", ".join(text_of(stored(item)) for item in items) + "]"
    if re.fullmatch(r"[A-Za-z_./][A-Za-z0-9_./:@%+*-]*", value) and not _NO_TEXT.fullmatch(value):
        return value
    return quoted(value)


# What is a number, a truth value or nothing where it stands without quotes.
_NO_TEXT = re.compile(r"null|true|false|nan|inf|\.\d.*", re.IGNORECASE)


def quoted(text: str) -> str:
    """A text in the quotes that Hydra's grammar knows."""
    escaped = re.sub(r"(\\*)(?='|$)", r"\1\1", text)  # to Hydra a backslash is special before a quote only
    return "'" + escaped.replace("'", "\\'") + "'"


def _from_json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def short_value(value: Value) -> str:
    """A stored value to be read, not typed: six digits."""
    return f"{value:.6g}" if isinstance(value, float) else text_of(value)


def shown(value: float, digits: int = 4) -> str:
    """A number to be read: rounded, and a whole one rather than a power of ten where it is not very large."""
    return f"{value:.0f}" if 10**digits <= abs(value) < 1e7 else f"{value:.{digits}g}"


def shortened(text: str, most: int) -> str:
    """A text of at most so many letters, the rest of a longer one as ``…``."""
    return text if len(text) <= most else text[: most - 1] + "…"
