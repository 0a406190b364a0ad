"""Other inputs of a step, beside the lags of its price: the forms that they can have."""

from collections.abc import Callable

import numpy as np

from tbptt.data.prices import Prices


def parse_input(text: str, columns: "list[str]") -> tuple[str, str]:
    """``volume:log1p`` as the name of the column and the form; the form is ``level`` where none is said.

    A column whose name is the whole text comes first. Raises ValueError for a form or a column that is not there.
    """
    if text in columns:
        return text, "level"
    name, _, form = text.rpartition(":")
    raise NotImplementedError((name, form))


def formed(form: str, values: Prices, prices: Prices) -> Prices:
    """The values of an input in a form, (N,); step i sees no value after i. NaN where one is missing."""
    return FORMS[form](values, prices)


def _change(values: Prices) -> Prices:
    return np.diff(values, prepend=np.nan)


FORMS: dict[str, Callable[[Prices, Prices], Prices]] = {
    "level": lambda values, prices: values,
    "log1p": lambda values, prices: np.log1p(values),
    "change": lambda values, prices: _change(values),
    "log_change": lambda values, prices: _change(np.log(values)),
    "from_price": lambda values, prices: values - prices,
}
