"""Values of keys in three forms: as a study stores them, as a user types them, and as a reader sees them."""

import json
import re
from typing import Any

Value = None | bool | int | float | str  # a list is stored as JSON text, which Optuna can store and compare


def stored(value: Any) -> Value:
    """A config's value as a study stores it: lists as JSON text."""
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


# Texts that, without quotes, would be read as a number, a truth value or null.
_NO_TEXT = re.compile(r"null|true|false|nan|inf|\.\d.*", re.IGNORECASE)


def quoted(text: str) -> str:
    """A text in quotes, escaped for Hydra's grammar."""
    escaped = re.sub(r"(\\*)(?='|$)", r"\1\1", text)  # in Hydra a backslash is special only before a quote
    return "'" + escaped.replace("'", "\\'") + "'"


def _from_json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def short_value(value: Value) -> str:
    """A stored value for a reader, with six digits. It cannot always be typed back exactly."""
    return f"{value:.6g}" if isinstance(value, float) else text_of(value)


def shown(value: float, digits: int = 4) -> str:
    """A number for a reader, rounded to ``digits`` digits. From 10**digits up to 1e7, it is shown as a whole number and
    not with a power of ten."""
    return f"{value:.0f}" if 10**digits <= abs(value) < 1e7 else f"{value:.{digits}g}"


def shortened(text: str, most: int) -> str:
    """A text cut to at most ``most`` letters; ``…`` stands for the rest."""
    return text if len(text) <= most else text[: most - 1] + "…"
