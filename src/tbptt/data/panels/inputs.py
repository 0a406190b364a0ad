"""Other inputs of a step, beside the lags of its price: the forms that they can have."""

import difflib
from collections.abc import Callable, Sequence

import numpy as np

from tbptt.data.panels.columns import listed, resolved
from tbptt.data.prices import Prices


def parse_input(text: str, columns: Sequence[str]) -> tuple[str, str]:
    """``volume:log1p`` as the name of the column and the form; the form is ``level`` where none is said.

    A column whose name is the whole text comes first. A name may differ in case or angle brackets if only one does.

    Raises:
        ValueError: there is no such column or form; a line that goes on after the name of the source.
    """
    if (whole := resolved(text, columns)) is not None:
        return whole, "level"
    name, colon, form = text.rpartition(":")
    found = resolved(name, columns) if colon else None
    if found is None:
        asked = name if form in FORMS else text
        raise ValueError(f"has no column {asked}, which data.inputs names (it has: {listed(columns)})")
    if form not in FORMS:
        near = difflib.get_close_matches(form.lower(), FORMS, n=1, cutoff=0.8)
        meant = f"; did you mean {name}:{near[0]}?" if near else ""
        raise ValueError(f"has {name}, but data.inputs has no form {form!r}; takes {', '.join(FORMS)}{meant}")
    return found, form


def parse_inputs(texts: Sequence[str], columns: Sequence[str]) -> list[tuple[str, str]]:
    """:func:`parse_input` of each of several texts. Raises ValueError, too, if two of them are the same input."""
    found: dict[tuple[str, str], str] = {}
    for text in texts:
        parsed = parse_input(text, columns)
        if parsed in found:
            raise ValueError(
                f"has one input {':'.join(parsed)}, and data.inputs names it twice: {found[parsed]}, {text}"
            )
        found[parsed] = text
    return list(found)


def formed(form: str, values: Prices, prices: Prices) -> Prices:
    """The values of an input in a form, (N,); step i sees no value after i. NaN where one is missing.

    What a form cannot take (the logarithm of a negative number) becomes NaN or infinite: see :func:`unformed`.
    """
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        return FORMS[form](values, prices)


def unformed(form: str, values: Prices) -> int | None:
    """Where the first value is that is not finite or that the form cannot take; None if there is none."""
    wrong = np.isinf(values)
    if form == "log1p":
        wrong |= values < 0
    if form == "log_change":
        wrong |= values <= 0
    return int(wrong.argmax()) if wrong.any() else None


def _change(values: Prices) -> Prices:
    return np.diff(values, prepend=np.nan)


FORMS: dict[str, Callable[[Prices, Prices], Prices]] = {
    "level": lambda values, prices: values,
    "log1p": lambda values, prices: np.log1p(values),
    "change": lambda values, prices: _change(values),
    "log_change": lambda values, prices: _change(np.log(values)),
    "from_price": lambda values, prices: values - prices,
}
