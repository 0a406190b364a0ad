"""What a ``-m`` command means: its space, checked value by value, its fixed part, its budget, its name."""

import hashlib
import json
import math
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations
from typing import Any, cast

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Glob, IntervalSweep, Override, RangeSweep
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from tbptt import compat
from tbptt.config.checks import as_before
from tbptt.config.compose import CommandError, ConfigSource, composed
from tbptt.config.earlier import CHANGES
from tbptt.config.moved import first_name, name_now
from tbptt.config.names import derived
from tbptt.config.plain import plain
from tbptt.config.schema import PrunerConfig, StudyConfig, flatten
from tbptt.options.metrics import as_objectives
from tbptt.options.values import Value, stored, text_of
from tbptt.studies.folds import fold_problems
from tbptt.studies.space import Choice, Dimension, Interval, IntRange, Space, named
from tbptt.studies.surrogate_seeds import MOST as MOST_SURROGATES
from tbptt.studies.surrogate_seeds import SEEDS, on_surrogates

LR_SCHEDULE = "lr_schedule"
# Not part of the space, the data, the model or its training: a study stays the same when these change.
NOT_IN_THE_NAME = (
    "study",
    "tracking",
    "device",
    "threads",
    "kernels",
    "cuda_graphs",
    "segment_length",
    "segment_memory",
    "progress",
    "notes",
    "tags",
    "space",
)
# These set a study up, so they cannot differ between its trials.
NEVER_SEARCHED = ("study", "tracking", "notes", "tags", "objective", "cluster", "sweep", "space", "hydra")
MOST_VALUES = 10**6  # of one range
MOST_CHOICES = 1000  # of one key: a config is composed to check each, and every trial keeps all of them
MOST_QUEUED = 20_000  # points of a space that is run whole: each is queued beforehand, which takes 4 ms
BEST = 5  # points that study.best_of trains again, unless study.n_trials says how many
PLACEBOS = 20  # surrogates that study.placebo_of trains on, unless study.n_trials says how many


@dataclass(frozen=True, eq=False)
class Swept:
    """A swept key whose values the schema has not checked yet.

    Attributes:
        texts: the values as they are typed; for a range or an interval, its ends.
    """

    key: str
    sweep: ChoiceSweep | RangeSweep | IntervalSweep
    when: tuple[tuple[str, str], ...]
    texts: tuple[str, ...]
    is_group: bool


@dataclass(frozen=True)
class Plan:
    """A checked sweep.

    Attributes:
        source: the source of its configs.
        fixed: the overrides that every trial has.
        cfg: the config of its first point, with its ``study`` settings.
        space: the search space.
        shuffled: whether the points of a finite space run in a shuffled order.
        earlier: the last of ``fixed``, which nobody typed: the defaults of when the study was begun (begun.py).
        begun: the number of changes of the defaults at that time (config/earlier.py).
    """

    source: ConfigSource
    fixed: tuple[str, ...]
    cfg: DictConfig
    space: Space
    shuffled: bool
    earlier: tuple[str, ...] = ()
    begun: int = len(CHANGES)

    @cached_property
    def settings(self) -> StudyConfig:
        found = cast(StudyConfig, OmegaConf.to_object(self.cfg.study))
        # A placebo that is stopped early could not be counted.
        return replace(found, pruner=PrunerConfig("none")) if found.placebo_of else found

    @property
    def objectives(self) -> list[str]:
        return as_objectives(self.cfg.objective)

    @cached_property
    def size(self) -> int | None:
        return self.space.size()

    @property
    def n_trials(self) -> int | None:
        """The total that the study ends with; None for as many as ``study.timeout`` allows."""
        asked = self.settings.n_trials
        typed = any(word.startswith("study.n_trials=") for word in self.fixed)
        if self.settings.best_of and not typed:  # a number from sweep=NAME is the search's
            asked = BEST
        if self.settings.placebo_of:
            return asked if typed and asked else PLACEBOS
        return asked if self.size is None else min(asked or self.size, self.size)

    @property
    def is_grid(self) -> bool:
        """Whether all points are known beforehand, rather than chosen by a sampler."""
        return self.is_of_another or (self.size is not None and self.n_trials == self.size)

    @property
    def is_of_another(self) -> bool:
        """Whether its points are those of another study."""
        return self.settings.best_of is not None or self.settings.placebo_of is not None

    def points(self) -> list[dict[str, Value]]:
        """Every point of a finite space, in the order in which they run. The order is the same each time, shuffled or
        not."""
        points = list(self.space.points())
        if self.shuffled:
            random.Random(self.digest).shuffle(points)
        return points

    @cached_property
    def spec(self) -> dict[str, Any]:
        """What identifies this study, in plain types: its space, and the config outside it."""
        swept = {d.key for d in self.space.dimensions}
        typed = dict(word.split("=", 1) for word in self.fixed)
        brought = {LR_SCHEDULE} - swept if "optimizer" in swept else set()  # each optimizer's yaml chooses its own
        under = tuple(f"{key}." for key in swept | brought)
        unsaid = as_before(self.cfg)

        def is_swept(key: str) -> bool:
            """Whether the key is swept, by its name today or by its first name, which may be in another group."""
            return key in swept | brought or key.startswith(under) or first_name(key).startswith(under)

        config = {
            first_name(key): value
            for key, value in flatten(plain(self.cfg)).items()
            if not is_swept(key) and key not in unsaid and key.split(".")[0] not in NOT_IN_THE_NAME
        }
        config |= {first_name(key): text for key, text in typed.items() if is_swept(key) and key not in swept}
        config |= dict.fromkeys(brought - typed.keys(), "the optimizer's")
        if config.get(LR_SCHEDULE) == "constant":  # as it was before there was the group
            del config[LR_SCHEDULE]
        settings = self.settings
        more: dict[str, Any] = {"folds": settings.folds, "fold_window": settings.fold_window} if settings.folds else {}
        more |= {name: of for name in ("best_of", "placebo_of") if (of := getattr(settings, name))}
        return {"space": self.space.describe(), "config": config, "seeds": settings.seeds, **more}

    @cached_property
    def digest(self) -> str:
        return hashlib.sha256(json.dumps(self.spec, sort_keys=True).encode()).hexdigest()

    @property
    def name(self) -> str:
        """``study.name``, or the swept keys and a digest: the same command is the same study."""
        if self.settings.name and self.settings.name != self.settings.placebo_of:  # equal: the real study's command
            return self.settings.name
        return derived(dict.fromkeys(d.key.split(".")[-1] for d in self.space.dimensions), self.digest)


