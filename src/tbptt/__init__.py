"""tbptt: hyperparameter sweeps for recurrent networks on sequences too long to backpropagate through at once."""

import os
import warnings
from typing import Any

# By default MLflow counts its users: each run would ask a host of theirs, and leave a number in the home folder. Who
# wants that says so in the environment. It stands here as MLflow looks when it is imported.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

# In a notebook Optuna asks tqdm for a bar that needs ipywidgets, and tqdm says so. No bar of it is shown here.
warnings.filterwarnings("ignore", message="IProgress not found")

# The public names, by the module that has them.
_WHERE = {
    "curves": "tbptt.reports.frames",
    "inputs": "tbptt.serving.load",
    "load_run": "tbptt.serving.load",
    "panel": "tbptt.serving.next_file",
    "predict": "tbptt.serving.predict",
    "sides": "tbptt.serving.load",
    "trials": "tbptt.reports.frames",
}
__all__ = ["curves", "inputs", "load_run", "panel", "predict", "sides", "trials"]


def __getattr__(name: str) -> Any:
    # Late, so that the command line answers --help without importing torch or MLflow.
    if name in __all__:
        from importlib import import_module

        return getattr(import_module(_WHERE[name]), name)
    raise AttributeError(f"module 'tbptt' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
