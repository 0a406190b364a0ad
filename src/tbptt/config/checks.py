"""All checks of a composed config before anything is written. They report all problems, a line each."""

import difflib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import Field, fields, is_dataclass
from importlib.util import find_spec
from typing import Any, cast

import numpy as np
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from tbptt import compat
from tbptt.config.moved import MOVED
from tbptt.config.names import name_problem
from tbptt.config.schema import all_keys
from tbptt.config.try_out import lr_schedule_problem, network_problem, optimizer_problem, task_problem
from tbptt.data.options import ArticleData, DataConfig, PricesData, SplitData, as_folds
from tbptt.data.panel import DataError
from tbptt.data.split import Split, load_split, may_be_degenerate, memory_of
from tbptt.options.labels import tag_problem
from tbptt.options.metrics import METRICS, as_objectives, objectives_of
from tbptt.options.option import CHOSEN, default_of
from tbptt.options.takes import LARGEST, Takes, wrong_value
from tbptt.options.values import stored, text_of
from tbptt.system.command import install
from tbptt.system.devices import why_no_gpu
from tbptt.system.memory import too_large
from tbptt.system.secrets import IN_A_URL, MAY_BE_IN_THE_ENVIRONMENT, hide, in_a_url, remember
from tbptt.system.stores import OF_MLFLOW, OF_OPTUNA, SQLITE, absolute_uri, sqlite_path, uri_problem, without_password
from tbptt.tasks.options import TaskConfig
from tbptt.training.options import ScheduleConfig

MAPPINGS = ("space", "tags")  # keys whose content has names of the user's own; plan.py checks space


def keys(cfg: DictConfig, prefix: str = "") -> Iterator[tuple[str, DictConfig, str, Takes]]:
    """Every key that declares its values: its dotted name, the node that holds it, its name there, what it takes."""
    for name, node, field in _fields(cfg, prefix):
        yield name, node, field.name, field.metadata["takes"]


def as_before(cfg: DictConfig) -> set[str]:
    """The dotted names of the new keys (see :func:`tbptt.options.option.key`) that have their default value. A config
    without these keys does the same."""
    return {name for name, node, field in _fields(cfg, "") if field.metadata.get("new") and _is_default(node, field)}


def _is_default(node: DictConfig, field: Field[Any]) -> bool:
    return bool(compat.node_at(node, field.name) == default_of(field))


def _fields(cfg: DictConfig, prefix: str) -> Iterator[tuple[str, DictConfig, Field[Any]]]:
    schema = OmegaConf.get_type(cfg)
    if not is_dataclass(schema):
        return
    for f in fields(schema):
        if "takes" in f.metadata:
            yield prefix + f.name, cfg, f
        elif not OmegaConf.is_missing(cfg, f.name) and isinstance(cfg[f.name], DictConfig):
            yield from _fields(cfg[f.name], f"{prefix}{f.name}.")


def problems(cfg: DictConfig, here: bool = True) -> list[str]:
    """A line for each problem of a config; none if it is right. Reads the data's file and writes nothing.

    Args:
        here: whether this machine will train. If not, its GPU is not checked.
    """
    found = _wrong_values(cfg)
    if not {"objective", "task.name"} & set(found) and (line := _objective_of_another_task(cfg)):
        found["objective"] = line
    found |= {line.split(":")[0]: line for line in remember(cfg)}
    if "tags" not in found and (problem := tag_problem(cfg.tags)):
        found["tags"] = f"tags: {problem}"
    known = {name for name, *_ in keys(cfg)}
    found |= {name: unknown_key(name, known) for name in _all_names(cfg) if name not in known}
    _add_wrong_stores(found, cfg)
    found |= _wrong_device(cfg, here)
    if not any(name.startswith("lr_schedule") for name in found) and (line := lr_schedule_problem(cfg)):
        found["lr_schedule"] = line
    length = None
    task_fits = not any(name.startswith("task.") for name in found)
    if task_fits and (line := task_problem(cast(TaskConfig, OmegaConf.to_object(cfg.task)))):
        found["task"] = line
    if not any(name.startswith("data.") for name in found):
        found |= _unused(cfg)
    if "task" not in found and not any(name.startswith(("data.", "task.")) for name in found):
        wrong, length = _wrong_data(cfg, None if "study.folds" in found else cfg.study.folds)
        found |= wrong
    if "task" not in found and not any(name.startswith(("data.", "task.", "model.")) for name in found):
        outputs = cast(TaskConfig, OmegaConf.to_object(cfg.task)).outputs
        if line := network_problem(cfg, outputs):
            found["model"] = line
        elif not any(name.startswith("optimizer") for name in found) and (line := optimizer_problem(cfg, outputs)):
            found["optimizer"] = line
    if length is not None and not any(name.startswith("schedule.") for name in found):
        found |= _wrong_chunks(cast(ScheduleConfig, OmegaConf.to_object(cfg.schedule)), length)
    return [hide(line) for line in found.values()]


