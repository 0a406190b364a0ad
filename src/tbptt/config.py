"""The typed schema of a config: what can be said, and what each key takes.

Each key says here what it takes; conf/*.yaml gives the values; checks.py holds a config against it. A class is the
schema of the options of a group that it names; so is one in a file of your own in ``own/`` (docs/using.md).
"""

import importlib
import inspect
import math
import os
import pkgutil
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, cast, get_type_hints

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from tbptt.names import STUDY_NAME
from tbptt.objectives import OBJECTIVE
from tbptt.objectives import OBJECTIVES as OBJECTIVES
from tbptt.objectives import as_objectives as as_objectives
from tbptt.objectives import sign as sign
from tbptt.schedule import geometric_chunks
from tbptt.stores import without_password
from tbptt.takes import TEXT, Takes, list_of, number, one_of, text, whole
from tbptt.takes import wrong_value as wrong_value

if TYPE_CHECKING:
    import torch

    from tbptt.series import Prices

NOT_16 = Takes(
    "32, bf16, or on a GPU tf32 (fp16 is refused: it needs loss scaling, and Lightning clips the gradient before "
    "unscaling it)",
    lambda v: v in (32, "32", "bf16", "tf32"),
)


def key(takes: Takes, default: Any = MISSING) -> Any:
    metadata = {"takes": takes}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


# The schema of every option of every group: conf/GROUP/OPTION.yaml begins with schema/GROUP/OPTION.
GROUPS: dict[str, dict[str, type]] = {
    group: {} for group in ("data", "model", "optimizer", "schedule", "study/sampler", "study/pruner")
}
CHOSEN = (*GROUPS, "figure", "cluster", "sweep")  # the groups that can be typed
OF_A_RUN = [group for group in GROUPS if not group.startswith("study/")]


@dataclass
class Option:
    """One option of a group of configs; a class with ``options`` is the schema of those."""

    group: ClassVar[str]
    name: str = key(TEXT)

    def __init_subclass__(cls, options: Sequence[str] = ()) -> None:
        if options:
            if taken := [option for option in options if option in GROUPS[cls.group]]:
                raise ValueError(f"{cls.group}={taken[0]} is there already")
            cls.__annotations__ = {"name": str, **inspect.get_annotations(cls)}
            cls.name = key(one_of(*options))
            GROUPS[cls.group] |= dict.fromkeys(options, cls)


# --- data -----------------------------------------------------------------------------------------------------


@dataclass
class DataConfig(Option):
    group = "data"
    window: int = key(whole(1), 128)
    features: str = key(one_of("lagged_change", "one_step_change"), "lagged_change")
    gamma: float = key(number(0, 1), 0.99)
    fee: float = key(number(0))
    fee_unit: str = key(one_of("price", "change_std"))
    horizon: Any = key(whole(0, "auto"), "auto")


@dataclass
class ArticleData(DataConfig, options=["article"]):
    n_series: int = key(whole(1), 15)
    length: int = key(whole(1), 20000)
    val_series: int = key(whole(1), 3)
    seed: int = key(whole(0), 0)
    noise_std: float = key(number(0), 0.01)
    frequencies: list[float] = key(list_of("two numbers from 0", number(0), 2, 2), [0.0002, 0.0002])


@dataclass
class SplitData(DataConfig):
    """Series of which the last part is held out."""

    columns: list[str] | None = key(list_of("column names", TEXT, high=math.inf, null=True), None)
    val_fraction: float = key(number(0, 1, open_low=True), 0.2)

    def prices(self) -> "dict[str, Prices]":
        """The series by name, each (T,) float64; lengths may differ. Raises ValueError with a line for the user."""
        raise NotImplementedError  # each option has its own


@dataclass
class MarketData(SplitData, options=["market"]):
    def prices(self) -> "dict[str, Prices]":
        from tbptt.series import market_prices

        return market_prices(self.columns)


@dataclass
class PricesData(SplitData, options=["prices"]):
    path: str = key(Takes("the path of a CSV or Parquet file", TEXT.test))

    def prices(self) -> "dict[str, Prices]":
        from tbptt.series import read_prices

        if re.match(r"[a-z][a-z0-9+.-]*://", self.path, re.IGNORECASE):
            raise ValueError(f"got {without_password(self.path)}, a URL; takes the path of a file on this machine")
        return read_prices(os.path.expanduser(self.path), self.columns)  # noqa: PTH111 -- ~x may be a file's name


# --- model, optimizers, schedules -----------------------------------------------------------------------------


@dataclass
class ModelConfig(Option, options=["article"]):
    group = "model"
    dense: list[int] = key(list_of("whole numbers from 1", whole(1), 0), [64, 64])
    hidden: list[int] = key(list_of("whole numbers from 1", whole(1)), [64, 64])
    cell: str = key(one_of("lstm", "gru"), "lstm")
    noise_std: float = key(number(0), 0.01)
    init: str = key(one_of("keras", "torch"), "keras")


