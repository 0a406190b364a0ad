"""What an option of a group is: a class whose fields say what each key takes (``model=article``, ``optimizer=adam``).

A class that says ``options`` is the schema of these; so is one in a file of your own (own.py, docs/using.md).
"""

import inspect
import re
import sys
from collections.abc import Sequence
from dataclasses import Field, dataclass, field, fields, is_dataclass
from typing import Any, ClassVar

from omegaconf import MISSING

from tbptt.options.own import TABLES
from tbptt.options.takes import TEXT, Takes, one_of


def key(takes: Takes, default: Any = MISSING, *, new: bool = False, beside_method: bool = False) -> Any:
    """A key of an option's class.

    Args:
        takes: what it takes, in words and as a test.
        default: what configs that do not say it have; say it in the yaml too, where users read it.
        new: whether studies may have begun before there was this key. While it is at its default, which has to be what
            was done before, it then stays out of what tells a study from another, and the same command goes on with
            the same study. Never take it away again, and never change the default of such a key.
        beside_method: whether the base class has a method of this name, which it calls as the class's: the class keeps
            that, and only its instances have the value. It has a default.
    """
    metadata = {"takes": takes, "new": new, "beside_method": beside_method}
    if beside_method:  # dataclasses leave no attribute in the class where a factory gives the default
        return field(default_factory=lambda: default, metadata=metadata)
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def moved_key(name: str, default: Any) -> Any:
    """A key that has another name now (config/moved.py); under its old one a file says the default of the new one."""
    return field(default=default, metadata={"moved": name})


# The schema of every option of every group: conf/GROUP/OPTION.yaml begins with schema/GROUP/OPTION.
GROUPS: dict[str, dict[str, type]] = {
    group: {}
    for group in ("data", "task", "model", "optimizer", "schedule", "callback", "study/sampler", "study/pruner")
}
TABLES.extend(GROUPS.values())


CHOSEN = (*GROUPS, "figure", "cluster", "sweep")  # the groups that can be typed


OF_A_RUN = [group for group in GROUPS if not group.startswith("study/")]


@dataclass
class Option:
    """One option of a group of configs; a class with ``options`` is the schema of those.

    Attributes:
        needs: what a class has to define, beside its keys, to be an option of its group.
        reads_its_keys: whether the class itself reads its keys, so that one that it never names is a mistake.

    With ``new`` the group is newer than some studies, and the first of these options is what was done before there was
    the group: that choice of it stays out of what tells a study from another, see :func:`key`.
    """

    group: ClassVar[str]
    needs: ClassVar[tuple[str, ...]] = ()
    reads_its_keys: ClassVar[bool] = False
    name: str = key(TEXT)

    def __init_subclass__(cls, options: Sequence[str] = (), new: bool = False) -> None:
        if options:
            if taken := [option for option in options if option in GROUPS[cls.group]]:
                raise ValueError(f"{cls.group}={taken[0]} is there already")
            if problem := cls.unfit():
                raise ValueError(f"{cls.group}={options[0]}: class {cls.__name__} {problem}")
            cls.__annotations__ = {"name": str, **inspect.get_annotations(cls)}
            cls.name = key(one_of(*options), options[0] if new else MISSING, new=new)
            GROUPS[cls.group] |= dict.fromkeys(options, cls)

    @classmethod
    def unfit(cls) -> str | None:
        """Why a class cannot be an option of its group; None where it can."""
        base = next(each for each in cls.__mro__ if "needs" in vars(each))
        if lacks := [name for name in cls.needs if getattr(cls, name, None) is getattr(base, name, None)]:
            return f"does not say {' and '.join(lacks)}"
        own = [name for name, value in vars(cls).items() if isinstance(value, Field) and name not in cls.needs]
        for name in own:  # it would take the place of what the base class has by that name
            beside = vars(cls)[name].metadata.get("beside_method")
            if not beside and any(name in vars(each) and name not in _keys(each) for each in cls.__mro__[1:]):
                return f"has a key {name}, which is the name of something that {base.__name__} has; takes another name"
        if cls.reads_its_keys and (unread := [name for name in own if not _is_read(name, cls)]):
            return f"has a key {unread[0]} that nothing in its file reads, which would change nothing"
        return None


def _is_read(name: str, cls: type) -> bool:
    """Whether the file of a class reads an attribute of this name, or all of them at once."""
    try:
        source = inspect.getsource(sys.modules[cls.__module__])
    except (OSError, TypeError, KeyError):  # typed into an interpreter
        return True
    at_once = ("vars(self)", "asdict(self", "fields(self", "self.__dict__", "getattr(self")
    return bool(re.search(rf"\.{name}\b", source)) or any(word in source for word in at_once)


def _keys(cls: type) -> set[str]:
    return {f.name for f in fields(cls)} if is_dataclass(cls) else set()
