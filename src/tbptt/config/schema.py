"""The typed schema of a config: which keys there are, and what each key takes.

Each key is declared here or in its own package (data/options.py, models/options.py, tasks/options.py,
training/options.py). conf/*.yaml gives the values; checks.py compares a config with the schema.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, cast, get_type_hints

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from tbptt.config.moved import moved
from tbptt.config.names import STUDY_NAME
from tbptt.data.options import DataConfig
from tbptt.models.options import ModelConfig
from tbptt.options.callbacks import CallbackConfig
from tbptt.options.labels import NOTES, TAGS
from tbptt.options.metrics import OBJECTIVE, VAL_LOSS
from tbptt.options.option import GROUPS, Option, key
from tbptt.options.own import load_own
from tbptt.options.takes import TEXT, Takes, list_of, number, one_of, text, whole, wrong_value
from tbptt.tasks import metrics as metrics  # the import adds the tasks' metrics to the table of metrics
from tbptt.tasks.options import TaskConfig
from tbptt.training.clip_modes import CLIP_MODE
from tbptt.training.lr_schedules import LrScheduleConfig
from tbptt.training.options import OptimizerConfig, ScheduleConfig

NOT_16 = Takes(
    "32, bf16, or on a GPU tf32 (fp16 is refused: it needs loss scaling, and Lightning clips the gradient before "
    "unscaling it)",
    lambda v: v in (32, "32", "bf16", "tf32"),
)
GRAPHS = Takes("one of true, false, auto", lambda v: isinstance(v, bool) or v == "auto", (True, False, "auto"))


# --- studies --------------------------------------------------------------------------------------------------


@dataclass
class SamplerConfig(Option, options=["random", "qmc"]):
    """A sampler. All fields except ``name`` are arguments of the Optuna class."""

    group = "study/sampler"
    seed: int | None = key(whole(0, None, high=2**31 - 1), 0)  # NumPy takes 32 bits, and the trial's number is added


@dataclass
class StartsRandom(SamplerConfig, options=["tpe", "gp", "cmaes"]):
    n_startup_trials: int = key(whole(1), 10)


@dataclass
class NSGAII(SamplerConfig, options=["nsgaii"]):
    population_size: int = key(whole(2), 50)


@dataclass
class PrunerConfig(Option, options=["auto", "none"]):
    """A pruner. All fields except ``name`` are arguments of the Optuna class."""

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
    min_early_stopping_rate: int = key(whole(0, high=100), 0)  # an exponent: the power must not overflow


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
    folds: int | None = key(whole(2, None, high=1000), None, new=True)
    fold_window: str = key(one_of("expanding", "rolling"), "expanding", new=True)
    placebo_of: str | None = key(Takes("the name of a study, or null", STUDY_NAME.test), None, new=True)
    timeout: float | None = key(number(0, open_low=True, null=True), None)
    workers: int = key(whole(1, high=10000), 1)
    pack: Any = key(whole(1, "auto", high=10000), "auto", new=True)  # no value of it computes anything else
    max_failures: int | None = key(whole(1, None), None)
    retries: int = key(whole(0), 1)
    heartbeat: int = key(whole(1, high=86400), 15)
    watch: bool = key(one_of(True, False), True, new=True)  # no value of it computes anything else
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
    experiment: str = key(text(256), "tbptt")  # MLflow accepts 500 characters, but its tables have room for 256
    update_points: int = key(whole(0), 50)
    system_metrics: bool = key(one_of(True, False), False, new=True)
    keep: str = key(one_of("all", "best", "last"), "all", new=True)


@dataclass
class Config:
    data: DataConfig = MISSING
    task: TaskConfig = MISSING
    model: ModelConfig = MISSING
    optimizer: OptimizerConfig = MISSING
    lr_schedule: LrScheduleConfig = MISSING
    schedule: ScheduleConfig = MISSING
    callback: CallbackConfig = MISSING
    clip: float | None = key(number(0, open_low=True, null=True), 1.0)
    clip_mode: str = key(CLIP_MODE, "norm")
    epochs: int = key(whole(1), 50)
    eval_every: int = key(whole(1), 5)
    seed: int = key(whole(0), 0)
    objective: Any = key(OBJECTIVE, VAL_LOSS)
    device: str = key(one_of("auto", "cpu", "cuda"), "auto")
    precision: Any = key(NOT_16, 32)
    segment_length: Any = key(whole(1, "auto", None), "auto")
    segment_memory: Any = key(whole(0, "auto", high=10**9), "auto", new=True)  # no value of it computes anything else
    kernels: str = key(one_of("auto", "torch"), "auto")
    cuda_graphs: Any = key(GRAPHS, False)
    threads: int = key(whole(1, high=1024), 1)
    progress: str = key(one_of("auto", "plain", "none"), "auto")
    resume: str | None = key(Takes("the id of an MLflow run, or null", lambda v: v is None or TEXT.test(v)), None)
    notes: str | None = key(NOTES, None, new=True)
    tags: dict[str, str] = key(TAGS, {}, new=True)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    study: StudyConfig = field(default_factory=StudyConfig)
    space: dict[str, Any] = field(default_factory=dict)  # what sweep=NAME searches


@dataclass
class PartOfConfig(Config):
    """A config whose groups other than data, task and model are not checked: a network does not need them."""

    optimizer: Any = MISSING
    lr_schedule: Any = MISSING
    schedule: Any = MISSING
    callback: Any = MISSING
    study: Any = field(default_factory=StudyConfig)


def register() -> None:
    """Register the schema with Hydra: ``schema``, and ``schema/GROUP/OPTION`` for the yaml files."""
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


def typed(content: dict[str, Any], needs: Collection[str] = tuple(GROUPS)) -> DictConfig:
    """A typed config, made from the plain types in which a run kept it.

    Args:
        needs: groups that must fit the schema. Another group may not fit it, because its option is gone or has other
            keys now; that group then stays as it is, unchecked.

    Raises:
        ValueError: the config does not fit the schema.
    """
    load_own()
    try:
        # Configs that are older than these groups do not have them.
        older = {"callback": {"name": "none"}, "lr_schedule": {"name": "constant"}}
        cfg = OmegaConf.create({**older, **moved(content)})
        schema = Config
        for group in GROUPS:
            try:
                _type_group(cfg, group)
            except (OmegaConfBaseException, LookupError, TypeError, AttributeError):
                if group in needs or not isinstance(cfg[group.split("/")[0]], DictConfig):
                    raise
                schema = PartOfConfig
        return cast(DictConfig, OmegaConf.merge(OmegaConf.structured(schema), cfg))
    except (OmegaConfBaseException, LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"a config that is none of tbptt's: {(str(error).splitlines() or [''])[0]}") from error


def _type_group(cfg: DictConfig, group: str) -> None:
    """Convert a config's part for a group to the schema of the option that it names, in place."""
    place, options = group.replace("/", "."), GROUPS[group]
    if (node := OmegaConf.select(cfg, place)) is not None:
        if node.name not in options:
            takes = f"one of {', '.join(options)}, or the file in own/ that brings it"
            raise LookupError(wrong_value(place, node.name, takes))
        schema = OmegaConf.structured(options[node.name])
        OmegaConf.update(cfg, place, OmegaConf.merge(schema, node), merge=False)


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A config with nested keys joined by dots; lists count as values."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat
