"""The user attributes that this project keeps with Optuna's trials and studies. Each is named and explained here only.

A key's name is the attribute's name in Optuna's storage. Studies of earlier versions have it and optuna-dashboard shows
it, so it never changes. Anybody can write into a storage, and earlier versions wrote less. So an attribute that is
missing or has the wrong type reads as if it had never been written.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Generic, Protocol, TypedDict, TypeVar, overload

T = TypeVar("T")
R = TypeVar("R", bound="Record")
NOTHING: Mapping[str, Any] = MappingProxyType({})


class HasAttributes(Protocol):
    """One of Optuna's trials or studies, or a summary of one."""

    @property
    def user_attrs(self) -> dict[str, Any]: ...


class TakesAttributes(Protocol):
    """A trial or a study in a storage. Optuna's FrozenTrial is none: it would not store the attribute."""

    def set_user_attr(self, key: str, value: Any) -> None: ...


class Key(Generic[T]):
    """One attribute: ``TrialRecord.of(trial).reason`` reads it, ``TrialRecord.reason.write(trial, text)`` writes it.

    Args:
        read: converts the stored value; gets None if nothing is stored.
    """

    name: str

    def __init__(self, read: Callable[[Any], T]):
        self.read = read

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, record: None, owner: type) -> "Key[T]": ...

    @overload
    def __get__(self, record: "Record", owner: type) -> T: ...

    def __get__(self, record: "Record | None", owner: type) -> "Key[T] | T":
        return self if record is None else self.read(record.attrs.get(self.name))

    def write(self, to: TakesAttributes, value: T) -> None:
        """Store a value. It must survive JSON."""
        to.set_user_attr(self.name, value)


# --- what an attribute can be ---------------------------------------------------------------------------------------


def is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _flag(value: Any) -> bool:
    return value is True


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _whole(value: Any) -> int | None:
    return value if _is_whole(value) else None


def _count(value: Any) -> int:
    return value if _is_whole(value) else 0


def _number(value: Any) -> float | None:
    return value if is_number(value) else None


def _mapping(value: Any) -> Mapping[str, Any] | None:
    return value if isinstance(value, dict) else None


def _mapping_of_texts(value: Any) -> Mapping[str, str]:
    return value if isinstance(value, dict) and all(isinstance(each, str) for each in value.values()) else NOTHING


def _list_of(is_item: Callable[[Any], bool]) -> Callable[[Any], Sequence[Any]]:
    """A reader of lists in which every item passes ``is_item``. It returns an empty sequence for anything else."""
    return lambda value: value if isinstance(value, list) and all(map(is_item, value)) else ()


_texts: Callable[[Any], Sequence[str]] = _list_of(lambda item: isinstance(item, str))
_wholes: Callable[[Any], Sequence[int]] = _list_of(_is_whole)
_epochs: Callable[[Any], Sequence[int | None]] = _list_of(lambda item: item is None or _is_whole(item))
_rows: Callable[[Any], Sequence[Sequence[float]]] = _list_of(
    lambda row: isinstance(row, list) and all(map(is_number, row))
)


@dataclass(frozen=True)
class HowFar:
    """How far a running trial is.

    Attributes:
        seed, seeds: its current seed, from 1, and the number of its seeds.
        epoch, epochs: of this run: the epochs that are done, and their total.
        held_out: the newest held-out loss; None if none was measured.
        seconds_left: of the whole trial.
        fold, folds: the current fold of this seed, from 1, and the number of folds.
        at: when its worker noted this, in seconds since 1970 by the worker's clock; None in notes of earlier versions.
    """

    seed: int
    seeds: int
    epoch: int
    epochs: int
    held_out: float | None
    seconds_left: float
    fold: int = 1
    folds: int = 1
    at: float | None = None


def _moment(value: Any) -> float | None:
    """Seconds since 1970, up to the year 9999."""
    return value if is_number(value) and 0 <= value < 253_402_214_400 else None


def _how_far(value: Any) -> HowFar | None:
    if not isinstance(value, dict):
        return None
    counts = [_whole(value.get(name)) for name in ("seed", "seeds", "epoch", "epochs")]
    left = _number(value.get("seconds_left"))
    if None in counts or left is None:
        return None
    seed, seeds, epoch, epochs = map(_count, counts)
    fold, folds = (_whole(value.get(name)) or 1 for name in ("fold", "folds"))
    held_out, at = _number(value.get("held_out")), _moment(value.get("at"))
    return HowFar(seed, seeds, epoch, epochs, held_out, left, fold, folds, at)


class ChosenTrial(TypedDict):
    """One of the best trials of a study, to be trained again: its number there, its first objective, its point."""

    trial: int
    value: float
    point: dict[str, Any]


def _is_chosen(item: Any) -> bool:
    return (
        isinstance(item, dict)
        and _is_whole(item.get("trial"))
        and is_number(item.get("value"))
        and isinstance(item.get("point"), dict)
    )


_chosen: Callable[[Any], Sequence[ChosenTrial]] = _list_of(_is_chosen)


# --- the records ----------------------------------------------------------------------------------------------------


class Record:
    """Attributes as they are stored, read by the keys of a subclass. An attribute is checked only when it is read,
    because a report reads each of 10^5 trials once."""

    __slots__ = ("attrs",)

    def __init__(self, attrs: Mapping[str, Any]):
        self.attrs = attrs

    @classmethod
    def of(cls: type[R], what: HasAttributes) -> R:
        return cls(what.user_attrs)


