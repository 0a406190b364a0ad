"""A run's model in MLflow: its best epoch as a LoggedModel of the flavor python_function, which anything that speaks
MLflow can load and serve.

Nothing in it is pickled. It holds our checkpoint, and ``tbptt.serving.pyfunc`` reads that.
"""

import ast
import json
import logging
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from tbptt.config.moved import moved
from tbptt.config.schema import typed
from tbptt.options.option import GROUPS
from tbptt.options.values import shortened
from tbptt.runs import checkpoint, contents, model_files
from tbptt.runs.columns import RETURN_STATE, SERIES, STATE, Columns, columns_of
from tbptt.runs.logged import EPOCH_TAG, models_of
from tbptt.runs.store_errors import is_locked, is_outage
from tbptt.runs.tracking import Run, Store

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.models import ModelSignature

log = logging.getLogger("tbptt")

FOLDER = "tbptt"  # below the model's folder data/
FILE = "model.ckpt"
CHECKPOINT = f"data/{FOLDER}/{FILE}"
DIGEST_TAG = "checkpoint_sha256"  # of a model whose run the store has not
OWN = "own"  # beside the checkpoint: the user's own files
NEEDS = ("model", "task", "data")  # the groups whose options a network cannot do without
# Of the config: where runs and studies are kept does not matter to a model, which may go elsewhere.
LEFT_OUT = ("study", "space", "resume", "tracking")
EXAMPLE_ROWS, EXAMPLE_CELLS = 3, 4000  # predictions in an input example; its most numbers


def content_of(state: dict[str, Any]) -> dict[str, Any]:
    """The part of a run's checkpoint that its model holds."""
    config = {name: value for name, value in state["config"].items() if name not in LEFT_OUT}
    names = [*contents.OF_A_MODEL, *(name for name in contents.FOR_PREDICTING if name in state)]
    return {**{name: state[name] for name in names}, "config": config}


def write(content: dict[str, Any], folder: Path, run_id: str | None = None, model_id: str | None = None) -> Path:
    """Write a checkpoint's network as an MLflow model.

    Args:
        content: as :func:`tbptt.runs.checkpoint.load` returns it, of a run or of a model.
        folder: a folder that does not exist, or is empty.

    Returns ``folder``.
    """
    cfg = _typed(content["config"])
    columns = columns_of(content, cfg)
    data = {f"{FOLDER}/{FILE}": checkpoint.as_bytes(content_of(content))}
    data |= {f"{FOLDER}/{OWN}/{name}": source for name, source in own_files(cfg).items()}
    example = example_of(columns, content, cfg)
    model_files.write(folder, data, signature_of(columns), example, run_id, model_id)
    return folder


def _typed(config: Mapping[str, Any]) -> DictConfig:
    """The part of a config that a network cannot do without, typed. Raises ValueError if it does not fit."""
    now = moved(config)
    text = json.dumps({name: now[name] for name in NEEDS if name in now})
    if "${" in text:  # it may take a value from the rest
        return typed(dict(config), needs=NEEDS)
    names = {name: now[name].get("name") for name in NEEDS if isinstance(now.get(name), dict)}
    return _typed_once(text, tuple(GROUPS[group].get(name) for group, name in names.items()))


@lru_cache(maxsize=32)  # it takes 35 ms, and a study's networks are mostly alike
def _typed_once(text: str, options: tuple[type | None, ...]) -> DictConfig:
    """A part of a config, as JSON. ``options`` are the classes of its groups, as those in ``own/`` may change."""
    return typed(json.loads(text), needs=NEEDS)


