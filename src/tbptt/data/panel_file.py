"""From a table to a panel: which columns are times, series and inputs."""

from typing import TYPE_CHECKING

from tbptt.data.files import Table
from tbptt.data.panel import Panel

if TYPE_CHECKING:
    from tbptt.data.options import PricesData, SplitData


def panel_of_file(path: str, data: "PricesData") -> Panel:
    """The panel of a file, cached while the file is unchanged. Raises ValueError with one line."""
    raise NotImplementedError


def panel_of_table(table: Table, data: "SplitData", source: str) -> Panel:
    """The panel of a table: times recognised, series told from other columns, inputs formed, gaps treated.

    Raises:
        ValueError: one line that says what is wrong, where, and which key says what is right.
    """
    raise NotImplementedError
