"""What columns are called: words for times, prices and volumes in the languages that exports come in."""

import re
import unicodedata

DATE = "date datetime timestamp datum tanggal fecha tarih dato дата dátum 日期 日付 日付け 日時 交易日期 날짜 일자"
CLOCK = "time zeit uhrzeit zeitpunkt hora ora heure t saat waktu czas время 时间 時間 時刻 시간"
# Which price of a step: English, German, French, Spanish, Italian, Portuguese, Indonesian, Turkish, Polish, Dutch,
# Russian, Chinese, Japanese, Korean.
FIELDS = {
    "open": "open opening first erster eroeffnung eröffnung eröffnungskurs eröffn apertura abertura ouverture ouv "
    "pembukaan açılış acilis otwarcie откр открытие открытия 开盘 开盘价 開盤 今开 始値 시가",
    "high": "high hoch höchst höchstkurs tageshoch maximo máximo maxima máxima massimo max haut tertinggi yüksek "
    "yuksek najwyzszy najwyższy hoog макс максимум 最高 最高价 最高價 高 高値 고가",
    "low": "low tief tiefst tiefstkurs tagestief minimo mínimo minima mínima min bas terendah düşük dusuk najnizszy "
    "najniższy laag мин минимум 最低 最低价 最低價 低 安値 저가",
    "close": "close closing schluss schlusskurs cierre chiusura fermeture clôture cloture fechamento penutupan kapanış "
    "kapanis zamkniecie zamknięcie slotkoers закр закрытие закрытия 收盘 收盘价 收盤 收盤價 終値 종가",
    "last": "last latest ltp terakhir ultimo último ultima última dernier zuletzt letzter şimdi simdi ostatnio laatst "
    "посл последняя 最新 最新价 現在値 현재가",
    "settle": "settle settlement abrechnungspreis",
    "price": "price px kurs preis prezzo precio prix preço preco harga fiyat cena koers цена курс 价格 価格 가격",
    "mid": "mid midprice",
    "vwap": "vwap wap vw",
    "bid": "bid bids geld",
    "ask": "ask asks brief offer",
    "previous": "prevclose preclose previousclose vortag vortageskurs 前收盘 前收 昨收 昨收盘 前日終値 전일종가",
}
VOLUME = (
    "volume volumes volumen vol tickvol tickvolume realvol stuecke stück stücke umsatz umsätze turnover qty quantity "
    "basevolume quotevolume volumefrom volumeto volumeusd hac hacim wol wolumen bidsize asksize bidqty "
    "askqty tickqty объем объём оборот 成交量 成交额 成交金额 交易量 换手率 出来高 売買高 売買代金 거래량 거래대금"
)
MARKET_VALUE = "marketcap mktcap mcap marketvalue"
CHANGE = (
    "change changes chg ret rets return returns pct percent logret logreturn logreturns perubahan veränderung "
    "variation variación variacion variação variacao variazione zmiana verschil fark изм изменение 涨跌幅 涨跌额 涨跌 "
    "振幅 変化率 変動率 前日比 변동 등락률 전일대비"
)
NAMES = (
    "ticker tickers symbol symbols sym asset instrument stock pair coin isin cusip sedol wkn permno gvkey ric code "
    "secid security market name id file kode emiten símbolo simbolo тикер "
    "代码 股票代码 证券代码 名称 股票名称 コード 銘柄 "
    "종목코드 종목명"
)
CODES = ("USD EUR GBP GBX GBp JPY CHF CAD AUD NZD SEK NOK DKK ISK CNY CNH RMB HKD TWD SGD INR IDR KRW MYR THB PHP VND "
         "BRL MXN ARS CLP COP ZAR TRY RUB UAH PLN CZK HUF RON BGN ILS AED SAR EGP USDT USDC BTC ETH Rp Rs kr zł Kč Ft "
         "лв")  # fmt: skip

# What may stand beside the word for a price, or for a volume, a count or a change, and names no asset.
PLAIN_WORDS = "trade traded daily day session stock share market plus eod official regular kurs de at of"
BESIDE = (
    "total avg average mean daily day days hour weekly monthly annual yearly quote base taker maker buy sell bid ask "
    "mid adj adjusted traded trade trading asset of no number num in to from vs and per cent contracts lots shares "
    "share stock units unit real tick net abs log simple percentage m mn mio k thousand thousands million millions "
    "price close open high low prev previous coin currency px cum cumulative all exchange market money amount value "
    "rate ratio factor cash special ordinary level busd usdc dai xbt 股 手 元 万 万元 亿"
)


def words_of(name: str) -> list[str]:
    """The words of a name, in lower case: ``<TICKVOL>``, ``Adj Close``, ``openTime``, ``1. open``."""
    name = name if name.isascii() else unicodedata.normalize("NFC", name)
    apart = re.sub(r"(?<=[a-zäöüß])(?=[A-Z])", " ", name)
    return [word for word in re.split(r"[\W_]+", apart.lower().replace("ß", "ss")) if word]


KNOWN = frozenset(" ".join([DATE, CLOCK, *FIELDS.values(), VOLUME, MARKET_VALUE, CHANGE, NAMES]).split())