def signature_of(columns: Columns) -> "ModelSignature":
    """What goes in and comes out, as MLflow shows and checks it."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema

    given = [ColSpec(DataType.double, name) for name in columns.needed]
    given += [ColSpec(DataType.double, name, required=False) for name in columns.optional]
    if columns.series is None:
        given.append(ColSpec(DataType.string, SERIES, required=False))
    out = [
        *(ColSpec(DataType.double, name) for name in columns.given()),
        ColSpec(DataType.string, STATE, required=False),
    ]
    params = [ParamSpec(STATE, DataType.string, ""), ParamSpec(RETURN_STATE, DataType.boolean, False)]
    return ModelSignature(Schema([*given]), Schema([*out]), ParamSchema(params))


def example_of(columns: Columns, content: dict[str, Any], cfg: DictConfig) -> "pd.DataFrame":
    """Made-up numbers of the right size, as nobody's prices belong into an artifact."""
    import numpy as np
    import pandas as pd

    names = [*columns.needed, *(column for column, _ in columns.inputs if column not in columns.needed)]
    rows = min(int(cfg.data.window) + EXAMPLE_ROWS, max(2, EXAMPLE_CELLS // len(names)))
    size = float(content["scaler"]["input_std"].mean())
    size = float(f"{size:.1g}") if np.isfinite(size) and size > 0 else 1.0
    steps = np.arange(rows)
    wave = 100 * size + size * np.sin(steps / 3) + 0.1 * size * (steps % 3)
    return pd.DataFrame({name: [float(f"{value:.6g}") for value in wave] for name in names})


def own_files(cfg: DictConfig) -> dict[str, bytes]:
    """The user's own files that a network needs: those of its model, task and data, and what these import from one
    another. By their paths below ``own/``."""
    from tbptt import own

    prefix = f"{own.__name__}."
    classes = [GROUPS[group].get(OmegaConf.select(cfg, f"{group}.name")) for group in NEEDS]
    bases = [base.__module__ for each in classes if each is not None for base in each.__mro__]
    left = [name.removeprefix(prefix).split(".")[0] for name in bases if name.startswith(prefix)]
    found: dict[str, bytes] = {}
    seen: set[str] = set()
    while left:
        if (name := left.pop()) in seen:
            continue
        seen.add(name)
        for path, source in _sources(f"{prefix}{name}"):
            found[path] = source
            left += [top for top in _imported(source, own.__name__) if f"{prefix}{top}" in sys.modules]
    return found


def _sources(module: str) -> Iterator[tuple[str, bytes]]:
    """The file of a module, or the files of a package."""
    file = Path(getattr(sys.modules.get(module), "__file__", None) or "")
    if file.name == "__init__.py":
        for path in sorted(file.parent.rglob("*.py")):
            yield path.relative_to(file.parents[1]).as_posix(), path.read_bytes()
    elif file.is_file():
        yield file.name, file.read_bytes()


def _imported(source: bytes, package: str) -> Iterator[str]:
    """The modules of ``package`` that a module of it imports."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (a.name.split(".")[2] for a in node.names if a.name.startswith(f"{package}."))
        elif isinstance(node, ast.ImportFrom):
            where = node.module or ""
            inner = where.removeprefix(package).removeprefix(".") if where.startswith(package) else where
            if node.level == 1 or where == package or where.startswith(f"{package}."):
                yield from [inner.split(".")[0]] if inner else (alias.name for alias in node.names)


def log_model(run: Run) -> str | None:
    """Have a run's best epoch among MLflow's models, exactly once; returns the model's id.

    A run that was trained further and has a better epoch then gets one more model. The one before stays, as registered
    versions may be of it. Returns None if the run has no best epoch, or MLflow cannot take it: a warning says why.
    Raises an error of a store that is away or locked, as the end of the run then cannot be delivered either.
    """
    path = run.folder / "checkpoints" / "best.ckpt"
    if not path.exists():
        return None
    try:
        return model_in(run.store, checkpoint.load(path, contents.OF_A_RUN), run.experiment, run.id)
    except Exception as error:
        if is_locked(error) or (is_outage(error) and not run.store.is_local):
            raise
        reason = shortened((str(error).splitlines() or [""])[0] or type(error).__name__, 200)
        log.warning("run %s: its best epoch is not among MLflow's models: %s", run.id, reason)
        return None


def model_in(store: Store, content: dict[str, Any], experiment: str, run_id: str | None) -> str:
    """The id of the model of a checkpoint in a store; it is made if it does not exist.

    Args:
        run_id: the run that trained it, which then shows the model; None if the store has no such run.
    """
    from mlflow.entities import LoggedModelOutput, LoggedModelStatus, Metric

    client, epoch = store.client, content["epoch"]
    tags = {EPOCH_TAG: str(epoch + 1)}
    if run_id is None:  # a file's is told by its content
        tags[DIGEST_TAG] = checkpoint.digest(content_of(content))
        query = f"tags.{DIGEST_TAG} = '{tags[DIGEST_TAG]}'"
        for model in client.search_logged_models([experiment], query):
            if model.status == LoggedModelStatus.READY and model.tags.get(DIGEST_TAG) == tags[DIGEST_TAG]:
                return str(model.model_id)
    for model in models_of(store, experiment, run_id) if run_id else []:
        if model.status == LoggedModelStatus.PENDING:  # a process was killed before it was complete
            client.delete_logged_model(model.model_id)
        elif model.status == LoggedModelStatus.READY and model.tags.get(EPOCH_TAG) == str(epoch + 1):
            return str(model.model_id)
    is_best = epoch == content["best"]["epoch"]
    name = f"{'best-' if is_best else ''}epoch-{epoch + 1}"
    made = client.create_logged_model(experiment, name, run_id, tags=tags, model_type="tbptt")
    try:
        with tempfile.TemporaryDirectory() as temporary:
            folder = write(content, Path(temporary) / "model", run_id, made.model_id)
            client.log_model_artifacts(made.model_id, str(folder))
    except Exception:
        with suppress(Exception):
            client.delete_logged_model(made.model_id)
        raise
    with store.together():
        if run_id:
            record = content.get("record", {"time": 0, "metrics": {}})  # a model that is taken from elsewhere has none
            at, metrics = record["time"], record["metrics"] if is_best else {}  # else they would replace the run's own
            points = [Metric(f"best/{name}", value, at, 0, model_id=made.model_id) for name, value in metrics.items()]
            client.log_batch(run_id, points)
            client.log_outputs(run_id, [LoggedModelOutput(made.model_id, step=epoch)])
        client.finalize_logged_model(made.model_id, LoggedModelStatus.READY)
    return str(made.model_id)
