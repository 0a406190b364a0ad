from importlib import import_module
from typing import Any

_PLACES = ("extend", "training.options", "data.options", "options.option", "options.metrics", "config.schema")


def __getattr__(name: str) -> Any:
    """Serve files in ``own/`` that were written before ``tbptt.extend``: they import their classes from here."""
    if not name.startswith("_"):
        for place in _PLACES:
            if (found := getattr(import_module(f"tbptt.{place}"), name, None)) is not None:
                return found
    raise AttributeError(f"module 'tbptt.config' has no attribute {name!r}")
