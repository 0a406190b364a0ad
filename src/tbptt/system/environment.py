"""What a user of MLflow has said in the environment already, for keys that were not typed."""

import os
from collections.abc import Collection

# The variable of a key, and what the key is where there is none.
OF_MLFLOW = {
    "tracking.uri": ("MLFLOW_TRACKING_URI", '"sqlite:///mlruns/mlflow.db"'),
    "tracking.experiment": ("MLFLOW_EXPERIMENT_NAME", "tbptt"),
}


def words_of_environment(typed: Collection[str]) -> list[str]:
    """Overrides for the keys that the environment says and that are not among those ``typed``.

    Only the variable's name is in them, as it would be in a config file: its value, which may hold a secret, is kept
    nowhere. An empty variable says nothing, as in MLflow.
    """
    said = [key for key, (name, _) in OF_MLFLOW.items() if os.environ.get(name)]
    return [f"{key}={interpolation(key)}" for key in said if key not in typed]


def interpolation(key: str) -> str:
    """The value of a key that the environment says, as a config has it."""
    name, default = OF_MLFLOW[key]
    return f"${{oc.env:{name},{default}}}"


def said(words: Collection[str]) -> str:
    """What a command's words have of :func:`words_of_environment`, to be shown; empty where that is nothing."""
    found = [
        f"{key} from {name}"
        for key, (name, _) in OF_MLFLOW.items()
        if any(word.startswith(f"{key}=") and f"oc.env:{name}" in word for word in words)
    ]
    return f" ({', '.join(found)})" if found else ""