def _wrong_values(cfg: DictConfig) -> dict[str, str]:
    """By key: a line for each key that is missing or has a value that it does not take."""
    found: dict[str, str] = {}
    for name, node, leaf, takes in keys(cfg):
        if OmegaConf.is_missing(node, leaf):
            found[name] = f"{name}: missing; takes {takes.text}"
            continue
        try:
            value = node[leaf]
        except OmegaConfBaseException as error:
            found[name] = f"{name}: {str(error).splitlines()[0]}"
            continue
        value = OmegaConf.to_container(value) if isinstance(value, ListConfig | DictConfig) else value
        if not takes.test(value):
            found[name] = wrong_value(name, value, takes.text)
        elif in_a_url(value) and not (name in MAY_BE_IN_THE_ENVIRONMENT and _has_own_line(name, node)):
            found[name] = f"{name}: {IN_A_URL}"
    return found


def _add_wrong_stores(found: dict[str, str], cfg: DictConfig) -> None:
    """Add the problems of the stores of runs and studies, for keys that have no line yet."""
    if "tracking.uri" not in found and (problem := _uri_problem(cfg.tracking.uri)):
        found["tracking.uri"] = f"tracking.uri: {problem}"
    if "study.storage" not in found and (problem := _storage_problem(cfg)):
        found["study.storage"] = f"study.storage: {problem}"
    if not {"study.name", "study.storage", "tracking.uri"} & set(found) and (problem := name_problem(cfg)):
        found["study.name"] = f"study.name: {problem}"


def _wrong_device(cfg: DictConfig, here: bool) -> dict[str, str]:
    """By key: a line for each value that needs a GPU, if there is none, or that the optimizer cannot do."""
    found = {}
    if here and cfg.device == "cuda" and (reason := why_no_gpu()):
        lacks = f"this machine has no GPU that PyTorch can use ({reason})"
        found["device"] = f"device: got 'cuda'; {lacks}; takes auto or cpu here"
    if cfg.device == "cpu" or (here and cfg.device == "auto" and asks_for_gpu(cfg) and why_no_gpu()):
        if cfg.precision == "tf32":
            found["precision"] = "precision: got 'tf32', which only GPUs have; takes 32 or bf16 here"
        if cfg.cuda_graphs is True:
            found["cuda_graphs"] = "cuda_graphs: got True, which only GPUs have; takes false here"
    optimizer = OmegaConf.get_type(cfg.optimizer)
    if cfg.cuda_graphs is True and not getattr(optimizer, "capturable", True) and "cuda_graphs" not in found:
        no = f"optimizer={cfg.optimizer.name} does not say that a graph can hold its step (capturable = True)"
        found["cuda_graphs"] = f"cuda_graphs: got True, and {no}; takes false"
    return found


def _wrong_data(cfg: DictConfig, folds: int | None) -> tuple[dict[str, str], int | None]:
    """By key: why the data cannot be used for the task, in any of the study's ``folds`` if it has some. And the steps
    of the longest training series, of the shortest fold; None if the data cannot be used."""
    data = cast(DataConfig, OmegaConf.to_object(cfg.data))
    task = cast(TaskConfig, OmegaConf.to_object(cfg.task))
    found: dict[str, str] = {}
    length = None
    try:
        if isinstance(data, ArticleData) and (problem := too_large(memory_of(data, task))):
            size = {"data.length": data.length, "data.window": data.window, task.shortened_by or "task": task.ahead}
            size |= {"data.n_series": data.n_series} if data.n_series > sum(size.values()) else {}
            key = max(size, key=lambda name: size[name])
            got = OmegaConf.select(cfg, key) if "." in key else size[key]
            found[key] = wrong_value(key, got, f"what fits: it {problem}")
        elif isinstance(data, ArticleData) and (wrong := task.problem(data.length)):
            found[f"task.{wrong[0]}"] = wrong_value(f"task.{wrong[0]}", getattr(task, wrong[0]), wrong[1])
        elif not isinstance(data, ArticleData) or may_be_degenerate(data):
            length = _length_of(data, task, folds, cfg.study.fold_window)
        else:
            length = data.length
    except ValueError as error:
        key, line = _line_of(error, data)
        found[key] = line
    return found, length


def _line_of(error: ValueError, data: DataConfig) -> tuple[str, str]:
    """The key that an error about the data is about, and its line."""
    key = error.key if isinstance(error, DataError) else "data.path"
    if key != "data" and key.removeprefix("data.") not in vars(data):
        key = "data.path" if "path" in vars(data) else "data"
    return key, f"{key}: {error}"


def _unused(cfg: DictConfig) -> dict[str, str]:
    """By key: a line for each key of the data that is set and has no effect beside the others."""
    data = cast(DataConfig, OmegaConf.to_object(cfg.data))
    defaults = {field.name: default_of(field) for field in fields(data)}
    found = {}
    for leaf, why in data.unused().items():
        takes = f"{text_of(stored(defaults[leaf]))}: it has no effect with {why}"
        found[f"data.{leaf}"] = wrong_value(f"data.{leaf}", getattr(data, leaf), takes)
    return found


