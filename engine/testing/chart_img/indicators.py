"""The arithmetic of technical studies: pure functions from columns to columns.

In: sequences of numbers, possibly with a leading run of `None` (a value not known yet).
Out: a list of the same length, again with a leading run of `None` where the window is not full.
It never draws, rounds or looks ahead: value i depends only on values 0 … i.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

from engine.testing.chart_img.market import Bars

Column = Sequence[float | None]
Series = list[float | None]


def combine(function: Callable[..., float], *columns: Column) -> Series:
    """Element by element; unknown where any of the columns is unknown."""
    return [None if None in row else function(*row) for row in zip(*columns, strict=True)]


def over_window(values: Column, length: int, function: Callable[[list[float]], float]) -> Series:
    """A function of the last `length` known values."""
    known = [value for value in values if value is not None]
    result: Series = [None] * min(len(values), len(values) - len(known) + length - 1)
    result += [function(known[end - length : end]) for end in range(length, len(known) + 1)]
    return result


def sma(values: Column, length: int) -> Series:
    return over_window(values, length, lambda window: sum(window) / length)


def wma(values: Column, length: int) -> Series:
    total = length * (length + 1) / 2
    return over_window(values, length, lambda window: sum(w * (i + 1) for i, w in enumerate(window)) / total)


def highest(values: Column, length: int) -> Series:
    return over_window(values, length, max)


def lowest(values: Column, length: int) -> Series:
    return over_window(values, length, min)


def total(values: Column, length: int) -> Series:
    return over_window(values, length, sum)


def deviation(values: Column, length: int) -> Series:
    def of(window: list[float]) -> float:
        mean = sum(window) / length
        return math.sqrt(sum((one - mean) ** 2 for one in window) / length)

    return over_window(values, length, of)


def regression(values: Column, length: int) -> Series:
    """The end of the least-squares line through the window."""
    mean_x = (length - 1) / 2
    spread = sum((x - mean_x) ** 2 for x in range(length)) or 1.0

    def of(window: list[float]) -> float:
        mean_y = sum(window) / length
        slope = sum((x - mean_x) * (y - mean_y) for x, y in enumerate(window)) / spread
        return mean_y + slope * (length - 1 - mean_x)

    return over_window(values, length, of)


def ema(values: Column, length: int) -> Series:
    return _smoothed(values, length, 2 / (length + 1))


def rma(values: Column, length: int) -> Series:
    """Wilder's average, the smoothing inside RSI, ATR and ADX."""
    return _smoothed(values, length, 1 / length)


def _smoothed(values: Column, length: int, weight: float) -> Series:
    known = [value for value in values if value is not None]
    if len(known) < length:
        return [None] * len(values)
    current = sum(known[:length]) / length
    result: Series = [None] * (len(values) - len(known) + length - 1)
    result.append(current)
    for value in known[length:]:
        current += weight * (value - current)
        result.append(current)
    return result


AVERAGES: dict[str, Callable[[Column, int], Series]] = {
    "Simple": sma, "Exponential": ema, "Weighted": wma, "SMA": sma, "EMA": ema, "WMA": wma,
}  # fmt: skip


def shifted(values: Column, count: int) -> Series:
    """The column `count` bars ago (towards the past for a positive count)."""
    empty: Series = [None] * min(count, len(values))
    return empty + list(values[: len(values) - len(empty)])


def change(values: Column, count: int = 1) -> Series:
    return combine(lambda now, before: now - before, values, shifted(values, count))


def typical(bars: Bars) -> Series:
    return [(high + low + close) / 3 for high, low, close in zip(bars.high, bars.low, bars.close, strict=True)]


def middle(bars: Bars) -> Series:
    return [(high + low) / 2 for high, low in zip(bars.high, bars.low, strict=True)]


def true_range(bars: Bars) -> Series:
    ranges: Series = [bars.high[0] - bars.low[0]] if len(bars) else []
    for high, low, before in zip(bars.high[1:], bars.low[1:], bars.close, strict=False):
        ranges.append(max(high - low, abs(high - before), abs(low - before)))
    return ranges


def rsi(values: Column, length: int) -> Series:
    moves = change(values)
    gains = rma(combine(lambda move: max(move, 0.0), moves), length)
    losses = rma(combine(lambda move: max(-move, 0.0), moves), length)
    return combine(lambda gain, loss: 100.0 if loss == 0 else 100 - 100 / (1 + gain / loss), gains, losses)


def stochastic(values: Column, highs: Column, lows: Column, length: int) -> Series:
    """Where the value stands between the lowest low and the highest high, 0 … 100."""

    def place(value: float, high: float, low: float) -> float:
        return 50.0 if high == low else 100 * (value - low) / (high - low)

    return combine(place, values, highest(highs, length), lowest(lows, length))