@dataclass
class OptimizerConfig(Option):
    """Fields but ``name`` are the arguments of the class that ``kind`` gives."""

    group = "optimizer"
    torch_name: ClassVar[str]
    lr: float = key(number(0, open_low=True))

    @classmethod
    def kind(cls) -> "type[torch.optim.Optimizer]":
        """The class. What it keeps of a parameter has the parameter's shape, or none."""
        import torch

        return cast("type[torch.optim.Optimizer]", getattr(torch.optim, cls.torch_name))


@dataclass
class SGD(OptimizerConfig, options=["sgd", "momentum"]):
    torch_name = "SGD"
    momentum: float = key(number(0, 1), 0.0)


@dataclass
class RMSprop(OptimizerConfig, options=["rmsprop"]):
    torch_name = "RMSprop"
    alpha: float = key(number(0, 1), 0.9)
    eps: float = key(number(0, open_low=True), 1e-7)


@dataclass
class Adam(OptimizerConfig, options=["adam"]):
    torch_name = "Adam"
    betas: list[float] = key(list_of("two numbers from 0 and below 1", number(0, 1), 2, 2), [0.9, 0.999])
    eps: float = key(number(0, open_low=True), 1e-7)


@dataclass
class AdamW(Adam, options=["adamw"]):
    torch_name = "AdamW"
    weight_decay: float = key(number(0), 0.004)


@dataclass
class AdaGrad(OptimizerConfig, options=["adagrad"]):
    torch_name = "Adagrad"
    initial_accumulator_value: float = key(number(0), 0.1)
    eps: float = key(number(0, open_low=True), 1e-7)


@dataclass
class AdaDelta(OptimizerConfig, options=["adadelta"]):
    torch_name = "Adadelta"
    rho: float = key(number(0, 1), 0.95)
    eps: float = key(number(0, open_low=True), 1e-7)


@dataclass
class ScheduleConfig(Option):
    group = "schedule"
    patience: int | None = key(whole(1, None), 20)
    stage_epochs: Any = key(whole(1, "auto", None), "auto")

    def as_list(self) -> list[int]:
        """Chunks a sequence, one entry a stage."""
        raise NotImplementedError  # each option has its own


@dataclass
class ChunksSchedule(ScheduleConfig, options=["article", "full", "fixed"]):
    chunks: list[int] = key(list_of("whole numbers from 1", whole(1)))

    def as_list(self) -> list[int]:
        return list(self.chunks)


@dataclass
class GeometricSchedule(ScheduleConfig, options=["geometric"]):
    start: int = key(whole(1), 100)
    stages: int = key(whole(1, high=1000), 5)

    def as_list(self) -> list[int]:
        return geometric_chunks(self.start, self.stages)


# --- studies --------------------------------------------------------------------------------------------------


@dataclass
class SamplerConfig(Option, options=["random", "qmc"]):
    """Fields but ``name`` are the arguments of the Optuna class."""

    group = "study/sampler"
    seed: int | None = key(whole(0, None, high=2**31 - 1), 0)  # NumPy's take 32 bits; the trial's number is added


@dataclass
class StartsRandom(SamplerConfig, options=["tpe", "gp", "cmaes"]):
    n_startup_trials: int = key(whole(1), 10)


@dataclass
class NSGAII(SamplerConfig, options=["nsgaii"]):
    population_size: int = key(whole(2), 50)


@dataclass
class PrunerConfig(Option, options=["auto", "none"]):
    """Fields but ``name`` are the arguments of the Optuna class."""

    group = "study/pruner"


@dataclass
class MedianPruner(PrunerConfig, options=["median"]):
    patience: int = key(whole(0), 1)
    n_startup_trials: int = key(whole(0), 5)
    n_warmup_steps: int = key(whole(0), 0)
    interval_steps: int = key(whole(1), 1)
    n_min_trials: int = key(whole(1), 1)


@dataclass
class Asha(PrunerConfig, options=["asha"]):
    min_resource: int = key(whole(1), 1)
    reduction_factor: int = key(whole(2), 4)
    min_early_stopping_rate: int = key(whole(0), 0)


@dataclass
class Hyperband(PrunerConfig, options=["hyperband"]):
    min_resource: int = key(whole(1), 1)
    reduction_factor: int = key(whole(2), 3)


