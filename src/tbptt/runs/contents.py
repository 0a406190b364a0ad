"""Checks of a checkpoint's content before it is used.

A file from somebody else then takes no more memory than its size, and every part has the right type.
"""

import math
import pickletools
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tbptt.data.borders import are_borders
from tbptt.data.features import Scaler
from tbptt.system.memory import too_large
from tbptt.training.schedule import ChunkSchedule

# The names that the pickle of a checkpoint may call, besides plain types.
CALLED = {"torch._utils _rebuild_tensor_v2", "collections OrderedDict"} | {
    f"torch {kind}Storage"
    for kind in ("Float", "Double", "Half", "BFloat16", "Byte", "Char", "Bool", "Short", "Int", "Long")
}
DTYPES = (  # the same
    *(torch.float32, torch.float64, torch.float16, torch.bfloat16),
    *(torch.uint8, torch.int8, torch.bool, torch.int16, torch.int32, torch.int64),
)
DEEPEST = 50  # levels of lists and dicts
FLOATS = (torch.float32, torch.float64)
LEAVES = (str, int, float, type(None))  # and bool


def unreadable(path: Path) -> str | None:
    """The problem with a file, found before it is read: it is no archive, too large, or unpacks to more than its size.
    None if there is no problem."""
    size = path.stat().st_size
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
            if unpacked > size:  # tbptt compresses nothing
                return f"is not a checkpoint of tbptt: it has {size:,} bytes, and would unpack to {unpacked:,}"
            if problem := too_large(2 * size):
                return f"is too large: it {problem}"
            pickled = [entry for entry in archive.infolist() if entry.filename.lower().endswith("data.pkl")]
            strange = {name for entry in pickled for name in _strange(archive.read(entry))}
    except Exception as error:  # a damaged file can raise any error
        return f"is not a checkpoint of tbptt, or is damaged ({type(error).__name__})"
    return f"is not a checkpoint of tbptt: it would have {min(strange)!r} called" if strange else None


def _strange(pickled: bytes) -> Iterator[str]:
    """The calls in a pickle that no checkpoint of tbptt contains. The pickle is parsed, not run.

    torch allows more calls, and some of these could allocate any amount of memory.
    """
    for operation, argument, _ in pickletools.genops(pickled):
        if operation.name in ("STACK_GLOBAL", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "BUILD", "EXT1", "EXT2", "EXT4"):
            yield operation.name
        elif operation.name == "GLOBAL" and argument not in CALLED:
            yield str(argument)


def plain_copy(content: Any, size: int) -> Any:
    """A copy, in its own memory, of the content of a file of ``size`` bytes.

    Raises ValueError if the content holds anything but plain types and tensors, or if repeated parts make it larger
    than the file.
    """
    left = size

    def take(cost: int) -> None:
        nonlocal left
        left -= cost
        if left < 0:
            raise ValueError("it repeats itself to more than its size")

    def copied(value: Any, depth: int) -> Any:
        if depth > DEEPEST:
            raise ValueError(f"it is nested more than {DEEPEST} deep")
        if isinstance(value, Tensor):
            if type(value) is not Tensor or value.layout != torch.strided or value.device.type != "cpu":
                raise ValueError(f"it holds a tensor of another kind, {value.layout} on {value.device}")
            if value.is_quantized:
                raise ValueError(f"it holds a tensor of another kind, {value.dtype}")
            take(value.numel() * value.element_size())
            return value.detach().clone()
        take(1)
        if isinstance(value, dict):
            return {copied(k, depth + 1): copied(v, depth + 1) for k, v in value.items()}
        if isinstance(value, list | tuple):
            items = [copied(v, depth + 1) for v in value]
            return items if isinstance(value, list) else tuple(items)
        if not isinstance(value, LEAVES):
            raise ValueError(f"it holds a {type(value).__name__}")
        if isinstance(value, int) and abs(value) >= 2**63:
            raise ValueError("it holds a number of more than 64 bits")
        return value

    return copied(content, 0)


