"""Real daily closes that the package ``arch`` ships."""

from typing import TYPE_CHECKING

from tbptt.data.panel import Panel

if TYPE_CHECKING:
    from tbptt.data.options import MarketData


def market_panel(data: "MarketData") -> Panel:
    """S&P 500, NASDAQ and WTI crude oil by day; blank days dropped."""
    from tbptt.data.prices import market_prices

    return Panel.of_arrays(market_prices(data.columns), data.name)
