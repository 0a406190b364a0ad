"""Tables with a series a row: their columns are the steps, not the series."""

import re
from collections.abc import Sequence

MONTH = r"(?:0?[1-9]|1[0-2])"
DAY = r"(?:0?[1-9]|[12]\d|3[01])"
YEAR = r"(?:1[789]|2[01])\d\d"
NAMED = "(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec|mär|mai|okt|dez)[a-zä]*"
PERIOD = re.compile(
    rf"{YEAR}(?:[-/. ]?{MONTH}(?:[-/. ]?{DAY})?)?(?:[T ][\d:.]+)?Z?|{DAY}[-/.]{MONTH}[-/.](?:{YEAR}|\d\d)|"
    rf"{MONTH}[-/]{DAY}[-/]{YEAR}|{YEAR}[- ]?[QWM]\d{{1,2}}|[QWM]\d{{1,2}}[- ]?{YEAR}|"
    rf"(?:{DAY}[-. ])?{NAMED}[-. ](?:{YEAR}|\d\d)|{YEAR}[- ]{NAMED}|{YEAR} ?\[YR{YEAR}\]",
    re.IGNORECASE,
)
FEW = 10  # numbered columns from which on they may be steps


def transposed(numbers: Sequence[str], texts: Sequence[Sequence[str]]) -> str | None:
    """In words, why a table without times seems to have a series a row; None if it does not.

    Args:
        numbers: the names of the columns of numbers.
        texts: the cells of each column of texts.
    """
    dates = [name for name in numbers if PERIOD.fullmatch(name.strip().lower().removeprefix("x"))]
    if len(dates) > 2 and 2 * len(dates) > len(numbers):
        return f"the names of its columns are times ({dates[0]}, {dates[1]}, …)"
    parts = [re.fullmatch(r"(\D*)(\d+)", name.strip()) for name in numbers]
    known = [(part[1], int(part[2])) for part in parts if part]
    if len(known) < max(FEW, len(numbers)) or not any(len(set(each)) == len(each) for each in texts):
        return None
    in_turn = [(known[0][0], known[0][1] + i) for i in range(len(known))]
    return (
        f"each row has a name, and its columns count up ({numbers[0]}, {numbers[1]}, …)" if known == in_turn else None
    )
