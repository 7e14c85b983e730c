"""The studies that lie on the price itself: averages, bands, channels, stops, the volume profile.

In: the bars and the study's inputs. Out: a `StudyPlot` with `overlay=True`.
`OVERLAYS` is the one list of their names; the request rules accept exactly these and the oscillators.
It never draws and never fails on short histories: unknown values are `None`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from engine.testing.chart_img.indicators import (
    AVERAGES,
    Column,
    Series,
    accumulated,
    combine,
    deviation,
    ema,
    highest,
    lowest,
    middle,
    parabolic_sar,
    regression,
    rma,
    shifted,
    sma,
    super_trend,
    total,
    true_range,
    typical,
    wma,
    zig_zag,
)
from engine.testing.chart_img.market import Bars
from engine.testing.chart_img.plots import (
    AMBER,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PINK,
    PURPLE,
    RED,
    TEAL,
    Band,
    Inputs,
    Line,
    Profile,
    StudyFunction,
    StudyPlot,
)

Average = Callable[[Column, int], Series]


def _one(title: str, default: int, average: Average, colour: str, bars: Bars, inputs: Inputs) -> StudyPlot:
    """Any study that is one line of one length over the closing price."""
    length = inputs.length(default, "length", "in_0", "periods")
    return StudyPlot(f"{title} {length} close", (Line(average(bars.close, length), colour),), overlay=True)


def _double_ema(values: Column, length: int) -> Series:
    first = ema(values, length)
    return combine(lambda one, two: 2 * one - two, first, ema(first, length))


def _triple_ema(values: Column, length: int) -> Series:
    first = ema(values, length)
    second = ema(first, length)
    return combine(lambda one, two, three: 3 * (one - two) + three, first, second, ema(second, length))


def _hull(values: Column, length: int) -> Series:
    raw = combine(lambda half, full: 2 * half - full, wma(values, max(1, length // 2)), wma(values, length))
    return wma(raw, max(1, round(length**0.5)))


def _mcginley(values: Column, length: int) -> Series:
    seed = sma(values, length)
    result: Series = []
    for value, average in zip(values, seed, strict=True):
        before = result[-1] if result else None
        if before is None or value is None:
            result.append(average)
        else:
            result.append(before + (value - before) / (0.6 * length * (value / before) ** 4))
    return result


def _several(title: str, defaults: tuple[int, ...], average: Average, bars: Bars, inputs: Inputs) -> StudyPlot:
    """Two or three averages; their method can be asked for, as in "Moving Average Double"."""
    names = ("firstPeriods", "secondPeriods", "thirdPeriods")
    chosen = AVERAGES.get(inputs.text("", "method"), average)
    lengths = [inputs.length(default, names[i], f"in_{i}") for i, default in enumerate(defaults)]
    colours = (BLUE, ORANGE, PURPLE)
    lines = tuple(Line(chosen(bars.close, n), colours[i]) for i, n in enumerate(lengths))
    return StudyPlot(" ".join([title, *map(str, lengths)]), lines, overlay=True)


def _ma_with_ema(bars: Bars, inputs: Inputs) -> StudyPlot:
    slow, fast = inputs.length(10, "in_0"), inputs.length(10, "in_1")
    lines = (Line(sma(bars.close, slow), ORANGE), Line(ema(bars.close, fast), BLUE))
    return StudyPlot(f"MA/EMA Cross {slow} {fast}", lines, overlay=True)


def _volume_weighted(bars: Bars, inputs: Inputs) -> StudyPlot:
    length = inputs.length(20, "length", "in_0")
    money = combine(lambda price, volume: price * volume, bars.close, bars.volume)
    line = combine(lambda m, v: m / (v or 1.0), total(money, length), total(bars.volume, length))
    return StudyPlot(f"VWMA {length}", (Line(line, BLUE),), overlay=True)


def _vwap(bars: Bars, _inputs: Inputs) -> StudyPlot:
    """Anchored at each new month for daily bars and longer, at each new day below."""
    daily = len(bars) > 1 and (bars.time[1] - bars.time[0]).total_seconds() >= 86_400
    line: Series = []
    money, amount, anchor = 0.0, 0.0, (0, 0)
    for time, price, volume in zip(bars.time, typical(bars), bars.volume, strict=True):
        period = (time.year, time.month if daily else time.timetuple().tm_yday)
        if period != anchor:
            money, amount, anchor = 0.0, 0.0, period
        money += (price or 0.0) * volume
        amount += volume
        line.append(money / (amount or 1.0))
    return StudyPlot("VWAP", (Line(line, BLUE),), overlay=True)


def _channel(title: str, centre: Column, upper: Column, lower: Column, colour: str) -> StudyPlot:
    lines = (Line(centre, PURPLE, width=1.2), Line(upper, colour, width=1.2), Line(lower, colour, width=1.2))
    return StudyPlot(title, lines, (Band(upper, lower, colour),), overlay=True)


def _bollinger(bars: Bars, inputs: Inputs) -> StudyPlot:
    length, factor = inputs.length(20, "in_0", "length"), inputs.number(2, "in_1", "mult")
    centre, spread = sma(bars.close, length), deviation(bars.close, length)
    upper = combine(lambda c, s: c + factor * s, centre, spread)
    lower = combine(lambda c, s: c - factor * s, centre, spread)
    return _channel(f"BB {length} {factor:g}", centre, upper, lower, TEAL)


def _keltner(bars: Bars, inputs: Inputs) -> StudyPlot:
    length, factor = inputs.length(20, "in_1", "length"), inputs.number(2, "in_2", "mult")
    centre, spread = ema(bars.close, length), rma(true_range(bars), length)
    upper = combine(lambda c, s: c + factor * s, centre, spread)
    lower = combine(lambda c, s: c - factor * s, centre, spread)
    return _channel(f"KC {length} {factor:g}", centre, upper, lower, BLUE)


def _donchian(title: str, bars: Bars, inputs: Inputs) -> StudyPlot:
    length = inputs.length(20, "in_0", "length")
    upper, lower = highest(bars.high, length), lowest(bars.low, length)
    return _channel(f"{title} {length}", combine(lambda a, b: (a + b) / 2, upper, lower), upper, lower, BLUE)


def _envelopes(bars: Bars, inputs: Inputs) -> StudyPlot:
    length, percent = inputs.length(20, "in_0", "length"), inputs.number(10, "in_1", "percent")
    centre = sma(bars.close, length)
    upper = combine(lambda c: c * (1 + percent / 100), centre)
    lower = combine(lambda c: c * (1 - percent / 100), centre)
    return _channel(f"Env {length} {percent:g}", centre, upper, lower, TEAL)


def _parabolic(bars: Bars, inputs: Inputs) -> StudyPlot:
    start, step, limit = inputs.number(0.02, "in_0"), inputs.number(0.02, "in_1"), inputs.number(0.2, "in_2")
    dots = Line(parabolic_sar(bars, start, step, limit), BLUE, "dots")
    return StudyPlot(f"SAR {start:g} {step:g} {limit:g}", (dots,), overlay=True)


def _super_trend(bars: Bars, inputs: Inputs) -> StudyPlot:
    length, factor = inputs.length(10, "in_0"), inputs.number(3, "in_1")
    support, resist = super_trend(bars, length, factor)
    close: Column = bars.close
    bands = (Band(close, support, GREEN, 0.1), Band(resist, close, RED, 0.1))
    lines = (Line(support, GREEN, width=2), Line(resist, RED, width=2))
    return StudyPlot(f"Supertrend {length} {factor:g}", lines, bands, overlay=True)


def _ichimoku(bars: Bars, inputs: Inputs) -> StudyPlot:
    lengths = [inputs.length(default, f"in_{i}") for i, default in enumerate((9, 26, 52, 26))]

    def centre(length: int) -> Series:
        return combine(lambda a, b: (a + b) / 2, highest(bars.high, length), lowest(bars.low, length))

    conversion, base = centre(lengths[0]), centre(lengths[1])
    lead_one = shifted(combine(lambda a, b: (a + b) / 2, conversion, base), lengths[3] - 1)
    lead_two = shifted(centre(lengths[2]), lengths[3] - 1)
    lines = (Line(conversion, BLUE), Line(base, RED), Line(lead_one, GREEN, width=1), Line(lead_two, PINK, width=1))
    return StudyPlot(" ".join(["Ichimoku", *map(str, lengths)]), lines, (Band(lead_one, lead_two, GREEN, 0.1),), True)


def _alligator(bars: Bars, _inputs: Inputs) -> StudyPlot:
    prices = middle(bars)
    jaw, teeth, lips = (shifted(rma(prices, n), offset) for n, offset in ((13, 8), (8, 5), (5, 3)))
    return StudyPlot("Alligator 13 8 5", (Line(jaw, BLUE), Line(teeth, PINK), Line(lips, GREEN)), overlay=True)


def _plain(title: str, column: Callable[[Bars], Series], bars: Bars, _inputs: Inputs) -> StudyPlot:
    return StudyPlot(title, (Line(column(bars), AMBER),), overlay=True)


def _average_price(bars: Bars) -> Series:
    return combine(lambda o, h, lo, c: (o + h + lo + c) / 4, bars.open, bars.high, bars.low, bars.close)


def _zig_zag(bars: Bars, inputs: Inputs) -> StudyPlot:
    percent = inputs.number(5, "in_0", "deviation")
    return StudyPlot(f"ZigZag {percent:g}", (Line(zig_zag(bars, percent / 100), BLUE, width=2),), overlay=True)


def _profile(_bars: Bars, inputs: Inputs) -> StudyPlot:
    rows = max(4, min(200, int(inputs.number(24, "rows"))))
    share = max(1.0, min(100.0, inputs.number(70, "vaVolume")))
    volume = inputs.text("Up/Down", "volume")
    return StudyPlot(f"VPVR {rows} {volume} {share:g}", overlay=True, profile=Profile(rows, volume, share))


def _anchored(bars: Bars, _inputs: Inputs) -> StudyPlot:
    """VWAP from the first bar of the history on, without a new anchor."""
    money = accumulated(combine(lambda price, volume: price * volume, typical(bars), bars.volume))
    line = combine(lambda m, v: m / (v or 1.0), money, accumulated(bars.volume))
    return StudyPlot("VWAP AA", (Line(line, GREY),), overlay=True)


OVERLAYS: dict[str, StudyFunction] = {
    "Average Price": partial(_plain, "Avg Price", _average_price),
    "Bollinger Bands": _bollinger,
    "Donchian Channels": partial(_donchian, "DC"),
    "Double EMA": partial(_one, "DEMA", 9, _double_ema, GREEN),
    "EMA Cross": partial(_several, "EMA Cross", (9, 26), ema),
    "Envelopes": _envelopes,
    "Hull Moving Average": partial(_one, "HMA", 9, _hull, BLUE),
    "Ichimoku Cloud": _ichimoku,
    "Keltner Channels": _keltner,
    "Least Squares Moving Average": partial(_one, "LSMA", 25, regression, BLUE),
    "Linear Regression Curve": partial(_one, "LRC", 9, regression, ORANGE),
    "MA Cross": partial(_several, "MA Cross", (9, 26), sma),
    "MA with EMA Cross": _ma_with_ema,
    "McGinley Dynamic": partial(_one, "MD", 14, _mcginley, TEAL),
    "Median Price": partial(_plain, "Median", middle),
    "Moving Average": partial(_one, "MA", 9, sma, BLUE),
    "Moving Average Double": partial(_several, "MA Double", (14, 21), sma),
    "Moving Average Exponential": partial(_one, "EMA", 9, ema, ORANGE),
    "Moving Average Triple": partial(_several, "MA Triple", (14, 21, 35), sma),
    "Moving Average Weighted": partial(_one, "WMA", 9, wma, PURPLE),
    "Parabolic SAR": _parabolic,
    "Price Channel": partial(_donchian, "PC"),
    "Smoothed Moving Average": partial(_one, "SMMA", 7, rma, PINK),
    "Super Trend": _super_trend,
    "Triple EMA": partial(_one, "TEMA", 9, _triple_ema, BLUE),
    "Typical Price": partial(_plain, "Typical", typical),
    "VWAP": _vwap,
    "VWAP Auto Anchored": _anchored,
    "VWMA": _volume_weighted,
    "Volume Profile Visible Range": _profile,
    "Williams Alligator": _alligator,
    "Zig Zag": _zig_zag,
}
