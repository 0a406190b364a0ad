"""tbptt: hyperparameter sweeps for recurrent networks on sequences too long to backpropagate through at once."""

from typing import Any

__all__ = ["inputs", "load_run"]


def __getattr__(name: str) -> Any:
    # Late, so that the command line answers --help without importing torch or MLflow.
    if name in __all__:
        from tbptt import runs

        return getattr(runs, name)
    raise AttributeError(f"module 'tbptt' has no attribute {name!r}")
