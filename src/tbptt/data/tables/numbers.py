"""Numbers in texts: what one looks like, and what its texts tell of decimals and thousands.

A number is digits with an optional sign, a currency or % before or after, K, M, B or T behind (1.23M), an exponent, and
parentheses for a negative one.
"""

import re
from dataclasses import dataclass, field
from typing import Any

from tbptt.data.tables.names import CODES

BLANKS = ("", ".", "..", "...", "-", "--", "---", "–", "—", "n/a", "N/A", "NA", "n.a.", "N.A.", "k.A.", "NaN", "nan",
          "NAN", "NaT", "null", "NULL", "Null", "None", "none", "<NA>", "\\N", "ND", "#N/A", "#N/A N/A", "#NA",
          "#VALUE!", "#REF!", "#NAME?", "#DIV/0!", "#NUM!", "#NULL!", "#N/A Invalid Security",
          "#N/A Field Not Applicable")  # fmt: skip
SPACES = " \u00a0\u202f\u2009"
MARKS = {",": ",", ".": ".", "'": "'’", " ": SPACES}  # what a thousands separator looks like
GROUPS = {
    ",": r"\d{1,3}(?:,\d{2,3})*,\d{3}",  # Indian exchanges write 1,23,456.70
    ".": r"\d{1,3}(?:\.\d{3})+",
    "'": r"\d{1,3}(?:['’]\d{3})+",
    " ": rf"\d{{1,3}}(?:[{SPACES}]\d{{3}})+",
}
INFINITE = "(?i:inf(?:inity)?)"
POWER = r"(?:[eE][+-]?\d+)?"
BODY = rf"(?:(?:\d+|{'|'.join(GROUPS.values())})(?:[.,]\d*)?|[.,]\d+|{INFINITE})"
CURRENCY_SIGNS = "$€£¥₹₽₩₿₺₴₫฿₪¢"
CURRENCY = f"(?:[A-Z]{{0,2}}[$]|[{CURRENCY_SIGNS}]|" + "|".join(CODES.split()) + ")"
SCALES = {"k": 3, "tsd": 3, "m": 6, "mn": 6, "mio": 6, "b": 9, "bn": 9, "mrd": 9, "t": 12}
NUMBER = (
    rf"^(?P<open>\(?)(?P<sign>[+−–-]?)[{SPACES}]?(?P<before>{CURRENCY}?)[{SPACES}]?(?P<sign2>[+−–-]?)[{SPACES}]?"
    rf"(?P<body>{BODY})(?P<power>{POWER})[{SPACES}]?(?P<scale>(?i:{'|'.join(SCALES)})?)"
    rf"[{SPACES}]?(?P<after>(?:%|{CURRENCY})?)\)?$"
)
SIMPLE = rf"^[+-]?{BODY}{POWER}$"


def _clear_decimal(point: str, other: str) -> str:
    s = re.escape(point)
    groups = "|".join(GROUPS[t] for t in (other, "'", " "))
    forms = rf"\d*{s}\d{{0,2}}|\d*{s}\d{{4,}}|0\d*{s}\d+|\d{{4,}}{s}\d+|{s}\d+|(?:{groups}){s}\d*"
    return rf"^[+-]?(?:(?:{forms}){POWER}|\d+{s}\d+[eE][+-]?\d+)$"


def _clear_thousands(mark: str, behind: str) -> str:
    again = "{2,}" if mark in ",." else "+"
    group = r"\d{2,3}" if mark == "," else r"\d{3}"
    groups = rf"(?:[{MARKS[mark]}]{group}){again}" if mark != "," else r"(?:,\d{2,3})+,\d{3}"
    return rf"^[+-]?\d{{1,3}}{groups}(?:[{behind}]\d*)?{POWER}$"


