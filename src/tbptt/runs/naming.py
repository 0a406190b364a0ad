"""Names of runs that a list tells apart at a glance: ``#15 rmsprop clip 1.6 s1``.

MLflow's list shows about 30 characters of a name, so what differs between runs comes first, in a short form.
"""

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from tbptt.options.option import CHOSEN
from tbptt.options.values import Value, shortened, text_of

SHOWN = 30  # characters of a name that MLflow's list shows
_SHORTEST_WORD = 3
_DIGITS = 3  # of a number that is not one of a few
_LONGEST = 16  # characters of a value that was typed for a run of its own
# Typed keys that say nothing of what is trained, or are said anyway.
_UNSAID = (
    *("notes", "tags", "tracking", "study", "study/sampler", "study/pruner", "device", "threads", "kernels", "hydra"),
    *("cuda_graphs", "segment_length", "segment_memory", "progress", "resume", "sweep", "figure", "cluster", "seed"),
    "space",
)


def trial_name(
    number: int,
    point: Mapping[str, Value],
    choices: Mapping[str, Sequence[Value]] = {},
    seed: int | None = None,
    fold: str | None = None,
) -> str:
    """The name of a trial's run.

    The first 30 characters are never those of another run of the study: they have the trial's number, its seed and its
    fold.

    Args:
        number: of the trial.
        point: its values by key, in the order of the space.
        choices: all values of a key that takes one of a few. Such values are shortened no more than they stay
            different, and a key that has only one value is left out if there is no room.
        seed: None if all trials have the same one.
        fold: as in ``data.fold``: ``2/4``.
    """
    which = _which(seed, fold)
    for short in _forms(point, choices):
        name = " ".join([f"#{number}", *short, *which])
        if len(name) <= SHOWN:
            return name
    return " ".join([f"#{number}", *which, *short])  # the list cuts the end


def single_name(typed: Sequence[tuple[str, Value]], optimizer: str, clip: float | None, seed: int) -> str:
    """The name of a run of its own: the optimizer, what was typed, as far as there is room, the clip value and the
    seed.

    Args:
        typed: the keys and groups that were typed, with their values.
    """
    said = {key: value for key, value in typed if key.split(".")[0] not in _UNSAID}
    said = {"optimizer": optimizer, **said}
    said = {key: said[key] for key in sorted(said, key=lambda key: key not in CHOSEN)}
    whole = _as_far_as(SHOWN, {**said, "clip": said.get("clip", clip)}, seed)
    return whole if "…" not in whole else _as_far_as(SHOWN, said, seed)


def _as_far_as(most: int, said: Mapping[str, Value], seed: int) -> str:
    """The first of these keys and values, and the seed, in at most so many characters. ``…`` stands for the others."""
    words, name = last_words(said), ""
    for i, (key, value) in enumerate(said.items()):
        longer = " ".join(filter(None, (name, words[key], _value(value, (), _LONGEST))))
        end = f"s{seed}" if i == len(said) - 1 else f"… s{seed}"
        if len(f"{longer} {end}") > most:
            return f"{name} … s{seed}".strip()
        name = longer
    return f"{name} s{seed}"


def _which(seed: int | None, fold: str | None) -> list[str]:
    return [*([] if seed is None else [f"s{seed}"]), *([f"f{fold.split('/')[0]}"] if fold else [])]


def _forms(point: Mapping[str, Value], choices: Mapping[str, Sequence[Value]]) -> list[list[str]]:
    """The words of a point, from the longest form to the shortest."""
    words = last_words(point)
    changing = {key: value for key, value in point.items() if len(choices.get(key, ())) != 1}

    def said(point: Mapping[str, Value], word: Callable[[str], str], most: int) -> list[str]:
        return [
            " ".join(filter(None, (word(key), _value(value, choices.get(key, ()), most))))
            for key, value in point.items()
        ]

    spelled: list[tuple[Callable[[str], str], tuple[int, ...]]] = [
        (words.__getitem__, (24, 16, 10)),
        (lambda key: words[key][:_SHORTEST_WORD], (24, 16, 10, 6)),
        (lambda key: "", (24, 16, 10, 6, 4)),
    ]
    forms = [said(changing, word, most) for word, lengths in spelled for most in lengths]
    return [said(point, words.__getitem__, SHOWN), *forms]


def last_words(keys: Collection[str]) -> dict[str, str]:
    """Keys in short: their last word, with the one before it where several keys have the same. A group's value says
    enough, so its word is empty."""
    last = {key: key.rpartition(".")[2] for key in keys if key not in CHOSEN}
    return {
        key: "" if key in CHOSEN else last[key] if list(last.values()).count(last[key]) == 1 else key for key in keys
    }


def _value(value: Value, choices: Sequence[Value], most: int) -> str:
    """A value of at most ``most`` characters, or more where it would be the same as another of its choices. A number is
    not cut: it has as many digits as it takes to tell it from the others."""
    if isinstance(value, float):
        numbers = [float(other) for other in choices if isinstance(other, int | float) and other != value]
        spelled = ((_number(value, digits), digits) for digits in range(_DIGITS, 18))
        own = (text for text, digits in spelled if text not in {_number(other, digits) for other in numbers})
        return next(own, repr(value))
    text = _text(value)
    others = [_text(other) for other in choices if other != value]
    if "/" in text and _file(text) not in map(_file, others):
        text, others = _file(text), list(map(_file, others))
    if len(text) <= most or not isinstance(value, str):
        return text
    for length in range(most, len(text)):
        if (found := shortened(text, length)) not in {shortened(other, length) for other in others}:
            return found
        if (found := _end(text, length)) not in {_end(other, length) for other in others}:
            return found
    return text


def _file(text: str) -> str:
    return text.rstrip("/").rpartition("/")[2]


def _end(text: str, most: int) -> str:
    return text if len(text) <= most else "…" + text[1 - most :]


def _text(value: Value) -> str:
    """A stored value without what only a config needs: brackets, quotes, spaces."""
    if isinstance(value, str) and value.startswith("["):
        try:
            items = json.loads(value)
        except ValueError:
            return value
        return ",".join(map(_item, items))
    return value if isinstance(value, str) else text_of(value)


def _item(value: Any) -> str:
    return _number(value, 6) if isinstance(value, float) else value if isinstance(value, str) else json.dumps(value)


def _number(value: float, digits: int) -> str:
    """A number in the shorter of its two spellings: ``1.6``, ``3e-4``."""
    plain = f"{value:.{digits}g}"
    mantissa, _, exponent = f"{value:.{digits - 1}e}".partition("e")
    if not exponent:  # inf, nan
        return plain
    if "." in mantissa:
        mantissa = mantissa.rstrip("0").rstrip(".")
    power = f"{mantissa}e{int(exponent)}"
    return power if len(power) < len(plain) or "e" in plain else plain
