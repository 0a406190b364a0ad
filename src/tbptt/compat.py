"""Every use of what other libraries keep to themselves, and nowhere else: their next version may change it.

``tests/test_compat.py`` holds each of these against the library that is installed, so that an upgrade fails there, with
a line that says what changed and what relies on it. Imported early, so it imports nothing itself.
"""

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    import sqlite3

    import optuna
    from hydra.core.override_parser.types import Override
    from omegaconf import DictConfig, ListConfig, Node
    from optuna.storages import RDBStorage
    from optuna.study._frozen import FrozenStudy
    from optuna.trial import FrozenTrial, Trial

# Loggers, by the private modules that they are named after.
OPTUNA_STORAGE_LOG = "optuna.storages._rdb.storage"  # shows whole statements in an outage
MLFLOW_DATABASE_LOG = "mlflow.store.db.utils"  # prints a traceback of what it raises anyway


# --- Hydra ----------------------------------------------------------------------------------------------------------


def before_each_file(look: Callable[[Path], None]) -> None:
    """Have Hydra call ``look`` with the path of each YAML file before it reads it, for the rest of this process; what
    it raises, composing raises."""
    from hydra._internal.sources_registry import SourcesRegistry
    from hydra.core.plugins import Plugins

    Plugins.instance()  # which fills the registry
    reader: Any = SourcesRegistry.instance().resolve("file")
    read = reader.load_config

    def load_config(source: Any, config_path: str) -> Any:
        path = Path(source.path) / source._normalize_file_name(config_path)
        if path.is_file():
            look(path)
        return read(source, config_path)

    reader.load_config = load_config


def put_on_top(config: "DictConfig", values: "list[Override]") -> None:
    """Change a composed config by overrides of values, as composing with them would."""
    from hydra._internal.config_loader_impl import ConfigLoaderImpl

    ConfigLoaderImpl._apply_overrides_to_config(values, config)


def override_dirname(overrides: "list[Override]", form: "DictConfig") -> str:
    """Hydra's name for a folder of a job with these overrides; ``form`` is ``hydra.job.config.override_dirname``."""
    from hydra._internal.config_loader_impl import get_overrides_dirname

    return str(get_overrides_dirname(overrides, form.exclude_keys, form.item_sep, form.kv_sep))


def parsed_value(override: "Override") -> Any:
    """An override's value with its quotes, which ``Override.value`` takes off."""
    return override._value


def as_typed(value: Any) -> str:
    """One value of an override's choices, as it is typed."""
    from hydra.core.override_parser.types import Override

    return Override._get_value_element_as_str(value)


# --- OmegaConf ------------------------------------------------------------------------------------------------------


def node_at(config: "DictConfig | ListConfig", place: Any) -> "Node":
    """What a config holds at a key or an index, with interpolations as they stand."""
    return cast("Node", config._get_node(place))


def has_content(node: "DictConfig | ListConfig") -> bool:
    """Whether a mapping or list is neither ``???`` nor null."""
    return not node._is_missing() and not node._is_none()


def as_it_stands(node: "Node") -> str:
    """What was typed for a value, with its interpolations."""
    return str(node._value())


# --- Optuna ---------------------------------------------------------------------------------------------------------


def trial_id(trial: "Trial | FrozenTrial") -> int:
    """A trial's number in its storage, over all studies; storages know trials by it."""
    return trial._trial_id


def study_id(study: "optuna.Study | FrozenStudy") -> int:
    """A study's number in its storage."""
    return study._study_id


def queued_point(trial: "FrozenTrial") -> Mapping[str, Any]:
    """The point that a trial was put in the queue with; empty for one that was sampled."""
    return cast("Mapping[str, Any]", trial.system_attrs.get("fixed_params", {}))


def optuna_tables() -> Any:
    """The tables of Optuna's storage in a database, as a module of SQLAlchemy's models."""
    from optuna.storages._rdb import models

    return models


def storage_calls() -> list[str]:
    """The methods by which Optuna asks a database for something: those of every storage, and what its cache, which it
    puts around a database, calls of the database's own."""
    from optuna.storages import BaseStorage

    public = [name for name in vars(BaseStorage) if not name.startswith("_") and name != "remove_session"]
    return [*public, "_set_trial_param", "_get_best_trial_id", "_get_trials", "_get_stale_trial_ids"]


def stale_trials(storage: "RDBStorage", study: int) -> set[int]:
    """The ids of a study's running trials that had no heartbeat for longer than the storage's grace period."""
    return set(storage._get_stale_trial_ids(study))


# --- MLflow ---------------------------------------------------------------------------------------------------------


def path_of_file_uri(uri: str) -> Path:
    """The path of a ``file:`` URI, or of a path."""
    from mlflow.utils.file_utils import local_file_uri_to_path

    return Path(local_file_uri_to_path(uri))


def place_of_experiment(database: "sqlite3.Connection", experiment: str) -> str:
    """The URI below which MLflow's database says that the files of an experiment of it are."""
    found = database.execute("SELECT artifact_location FROM experiments WHERE experiment_id = ?", (experiment,))
    (uri,) = found.fetchone()
    return str(uri or "")


def experiments_at(database: "sqlite3.Connection", uri: str) -> list[str]:
    """The experiments whose files it says to be below a URI."""
    found = database.execute("SELECT experiment_id FROM experiments WHERE artifact_location = ?", (uri,))
    return [experiment for (experiment,) in found]


def move_experiment(database: "sqlite3.Connection", experiment: str, uri: str) -> None:
    """Have it say that an experiment's files are below ``uri``."""
    database.execute("UPDATE experiments SET artifact_location = ? WHERE experiment_id = ?", (uri, experiment))


def places_of_runs(database: "sqlite3.Connection", experiment: str) -> list[tuple[str, str]]:
    """The id of each of an experiment's runs, and the URI at which it says that its files are."""
    found = database.execute("SELECT run_uuid, artifact_uri FROM runs WHERE experiment_id = ?", (experiment,))
    return [(str(run), str(uri or "")) for run, uri in found]


def move_runs(database: "sqlite3.Connection", places: Iterable[tuple[str, str]]) -> None:
    """Have it say that runs' files are elsewhere: of each its id and the URI."""
    database.executemany("UPDATE runs SET artifact_uri = ? WHERE run_uuid = ?", [(uri, run) for run, uri in places])


# --- joblib, Python -------------------------------------------------------------------------------------------------


def joblib_executor() -> Any | None:
    """The pool of processes that joblib keeps from call to call; None where there is none."""
    loky = sys.modules.get("joblib.externals.loky.reusable_executor")
    return (loky and loky._executor) or None


def process_ids(executor: Any) -> Sequence[int]:
    """The processes of joblib's pool."""
    return [process.pid for process in list(executor._processes.values())]


def run_exit_functions() -> None:
    """Do what was registered with ``atexit``, now and not again."""
    import atexit

    atexit._run_exitfuncs()