CLEAR_DECIMAL = {".": _clear_decimal(".", ","), ",": _clear_decimal(",", ".")}
CLEAR_THOUSANDS = {t: _clear_thousands(t, b) for t, b in ((",", "."), (".", ","), ("'", ".,"), (" ", ".,"))}
UNCLEAR = {".": r"^[+-]?[1-9]\d{0,2}[.]\d{3}$", ",": r"^[+-]?[1-9]\d{0,2}[,]\d{3}$"}
WHOLE, LARGE, LONG = r"^[+-]?0*[1-9]\d*$", r"^[+-]?[1-9]\d{2}$", r"^[+-]?[1-9]\d{3,}$"
LEADING_ZERO = r"^[+-]?0\d+$"


@dataclass
class Written:
    """A column of numbers, as its texts show them.

    ``core`` has sign, digits, separators and exponent alone; ``values`` are the numbers, if Python would read them
    alike. The others say at which row something is first seen.
    """

    name: str
    core: Any
    values: Any = None
    percent: bool = False
    decimals: dict[str, int] = field(default_factory=dict)
    thousands: dict[str, int] = field(default_factory=dict)
    unclear: dict[str, int] = field(default_factory=dict)
    whole: int | None = None
    large: int | None = None
    warnings: list[str] = field(default_factory=list)
    scaled_row: int | None = None  # the first number with K, M, B or T behind it, and its text
    scaled_text: str = ""

    def text(self, row: int) -> str:
        return str(self.core[row].as_py())


def trimmed(texts: Any) -> Any:
    """Texts without blanks around them; an empty text is null."""
    import pyarrow.compute as pc

    texts = pc.utf8_trim_whitespace(texts)
    return pc.if_else(pc.equal(texts, ""), None, texts) if pc.any(pc.equal(texts, "")).as_py() else texts


def written(name: str, texts: Any) -> "Written | None":
    """How a column of trimmed texts writes its numbers; None if one of its cells is neither a number nor a blank."""
    import pyarrow as pa
    import pyarrow.compute as pc

    is_blank = pc.is_in(texts, value_set=pa.array(BLANKS))
    cells = pc.if_else(is_blank, None, texts) if pc.any(is_blank).as_py() else texts
    if cells.null_count == len(cells):
        return Written(name, cells, pc.cast(cells, pa.float64()))
    for kind in (pa.int64(), pa.float64()):
        try:
            values = pc.cast(cells, kind)
        except pa.ArrowInvalid:
            continue
        if kind == pa.int64() and _first(cells, LEADING_ZERO) is not None:
            return None  # 000500 is five minutes past midnight
        column = Written(name, cells, values)
        if kind == pa.float64():
            _collect(column)
        return column
    if pc.all(pc.match_substring_regex(cells, SIMPLE)).as_py():
        column = Written(name, cells)
    elif pc.all(pc.match_substring_regex(cells, NUMBER)).as_py():
        letters = pc.any(pc.match_substring_regex(cells, r"[^\W\d]")).as_py()
        column = _without_letters(name, cells) if letters else _without_signs(name, cells)
    else:
        return None
    _collect(column)
    return column


def _without_signs(name: str, cells: Any) -> Written:
    """A column of numbers without letters: what is neither digit nor separator stands before or behind the number."""
    import pyarrow.compute as pc

    core, signs = cells, set()
    rare = _first(core, f"[{CURRENCY_SIGNS[1:]}−–(]") is not None
    for sign in f"%{CURRENCY_SIGNS}" if rare else "%$":
        if pc.any(has := pc.match_substring(core, sign)).as_py():
            signs.add(sign)
            core = pc.replace_substring(core, sign, "")
            share = pc.sum(has).as_py()
    for minus in "−–" if rare else "":
        core = pc.replace_substring(core, minus, "-")
    if rare and pc.any(pc.match_substring(core, "(")).as_py():
        negative = pc.starts_with(core, "(")
        core = pc.utf8_trim(core, characters="()" + SPACES)
        core = pc.if_else(negative, pc.binary_join_element_wise("-", core, ""), core)
    if signs or pc.any(pc.match_substring_regex(core, f"^[+-][{SPACES}]")).as_py():
        core = pc.replace_substring_regex(pc.utf8_trim_whitespace(core), f"^([+-])[{SPACES}]+", r"\1")
    column = Written(name, core, percent="%" in signs)
    _warn_of_mixed(column, signs)
    zeros = pc.sum(pc.match_substring_regex(core, r"^0*[.,]?0*$")).as_py() or 0
    if column.percent and len(signs) == 1 and share + zeros < len(cells) - cells.null_count:
        column.warnings.append(f"column {name} mixes numbers with a % sign and without one")
    return column


