"""How a text file lays out its table: delimiter, lines before it, lines of names, lines after it.

Own rules, for tables of numbers alone: ``csv.Sniffer`` takes the comma of ``85,510;86,340`` for the delimiter, and
neither it nor clevercsv looks for lines that come before a header, for a header of several lines or for a footer. Each
cell is a number, a date, a blank or a text; a column of numbers or dates tells the lines that hold its name.
"""

import csv
import re
from collections import Counter
from dataclasses import dataclass, field

from tbptt.data.tables.names import CODES
from tbptt.data.tables.numbers import BLANKS, NUMBER

HEAD, TAIL = 400, 40  # lines looked at
LEVELS = 3  # lines of names; where there are more, all but the first say something else (units, dates of revision)
NO_DELIMITER = "\x01"
ORDER = ("\t", ";", "|", ",", " ")  # of two that explain a file equally well, the first is taken
MONTHS = "jan|feb|m[aä]r|apr|ma[iy]|jun|jul|aug|sep|o[ck]t|nov|de[cz]"
DATE = re.compile(
    r"(?=.*\d)(?:[\d\-/.:TZ+ ]+(?: ?[ap]\.?m\.?)?(?: ?[A-Z]{3,4})?|"
    rf".{{0,12}}\b(?:{MONTHS})[a-z]*\b.{{0,20}}|\d{{4}}[- ]?[QWS]\d+)",
    re.IGNORECASE,
)
A_NUMBER = re.compile(NUMBER)
LEVEL_NAMES = {"price", "ticker", "tickers", "attributes", "symbol", "symbols", "field", "fields", "variable"}
# What a line under the names says of units. BTC and ETH there are tickers.
_UNITS = (
    "shares share lots lot contracts contract units unit pcs pct percent percentage index points point pts bp bps text "
    "date datetime time iso yyyy-mm-dd stück stuecke currency price usd/bbl usd/oz usd/t eur/mwh mwh mw kwh kw bbl oz "
    "t mt ton tons number count $ € £ ¥ %"
)
UNITS = frozenset([*_UNITS.split(), *CODES.lower().split()]) - {"btc", "eth"}
Row = tuple[int, list[str]]  # the line that it begins in, counted from 1, and its cells


@dataclass
class Layout:
    """Where a table stands in a text.

    Attributes:
        delimiter: one character; :data:`NO_DELIMITER` if there is one column.
        width: how many columns.
        header: the lines of names, each as its cells; empty if there is none.
        first: the line of the first row, counted from 1.
        before: lines before the header that are left out, as texts.
        under: lines under the names that are left out.
        footer: lines at the end that are no rows, as texts.
        after: how many lines these are, with blank ones between.
    """

    delimiter: str
    width: int
    header: list[list[str]] = field(default_factory=list)
    first: int = 1
    before: list[str] = field(default_factory=list)
    under: list[str] = field(default_factory=list)
    footer: list[str] = field(default_factory=list)
    after: int = 0


def kind_of(cell: str) -> str:
    """``blank``, ``number``, ``date`` or ``text``."""
    cell = cell.strip()
    if cell in BLANKS:
        return "blank"
    if A_NUMBER.match(cell):
        return "number"
    return "date" if len(cell) <= 40 and DATE.fullmatch(cell) else "text"


def split_rows(lines: list[str], delimiter: str, first: int = 1) -> list[Row]:
    """The rows of some lines, without blank ones. A line of comment is none."""
    if delimiter == " ":
        cells = [
            (n, [c.strip('"') for c in re.findall(r'"[^"]*"|[^\s"]+', line)]) for n, line in enumerate(lines, first)
        ]
        return [row for row in cells if row[1]]
    rows, reader, start = [], csv.reader((f"{line}\n" for line in lines), delimiter=delimiter, skipinitialspace=True), 0
    try:
        for cells_of_row in reader:
            if cells_of_row and (len(cells_of_row) > 1 or cells_of_row[0].strip()):
                rows.append((first + start, cells_of_row))
            start = reader.line_num
    except csv.Error:
        pass  # a field of more than 128 kB: what was split before it has to do
    return rows


def _width(rows: list[Row]) -> int:
    widths = Counter(len(cells) for _, cells in rows[len(rows) // 3 :])
    return max(widths, key=lambda width: (widths[width], width), default=0)


def find_delimiter(lines: list[str]) -> str:
    """The delimiter whose rows have most often the same number of cells, and cells that are numbers, dates or words."""
    explained: list[tuple[float, int, float, str]] = []
    best_pair = (0.0, 0)
    for delimiter in ORDER:
        rows = split_rows(lines, delimiter)
        width = _width(rows)
        if width < 2:
            continue
        at = next(i for i, (_, cells) in enumerate(rows) if len(cells) == width)
        same = [cells for _, cells in rows[at:] if len(cells) == width]
        cells = [cell for row in same for cell in row]
        good = sum(kind_of(cell) != "text" or not re.search('[;,|\t"]', cell) for cell in cells) / len(cells)
        # Of two that explain the rows from the first one of that width on, the one that explains more rows.
        found = good * len(same) / len(rows[at:])
        explained.append((round(found - 0.4 * _splits_no_header(rows, at, width), 2), len(same), found, delimiter))
    best_score, best = 0.0, NO_DELIMITER
    for score in explained:
        if score[:2] > best_pair:
            best_pair, best_score, best = score[:2], score[2], score[3]
    return NO_DELIMITER if best_score < 0.5 or (best == "," and _one_column(lines)) else best


def _splits_no_header(rows: list[Row], at: int, width: int) -> bool:
    """Whether the first row as wide as the table has values, and the line right above it is not split as it is.

    So a sign that dates are written with (01|02|2024) splits rows, and not their names.
    """
    if (
        at == 0
        or any(kind_of(cell) == "text" and re.search(r"[^\W\d_]", cell) for cell in rows[at][1])
        or len(rows[at - 1][1]) == width - 1 > 1
    ):
        return False
    return rows[at][0] - rows[at - 1][0] == 1


def _one_column(lines: list[str]) -> bool:
    """Whether the commas are decimal ones of a single column: its name has none."""
    filled = [line for line in lines if line.strip()]
    return (
        len(filled) > 1
        and "," not in filled[0]
        and kind_of(filled[0]) == "text"
        and all(line.count(",") <= 1 and kind_of(line) == "number" for line in filled[1:])
    )


def _kinds(rows: list[list[str]], width: int) -> list[str]:
    """What each column holds: the most common kind of its cells, of two a number or a date first."""
    kinds = []
    for column in range(width):
        counts = Counter(kind_of(row[column]) for row in rows)
        del counts["blank"]
        kinds.append(max(counts, key=lambda kind: (counts[kind], kind != "text"), default="blank"))
    return kinds


def _is_names(cells: list[str], kinds: list[str]) -> bool:
    """Whether a row holds names, not values: texts where numbers and dates should be, and no date or fraction."""
    texts = False
    for cell, kind in zip(cells, kinds, strict=True):
        found = kind_of(cell)
        if kind in ("number", "date") and found == "text":
            texts = True
        elif found == kind and (kind == "date" or (kind == "number" and not cell.strip().isdigit())):
            return False
    return texts


def layout_of(lines: list[str], tail: list[str], delimiter: str, header: int | None, footer: int | None) -> Layout:
    """Where the table is. ``lines`` are the first ones of the text, ``tail`` the last ones.

    Raises:
        ValueError: the names and the first row differ in number.
    """
    rows = _without_comments(split_rows(lines, delimiter))
    if not rows:
        raise ValueError("holds no table")
    width = 1 if delimiter == NO_DELIMITER else _width(rows)
    last = split_rows(tail, delimiter)
    full = [cells for _, cells in rows if len(cells) == width]
    kinds = _kinds(full[-max(1, len(full) // 2) :] + [cells for _, cells in last if len(cells) == width], width)
    layout = Layout(delimiter, width)
    names_are_short = _first_row(layout, rows, kinds, header)
    if names_are_short and all(not cells[-1].strip() for cells in full):  # each row ends with a delimiter
        layout.header = [[*cells, ""] for cells in layout.header]
    elif names_are_short:
        # R's write.table gives the names of the rows no name. Anything else is a number in two cells: 100,5 or 1 234.
        if delimiter not in " \t" or not _are_row_names([cells[0] for cells in full], kinds, layout.header[0][0]):
            raise ValueError(f"line {layout.first} has {width} cells, but the header names {width - 1}")
        layout.header = [["", *cells] for cells in layout.header]
    after = _footer(last, kinds) if footer is None else [row for row in last if row[0] > len(tail) - footer]
    layout.footer = [" ".join(cells).strip() for _, cells in after]
    layout.after = len(tail) + 1 - after[0][0] if after else 0
    return layout


def _without_comments(rows: list[Row]) -> list[Row]:
    """Lines that begin with # are left out, but for one that may hold the names, as NumPy's savetxt writes it."""
    rows = [(line, cells[1:] if cells[0].strip() == "#" else cells) for line, cells in rows]
    return [(line, cells) for line, cells in rows if cells and (len(cells) > 1 or not cells[0].startswith("#"))]


def _first_row(layout: Layout, rows: list[Row], kinds: list[str], header: int | None) -> bool:
    """Find the lines of names and the first row. Tells whether the names are one fewer than the columns."""
    width = layout.width
    if header is not None:  # from the first line that is as wide as the table
        wide = (width,) if header == 0 else (width, max(1, width - 1))
        top = next((i for i, (_, cells) in enumerate(rows) if len(cells) in wide and not _title(cells)), 0)
        at = min(top + header, len(rows))
    else:
        at = _first_values(rows, kinds)
        top = at
        while top > 0 and _above(rows, top, at, width):
            top -= 1
        if layout.delimiter == NO_DELIMITER and at - top > 1:
            top = at - 1
        if at - top > 1 and _title(rows[top][1]):
            top += 1
        _refuse_other_width(rows, top, at, width)
    found = rows[top:at]
    layout.first = rows[at][0] if at < len(rows) else (rows[-1][0] + 1 if rows else 1)
    layout.before = [" ".join(cells).strip() for _, cells in rows[:top]]
    levels = len(found) - (1 if found and _title(found[-1][1]) else 0)  # but for pandas' line with the index's name
    if header is None and levels > LEVELS:
        layout.under = [" ".join(cells).strip() for _, cells in found[1:]]
        found = found[:1]
    if header is None:
        units = [row for row in found[1:] if _are_units(row[1], found[0][1])]
        layout.under += [" ".join(cells).strip() for _, cells in units]
        found = [row for row in found if row not in units]
    names = [[cell.strip() for cell in cells] for _, cells in found]
    short = bool(names) and all(len(cells) == width - 1 for cells in names)
    for cells in names:  # ``Date,Open,`` above ``2024-01-02,1``
        if len(cells) == width + 1 and not cells[-1]:
            cells.pop()
        cells[0] = cells[0].removeprefix("#").strip() if len(names) == 1 else cells[0]
    layout.header = names
    return short


def _are_units(cells: list[str], names: list[str]) -> bool:
    """Whether a line under the names holds units and blanks, and the names tell the columns apart without it."""
    names = [name.strip() for name in names[1:]]
    if len(set(names)) < len(names) or "" in names:
        return False
    known = [cell.strip().strip("()[]").strip().lower() for cell in cells]
    first = known[0] in {*UNITS, "", "unit", "units", "einheit", "currency", "währung"} or cells[0].strip() in BLANKS
    units = [unit in UNITS for unit in known[1:]]
    return (
        first
        and any(units)
        and all(unit or cell.strip() in BLANKS for unit, cell in zip(units, cells[1:], strict=True))
    )


def _first_values(rows: list[Row], kinds: list[str]) -> int:
    """The first row that holds values, not names."""
    width = len(kinds)
    if all(kind in ("text", "blank") for kind in kinds):
        top = next((i for i, (_, cells) in enumerate(rows) if len(cells) == width), 0)
        return top + 1
    for i, (_, cells) in enumerate(rows):
        if len(cells) == width and not _is_names(cells, kinds):
            found = [kind_of(cell) for cell in cells]
            if any(a == b != "text" for a, b in zip(found, kinds, strict=True)) or (i and "text" not in found):
                return i
    return len(rows)


def _above(rows: list[Row], top: int, at: int, width: int) -> bool:
    """Whether the row above ``top`` holds names, too: it is as wide, and no blank line is between (but above the first
    row of values one may be)."""
    line, cells = rows[top - 1]
    if top < at:
        return len(cells) == len(rows[top][1]) and rows[top][0] - line == 1
    if len(cells) == width or (len(cells) == width + 1 and not cells[-1].strip()):
        return True
    return len(cells) == width - 1 >= 1 and all(kind_of(cell) in ("text", "blank") for cell in cells)


def _are_row_names(cells: list[str], kinds: list[str], name: str) -> bool:
    """Whether cells name rows: texts, 1, 2, 3 …, or dates, if the first name that there is is not about time itself."""
    if kinds[0] == "number":
        return all(cell == str(int(cells[0]) + i) for i, cell in enumerate(cells)) if cells[0].isdecimal() else False
    about_time = re.search("da[ty]|time|zeit|fecha|дата", name, re.IGNORECASE) is not None
    return not (about_time and kinds[:2] == ["date", "number"])


def _title(cells: list[str]) -> bool:
    """A line of one text, filled up with delimiters."""
    return len(cells) > 1 and bool(cells[0].strip()) and not any(cell.strip() for cell in cells[1:])


def _refuse_other_width(rows: list[Row], top: int, at: int, width: int) -> None:
    if top != at or top == 0 or at >= len(rows):
        return
    line, cells = rows[at - 1]
    if len(cells) > 1 and rows[at][0] - line == 1 and not cells[0].startswith("#"):
        raise ValueError(f"line {line} has {len(cells)} cells, but line {rows[at][0]} has {width}")


def _footer(last: list[Row], kinds: list[str]) -> list[Row]:
    """The lines at the end that are no rows: texts where numbers and dates should be, in a row of any width."""
    footer: list[Row] = []
    for row in reversed(last if len(kinds) > 1 else []):  # a text in a single column is a mistake in it
        cells = row[1]
        as_wide = len(cells) == len(kinds)
        if not as_wide and kind_of(cells[0]) != "text":
            break
        if as_wide and (any(kind_of(c) not in ("text", "blank") for c in cells) or not _is_names(cells, kinds)):
            break
        footer.insert(0, row)
    return footer if len(footer) < len(last) else []
