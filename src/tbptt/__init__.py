"""tbptt: hyperparameter sweeps for recurrent networks on sequences too long to backpropagate through at once."""

from typing import Any

__all__ = ["load_run"]


def __getattr__(name: str) -> Any:
    # Late, so that the command line answers --help without importing torch or MLflow.
    if name == "load_run":
        from tbptt.runs import load_run

        return load_run
    raise AttributeError(f"module 'tbptt' has no attribute {name!r}")