def _warn_of_mixed(column: Written, signs: set[str]) -> None:
    if len(signs - {"%"}) > 1:
        column.warnings.append(f"column {column.name} mixes currencies: {', '.join(sorted(signs - {'%'}))}")


def _without_letters(name: str, cells: Any) -> Written:
    """A column of numbers with the codes of currencies, or with K, M, B behind. Slower: each cell is taken apart."""
    import pyarrow as pa
    import pyarrow.compute as pc

    parts = pc.extract_regex(cells, NUMBER).combine_chunks()
    part = {each.name: parts.field(each.name) for each in parts.type}
    negative = pc.equal(part["open"], "(")
    for sign in ("sign", "sign2"):
        negative = pc.or_(negative, pc.is_in(part[sign], value_set=pa.array(["-", "−", "–"])))
    names = pa.array(["", *SCALES])
    powers = pa.array(["", *(f"e{power}" for power in SCALES.values())])
    scale = pc.take(powers, pc.index_in(pc.utf8_lower(part["scale"]), value_set=names))
    power = pc.if_else(pc.equal(part["power"], ""), scale, part["power"])
    core = pc.binary_join_element_wise(pc.if_else(negative, "-", ""), part["body"], power, "")
    core = pc.if_else(cells.combine_chunks().is_valid(), core, None)
    signs = {s for key in ("before", "after") for s in part[key].unique().to_pylist() if s}
    column = Written(name, pa.chunked_array([core]), percent="%" in signs)
    _warn_of_mixed(column, signs)
    if (row := pc.index(pc.not_equal(part["scale"], ""), True).as_py()) >= 0:
        column.scaled_row, column.scaled_text = row, str(cells[row].as_py())
    return column


def _first(cells: Any, pattern: str) -> int | None:
    """The first row whose text matches. It stops there, so that what is seen at once costs nothing."""
    import pyarrow.compute as pc

    start, step = 0, 1024
    while start < len(cells):
        found = pc.index(pc.match_substring_regex(cells.slice(start, step), pattern), True).as_py()
        if found >= 0:
            return int(start + found)
        start, step = start + step, 2 * step
    return None


def _collect(column: Written) -> None:
    """Look for what tells decimals from thousands, in all rows."""
    core = column.core
    has = {mark: _first(core, f"[{MARKS[mark]}]") is not None for mark in MARKS}
    for point in ".,":
        if not has[point]:
            continue
        other = "," if point == "." else "."
        for pattern, where in ((CLEAR_DECIMAL, column.decimals), (UNCLEAR, column.unclear)):
            if (row := _first(core, pattern[point])) is not None:
                where[point] = row
                break
        clear = point in column.decimals
        if (not clear or has[other]) and (row := _first(core, CLEAR_THOUSANDS[point])) is not None:
            column.thousands[point] = row
    for mark in "' ":
        if has[mark] and (row := _first(core, CLEAR_THOUSANDS[mark])) is not None:
            column.thousands[mark] = row
    if column.unclear:
        column.whole, column.large = _first(core, WHOLE), _first(core, LARGE)
        if len(column.unclear) == 1 and not column.thousands and (row := _first(core, LONG)) is not None:
            (point,) = column.unclear
            column.decimals[point] = column.unclear.pop(point)