@dataclass
class StudyConfig:
    name: str | None = key(STUDY_NAME, None)
    storage: str = key(Takes("a SQLite or database URI", TEXT.test))
    n_trials: int | None = key(whole(1, None), None)
    best_of: str | None = key(Takes("the name of a study, or null", STUDY_NAME.test), None)
    seeds: list[int] | None = key(list_of("different whole numbers from 0", whole(0), null=True, different=True), None)
    timeout: float | None = key(number(0, open_low=True, null=True), None)
    workers: int = key(whole(1, high=10000), 1)
    max_failures: int | None = key(whole(1, None), None)
    retries: int = key(whole(0), 1)
    heartbeat: int = key(whole(1, high=86400), 15)
    allow_changed: bool = key(one_of(True, False), False)
    fresh: bool = key(one_of(True, False), False)
    dry_run: bool = key(one_of(True, False), False)
    trial: int | None = key(whole(0, None), None)  # set by the study for each trial
    sampler: SamplerConfig = MISSING
    pruner: PrunerConfig = MISSING


# --- the whole ------------------------------------------------------------------------------------------------


@dataclass
class TrackingConfig:
    uri: str = key(Takes("a SQLite or database URI, or an MLflow server's http(s) address", TEXT.test))
    experiment: str = key(text(256), "tbptt")  # MLflow takes 500, and has room for 256 in its tables
    update_points: int = key(whole(0), 50)


@dataclass
class Config:
    data: DataConfig = MISSING
    model: ModelConfig = MISSING
    optimizer: OptimizerConfig = MISSING
    schedule: ScheduleConfig = MISSING
    clip: float | None = key(number(0, open_low=True, null=True), 1.0)
    clip_mode: str = key(one_of("norm", "tensor_norm", "value", "std"), "norm")
    epochs: int = key(whole(1), 50)
    eval_every: int = key(whole(1), 5)
    seed: int = key(whole(0), 0)
    objective: Any = key(OBJECTIVE, "val/loss")
    device: str = key(one_of("auto", "cpu", "cuda"), "auto")
    precision: Any = key(NOT_16, 32)
    segment_length: Any = key(whole(1, "auto", None), "auto")
    kernels: str = key(one_of("auto", "torch"), "auto")
    cuda_graphs: bool = key(one_of(True, False), False)
    threads: int = key(whole(1, high=1024), 1)
    progress: str = key(one_of("auto", "plain", "none"), "auto")
    resume: str | None = key(Takes("the id of an MLflow run, or null", lambda v: v is None or TEXT.test(v)), None)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    study: StudyConfig = field(default_factory=StudyConfig)
    space: dict[str, Any] = field(default_factory=dict)  # what sweep=NAME searches


@cache
def load_own() -> None:
    """Import the files in ``own/``, whose classes are options too. Raises ValueError with a line for one that fails."""
    from tbptt import own

    for module in pkgutil.iter_modules(own.__path__):
        try:
            importlib.import_module(f"tbptt.own.{module.name}")
        except Exception as error:
            raise ValueError(f"src/tbptt/own/{module.name}.py: {type(error).__name__}: {error}") from error


def register() -> None:
    """Make the schema known to Hydra: ``schema``, and ``schema/GROUP/OPTION`` for the yaml files."""
    load_own()
    store = ConfigStore.instance()
    store.store(name="schema", node=Config)
    for group, options in GROUPS.items():
        for option, node in options.items():
            store.store(group=f"schema/{group}", name=option, node=node)


def all_keys() -> Iterator[tuple[str, Any, Takes]]:
    """Every key of every option: its dotted name, its type, what it takes. A name may come several times."""
    yield from _keys_of(Config, "")
    for group, options in GROUPS.items():
        for schema in dict.fromkeys(options.values()):
            yield from _keys_of(schema, group.replace("/", ".") + ".")


def _keys_of(schema: type, prefix: str) -> Iterator[tuple[str, Any, Takes]]:
    types = get_type_hints(schema)
    for f in fields(schema):
        if "takes" in f.metadata:
            yield prefix + f.name, types[f.name], f.metadata["takes"]
        elif is_dataclass(inner := types[f.name]):
            yield from _keys_of(cast(type, inner), f"{prefix}{f.name}.")


def typed(content: dict[str, Any]) -> DictConfig:
    """A config in plain types, as a run keeps it, under the schema again. Raises ValueError where it does not fit."""
    load_own()
    try:
        cfg = OmegaConf.create(content)
        for group, options in GROUPS.items():
            place = group.replace("/", ".")
            if (node := OmegaConf.select(cfg, place)) is not None:
                schema = OmegaConf.structured(options[node.name])
                OmegaConf.update(cfg, place, OmegaConf.merge(schema, node), merge=False)
        return cast(DictConfig, OmegaConf.merge(OmegaConf.structured(Config), cfg))
    except (OmegaConfBaseException, LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"a config that is none of tbptt's: {(str(error).splitlines() or [''])[0]}") from error


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested keys joined with dots; lists are values."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat
