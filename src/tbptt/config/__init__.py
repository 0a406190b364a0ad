from typing import Any


def __getattr__(name: str) -> Any:
    """Files of your own that are older than ``tbptt.extend`` import their classes from here."""
    from tbptt import extend

    try:
        return getattr(extend, name)
    except AttributeError:
        raise AttributeError(f"module 'tbptt.config' has no attribute {name!r}") from None