def why_not_plain(value: Any, depth: int = 0) -> str | None:
    """The reason why a value could be written to a checkpoint but not be read again; None if there is none."""
    if depth > DEEPEST:
        return f"it is nested more than {DEEPEST} deep"
    if isinstance(value, Tensor):
        is_known = type(value) is Tensor and value.layout == torch.strided and value.dtype in DTYPES
        return None if is_known else f"it holds a tensor of another kind, {type(value).__name__} of {value.dtype}"
    if type(value) in (dict, OrderedDict):
        return why_not_plain([*value, *value.values()], depth)
    if type(value) in (list, tuple):
        return next((why for part in value if (why := why_not_plain(part, depth + 1))), None)
    if type(value) not in (*LEAVES, bool):
        return f"it holds a {type(value).__name__}"
    return "it holds a number of more than 64 bits" if type(value) is int and abs(value) >= 2**63 else None


# --- types of what a run keeps ------------------------------------------------------------------------------------

Test = Callable[[Any], bool]


def is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def is_number(value: Any) -> bool:
    return type(value) in (int, float)


def is_time(value: Any) -> bool:
    """Seconds."""
    return is_number(value) and math.isfinite(value) and value >= 0


def or_none(test: Test) -> Test:
    return lambda value: value is None or test(value)


def is_text(value: Any) -> bool:
    return isinstance(value, str)


def is_bool(value: Any) -> bool:
    return isinstance(value, bool)


def all_are(test: Test) -> Test:
    """A test for a list or tuple whose items all pass ``test``."""
    return lambda value: isinstance(value, list | tuple) and all(map(test, value))


def each_is(test: Test) -> Test:
    """A test for a dict with texts as keys whose values all pass ``test``."""
    return lambda value: isinstance(value, dict) and all(map(is_text, value)) and all(map(test, value.values()))


def has(tests: Mapping[str, Test], optional: tuple[str, ...] = ()) -> Test:
    """A test for a dict with the keys of ``tests`` and no others, whose values pass these tests.

    The keys in ``optional`` may be missing.
    """

    def test(value: Any) -> bool:
        if not isinstance(value, dict) or not set(value) <= set(tests):
            return False
        return all(check(value[name]) if name in value else name in optional for name, check in tests.items())

    return test


def is_tensor(value: Any) -> bool:
    return isinstance(value, Tensor)