class TrialRecord(Record):
    """What is kept with a trial."""

    __slots__ = ()

    # While it runs.
    worker = Key(_mapping)  # the process that runs it: from liveness.holding, on a server liveness.identity
    progress = Key(_how_far)  # every few seconds, as the fields of HowFar: trial_progress.py
    run_ids = Key(_texts)  # its MLflow runs that have begun, one per seed; with folds, one per seed and fold
    folds = Key(lambda value: max(_count(value), 1))  # number of folds per seed, in time order: folds.py
    # How it ended.
    reason = Key(_text)  # why it failed, in a line
    requeued = Key(_flag)  # it failed; the trial whose retry_of is its number runs it again
    died = Key(_flag)  # its process or its GPU ended it, not the trial itself
    stop_reason = Key(_text)  # of its last run: epochs, schedule, pruned, diverged
    best_epochs = Key(_epochs)  # of each run, from 0; None if the run's objective was never measured
    values_by_seed = Key(_rows)  # each run's objectives at its best epoch; with folds, one run per fold
    metrics = Key(lambda value: _mapping(value) or NOTHING)  # means over its runs, at their best epochs
    baseline = Key(_number)  # the held-out loss of predicting the mean; with folds, averaged over them
    curves = Key(_mapping)  # of its first run: for each metric of metrics.kept_curves, a value per epoch
    # What it has to do with other trials.
    retry_of = Key(_whole)  # the failed trial that it runs again
    attempt = Key(_count)  # how often its point was begun before, and died
    resume = Key(_texts)  # runs of the failed trial, in order: this trial goes on where they stopped
    same_as = Key(_whole)  # the earlier trial with the same point; this trial was not run, and counts nowhere

    def curve(self, metric: str) -> Sequence[Any]:
        """One of its curves, by epoch: numbers, or None where the metric was not measured. A curve that others wrote
        may contain anything."""
        found = (self.curves or NOTHING).get(metric)
        return found if isinstance(found, list) else ()

    def by_seed(self, i: int) -> list[float]:
        """Objective ``i`` of each seed that has one, as the mean over its folds. A seed that lacks some folds is left
        out."""
        values, folds = self.by_run(i), self.folds
        if folds == 1:
            return values
        ends = range(folds, len(values) + 1, folds)
        return [math.fsum(values[end - folds : end]) / folds for end in ends]

    def by_run(self, i: int) -> list[float]:
        """Objective ``i`` of each of its runs that has one."""
        return [values[i] for values in self.values_by_seed if len(values) > i]


class StudyRecord(Record):
    """What is kept with a study."""

    __slots__ = ()

    spec = Key(lambda value: _mapping(value) or NOTHING)  # what identifies it: plan.Plan.spec, the data's fingerprint
    code = Key(_text)  # the git commit when it was begun; None outside a repository
    own = Key(_text)  # the digest of the files in own/ then, empty for none; None in a study older than this key
    begun = Key(_count)  # number of changes of the defaults by then: config/earlier.py
    objectives = Key(_texts)  # the metrics that it optimizes, the leading one first
    n_trials = Key(_whole)  # the total that it ends with; None for as many as study.timeout allows
    tracking_uri = Key(_text)  # where its runs are stored, without values from the environment
    parent_run = Key(_text)  # the MLflow run above the runs of all its trials
    commands = Key(_texts)  # the commands that began it and went on with it, as they were typed, the newest last
    notes = Key(_text)  # the user's text about it
    tags = Key(_mapping_of_texts)  # the user's tags
    changes = Key(_texts)  # differences that study.allow_changed let pass since then, a line each
    enqueued = Key(_flag)  # all points of its finite space are in the queue
    seeds_used = Key(_wholes)  # that helped to choose the best here, or in the study whose best points these are
    chosen = Key(_chosen)  # another study's trials that are trained again, the best first; one per placebo
    ended_by = Key(_text)  # a line on what ended it before its trials were done; None if nothing did
    forgiven = Key(_count)  # failed trials below this number do not count as failures: the study was resumed

    removal_begun = Key(_flag)  # some of its runs may be gone: the removal was interrupted

    @property
    def space(self) -> Mapping[str, str]:
        """What is searched, in words."""
        return _mapping(self.spec.get("space")) or NOTHING

    @property
    def config(self) -> Mapping[str, Any]:
        """The settings that are not searched, flattened."""
        return _mapping(self.spec.get("config")) or NOTHING

    @property
    def seeds(self) -> Sequence[int]:
        """The seeds with which each point is trained; empty if the config's own seed is used."""
        return _wholes(self.spec.get("seeds"))

    @property
    def folds(self) -> int | None:
        """The number of folds of each point; None without folds."""
        return _whole(self.spec.get("folds"))

    @property
    def fold_window(self) -> str | None:
        """``expanding`` or ``rolling``; None without folds."""
        return _text(self.spec.get("fold_window"))

    @property
    def own_seed(self) -> Sequence[int]:
        """The seed of the config, as a sequence."""
        return _wholes([self.config.get("seed")])

    @property
    def data(self) -> str | None:
        """The fingerprint of its data; None if the data are searched too."""
        return _text(self.spec.get("data"))

    @property
    def best_of(self) -> str | None:
        """The study whose best points are trained here."""
        return _text(self.spec.get("best_of"))

    @property
    def placebo_of(self) -> str | None:
        """The study whose best point is trained here on surrogates of its data. No trial of a placebo study is
        chosen."""
        return _text(self.spec.get("placebo_of"))
