"""Options of a group, such as ``model=article`` or ``optimizer=adam``. A class declares an option's keys as fields.

A class with ``options=[…]`` is the schema of the options with these names. A class in a file of your own works the same
way (own.py, docs/using.md).
"""

import dataclasses
import inspect
import re
import sys
from collections.abc import Sequence
from copy import copy
from dataclasses import Field, dataclass, field, fields, is_dataclass
from typing import Any, ClassVar

from omegaconf import MISSING

from tbptt.options.own import TABLES
from tbptt.options.takes import TEXT, Takes, one_of


def key(takes: Takes, default: Any = MISSING, *, new: bool = False, beside_method: bool = False) -> Any:
    """Declare a key of an option's class.

    Args:
        takes: the values that the key takes, in words and as a test.
        default: its value in configs that do not set it. Set it in the yaml too, where users read it. If a shipped yaml
            has another value for a new key, add that to the table in config/earlier.py.
        new: whether studies may be older than this key. The default must then be what the program did before there was
            the key. A new key at its default is left out of a study's digest, so that the same command goes on with the
            same study. Never remove ``new=True`` later, and never change the default of such a key.
        beside_method: whether the base class has a method of this name, which it calls on the class. The class keeps
            the method, and only its instances have the value. Such a key has a default.
    """
    metadata = {"takes": takes, "new": new, "beside_method": beside_method}
    if beside_method:  # dataclasses leave no attribute in the class where a factory gives the default
        return field(default_factory=lambda: default, metadata=metadata)
    if isinstance(default, list | dict):
        return field(default_factory=lambda: copy(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def default_of(field: Field[Any]) -> Any:
    """The default of a key."""
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def moved_key(name: str, default: Any) -> Any:
    """Declare the old name of a renamed key (config/moved.py). A yaml that sets it sets the new key's default."""
    return field(default=default, metadata={"moved": name})


# The schema of every option of every group: conf/GROUP/OPTION.yaml begins with schema/GROUP/OPTION.
GROUPS: dict[str, dict[str, type]] = {
    group: {}
    for group in (
        *("data", "task", "model", "optimizer", "lr_schedule", "schedule", "callback"),
        *("study/sampler", "study/pruner"),
    )
}
TABLES.extend(GROUPS.values())


CHOSEN = (*GROUPS, "figure", "cluster", "sweep")  # the groups that can be typed


OF_A_RUN = [group for group in GROUPS if not group.startswith("study/")]


@dataclass
class Option:
    """The base of all options. A subclass with ``options=[…]`` is the schema of the options with these names.

    Attributes:
        needs: the attributes that a subclass must define, besides its keys, to be an option of its group.
        reads_its_keys: whether the class itself must read its keys. Then a key that its file never reads is an error.

    ``new=True`` says that some studies are older than the group. The first of ``options`` must then be what the program
    did before there was the group. This choice is left out of a study's digest; see :func:`key`.
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
        """Why a class cannot be an option of its group; None if it can."""
        base = next(each for each in cls.__mro__ if "needs" in vars(each))
        if lacks := [name for name in cls.needs if getattr(cls, name, None) is getattr(base, name, None)]:
            return f"does not define {' and '.join(lacks)}"
        own = [name for name, value in vars(cls).items() if isinstance(value, Field) and name not in cls.needs]
        for name in own:  # a key must not replace an attribute of the base class
            beside = vars(cls)[name].metadata.get("beside_method")
            if not beside and any(name in vars(each) and name not in _keys(each) for each in cls.__mro__[1:]):
                return f"has a key {name}, which is the name of something that {base.__name__} has; takes another name"
        if cls.reads_its_keys and (unread := [name for name in own if not _is_read(name, cls)]):
            return f"has a key {unread[0]} that nothing in its file reads: setting it would change nothing"
        return None


def _is_read(name: str, cls: type) -> bool:
    """Whether the file of a class reads an attribute of this name, or all attributes at once."""
    try:
        source = inspect.getsource(sys.modules[cls.__module__])
    except (OSError, TypeError, KeyError):  # the class was typed into an interpreter
        return True
    at_once = ("vars(self)", "asdict(self", "fields(self", "self.__dict__", "getattr(self")
    return bool(re.search(rf"\.{name}\b", source)) or any(word in source for word in at_once)


def _keys(cls: type) -> set[str]:
    return {f.name for f in fields(cls)} if is_dataclass(cls) else set()