def directional(bars: Bars, length: int) -> tuple[Series, Series]:
    """+DI and -DI."""
    up = combine(max, change(bars.high), [0.0] * len(bars))
    down = combine(lambda move: max(-move, 0.0), change(bars.low))
    plus = rma(combine(lambda rise, fall: rise if rise > fall else 0.0, up, down), length)
    minus = rma(combine(lambda rise, fall: fall if fall > rise else 0.0, up, down), length)
    spread = rma(true_range(bars), length)
    return (
        combine(lambda one, range_: 100 * one / (range_ or 1.0), plus, spread),
        combine(lambda one, range_: 100 * one / (range_ or 1.0), minus, spread),
    )


def adx(bars: Bars, length: int, smoothing: int) -> Series:
    plus, minus = directional(bars, length)
    return rma(combine(lambda p, m: 100 * abs(p - m) / ((p + m) or 1.0), plus, minus), smoothing)


def accumulated(values: Column) -> Series:
    """The running sum, from the first known value."""
    current = 0.0
    result: Series = []
    for value in values:
        current += value or 0.0
        result.append(None if value is None else current)
    return result


def on_balance_volume(bars: Bars) -> Series:
    signs: Series = [0.0]
    signs += [
        math.copysign(volume, after - before) if after != before else 0.0
        for before, after, volume in zip(bars.close, bars.close[1:], bars.volume[1:], strict=False)
    ]
    return accumulated(signs[: len(bars)])


def money_flow_volume(bars: Bars) -> Series:
    """Volume weighted by where the bar closed within its range, -1 … +1."""
    columns = zip(bars.high, bars.low, bars.close, bars.volume, strict=True)
    return [((c - low) - (high - c)) / ((high - low) or 1.0) * volume for high, low, c, volume in columns]


def parabolic_sar(bars: Bars, start: float, step: float, limit: float) -> Series:
    """Wilder's stop-and-reverse dots."""
    rising, factor = True, start
    sar, extreme = bars.low[0], bars.high[0]
    result: Series = [sar]
    for index in range(1, len(bars)):
        high, low = bars.high[index], bars.low[index]
        sar += factor * (extreme - sar)
        recent = slice(max(0, index - 2), index)
        sar = min(sar, *bars.low[recent]) if rising else max(sar, *bars.high[recent])
        if (low < sar) if rising else (high > sar):
            rising, sar, factor = not rising, extreme, start
            extreme = high if rising else low
        elif (high > extreme) if rising else (low < extreme):
            extreme = high if rising else low
            factor = min(limit, factor + step)
        result.append(sar)
    return result


def super_trend(bars: Bars, length: int, factor: float) -> tuple[Series, Series]:
    """The supporting line while rising and the resisting line while falling."""
    supports: Series = []
    resists: Series = []
    rising, floor, ceiling = True, -math.inf, math.inf
    for centre, spread, close in zip(middle(bars), rma(true_range(bars), length), bars.close, strict=True):
        if centre is None or spread is None:
            supports.append(None)
            resists.append(None)
            continue
        lower, upper = centre - factor * spread, centre + factor * spread
        if rising and close < floor:
            rising, ceiling = False, upper
        elif not rising and close > ceiling:
            rising, floor = True, lower
        floor = max(floor, lower) if rising else lower
        ceiling = min(ceiling, upper) if not rising else upper
        supports.append(floor if rising else None)
        resists.append(None if rising else ceiling)
    return supports, resists


def zig_zag(bars: Bars, share: float) -> Series:
    """Turning points at least `share` apart, joined by straight lines; it repaints, as the original does."""
    turns = [(0, bars.close[0])]
    direction = 0
    for index, (high, low) in enumerate(zip(bars.high, bars.low, strict=True)):
        at, price = turns[-1]
        if direction >= 0 and high >= price:
            turns[-1 if direction else len(turns) :] = [(index, high)]
            direction = 1
        elif direction <= 0 and low <= price:
            turns[-1 if direction else len(turns) :] = [(index, low)]
            direction = -1
        elif direction > 0 and low < price * (1 - share):
            turns.append((index, low))
            direction = -1
        elif direction < 0 and high > price * (1 + share):
            turns.append((index, high))
            direction = 1
    result: Series = [None] * len(bars)
    for (start, first), (stop, second) in itertools.pairwise(turns):
        for at in range(start, stop + 1):
            result[at] = first + (second - first) * (at - start) / max(1, stop - start)
    return result