def make_plan(source: ConfigSource, overrides: Sequence[Override]) -> Plan:
    """Read a sweep and check every value in it. Call it with ``source`` opened.

    Raises:
        CommandError: with a line for everything that is wrong.
    """
    fixed = [str(o.input_line) for o in overrides if not o.is_sweep_override()]
    swept, lines, some = _all_swept(source, fixed, overrides)
    also: tuple[Dimension, ...] = ()
    if some is not None and some.study.placebo_of is not None:
        fixed, more = on_surrogates(some, fixed, [s.key for s in swept])
        lines, also = [*lines, *more], (SEEDS,)
    if not swept and not lines:
        lines.append("-m: nothing is swept; takes several values for a key, as in clip=0.5,1,2, or sweep=NAME")
    for a, b in combinations(swept, 2):
        if a.key == b.key and all(dict(a.when).get(group, option) == option for group, option in b.when):
            lines.append(f"{a.key}: swept twice; takes one sweep")
    if any(s.key == "seed" for s in swept):
        lines.append("seed: is never searched; takes study.seeds=[0,1,2], which trains each point once a seed")
    first: DictConfig | None = None
    values: dict[tuple[Swept, str], Value] = {}
    for s, text, point in _probes(fixed, swept):
        cfg, wrong = composed(source, point)
        wrong = wrong or (fold_problems(cfg) if cfg is not None else [])
        lines += [line for line in wrong if line not in lines]
        first = first or cfg
        if cfg is not None and not wrong:
            values[s, text] = text if s.is_group else stored(plain_value(cfg, s.key))
    if lines or first is None:
        raise CommandError(lines)
    names = named([(first_name(s.key), s.when) for s in swept])
    space = Space((*(_dimension(s, name, values) for s, name in zip(swept, names, strict=True)), *also))
    plan = Plan(source, tuple(fixed), first, space, any(getattr(s.sweep, "shuffle", False) for s in swept))
    if lines := _too_many(plan):
        raise CommandError(lines)
    if plan.n_trials is None and plan.settings.timeout is None:
        raise CommandError(["study.n_trials: missing; takes a whole number from 1, as the space is not finite"])
    if plan.settings.best_of and not plan.settings.seeds:
        raise CommandError([f"study.seeds: missing; takes some that study {plan.settings.best_of} did not have"])
    if len(plan.objectives) > 1 and plan.settings.sampler.name == "cmaes":
        raise CommandError(["study/sampler: got 'cmaes', which takes one objective; takes another for several"])
    return plan


