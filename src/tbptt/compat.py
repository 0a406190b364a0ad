"""All uses of private parts of other libraries, which their next version may change. No other module uses any.

``tests/test_compat.py`` checks each use against the installed library. If an upgrade breaks one, a test fails there,
with a line that says what changed and what relies on it. This module is imported early, so it imports these libraries
only inside functions.
"""

import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    import sqlite3

    import optuna
    import sqlalchemy
    from hydra.core.override_parser.types import Override
    from mlflow import MlflowClient
    from omegaconf import DictConfig, ListConfig, Node
    from optuna.storages import RDBStorage
    from optuna.study._frozen import FrozenStudy
    from optuna.trial import FrozenTrial, Trial

# Loggers, by the private modules that they are named after.
OPTUNA_STORAGE_LOG = "optuna.storages._rdb.storage"  # prints whole SQL statements when the database does not answer
MLFLOW_DATABASE_LOG = "mlflow.store.db.utils"  # prints a traceback of an error that it raises too
MOST_IN_BULK = 25_000  # the most points that MLflow's server gives in one answer


# --- Hydra ----------------------------------------------------------------------------------------------------------


def before_each_file(look: Callable[[Path], None]) -> None:
    """Have Hydra call ``look`` with the path of each YAML file before it reads the file, for the rest of this process.
    Errors of ``look`` come out of composing."""
    from hydra._internal.sources_registry import SourcesRegistry
    from hydra.core.plugins import Plugins

    Plugins.instance()  # fills the registry
    reader: Any = SourcesRegistry.instance().resolve("file")
    read = reader.load_config

    def load_config(source: Any, config_path: str) -> Any:
        path = Path(source.path) / source._normalize_file_name(config_path)
        if path.is_file():
            look(path)
        return read(source, config_path)

    reader.load_config = load_config


def put_on_top(config: "DictConfig", values: "list[Override]") -> None:
    """Apply overrides of values to a composed config, in place. The result is as if it was composed with them."""
    from hydra._internal.config_loader_impl import ConfigLoaderImpl

    ConfigLoaderImpl._apply_overrides_to_config(values, config)


def override_dirname(overrides: "list[Override]", form: "DictConfig") -> str:
    """Hydra's folder name for a job with these overrides. ``form`` is ``hydra.job.config.override_dirname``."""
    from hydra._internal.config_loader_impl import get_overrides_dirname

    return str(get_overrides_dirname(overrides, form.exclude_keys, form.item_sep, form.kv_sep))


def parsed_value(override: "Override") -> Any:
    """An override's value with its quotes; ``Override.value`` removes them."""
    return override._value


def as_typed(value: Any) -> str:
    """One of the values that an override chooses from, as one types it."""
    from hydra.core.override_parser.types import Override

    return Override._get_value_element_as_str(value)


# --- OmegaConf ------------------------------------------------------------------------------------------------------


def node_at(config: "DictConfig | ListConfig", place: Any) -> "Node":
    """The node of a config at a key or an index, with interpolations unresolved."""
    return cast("Node", config._get_node(place))


def has_content(node: "DictConfig | ListConfig") -> bool:
    """Whether a mapping or list has a value, which is neither ``???`` nor null."""
    return not node._is_missing() and not node._is_none()


def as_it_stands(node: "Node") -> str:
    """A value's text, with interpolations unresolved."""
    return str(node._value())


# --- Optuna ---------------------------------------------------------------------------------------------------------


def trial_id(trial: "Trial | FrozenTrial") -> int:
    """A trial's id in its storage, unique over all studies of the storage."""
    return trial._trial_id


def study_id(study: "optuna.Study | FrozenStudy") -> int:
    """A study's id in its storage."""
    return study._study_id


def queued_point(trial: "FrozenTrial") -> Mapping[str, Any]:
    """The point with which a trial was enqueued; empty if the trial was sampled."""
    return cast("Mapping[str, Any]", trial.system_attrs.get("fixed_params", {}))


def optuna_tables() -> Any:
    """Optuna's database tables: a module of SQLAlchemy models."""
    from optuna.storages._rdb import models

    return models


def storage_calls() -> list[str]:
    """The methods through which Optuna uses a database: the public ones of every storage, and the private ones that
    Optuna's cache calls on the database's storage."""
    from optuna.storages import BaseStorage

    public = [name for name in vars(BaseStorage) if not name.startswith("_") and name != "remove_session"]
    return [*public, "_set_trial_param", "_get_best_trial_id", "_get_trials", "_get_stale_trial_ids"]


