"""A made-up market: a random walk that depends on nothing but symbol and interval.

In: a symbol and an interval of the API. Out: `Bars`, columns of equal length, oldest first.
The seed is sha256(symbol, interval) and the last bar always ends at the same fixed instant,
so that one request gives the same bytes on every day and machine; every interval of a symbol ends at one price.
It never reads a clock or the network, and no number in it is market data.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache

LAST_INSTANT = datetime(2026, 1, 5, 8, 0, tzinfo=UTC)
"""The instant at which every simulated market stands still."""
FIRST_INSTANT = datetime(2011, 1, 1, tzinfo=UTC)
BARS_MAX = 1300
"""1000 visible bars, the API's own limit, and a warm-up for the longest averages."""
MEAN_REVERSION = 0.012
"""Pull towards the long mean: keeps a thousand bars within a believable span of prices."""

INTERVAL_MINUTES = {
    "1m": 1, "3m": 3, "5m": 5, "15m": 15, "30m": 30, "45m": 45,
    "1h": 60, "2h": 120, "3h": 180, "4h": 240, "6h": 360, "8h": 480, "12h": 720,
    "1D": 1440, "2D": 2880, "3D": 4320, "1W": 10080,
}  # fmt: skip
INTERVAL_MONTHS = {"1M": 1, "3M": 3, "6M": 6, "1Y": 12}
INTERVALS = (*INTERVAL_MINUTES, *INTERVAL_MONTHS)

KNOWN_PRICES = {
    "BTC": (62_000, 98_000), "ETH": (2_600, 3_900), "BNB": (560, 880), "SOL": (120, 210), "XRP": (1.8, 3.1),
    "ADA": (0.45, 0.95), "DOGE": (0.12, 0.32), "LTC": (80, 125), "LINK": (12, 24), "AVAX": (15, 35),
    "EURUSD": (1.04, 1.18), "GBPUSD": (1.24, 1.36), "USDJPY": (142, 157), "XAU": (2_600, 4_000),
    "AAPL": (190, 270), "TSLA": (240, 430), "MSFT": (400, 520), "NVDA": (120, 190), "SPX": (5_500, 6_800),
}  # fmt: skip
"""Where a few well-known names stand; anything else gets a price from its hash."""


@dataclass(frozen=True, slots=True)
class Bars:
    """Candles by column, oldest first; `time` is each bar's opening instant in UTC."""

    time: Sequence[datetime]
    open: Sequence[float]
    high: Sequence[float]
    low: Sequence[float]
    close: Sequence[float]
    volume: Sequence[float]

    def __len__(self) -> int:
        return len(self.time)

    def between(self, start: int, stop: int) -> Bars:
        columns = (self.open, self.high, self.low, self.close, self.volume)
        return Bars(self.time[start:stop], *(column[start:stop] for column in columns))


def is_intraday(interval: str) -> bool:
    return INTERVAL_MINUTES.get(interval, 1440) < 1440


def interval_seconds(interval: str) -> float:
    """The length of a bar; a month counts as 30.4 days."""
    if interval in INTERVAL_MONTHS:
        return INTERVAL_MONTHS[interval] * 30.4 * 86_400
    return INTERVAL_MINUTES[interval] * 60.0


def price_decimals(price: float) -> int:
    """How many decimals an exchange would quote at this price."""
    if price >= 20:
        return 2
    if price >= 0.5:
        return 4
    return min(8, 4 + max(0, -math.floor(math.log10(max(price, 1e-6)))))


def last_price(symbol: str) -> float:
    """The price at which every interval of the symbol ends."""
    seed = hashlib.sha256(f"price|{symbol}".encode()).digest()
    share = int.from_bytes(seed[:4], "big") / 2**32
    ticker = symbol.split(":", 1)[-1].upper()
    for name, (low, high) in KNOWN_PRICES.items():
        if ticker.startswith(name):
            return low + share * (high - low)
    return float(10 ** (3.3 * share - 0.3))


