"""What a study searches: dimensions, their values, the points of a finite space. Knows no Optuna and no Hydra."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from tbptt.options.values import Value, text_of


class Suggests(Protocol):
    """The part of an Optuna trial that is needed here."""

    def suggest_categorical(self, name: str, choices: Sequence[Value]) -> Any: ...
    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int: ...
    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float: ...


@dataclass(frozen=True)
class Dimension(ABC):
    """One swept key.

    Attributes:
        key: as in an override: a dotted key, or a group.
        name: the parameter's name in the study: the key, unless several dimensions share that key.
        when: the (group, option) pairs under which it exists.
    """

    key: str
    name: str
    when: tuple[tuple[str, str], ...]

    def active(self, chosen: Mapping[str, Value]) -> bool:
        """Whether the dimension exists, given the values chosen so far."""
        return all(chosen.get(group) == option for group, option in self.when)

    @abstractmethod
    def values(self) -> Sequence[Value] | None:
        """All values, in order; None if there are too many to count."""

    @abstractmethod
    def suggest(self, trial: Suggests) -> Value:
        """Let the study choose."""

    @abstractmethod
    def describe(self) -> str:
        """The dimension in words, the same for the same values. Digests and people compare these words."""


@dataclass(frozen=True)
class Choice(Dimension):
    choices: tuple[Value, ...]

    def values(self) -> Sequence[Value]:
        return self.choices

    def suggest(self, trial: Suggests) -> Value:
        # Sorted, however they were typed: to Optuna, another order is another parameter.
        value: Value = trial.suggest_categorical(self.name, sorted(self.choices, key=text_of))
        return value

    def describe(self) -> str:
        return "choice(" + ", ".join(sorted(map(text_of, self.choices))) + ")"


@dataclass(frozen=True)
class IntRange(Dimension):
    low: int
    high: int
    step: int = 1
    log: bool = False

    def values(self) -> Sequence[Value]:
        return range(self.low, self.high + 1, self.step)

    def suggest(self, trial: Suggests) -> Value:
        return trial.suggest_int(self.name, self.low, self.high, step=self.step, log=self.log)

    def describe(self) -> str:
        step = f" in steps of {self.step}" if self.step != 1 else ""
        return f"whole numbers {self.low} to {self.high}{step}{', log' if self.log else ''}"


@dataclass(frozen=True)
class Interval(Dimension):
    low: float
    high: float
    log: bool = False

    def values(self) -> None:
        return None

    def suggest(self, trial: Suggests) -> Value:
        return trial.suggest_float(self.name, self.low, self.high, log=self.log)

    def describe(self) -> str:
        return f"interval({self.low:g}, {self.high:g}){', log' if self.log else ''}"


@dataclass(frozen=True)
class Space:
    """All dimensions; a group comes before the dimensions that exist only under one of its options."""

    dimensions: tuple[Dimension, ...]

    def size(self) -> int | None:
        """The number of points; None for a space that is not finite. The count goes through the options of groups on
        which other dimensions depend, not through the points."""
        if any(d.values() is None for d in self.dimensions):
            return None
        return self._count(self.dimensions, {}, {group for d in self.dimensions for group, _ in d.when})

    def _count(self, rest: tuple[Dimension, ...], chosen: dict[str, Value], groups: set[str]) -> int:
        if not rest:
            return 1
        first, *others = rest
        if not first.active(chosen):
            return self._count(tuple(others), chosen, groups)
        values = first.values() or ()
        if first.key not in groups:
            return len(values) * self._count(tuple(others), chosen, groups)
        return sum(self._count(tuple(others), {**chosen, first.key: value}, groups) for value in values)

    def points(self) -> Iterator[dict[str, Value]]:
        """Every point of a finite space as {name: value}, the last dimension varying fastest."""
        yield from self._points(self.dimensions, {})

    def _points(self, rest: tuple[Dimension, ...], chosen: dict[str, Value]) -> Iterator[dict[str, Value]]:
        if not rest:
            yield {}
            return
        first, *others = rest
        if not first.active(chosen):
            yield from self._points(tuple(others), chosen)
            return
        values = first.values()
        assert values is not None, "an interval has no points"
        for value in values:
            for point in self._points(tuple(others), {**chosen, first.key: value}):
                yield {first.name: value, **point}

    def suggest(self, trial: Suggests) -> dict[str, Value]:
        """Let the study choose a point: {name: value} of the dimensions that exist there."""
        chosen: dict[str, Value] = {}
        point: dict[str, Value] = {}
        for d in self.dimensions:
            if d.active(chosen):
                point[d.name] = chosen[d.key] = d.suggest(trial)
        return point

    def overrides(self, point: Mapping[str, Value]) -> list[str]:
        """A point as Hydra overrides."""
        return [f"{d.key}={text_of(point[d.name])}" for d in self.dimensions if d.name in point]

    def describe(self) -> dict[str, str]:
        """Each dimension in words; equal for equal spaces."""
        return {
            d.name + "".join(f" [{group}={option}]" for group, option in d.when): d.describe() for d in self.dimensions
        }


def named(keys: Sequence[tuple[str, tuple[tuple[str, str], ...]]]) -> list[str]:
    """Parameter names: the key itself, or the key with its condition if several dimensions share it."""
    counts = {key: sum(1 for other, _ in keys if other == key) for key, _ in keys}
    return [key if counts[key] == 1 else f"{key}@{'+'.join(option for _, option in when)}" for key, when in keys]