def _objective_of_another_task(cfg: DictConfig) -> str | None:
    """The line about an objective that this config's task does not have; None if it has all of them."""
    for name in as_objectives(cfg.objective):
        if METRICS[name].task not in (None, cfg.task.name):
            takes = "one of " + ", ".join(objectives_of(cfg.task.name))
            return wrong_value("objective", name, f"with task={cfg.task.name} {takes}")
    return None


def _has_own_line(name: str, node: DictConfig) -> bool:
    """Whether another check refuses a URL with a password in this key, with a line that says more."""
    return name != "data.path" or OmegaConf.get_type(node) is PricesData


def _length_of(data: DataConfig, task: TaskConfig, folds: int | None, window: str) -> int:
    """The length of the longest training series of the shortest fold, in steps. Raises ValueError if the data cannot be
    used."""
    lengths = []
    with np.errstate(all="ignore"):
        for split in _splits(data, task, folds, window):
            for name, prices in split.train.items():
                most = max(float(np.abs(p).max()) for p in (prices, split.val[name], split.test.get(name, prices)))
                if most > LARGEST:
                    raise ValueError(f"{name} has a price of {most:g}; takes prices up to {LARGEST:g}")
            lengths.append(split.length)
    return min(lengths)


def _splits(data: DataConfig, task: TaskConfig, folds: int | None, window: str) -> Iterator[Split]:
    """How a study's runs split the data: once a fold. A run that is told its fold has that one only."""
    if folds is None or not isinstance(data, SplitData) or data.fold is not None:
        yield load_split(data, task)
        return
    given = data.prices()
    for fold in as_folds(data, folds, window):
        yield load_split(fold, task, given)


def unknown_key(name: str, known: Iterable[str]) -> str:
    """The line about a key that does not exist, with the nearest one that does."""
    near = nearest_key(name, known)
    return f"{name}: unknown key" + (f"; did you mean {near}?" if near else "")


def nearest_key(name: str, known: Iterable[str]) -> str | None:
    """The key that was probably meant, or None: the same name with ``.`` and ``/`` exchanged; else keys with this name
    as their last part; else a similar key."""
    if name.startswith("tags."):
        return f"tags={{{name.removeprefix('tags.')}: …}}"
    names = list(known)
    every = dict.fromkeys([*names, *CHOSEN, *(key for key, *_ in all_keys())])
    for other in (name.replace("/", "."), name.replace(".", "/")):
        if other != name and other in every:
            return other
    if ends := [key for key in every if key.rpartition(".")[2] == name][:3]:
        return " or ".join(ends)
    return next(iter(difflib.get_close_matches(name, names, n=1)), None)


def _all_names(cfg: DictConfig, prefix: str = "") -> Iterator[str]:
    for name in map(str, cfg):
        if name in MAPPINGS or f"{prefix}{name}" in MOVED:  # an old name gives a default only
            continue
        inner = compat.node_at(cfg, name)
        if isinstance(inner, DictConfig) and compat.has_content(inner):
            yield from _all_names(inner, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def _wrong_chunks(schedule: ScheduleConfig, length: int) -> dict[str, str]:
    chunks = schedule.as_list()
    name = next((f"schedule.{key}" for key in ("chunks", "start") if hasattr(schedule, key)), "schedule")
    if not chunks or not all(isinstance(n, int) and n >= 1 for n in chunks):
        return {name: wrong_value(name, chunks, "what makes a list of whole numbers from 1")}
    if max(chunks) <= length:
        return {}
    got: Any = max(chunks) if name == "schedule.start" else chunks
    return {name: wrong_value(name, got, f"at most as many chunks as the longest series has steps to train, {length}")}


def _uri_problem(uri: str, tables: Sequence[str] = OF_MLFLOW) -> str | None:
    if uri.startswith(SQLITE) and "://" in uri.removeprefix(SQLITE):
        return f"got {without_password(uri)!r}; takes one URI"
    return uri_problem(uri, tables)


def _storage_problem(cfg: DictConfig) -> str | None:
    storage = cfg.study.storage
    if storage.startswith("http"):
        return f"got {storage!r}; takes sqlite:///PATH or a database URI: Optuna keeps studies in no MLflow server"
    path = sqlite_path(storage)
    if path is not None and path == sqlite_path(cfg.tracking.uri):
        return f"got {path}, MLflow's store too; takes a file of its own, as the tables of the two collide"
    if problem := _uri_problem(storage, OF_OPTUNA):
        return problem
    if path is None and not absolute_uri(storage).startswith("postgresql+psycopg://"):
        return f"got {without_password(storage)!r}; takes sqlite:///PATH or postgresql+psycopg://HOST/DATABASE"
    if path is None and find_spec("psycopg") is None:
        return f"got {storage!r}, which needs the package psycopg: {install('psycopg[binary]', 'cluster')}"
    return None


def asks_for_gpu(cfg: DictConfig) -> bool:
    """Whether precision or cuda_graphs need a GPU. Looking for a GPU imports torch, so it is done only then."""
    return bool(cfg.precision == "tf32" or cfg.cuda_graphs is True)
