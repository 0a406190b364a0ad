"""What other libraries keep to themselves and this project uses is still as it is used, and used in one file only.

A library's upgrade that changes it fails here, with a line that says what changed and what relies on it.
"""

import ast
import contextlib
import inspect
import logging
import os
import platform
import re
import sqlite3
import subprocess
import sys
import warnings
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
import sqlalchemy
from hydra import compose, initialize_config_dir
from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import QuotedString
from hydra.core.plugins import Plugins
from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException
from omegaconf import DictConfig, OmegaConf
from optuna.storages import RDBStorage
from optuna.storages._cached_storage import _CachedStorage
from optuna.trial import TrialState

from tbptt import compat
from tbptt.config.hydra_node import LAUNCHERS

SOURCE = Path(compat.__file__).parent


@contextlib.contextmanager
def contract(library: str, what: str, who: str) -> Iterator[None]:
    """Within, whatever fails says what of a library changed, and which files rely on it."""
    try:
        yield
    except Exception as error:
        now = platform.python_version() if library == "Python" else version(library)
        pytest.fail(f"{library} {now} changed {what}; {who} relies on it: {type(error).__name__}: {error}")


def test_a_contract_that_is_broken_says_what_changed_and_what_relies_on_it() -> None:
    broken = pytest.raises(pytest.fail.Exception, match=r"optuna .* changed its trials; study.py relies on it: .*_gone")
    with broken, contract("optuna", "its trials", "study.py"):
        _ = optuna.Study._gone


# --- only here ------------------------------------------------------------------------------------------------------