def stale_trials(storage: "RDBStorage", study: int) -> set[int]:
    """The ids of a study's running trials whose last heartbeat is older than the storage's grace period."""
    return set(storage._get_stale_trial_ids(study))


def last_heartbeat(engine: "sqlalchemy.Engine", study: int) -> float | None:
    """The seconds since the newest heartbeat of a study's running trials, by the database's clock; None if there is
    none."""
    import sqlalchemy
    from optuna.trial import TrialState

    models = optuna_tables()
    beats, trials = models.TrialHeartbeatModel.__table__.c, models.TrialModel.__table__.c
    newest = sqlalchemy.select(sqlalchemy.func.max(beats.heartbeat), sqlalchemy.func.current_timestamp())
    newest = newest.where(beats.trial_id == trials.trial_id, trials.study_id == study)
    with engine.connect() as connection:
        beat, now = connection.execute(newest.where(trials.state == TrialState.RUNNING)).one()
    return None if beat is None else float((now.replace(tzinfo=None) - beat.replace(tzinfo=None)).total_seconds())


# --- MLflow ---------------------------------------------------------------------------------------------------------


def path_of_file_uri(uri: str) -> Path:
    """The path that a ``file:`` URI names. A plain path is returned too."""
    from mlflow.utils.file_utils import local_file_uri_to_path

    return Path(local_file_uri_to_path(uri))


def place_of_experiment(database: "sqlite3.Connection", experiment: str) -> str:
    """The URI of an experiment's files, according to MLflow's database."""
    found = database.execute("SELECT artifact_location FROM experiments WHERE experiment_id = ?", (experiment,))
    (uri,) = found.fetchone()
    return str(uri or "")


def experiments_at(database: "sqlite3.Connection", uri: str) -> list[str]:
    """The ids of the experiments whose files are at a URI, according to MLflow's database."""
    found = database.execute("SELECT experiment_id FROM experiments WHERE artifact_location = ?", (uri,))
    return [experiment for (experiment,) in found]


def move_experiment(database: "sqlite3.Connection", experiment: str, uri: str) -> None:
    """Set the URI of an experiment's files in MLflow's database."""
    database.execute("UPDATE experiments SET artifact_location = ? WHERE experiment_id = ?", (uri, experiment))


def places_of_runs(database: "sqlite3.Connection", experiment: str) -> list[tuple[str, str]]:
    """For each run of an experiment: its id, and the URI of its files, according to MLflow's database."""
    found = database.execute("SELECT run_uuid, artifact_uri FROM runs WHERE experiment_id = ?", (experiment,))
    return [(str(run), str(uri or "")) for run, uri in found]


def move_runs(database: "sqlite3.Connection", places: Iterable[tuple[str, str]]) -> None:
    """Set the URIs of runs' files in MLflow's database. ``places`` has each run's id and URI."""
    database.executemany("UPDATE runs SET artifact_uri = ? WHERE run_uuid = ?", [(uri, run) for run, uri in places])


def places_of_models(database: "sqlite3.Connection", experiment: str) -> list[tuple[str, str]]:
    """For each logged model of an experiment: its id, and the URI of its files, according to MLflow's database."""
    found = database.execute(
        "SELECT model_id, artifact_location FROM logged_models WHERE experiment_id = ?", (experiment,)
    )
    return [(str(model), str(uri or "")) for model, uri in found]


def move_models(database: "sqlite3.Connection", places: Sequence[tuple[str, str]]) -> None:
    """Set the URIs of logged models' files in MLflow's database, also where registered versions of them say it.
    ``places`` has each model's id and URI."""
    where = [(uri, model) for model, uri in places]
    database.executemany("UPDATE logged_models SET artifact_location = ? WHERE model_id = ?", where)
    database.executemany("UPDATE model_versions SET storage_location = ? WHERE source = 'models:/' || ?", where)


@contextmanager
def tracking_uri_is(uri: str) -> Iterator[None]:
    """A context in which MLflow's own tracking URI, for the whole process, is ``uri``. A registry in a database asks
    that store for a logged model, whatever store its client has."""
    from mlflow.tracking._tracking_service.utils import _use_tracking_uri

    name = "MLFLOW_TRACKING_URI"
    before = os.environ.get(name)
    try:
        with _use_tracking_uri(uri):
            yield
    finally:
        os.environ.pop(name, None)
        if before is not None:
            os.environ[name] = before