@lru_cache(maxsize=64)
def history(symbol: str, interval: str) -> Bars:
    """All bars of a symbol at an interval, at most `BARS_MAX` of them."""
    times = _opening_times(interval)
    seed = hashlib.sha256(f"{symbol}|{interval}".encode()).digest()
    chance = random.Random(int.from_bytes(seed, "big"))
    volatility = _volatility(interval)
    closes = _walk(chance, len(times) + 1, volatility, last_price(symbol))
    return _bars(chance, times, closes, volatility)


def _opening_times(interval: str) -> list[datetime]:
    times: list[datetime] = []
    moment = _opening_of_last(interval)
    while moment >= FIRST_INSTANT and len(times) < BARS_MAX:
        times.append(moment)
        moment = _previous(moment, interval)
    times.reverse()
    return times


def _opening_of_last(interval: str) -> datetime:
    if interval in INTERVAL_MONTHS:
        months = INTERVAL_MONTHS[interval]
        first_month = (LAST_INSTANT.month - 1) // months * months + 1
        return datetime(LAST_INSTANT.year, first_month, 1, tzinfo=UTC)
    midnight = LAST_INSTANT.replace(hour=0, minute=0)
    if interval == "1W":
        return midnight - timedelta(days=midnight.weekday())
    if not is_intraday(interval):
        return midnight
    step = INTERVAL_MINUTES[interval]
    return midnight + timedelta(minutes=LAST_INSTANT.hour * 60 // step * step)


def _previous(moment: datetime, interval: str) -> datetime:
    if interval in INTERVAL_MONTHS:
        months = moment.year * 12 + moment.month - 1 - INTERVAL_MONTHS[interval]
        return datetime(months // 12, months % 12 + 1, 1, tzinfo=UTC)
    return moment - timedelta(minutes=INTERVAL_MINUTES[interval])


def _volatility(interval: str) -> float:
    """The spread of one bar's return: 2.4 % for a day, growing with the root of time."""
    return min(0.16, 0.024 * math.sqrt(interval_seconds(interval) / 86_400))


def _walk(chance: random.Random, count: int, volatility: float, last: float) -> list[float]:
    """Closing prices with trends that turn and calm and nervous spells, ending at `last`."""
    level, drift, spell = 0.0, 0.0, 1.0
    levels: list[float] = []
    for _ in range(count):
        if chance.random() < 0.035:
            drift = chance.gauss(0.0, 0.22) * volatility
        spell = max(0.45, min(2.4, spell + 0.12 * (1.0 - spell) + chance.gauss(0.0, 0.16)))
        level += drift + chance.gauss(0.0, 1.0) * volatility * spell * 0.8 - MEAN_REVERSION * level
        levels.append(level)
    return [last * math.exp(one - levels[-1]) for one in levels]


def _bars(chance: random.Random, times: list[datetime], closes: list[float], volatility: float) -> Bars:
    decimals = price_decimals(closes[-1])
    scale = 10 ** chance.uniform(2.2, 4.6)
    least = 10.0**-decimals
    opens, highs, lows, ends, volumes = [], [], [], [], []
    for before, after in itertools.pairwise(closes):
        spread = volatility * 0.55
        high = max(before, after) * math.exp(abs(chance.gauss(0.0, spread)))
        low = min(before, after) * math.exp(-abs(chance.gauss(0.0, spread)))
        agitation = abs(math.log(after / before)) / volatility + math.log(high / low) / volatility * 0.5
        opens.append(max(least, round(before, decimals)))
        highs.append(max(least, round(high, decimals)))
        lows.append(max(least, round(low, decimals)))
        ends.append(max(least, round(after, decimals)))
        volumes.append(round(scale * (0.35 + agitation * 0.6) * math.exp(chance.gauss(0.0, 0.28)), 2))
    return Bars(times, opens, highs, lows, ends, volumes)
