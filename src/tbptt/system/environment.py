"""MLflow's environment variables as values of keys that were not typed on the command line."""

import os
from collections.abc import Collection

DEFAULT_URI = "sqlite:///mlruns/mlflow.db"
# By key: its environment variable, and the key's value if that is not set.
OF_MLFLOW = {
    "tracking.uri": ("MLFLOW_TRACKING_URI", f'"{DEFAULT_URI}"'),
    "tracking.experiment": ("MLFLOW_EXPERIMENT_NAME", "tbptt"),
}


def words_of_environment(typed: Collection[str]) -> list[str]:
    """Overrides for the keys that an environment variable sets and that are not among ``typed``.

    An override holds an interpolation with the variable's name, as a config file would. The variable's value may be a
    secret and is kept nowhere. An empty variable counts as not set, as in MLflow.
    """
    said = [key for key, (name, _) in OF_MLFLOW.items() if os.environ.get(name)]
    return [f"{key}={interpolation(key)}" for key in said if key not in typed]


def uri_given(tracking_uri: str | None = None) -> str | None:
    """The store of runs that the user named, by an argument or by the environment; None if none was."""
    return tracking_uri or os.environ.get(OF_MLFLOW["tracking.uri"][0]) or None


def uri_of(tracking_uri: str | None = None) -> str:
    """The store of runs: the one that the user named, or the default of the command."""
    return uri_given(tracking_uri) or DEFAULT_URI


def interpolation(key: str) -> str:
    """What a config holds for a key that an environment variable sets: ``${oc.env:NAME,DEFAULT}``."""
    name, default = OF_MLFLOW[key]
    return f"${{oc.env:{name},{default}}}"


def said(words: Collection[str]) -> str:
    """For display: the keys that took their value from the environment, as `` (KEY from VARIABLE, …)``; empty if none
    of the command's words came from :func:`words_of_environment`."""
    found = [
        f"{key} from {name}"
        for key, (name, _) in OF_MLFLOW.items()
        if any(word.startswith(f"{key}=") and f"oc.env:{name}" in word for word in words)
    ]
    return f" ({', '.join(found)})" if found else ""
