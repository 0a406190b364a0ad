"""What this project keeps with a trial and with a study: Optuna's user attributes, each named and explained here only.

A key's name is the one in Optuna's storage, where studies of earlier versions have it and optuna-dashboard shows it, so
it never changes. Anybody can write into a storage, and earlier versions wrote less: what is not there, or is of another
kind than it should be, reads as if it had never been written.
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
    """A trial or a study, or a summary of one, of Optuna's."""

    @property
    def user_attrs(self) -> dict[str, Any]: ...


class TakesAttributes(Protocol):
    """A trial or a study that is in a storage. Optuna's FrozenTrial is not: it would keep an attribute to itself."""

    def set_user_attr(self, key: str, value: Any) -> None: ...


class Key(Generic[T]):
    """One attribute: ``TrialRecord.of(trial).reason`` reads it, ``TrialRecord.reason.write(trial, text)`` writes it.

    Args:
        read: makes what it means of what is stored; takes None where nothing is.
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
        """Keep a value, which goes through JSON."""
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


def _list_of(is_item: Callable[[Any], bool]) -> Callable[[Any], Sequence[Any]]:
    """Reads a list of such items; empty where any is another."""
    return lambda value: value if isinstance(value, list) and all(map(is_item, value)) else ()


_texts: Callable[[Any], Sequence[str]] = _list_of(lambda item: isinstance(item, str))
_wholes: Callable[[Any], Sequence[int]] = _list_of(_is_whole)
_epochs: Callable[[Any], Sequence[int | None]] = _list_of(lambda item: item is None or _is_whole(item))
_rows: Callable[[Any], Sequence[Sequence[float]]] = _list_of(
    lambda row: isinstance(row, list) and all(map(is_number, row))
)


@dataclass(frozen=True)
class HowFar:
    """Where a running trial is.

    Attributes:
        seed, seeds: which of its seeds it is at, from 1, and how many they are.
        epoch, epochs: of this run.
        held_out: the newest held-out loss; None where none was measured.
        seconds_left: of the trial.
        fold, folds: which fold of this seed it is at, from 1, and how many they are.
    """

    seed: int
    seeds: int
    epoch: int
    epochs: int
    held_out: float | None
    seconds_left: float
    fold: int = 1
    folds: int = 1


def _how_far(value: Any) -> HowFar | None:
    if not isinstance(value, dict):
        return None
    counts = [_whole(value.get(name)) for name in ("seed", "seeds", "epoch", "epochs")]
    left = _number(value.get("seconds_left"))
    if None in counts or left is None:
        return None
    seed, seeds, epoch, epochs = map(_count, counts)
    fold, folds = (_whole(value.get(name)) or 1 for name in ("fold", "folds"))
    return HowFar(seed, seeds, epoch, epochs, _number(value.get("held_out")), left, fold, folds)


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
    """Attributes as they are stored, read by the keys of a subclass. Nothing is checked before it is read: of 10^5
    trials a report reads each once."""

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
    worker = Key(_mapping)  # the process that runs it: liveness.holding, on a server liveness.identity
    progress = Key(_how_far)  # every few seconds, as the fields of HowFar: trial_progress.py
    run_ids = Key(_texts)  # its MLflow runs, one a seed, of folds one a fold of each; each as soon as it has begun
    folds = Key(lambda value: max(_count(value), 1))  # of each seed, in the order of time: folds.py
    # How it ended.
    reason = Key(_text)  # why it failed, in a line
    requeued = Key(_flag)  # it failed, and is run again: as a trial whose retry_of is its number
    died = Key(_flag)  # it ended with its process, or by its GPU, and not by itself
    stop_reason = Key(_text)  # of its last run: epochs, schedule, pruned, diverged
    best_epochs = Key(_epochs)  # of each run, from 0; None for one whose objective was never measured
    values_by_seed = Key(_rows)  # of each run, also of each fold, its objectives at its best epoch
    metrics = Key(lambda value: _mapping(value) or NOTHING)  # of its runs at their best epochs, the mean
    baseline = Key(_number)  # the held-out loss of predicting the mean; of folds their mean
    curves = Key(_mapping)  # of its first run, by metric, those of metrics.kept_curves: a value an epoch
    # What it has to do with other trials.
    retry_of = Key(_whole)  # the failed trial that it runs again
    attempt = Key(_count)  # how often its point was begun before, and died
    resume = Key(_texts)  # runs of the trial that it runs again, in their order: it goes on where they stopped
    same_as = Key(_whole)  # the earlier trial that had the same point; this one was not run, and counts nowhere

    def curve(self, metric: str) -> Sequence[Any]:
        """One of its curves, by epoch: numbers, or None where the metric was not measured; of others' making,
        anything."""
        found = (self.curves or NOTHING).get(metric)
        return found if isinstance(found, list) else ()

    def by_seed(self, i: int) -> list[float]:
        """Objective ``i`` of each seed that has one, the mean over its folds; not of a seed that lacks some of them."""
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

    spec = Key(lambda value: _mapping(value) or NOTHING)  # what makes it this study: plan.Plan.spec, data's fingerprint
    code = Key(_text)  # git's commit when it was begun; None outside a repository
    own = Key(_text)  # the digest of the files in own/ then, empty for none; None of a study that is older than this
    begun = Key(_count)  # how many changes of the defaults there were then: config/earlier.py
    objectives = Key(_texts)  # the metrics that it makes best, the first leads
    n_trials = Key(_whole)  # the total that it ends with; None for as many as study.timeout allows
    tracking_uri = Key(_text)  # where its runs are, without what came from the environment
    parent_run = Key(_text)  # the MLflow run above all of its trials'
    changes = Key(_texts)  # what study.allow_changed let differ since it was begun, a line each
    enqueued = Key(_flag)  # all points of its finite space are in the queue
    seeds_used = Key(_wholes)  # that had a part in what is best here, also in the study whose best these are
    chosen = Key(_chosen)  # of a study of the best of another: which, the best first; of placebos what each trains
    ended_by = Key(_text)  # the line that says what ended it before its trials were done; None where nothing did
    forgiven = Key(_count)  # trials below this number that failed do not count as failures: the study was resumed

    @property
    def space(self) -> Mapping[str, str]:
        """What is searched, in words."""
        return _mapping(self.spec.get("space")) or NOTHING

    @property
    def config(self) -> Mapping[str, Any]:
        """What is not searched, flattened."""
        return _mapping(self.spec.get("config")) or NOTHING

    @property
    def seeds(self) -> Sequence[int]:
        """With which each point is trained; empty for the config's own."""
        return _wholes(self.spec.get("seeds"))

    @property
    def folds(self) -> int | None:
        """In how many folds each point is trained; None for none."""
        return _whole(self.spec.get("folds"))

    @property
    def fold_window(self) -> str | None:
        """``expanding`` or ``rolling``; None where there are no folds."""
        return _text(self.spec.get("fold_window"))

    @property
    def own_seed(self) -> Sequence[int]:
        """The config's."""
        return _wholes([self.config.get("seed")])

    @property
    def data(self) -> str | None:
        """The fingerprint of its data; None where they are searched too."""
        return _text(self.spec.get("data"))

    @property
    def best_of(self) -> str | None:
        """The study whose best these are."""
        return _text(self.spec.get("best_of"))

    @property
    def placebo_of(self) -> str | None:
        """The study whose best point is trained here on surrogates of its data: no trial of this one is chosen."""
        return _text(self.spec.get("placebo_of"))