def remove_run_for_good(client: "MlflowClient", run_id: str) -> None:
    """Remove a deleted run's rows from MLflow's database, as ``mlflow gc`` does for each run. Not for a server."""
    client._tracking_client.store._hard_delete_run(run_id)


def remove_model_for_good(client: "MlflowClient", model_id: str) -> None:
    """The same for a logged model that is in the state "deleted"."""
    client._tracking_client.store._hard_delete_logged_model(model_id)


class _MadeByThread:
    """What makes the sessions of one of MLflow's stores: within :func:`one_transaction` the thread's own."""

    def __init__(self, usual: Any):
        self.usual, self.own = usual, threading.local()

    def __call__(self, read_only: bool = True) -> Any:
        return getattr(self.own, "maker", self.usual)(read_only=read_only)


_INSTALLING = threading.Lock()


@contextmanager
def one_transaction(client: "MlflowClient") -> Iterator[None]:
    """A context in which all that this thread does with MLflow's SQLite file is one transaction: the file gets all of
    it at the end or, after an error, nothing. Each of MLflow's own transactions is a savepoint in it, so one that fails
    takes back only itself. Within another such context, it is part of that one. Not for a server.

    Waits for the lock of the file's writers at the beginning, as long as MLflow does.
    """
    from mlflow.store.db.utils import _get_managed_session_maker
    from sqlalchemy.orm import sessionmaker

    store = client._tracking_client.store
    with _INSTALLING:
        if not isinstance(store.ManagedSessionMaker, _MadeByThread):
            store.ManagedSessionMaker = _MadeByThread(store.ManagedSessionMaker)
    own = store.ManagedSessionMaker.own
    if hasattr(own, "maker"):
        yield
        return
    with store.engine.connect() as connection:
        for setting in ("foreign_keys = ON", "busy_timeout = 20000", "case_sensitive_like = true"):  # as MLflow's
            connection.exec_driver_sql(f"PRAGMA {setting}")
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        sessions = sessionmaker(bind=connection, join_transaction_mode="create_savepoint")
        own.maker = _get_managed_session_maker(sessions, store.db_type)
        try:
            yield
            connection.commit()
        finally:
            del own.maker


def points_in_bulk(uri: str, runs: Sequence[str], metric: str) -> list[dict[str, Any]]:
    """All points of a metric of at most 100 runs of an MLflow server: ``run_id``, ``step``, ``value``, ``timestamp``.

    MLflow's own UI asks so; its client would ask once for each run. At most MOST_IN_BULK points come.
    """
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request_safe

    asked = {"run_id": list(runs), "metric_key": metric, "max_results": MOST_IN_BULK}
    endpoint = "/ajax-api/2.0/mlflow/metrics/get-history-bulk"
    found = http_request_safe(get_default_host_creds(uri), endpoint, "GET", params=asked).json()
    return cast("list[dict[str, Any]]", found["metrics"])


# --- joblib, Python -------------------------------------------------------------------------------------------------


def joblib_executor() -> Any | None:
    """The pool of processes that joblib keeps between calls; None if there is none."""
    loky = sys.modules.get("joblib.externals.loky.reusable_executor")
    return (loky and loky._executor) or None


def process_ids(executor: Any) -> Sequence[int]:
    """The process numbers of joblib's pool."""
    return [process.pid for process in list(executor._processes.values())]


def run_exit_functions() -> None:
    """Run the functions that were registered with ``atexit`` now. They will not run again at the exit."""
    import atexit

    atexit._run_exitfuncs()


# --- torch ----------------------------------------------------------------------------------------------------------


@contextmanager
def recurrent_layers_of_any_length() -> Iterator[None]:
    """Within, torch.export writes PyTorch's own LSTM and GRU down for chunks of any length, and not for one."""
    import torch
    from torch.export import _patches

    layers: Any = (torch.ops.aten.lstm.input, torch.ops.aten.gru.input)
    with _patches.register_lstm_while_loop_decomposition(), _patches.register_gru_while_loop_decomposition():
        for layer in layers:
            layer._dispatch_cache.clear()  # what a layer was written down as before would be taken again
        try:
            yield
        finally:
            for layer in layers:
                layer._dispatch_cache.clear()


@contextmanager
def onnx_graphs_unprinted() -> Iterator[None]:
    """Within, torch.onnx prints no graph of a network that it cannot export; its own switch for this has no effect."""
    from torch import _C

    printing, _C._jit_onnx_log = _C._jit_onnx_log, lambda *_: None
    try:
        yield
    finally:
        _C._jit_onnx_log = printing