def _too_many(plan: Plan) -> list[str]:
    """One line for each key, or for the space, that has more values than a study can keep."""
    lines = [
        f"{d.key}: got {len(d.choices)} values; takes at most {MOST_CHOICES}, or an interval"
        for d in plan.space.dimensions
        if isinstance(d, Choice) and len(d.choices) > MOST_CHOICES
    ]
    if plan.settings.placebo_of and (plan.n_trials or 0) > MOST_SURROGATES:
        lines.append(f"study.n_trials: got {plan.n_trials}; takes at most {MOST_SURROGATES} with study.placebo_of")
    if not lines and not plan.is_of_another and plan.is_grid and (plan.size or 0) > MOST_QUEUED:
        asked = plan.settings.n_trials
        got = "missing" if asked is None else f"got {asked}"
        why = f"all points of a space are run where they are at most {MOST_QUEUED}"
        lines.append(f"study.n_trials: {got}; takes fewer than the {plan.size} points of the space, as {why}")
    return lines


def _all_swept(
    source: ConfigSource, fixed: list[str], overrides: Sequence[Override]
) -> tuple[list[Swept], list[str], DictConfig | None]:
    """The sweeps that ``sweep=NAME`` declares and those that were typed; a typed key replaces its declaration. Also one
    line per error, and the config of some point (None if there is none)."""
    swept, lines = [], []
    typed = [o for o in overrides if o.is_sweep_override()]
    for override in typed:
        try:
            swept.append(_swept(source, override, ()))
        except ValueError as error:
            lines.append(f"{override.get_key_element()}: {error}")
    cfg, wrong = composed(source, [*fixed, *(f"{s.key}={s.texts[0]}" for s in swept)])
    if cfg is None and not swept:
        lines += wrong
    if cfg is not None and cfg.space:
        names = {o.get_key_element() for o in typed} | {line.split("=")[0] for line in fixed}
        try:
            declared = list(_declared(source, cast(dict[str, Any], OmegaConf.to_container(cfg.space)), ()))
            swept = [*(s for s in declared if s.key not in names), *swept]
        except (ValueError, HydraException) as error:
            lines.append(f"space: {error}")
    return sorted(swept, key=lambda s: len(s.when)), lines, cfg  # a group comes before what it brings


def _declared(source: ConfigSource, space: Mapping[str, Any], when: tuple[tuple[str, str], ...]) -> Iterator[Swept]:
    """A ``space`` mapping: {key: a sweep, a list of choices, or {option: the space under it}}."""
    parser = OverridesParser.create()
    for typed, content in space.items():
        key = name_now(typed)
        if isinstance(content, Mapping):
            options = tuple(map(str, content))
            yield Swept(key, ChoiceSweep(list=list(options)), when, options, is_group=True)
            for option, inner in content.items():
                yield from _declared(source, inner or {}, (*when, (key, str(option))))
            continue
        text = ",".join(text_of(stored(item)) for item in content) if isinstance(content, list) else content
        override = parser.parse_override(f"{key}={text}")
        if override.is_sweep_override():
            yield _swept(source, override, when)
        else:
            only = override.get_value_string()
            yield Swept(key, ChoiceSweep(list=[only]), when, (only,), bool(source.options(key)))