def _foreign_private_imports(path: Path) -> Iterator[str]:
    """Modules and names with one leading underscore that a file imports from other packages."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (
            name
            for name in names
            if name.split(".")[0] != "tbptt" and any(re.match(r"_[a-z]", part) for part in name.split("."))
        )


def test_no_other_file_imports_what_a_library_keeps_to_itself() -> None:
    files = [path for path in SOURCE.rglob("*.py") if path.name != "compat.py"]
    assert len(files) > 50
    found = {path.relative_to(SOURCE).as_posix(): list(_foreign_private_imports(path)) for path in files}
    assert {path: names for path, names in found.items() if names} == {}
    assert set(_foreign_private_imports(SOURCE / "compat.py")) >= {"optuna.storages._rdb.models"}


def test_it_is_imported_without_any_of_the_libraries() -> None:
    code = "import sys, tbptt.compat; print(*{name.split('.')[0] for name in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "tbptt" in loaded
    assert not {"hydra", "omegaconf", "optuna", "mlflow", "torch", "sqlalchemy", "joblib", "sqlite3"} & set(loaded)


# --- Hydra and OmegaConf --------------------------------------------------------------------------------------------


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    """A config of one group."""
    (tmp_path / "config.yaml").write_text("defaults: [optimizer: adam, _self_]\nclip: 1.0\nnames: [a]\n")
    (tmp_path / "optimizer").mkdir()
    (tmp_path / "optimizer" / "adam.yaml").write_text("lr: 0.1\n")
    return tmp_path


def composed(conf: Path, *overrides: str) -> DictConfig:
    with initialize_config_dir(str(conf), version_base="1.3"):
        return compose("config", list(overrides), return_hydra_config=True)


def test_hydra_reads_no_file_that_was_not_looked_at(conf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with contract("hydra-core", "how it reads YAML files (SourcesRegistry, load_config)", "config/compose.py"):
        Plugins.instance()
        reader: Any = SourcesRegistry.instance().resolve("file")
        monkeypatch.setattr(reader, "load_config", reader.load_config)  # as it was, at the end
        seen: list[Path] = []
        compat.before_each_file(seen.append)
        assert composed(conf).optimizer.lr == 0.1
        assert set(seen) == {conf / "config.yaml", conf / "optimizer" / "adam.yaml"}

        def refuse(path: Path) -> None:
            raise ValueError(f"too large: {path.name}")

        compat.before_each_file(refuse)
        with pytest.raises(ValueError, match=r"too large: config\.yaml"):
            composed(conf)


def test_values_put_on_top_are_those_that_hydra_composes(conf: Path) -> None:
    words = ["clip=0.5", "optimizer.lr=1e-3", "names=[b,'c d']"]
    with contract("hydra-core", "ConfigLoaderImpl._apply_overrides_to_config", "config/compose.py"):
        config, expected = composed(conf), composed(conf, *words)
        compat.put_on_top(config, OverridesParser.create().parse_overrides(words))
        assert {k: config[k] for k in ("clip", "optimizer", "names")} == {
            k: expected[k] for k in ("clip", "optimizer", "names")
        }


def test_the_name_of_a_jobs_folder_is_hydras(conf: Path) -> None:
    words = ["optimizer.lr=1e-3", "clip=0.5"]
    with contract("hydra-core", "get_overrides_dirname", "config/compose.py"):
        job = composed(conf, *words).hydra.job
        overrides = OverridesParser.create().parse_overrides(words)
        assert compat.override_dirname(overrides, job.config.override_dirname) == job.override_dirname
        assert job.override_dirname == "clip=0.5,optimizer.lr=1e-3"


@pytest.mark.parametrize(
    ("typed", "kind"), [("'1'", QuotedString), ("1", int), ("a", str), ("null", type(None)), ("[a,1]", list)]
)
def test_a_value_is_had_with_its_quotes(typed: str, kind: type) -> None:
    with contract("hydra-core", "Override._value", "config/words.py"):
        assert type(compat.parsed_value(OverridesParser.create().parse_override(f"key={typed}"))) is kind


def test_a_choice_is_as_it_was_typed() -> None:
    typed = ["adam", "0.5", "'a b'", "[1,x]", "null", "{a:1}"]
    with contract("hydra-core", "Override._get_value_element_as_str", "studies/plan.py"):
        sweep: Any = OverridesParser.create().parse_override(f"key={','.join(typed)}").value()
        assert [compat.as_typed(item) for item in sweep.list] == typed


def test_the_launcher_on_this_machine_has_the_name_that_is_allowed(conf: Path) -> None:
    with contract("hydra-core", "the place of its basic launcher", "config/hydra_node.py"):
        assert composed(conf).hydra.launcher._target_ == LAUNCHERS["basic"]
        module, _, name = LAUNCHERS["basic"].rpartition(".")
        assert inspect.isclass(getattr(import_module(module), name))


def test_a_config_is_seen_as_it_stands() -> None:
    config = OmegaConf.create({"a": "${b}", "b": 1, "there": {"x": 1}, "list": ["${b}"]})
    with contract("omegaconf", "_get_node, _value, _is_missing or _is_none", "config/checks.py, system/secrets.py"):
        assert compat.as_it_stands(compat.node_at(config, "a")) == "${b}"
        assert compat.as_it_stands(compat.node_at(config.list, 0)) == "${b}"
        there: Any = compat.node_at(config, "there")
        assert there == {"x": 1}
        assert compat.has_content(there)
        assert not compat.has_content(DictConfig(None))
        assert not compat.has_content(DictConfig("???"))


# --- Optuna ---------------------------------------------------------------------------------------------------------


pytestmark = pytest.mark.filterwarnings("ignore:Heartbeat of storage")  # which this project sends by itself


@pytest.fixture
def storage(tmp_path: Path) -> RDBStorage:
    with pytest.warns(optuna.exceptions.ExperimentalWarning):
        return RDBStorage(f"sqlite:///{tmp_path}/optuna.db", heartbeat_interval=1, grace_period=2)


def test_storages_know_studies_and_trials_by_their_ids(storage: RDBStorage) -> None:
    optuna.create_study(storage=storage)
    study = optuna.create_study(storage=storage, study_name="second")
    with contract("optuna", "Study._study_id or _trial_id of a trial", "studies/study.py, studies/worker.py"):
        study.add_trial(optuna.trial.create_trial(value=1.0))
        running = study.ask()
        (done, frozen) = storage.get_all_trials(compat.study_id(study))
        assert storage.get_study_name_from_id(compat.study_id(study)) == "second"
        assert storage.get_trial(compat.trial_id(done)).values == [1.0]
        assert compat.trial_id(running) == compat.trial_id(frozen)
        assert storage.get_trial(compat.trial_id(running)).state == TrialState.RUNNING


def test_a_trial_in_the_queue_has_its_point(storage: RDBStorage) -> None:
    study = optuna.create_study(storage=storage)
    with contract("optuna", "where enqueue_trial keeps a point (system attribute fixed_params)", "studies/study.py"):
        study.enqueue_trial({"clip": 0.5, "optimizer": None})
        study.add_trial(optuna.trial.create_trial(value=1.0))
        queued, other = study.trials
        assert compat.queued_point(queued) == {"clip": 0.5, "optimizer": None}
        assert compat.queued_point(other) == {}


def test_the_tables_have_the_columns_that_are_read() -> None:
    read = {
        "TrialModel": {"trial_id", "number", "study_id", "state", "datetime_start", "datetime_complete"},
        "TrialParamModel": {"trial_id", "param_name", "param_value", "distribution_json"},
        "TrialValueModel": {"trial_id", "objective", "value", "value_type"},
        "TrialUserAttributeModel": {"trial_id", "key", "value_json"},
        "TrialSystemAttributeModel": {"trial_id", "key", "value_json"},
        "TrialIntermediateValueModel": {"trial_id", "step", "intermediate_value", "intermediate_value_type"},
    }
    with contract("optuna", "the tables of its storage", "studies/reading.py, benchmarks/report_time.py"):
        tables = compat.optuna_tables()
        for name, columns in read.items():
            assert columns <= set(getattr(tables, name).__table__.c.keys()), name
            assert len(getattr(tables, name).__table__.primary_key.columns) == 1, name
        infinite = tables.TrialValueModel.TrialValueType.INF_POS
        assert tables.TrialValueModel.stored_repr_to_value(None, infinite) == float("inf")
        finite = tables.TrialIntermediateValueModel.TrialIntermediateValueType.FINITE
        assert tables.TrialIntermediateValueModel.stored_repr_to_intermediate_value(2.0, finite) == 2.0


def test_all_that_optuna_asks_of_a_database_is_known() -> None:
    """Else a study on a server would not wait for it while it is away."""
    with contract("optuna", "what its cache asks of a database", "studies/postgres.py"):
        known = {*compat.storage_calls(), "remove_session"}
        assert known - {"remove_session"} <= set(dir(RDBStorage))
        asked = set(re.findall(r"_backend\.(\w+)", inspect.getsource(_CachedStorage)))
        beats = {"record_heartbeat", "get_heartbeat_interval", "get_heartbeat_stale_trial_callback"}
        assert asked - known - beats == {"_create_new_trial"}  # it makes a trial, which is not tried again


def test_a_trial_without_a_heartbeat_is_stale(storage: RDBStorage) -> None:
    study = optuna.create_study(storage=storage)
    with contract("optuna", "RDBStorage._get_stale_trial_ids", "studies/postgres.py"):
        silent, alive = (compat.trial_id(study.ask()) for _ in range(2))
        for trial in (silent, alive):
            storage.record_heartbeat(trial)
        with storage.engine.begin() as connection:
            long_ago = "UPDATE trial_heartbeats SET heartbeat = '2020-01-01 00:00:00' WHERE trial_id = :i"
            connection.execute(sqlalchemy.text(long_ago), {"i": silent})
        assert compat.stale_trials(storage, compat.study_id(study)) == {silent}


@pytest.mark.parametrize(
    ("library", "name", "who"),
    [
        ("optuna", compat.OPTUNA_STORAGE_LOG, "studies/postgres.py"),
        ("mlflow", compat.MLFLOW_DATABASE_LOG, "runs/tracking.py"),
    ],
)
def test_what_is_made_quiet_logs_under_that_name(library: str, name: str, who: str) -> None:
    with contract(library, "the name of a logger", who):
        assert import_module(name)._logger.name == name
        assert isinstance(logging.getLogger(name), logging.Logger)


# --- MLflow ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/a/b c/%20?#", "/é"])
def test_a_file_uri_is_a_path(path: str) -> None:
    with contract("mlflow", "local_file_uri_to_path", "runs/local_files.py, runs/tracking.py"):
        assert compat.path_of_file_uri(Path(path).as_uri()) == Path(path)
        assert compat.path_of_file_uri("/a/plain/path") == Path("/a/plain/path")


def test_mlflow_finds_files_where_its_database_was_made_to_say(tmp_path: Path) -> None:
    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path}/mlflow.db")
    before, after = (tmp_path / name for name in ("before", "after"))
    experiment = client.create_experiment("one", artifact_location=before.as_uri())
    run = client.create_run(experiment).info.run_id
    with contract("mlflow", "its tables experiments and runs", "runs/local_files.py"):
        with contextlib.closing(sqlite3.connect(tmp_path / "mlflow.db")) as database, database:
            assert compat.place_of_experiment(database, experiment) == before.as_uri()
            assert compat.experiments_at(database, before.as_uri()) == [int(experiment)]
            assert compat.places_of_runs(database, experiment) == [(run, f"{before.as_uri()}/{run}/artifacts")]
            compat.move_experiment(database, experiment, after.as_uri())
            compat.move_runs(database, [(run, f"{after.as_uri()}/{run}/artifacts")])
        assert client.get_experiment(experiment).artifact_location == after.as_uri()
        client.log_text(run, "here", "note.txt")
        assert (after / run / "artifacts" / "note.txt").read_text() == "here"
        assert not before.exists()


def test_mlflow_finds_models_where_its_database_was_made_to_say(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    before, after = (tmp_path / name for name in ("before", "after"))
    experiment = client.create_experiment("one", artifact_location=before.as_uri())
    model = client.create_logged_model(experiment, "m").model_id
    client.create_registered_model("name")
    with contract("mlflow", "_use_tracking_uri", "serving/registry.py"), compat.tracking_uri_is(uri):
        client.create_model_version("name", f"models:/{model}")
    with contract("mlflow", "its tables logged_models and model_versions", "runs/local_files.py"):
        with contextlib.closing(sqlite3.connect(tmp_path / "mlflow.db")) as database, database:
            place = f"{before.as_uri()}/models/{model}/artifacts"
            assert compat.places_of_models(database, experiment) == [(model, place)]
            compat.move_models(database, [(model, f"{after.as_uri()}/it")])
        assert client.get_logged_model(model).artifact_location == f"{after.as_uri()}/it"
        assert client.get_model_version_download_uri("name", "1") == f"{after.as_uri()}/it"


def test_mlflow_removes_a_run_and_a_model_for_good(tmp_path: Path) -> None:
    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path}/mlflow.db")
    gone, stays = (client.create_run("0").info.run_id for _ in range(2))
    model = client.create_logged_model("0", "model", source_run_id=gone).model_id
    for run in (gone, stays):
        client.log_metric(run, "loss", 1.0)
        client.log_param(run, "clip", 1)
    with contract("mlflow", "how `mlflow gc` removes a run and a model", "runs/removing.py"):
        client.delete_logged_model(model)
        client.delete_run(gone)
        compat.remove_model_for_good(client, model)
        compat.remove_run_for_good(client, gone)
        with contextlib.closing(sqlite3.connect(tmp_path / "mlflow.db")) as database:
            for table in ("runs", "metrics", "latest_metrics", "params"):
                assert database.execute(f"SELECT DISTINCT run_uuid FROM {table}").fetchall() == [(stays,)]
            assert database.execute("SELECT count(*) FROM logged_models").fetchone() == (0,)


def test_what_is_written_to_mlflow_together_is_one_transaction(tmp_path: Path) -> None:
    with contract("mlflow", "what makes its store's sessions (ManagedSessionMaker, engine)", "runs/tracking.py"):
        client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
        experiment = client.create_experiment("e", artifact_location=tmp_path.as_uri())
        kept, metric = client.create_run(experiment).info.run_id, Metric("loss", 1.0, 7, 0)

        def there() -> tuple[int, int]:
            with contextlib.closing(sqlite3.connect(tmp_path / "mlflow.db")) as database:
                counts = [database.execute(f"SELECT count(*) FROM {name}").fetchone() for name in ("runs", "metrics")]
            return counts[0][0], counts[1][0]

        with contextlib.suppress(ZeroDivisionError), compat.one_transaction(client):
            run = client.create_run(experiment).info.run_id
            client.log_batch(run, [metric])
            assert client.get_run(run).data.metrics == {"loss": 1.0}
            _ = 1 / 0
        assert there() == (1, 0)
        seen: list[str] = []
        with compat.one_transaction(client), compat.one_transaction(client):
            client.log_batch(kept, [metric])
            client.log_batch(kept, [metric, Metric("loss", 2.0, 8, 1)])  # the first is there: MLflow takes back its own
            client.log_batch(kept, params=[Param("a", "1")])
            with pytest.raises(MlflowException, match="Changing param"):
                client.log_batch(kept, [Metric("other", 2.0, 8, 1)], [Param("a", "2")])
            assert there() == (1, 0)
            other = Thread(target=lambda: seen.append(client.get_run(kept).info.run_id))  # not in the transaction
            other.start()
            other.join()
        assert seen == [kept]
        assert there() == (1, 2)
        client.log_batch(kept, [Metric("loss", 3.0, 9, 2)])  # as before
        assert there() == (1, 3)


def test_mlflow_s_server_gives_the_points_of_many_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """tests/test_curves.py asks it."""
    from mlflow.server import app
    from mlflow.utils import rest_utils

    asked = []

    def request(creds: Any, endpoint: str, method: str, **words: Any) -> Any:
        asked.append((creds.host, endpoint, method, words["params"]))
        return SimpleNamespace(json=lambda: {"metrics": []})

    monkeypatch.setattr(rest_utils, "http_request_safe", request)
    with contract("mlflow", "the address of metric histories in bulk", "runs/curves.py"):
        assert compat.points_in_bulk("http://here", ["a", "b"], "val/loss") == []
        ((host, endpoint, method, words),) = asked
        assert (host, method) == ("http://here", "GET")
        assert words == {"run_id": ["a", "b"], "metric_key": "val/loss", "max_results": 25_000}
        assert endpoint in {rule.rule for rule in app.url_map.iter_rules()}


# --- joblib, Python -------------------------------------------------------------------------------------------------


def test_joblibs_processes_are_found() -> None:
    loky = import_module("joblib.externals.loky")
    with contract("joblib", "where its executor and processes are", "studies/pool.py"):
        executor = loky.get_reusable_executor(max_workers=1)
        try:
            assert executor.submit(os.getpid).result() in compat.process_ids(executor)
            assert compat.joblib_executor() is executor
        finally:
            executor.shutdown(wait=True)


def test_exit_functions_are_run_once() -> None:
    code = "import atexit, tbptt.compat as c; atexit.register(print, 'once'); c.run_exit_functions(); print('then')"
    with contract("Python", "atexit._run_exitfuncs", "system/endings.py"):
        ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert ran.stdout.split() == ["once", "then"]


# --- torch ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_pytorchs_recurrent_layers_are_exported_for_any_length(kind: str) -> None:
    import torch

    layer, some = getattr(torch.nn, kind)(3, 2), torch.export.Dim.DYNAMIC

    def export() -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about itself
            return torch.export.export(layer, (torch.zeros(4, 5, 3),), dynamic_shapes=({0: some, 1: some},))

    who = "serving/to_onnx.py, serving/to_torch.py"
    with torch.no_grad(), contract("torch", "torch.export._patches or _dispatch_cache", who):
        for _ in range(2):  # also after it was exported outside
            with compat.recurrent_layers_of_any_length():
                program = export()
            x = torch.randn(9, 2, 3)
            torch.testing.assert_close(program.module()(x), layer(x))
            with contextlib.suppress(Exception):  # outside it takes one length only
                export()


def test_torch_onnx_prints_graphs_by_a_function_that_can_be_replaced() -> None:
    import torch
    from torch.onnx._internal.torchscript_exporter import utils

    with contract("torch", "torch._C._jit_onnx_log", "serving/to_onnx.py"):
        assert "_C._jit_onnx_log(" in inspect.getsource(utils)
        printing = torch._C._jit_onnx_log
        with compat.onnx_graphs_unprinted():
            assert torch._C._jit_onnx_log is not printing
        assert torch._C._jit_onnx_log is printing
