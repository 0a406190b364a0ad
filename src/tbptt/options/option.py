"""What an option of a group is: a class whose fields say what each key takes (``model=article``, ``optimizer=adam``).

A class that says ``options`` is the schema of these; so is one in a file of your own (docs/using.md).
"""

import importlib
import inspect
import pkgutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, ClassVar

from omegaconf import MISSING

from tbptt.options.takes import TEXT, Takes, one_of


def key(takes: Takes, default: Any = MISSING) -> Any:
    metadata = {"takes": takes}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def moved_key(name: str) -> Any:
    """A key that has another name now: what a file says of it is taken there (config/moved.py)."""
    return field(default=None, metadata={"moved": name})


# The schema of every option of every group: conf/GROUP/OPTION.yaml begins with schema/GROUP/OPTION.
GROUPS: dict[str, dict[str, type]] = {
    group: {} for group in ("data", "task", "model", "optimizer", "schedule", "study/sampler", "study/pruner")
}


CHOSEN = (*GROUPS, "figure", "cluster", "sweep")  # the groups that can be typed


OF_A_RUN = [group for group in GROUPS if not group.startswith("study/")]


@dataclass
class Option:
    """One option of a group of configs; a class with ``options`` is the schema of those.

    Attributes:
        needs: what a class has to define, beside its keys, to be an option of its group.
    """

    group: ClassVar[str]
    needs: ClassVar[tuple[str, ...]] = ()
    name: str = key(TEXT)

    def __init_subclass__(cls, options: Sequence[str] = ()) -> None:
        if options:
            if taken := [option for option in options if option in GROUPS[cls.group]]:
                raise ValueError(f"{cls.group}={taken[0]} is there already")
            if problem := cls.unfit():
                raise ValueError(f"{cls.group}={options[0]}: class {cls.__name__} {problem}")
            cls.__annotations__ = {"name": str, **inspect.get_annotations(cls)}
            cls.name = key(one_of(*options))
            GROUPS[cls.group] |= dict.fromkeys(options, cls)

    @classmethod
    def unfit(cls) -> str | None:
        """Why a class cannot be an option of its group; None where it can."""
        base = next(each for each in cls.__mro__ if "needs" in vars(each))
        lacks = [name for name in cls.needs if getattr(cls, name, None) is getattr(base, name, None)]
        return f"does not say {' and '.join(lacks)}" if lacks else None


@cache
def load_own() -> None:
    """Import the files in ``own/``, whose classes are options too. Raises ValueError with a line for one that fails."""
    from tbptt import own

    for module in pkgutil.iter_modules(own.__path__):
        try:
            importlib.import_module(f"tbptt.own.{module.name}")
        except Exception as error:
            raise ValueError(f"src/tbptt/own/{module.name}.py: {type(error).__name__}: {error}") from error