def _swept(source: ConfigSource, override: Override, when: tuple[tuple[str, str], ...]) -> Swept:
    """Raises ValueError for a sweep that cannot be searched."""
    key, sweep = override.get_key_element(), override.value()
    if key.startswith(("+", "~")):
        raise ValueError("cannot be searched; takes the key of the config without + or ~")
    if re.split("[./]", key)[0] in NEVER_SEARCHED:
        raise ValueError("is never searched; takes one value")
    options = source.options(key)
    if options and isinstance(sweep, ChoiceSweep) and any(isinstance(item, list | dict) for item in sweep.list):
        raise ValueError(f"got {override.get_value_string()}; takes one of {', '.join(options)}")
    if isinstance(sweep, Glob):
        sweep = ChoiceSweep(list=list(sweep.filter(options)))
    assert isinstance(sweep, ChoiceSweep | RangeSweep | IntervalSweep)
    if unknown := sorted(sweep.tags - {"log"}):
        raise ValueError(f"got tag {unknown[0]!r}; takes log")
    if isinstance(sweep, ChoiceSweep):
        if "log" in sweep.tags:
            raise ValueError("got tag log on a choice; takes it on a range or an interval")
        texts = tuple(dict.fromkeys(compat.as_typed(item) for item in sweep.list))
        if not texts:
            raise ValueError("got no values; takes at least one")
        if len(texts) > MOST_CHOICES:
            raise ValueError(f"got {len(texts)} values; takes at most {MOST_CHOICES}, or an interval")
    elif isinstance(sweep, IntervalSweep):
        assert sweep.start is not None
        assert sweep.end is not None
        if not sweep.start < sweep.end or ("log" in sweep.tags and sweep.start <= 0):
            raise ValueError(f"got {override.get_value_string()}; takes two rising numbers, above 0 with log")
        texts = (f"{sweep.start:.17g}", f"{sweep.end:.17g}")
    else:
        if _steps(sweep) > MOST_VALUES:
            raise ValueError(f"got {override.get_value_string()}; takes at most {MOST_VALUES} values, or an interval")
        numbers = list(sweep.range())
        if not numbers:
            raise ValueError(f"got {override.get_value_string()}, which is empty")
        if "log" in sweep.tags and (numbers[0] <= 0 or sweep.step != 1):
            raise ValueError(f"got {override.get_value_string()}; takes with log a range above 0 in steps of 1")
        texts = (str(numbers[0]), str(numbers[-1]))
    return Swept(key, sweep, when, texts, bool(options))


def _steps(sweep: RangeSweep) -> float:
    assert sweep.start is not None
    assert sweep.stop is not None
    return (sweep.stop - sweep.start) / sweep.step if sweep.step else math.inf


def _probes(fixed: list[str], swept: list[Swept]) -> Iterator[tuple[Swept, str, list[str]]]:
    """Each value of each swept key once, with the first values of the other keys: the points to compose and check."""
    for s in swept:
        for text in s.texts:
            chosen = dict(s.when)
            point = []
            for other in swept:
                if not all(chosen.get(group, option) == option for group, option in other.when):
                    continue
                value = text if other is s else chosen.get(other.key, other.texts[0])
                if other.key == s.key and other is not s:
                    continue  # the same key under another option
                chosen[other.key] = value
                point.append(f"{other.key}={value}")
            yield s, text, [*fixed, *point]


def _dimension(s: Swept, name: str, values: Mapping[tuple[Swept, str], Value]) -> Dimension:
    sweep, log = s.sweep, "log" in s.sweep.tags
    if isinstance(sweep, ChoiceSweep):
        return Choice(s.key, name, s.when, tuple(dict.fromkeys(values[s, text] for text in s.texts)))
    low, high = (values[s, text] for text in s.texts)
    assert isinstance(low, int | float)
    assert isinstance(high, int | float)
    whole = isinstance(low, int) and isinstance(high, int)  # the schema has turned the values of float keys into floats
    if isinstance(sweep, IntervalSweep):
        return (
            IntRange(s.key, name, s.when, int(low), int(high), 1, log)
            if whole
            else Interval(s.key, name, s.when, low, high, log)
        )
    numbers = list(sweep.range())
    if whole and isinstance(sweep.step, int) and sweep.step > 0:
        return IntRange(s.key, name, s.when, int(low), int(high), sweep.step, log)
    return Choice(s.key, name, s.when, tuple(int(n) if whole else float(n) for n in numbers))


def differences(before: Mapping[str, Any], now: Mapping[str, Any], *parts: str) -> list[str]:
    """What changed between two specs, or in some parts of them, a line each."""
    flat_before, flat_now = (flatten({p: spec[p] for p in parts or spec if p in spec}) for spec in (before, now))
    return [
        f"{name.removeprefix('config.').removeprefix('space.')} was {flat_before.get(name)}, is {flat_now.get(name)}"
        for name in dict.fromkeys([*flat_before, *flat_now])
        if flat_before.get(name) != flat_now.get(name)
    ]


def other_parameters(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """The dimensions that differ in what Optuna fixes for good, one line each.

    Optuna fixes the values of a choice. Of a range it fixes whether it has whole numbers and whether it is logarithmic;
    the ends may change.
    """

    def kept(words: str) -> str:
        return words if words.startswith("choice(") else f"{words[:5]}{words.endswith(', log')}"

    both = [name for name in before if name in now and kept(before[name]) != kept(now[name])]
    return differences({name: before[name] for name in both}, {name: now[name] for name in both})


def plain_value(cfg: DictConfig, key: str) -> Any:
    """A key's value in plain types."""
    value = OmegaConf.select(cfg, key)
    return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