def is_vector(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dim() == 1 and value.dtype in FLOATS


EPOCH: dict[str, Test] = {
    "number": is_count,
    "time": is_count,
    "stage": is_count,
    "chunks": is_count,
    "metrics": each_is(is_number),
    "first_update": is_count,
    "losses": all_are(is_number),
    "norms": all_are(is_number),
    "clipped": all_are(lambda value: is_number(value) or is_bool(value)),
    "diverged_at": or_none(is_count),
    "stage_ended": is_bool,
    "last": is_bool,
}
PACKED: dict[str, Test] = {**EPOCH, **dict.fromkeys(("losses", "norms", "clipped"), is_vector)}  # see module.packed
SCHEDULE: dict[str, Test] = {
    "stages": lambda v: all_are(lambda n: is_count(n) and n > 0)(v) and len(v) > 0,
    "patience": or_none(is_count),
    "stage_epochs": or_none(is_count),
    "stage": is_count,
    "epochs_in_stage": is_count,
    "epochs_without_best": is_count,
    "best": is_number,
    "done": is_bool,
}


def is_schedule(value: Any) -> bool:
    """The state of a :class:`tbptt.training.schedule.ChunkSchedule`."""
    optional = tuple(f.name for f in fields(ChunkSchedule) if f.default is not MISSING)
    return has(SCHEDULE, optional)(value) and value.get("stage", 0) < len(value["stages"])


def is_scaler(value: Any) -> bool:
    """The fields of a :class:`tbptt.data.features.Scaler`, with shapes that fit together."""
    tests: dict[str, Test] = {f.name: is_vector for f in fields(Scaler)}
    tests["fee"] = or_none(is_vector)
    tests["target_mean"] = lambda v: is_tensor(v) and v.dim() == 2 and v.shape[1] > 0
    tests["target_std"] = lambda v: is_tensor(v) and v.dim() in (1, 2) and v.dtype in FLOATS
    tests["mixing"] = or_none(lambda v: is_tensor(v) and v.dim() == 2 and v.dtype in FLOATS)
    extra = ("extra_mean", "extra_std")
    tests |= dict.fromkeys(extra, or_none(lambda v: is_tensor(v) and v.dim() == 2 and v.dtype in FLOATS))
    if not has(tests, ("fee", "mixing", *extra))(value):
        return False
    if len({None if (each := value.get(name)) is None else each.shape for name in extra}) > 1:
        return False
    mean, std, mixing = value["target_mean"], value["target_std"], value.get("mixing")
    if mixing is not None and tuple(mixing.shape) != (mean.shape[1], mean.shape[1]):
        return False
    if std.dim() == 2 and std.shape != mean.shape:
        return False
    return len({len(each) for name, each in value.items() if name != "mixing" and each is not None}) == 1


def is_optimizer(value: Any) -> bool:
    """The state from ``optimizer_state``: the values kept for each parameter, by number; the one vector is number 0."""
    state = value.get("state") if isinstance(value, dict) else None
    if not isinstance(state, dict) or not all(map(is_count, state)):
        return False
    if not all_are(lambda group: isinstance(group, dict))(value.get("param_groups", [])):
        return False
    return all(each_is(is_kept)(of_one) for of_one in state.values())


def is_kept(value: Any) -> bool:
    """The values that an optimizer, also one of your own, may keep for its parameters."""
    if isinstance(value, list | tuple):
        return all(map(is_kept, value))
    return value is None or isinstance(value, bool | str) or is_number(value) or is_tensor(value)


def is_plain(value: Any) -> bool:
    """Tensors, numbers, texts, and lists and dicts of them."""
    if isinstance(value, dict):
        return all(isinstance(k, LEAVES) for k in value) and all(map(is_plain, value.values()))
    return is_kept(value) if not isinstance(value, list | tuple) else all(map(is_plain, value))


def is_best(value: Any) -> bool:
    """The fields of a ``train.Best``: a value for each objective, or none yet."""
    tests = {
        "objectives": all_are(is_text),
        "epoch": or_none(is_count),
        "values": all_are(is_number),
    }
    if not has(tests)(value) or not value["objectives"]:
        return False
    return len(value["values"]) == (0 if value["epoch"] is None else len(value["objectives"]))


def is_random(value: Any) -> bool:
    """States of random number generators, by device."""
    if not each_is(lambda v: is_tensor(v) and v.dtype == torch.uint8 and v.dim() == 1)(value):
        return False
    return "cpu" in value and value["cpu"].shape == torch.get_rng_state().shape


# The parts that a run's checkpoint must have, so that the run can be resumed or its network be used.
OF_A_RUN: dict[str, Test] = {
    "config": lambda value: isinstance(value, dict) and all(map(is_text, value)),
    "scaler": is_scaler,
    "best": is_best,
    "stop_reason": or_none(is_text),
    "record": has(EPOCH),
    "epoch": is_count,
    "updates": is_count,
    "train_seconds": is_time,
    "model": each_is(is_tensor),
    "optimizer": is_optimizer,
    "schedule": is_schedule,
    "random": is_random,
}
# The parts that predicting takes. A model in MLflow has these, those below that its run has, and no others: it is a
# run's checkpoint of its best epoch without what only training needs.
OF_A_MODEL: dict[str, Test] = {name: OF_A_RUN[name] for name in ("config", "scaler", "best", "epoch", "model")}
IF_THERE: dict[str, Test] = {
    "records": all_are(has(PACKED)),
    "callbacks": each_is(is_plain),
    "series": or_none(all_are(is_text)),
    "change_std": is_vector,
    "borders": are_borders,
    "lr_schedule": each_is(is_plain),
    "rates": all_are(is_time),
}
FOR_PREDICTING = ("series", "change_std", "borders")  # of these, what predicting takes too
