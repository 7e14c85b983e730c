"""The studies that have a pane of their own: volume, momentum, volatility, money flow.

In: the bars and the study's inputs. Out: a `StudyPlot` with `overlay=False`.
`OSCILLATORS` is the one list of their names. Guide levels and fixed limits come with the plot.
It never draws and never fails on short histories: unknown values are `None`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

from engine.testing.chart_img.indicators import (
    AVERAGES,
    Column,
    Series,
    accumulated,
    adx,
    change,
    combine,
    deviation,
    directional,
    ema,
    highest,
    lowest,
    middle,
    money_flow_volume,
    on_balance_volume,
    over_window,
    rma,
    rsi,
    shifted,
    sma,
    stochastic,
    total,
    true_range,
    typical,
    wma,
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
    Inputs,
    Line,
    StudyFunction,
    StudyPlot,
)

PALE_GREEN, PALE_RED = "#8fd3c8", "#f9a3ab"


def _up_down(bars: Bars) -> list[str]:
    return [GREEN if close >= open_ else RED for open_, close in zip(bars.open, bars.close, strict=True)]


def _swing_colours(values: Column) -> list[str]:
    """Strong while moving away from zero, pale while coming back."""
    colours: list[str] = []
    for before, now in zip([None, *values], values, strict=False):
        value, last = now or 0.0, before or 0.0
        if value >= 0:
            colours.append(GREEN if value >= last else PALE_GREEN)
        else:
            colours.append(RED if value <= last else PALE_RED)
    return colours


def _volume(bars: Bars, _inputs: Inputs) -> StudyPlot:
    return StudyPlot("Vol", (Line(bars.volume, GREEN, "bars", colours=_up_down(bars)),))


def _macd(bars: Bars, inputs: Inputs) -> StudyPlot:
    fast, slow, signal_length = (inputs.length(default, f"in_{i}") for i, default in enumerate((12, 26, 9)))
    line = combine(lambda a, b: a - b, ema(bars.close, fast), ema(bars.close, slow))
    signal = ema(line, signal_length)
    histogram = combine(lambda a, b: a - b, line, signal)
    bars_of = Line(histogram, GREEN, "bars", colours=_swing_colours(histogram))
    return StudyPlot(f"MACD {fast} {slow} close {signal_length}", (bars_of, Line(line, BLUE), Line(signal, ORANGE)))


def _rsi(bars: Bars, inputs: Inputs) -> StudyPlot:
    length = inputs.length(14, "length", "in_0")
    smoothing = inputs.length(14, "smoothingLength")
    line = rsi(bars.close, length)
    average = AVERAGES.get(inputs.text("", "smoothingLine"))
    extra = (Line(average(line, smoothing), AMBER, width=1.2),) if average else ()
    title = f"RSI {length}" + (f" {inputs.text('', 'smoothingLine')} {smoothing}" if average else "")
    return StudyPlot(title, (*extra, Line(line, PURPLE)), levels=(70, 50, 30), limits=(10, 90))


def _stochastic(bars: Bars, inputs: Inputs) -> StudyPlot:
    length, slow, smoothing = (inputs.length(default, f"in_{i}") for i, default in enumerate((14, 1, 3)))
    k = sma(stochastic(bars.close, bars.high, bars.low, length), slow)
    lines = (Line(k, BLUE), Line(sma(k, smoothing), ORANGE))
    return StudyPlot(f"Stoch {length} {slow} {smoothing}", lines, levels=(80, 20), limits=(-6, 106))


def _stochastic_rsi(bars: Bars, inputs: Inputs) -> StudyPlot:
    rsi_length, length, k_length, d_length = (inputs.length(d, f"in_{i}") for i, d in enumerate((14, 14, 3, 3)))
    line = rsi(bars.close, rsi_length)
    k = sma(stochastic(line, line, line, length), k_length)
    lines = (Line(k, BLUE), Line(sma(k, d_length), ORANGE))
    title = f"Stoch RSI {rsi_length} {length} {k_length} {d_length}"
    return StudyPlot(title, lines, levels=(80, 20), limits=(-6, 106))


def _obv(bars: Bars, inputs: Inputs) -> StudyPlot:
    line = on_balance_volume(bars)
    smoothing = inputs.length(9, "smoothingLength")
    average = AVERAGES.get(inputs.text("", "smoothingLine"))
    extra = (Line(average(line, smoothing), ORANGE, width=1.2),) if average else ()
    title = "OBV" + (f" {inputs.text('', 'smoothingLine')} {smoothing}" if average else "")
    return StudyPlot(title, (Line(line, BLUE), *extra))


def _adx(bars: Bars, inputs: Inputs) -> StudyPlot:
    smoothing, length = inputs.length(14, "in_0"), inputs.length(14, "in_1")
    return StudyPlot(f"ADX {smoothing} {length}", (Line(adx(bars, length, smoothing), RED),), levels=(25,))


def _directional(bars: Bars, inputs: Inputs) -> StudyPlot:
    length, smoothing = inputs.length(14, "in_0"), inputs.length(14, "in_1")
    plus, minus = directional(bars, length)
    lines = (Line(adx(bars, length, smoothing), RED), Line(plus, BLUE), Line(minus, ORANGE))
    return StudyPlot(f"DMI {length} {smoothing}", lines)


def _aroon(bars: Bars, inputs: Inputs) -> StudyPlot:
    length = inputs.length(14, "in_0", "length")
    up = over_window(bars.high, length + 1, lambda w: 100 * max(range(len(w)), key=w.__getitem__) / length)
    down = over_window(bars.low, length + 1, lambda w: 100 * min(range(len(w)), key=w.__getitem__) / length)
    return StudyPlot(f"Aroon {length}", (Line(up, ORANGE), Line(down, BLUE)), limits=(-6, 106))


def _one(
    title: str, default: int, function: Callable[[Bars, int], Series], colour: str, levels: tuple[float, ...],
    bars: Bars, inputs: Inputs,
) -> StudyPlot:  # fmt: skip
    """Any study that is one line of one length."""
    length = inputs.length(default, "length", "in_0")
    return StudyPlot(f"{title} {length}", (Line(function(bars, length), colour),), levels=levels)


def _plain(title: str, function: Callable[[Bars], Series], shape: str, bars: Bars, _inputs: Inputs) -> StudyPlot:
    """Any study without inputs: a line, or bars that swing around zero."""
    values = function(bars)
    if shape == "bars":
        return StudyPlot(title, (Line(values, GREEN, "bars", colours=_swing_colours(values)),))
    return StudyPlot(title, (Line(values, BLUE),))


def _cci(bars: Bars, length: int) -> Series:
    prices = typical(bars)
    average = sma(prices, length)

    def mean_deviation(window: list[float]) -> float:
        mean = sum(window) / length
        return sum(abs(one - mean) for one in window) / length

    return combine(lambda p, a, d: (p - a) / (0.015 * (d or 1.0)), prices, average,
                   over_window(prices, length, mean_deviation))  # fmt: skip


def _money_flow_index(bars: Bars, length: int) -> Series:
    prices = typical(bars)
    moves = change(prices)
    flow = combine(lambda p, v, m: math.copysign(p * v, m), prices, bars.volume, moves)
    rises = total(combine(lambda one: max(one, 0.0), flow), length)
    falls = total(combine(lambda one: max(-one, 0.0), flow), length)
    return combine(lambda up, down: 100 * up / ((up + down) or 1.0), rises, falls)


def _chaikin_flow(bars: Bars, length: int) -> Series:
    flow, volume = total(money_flow_volume(bars), length), total(bars.volume, length)
    return combine(lambda f, v: f / (v or 1.0), flow, volume)


def _band_share(bars: Bars, length: int) -> Series:
    centre, spread = sma(bars.close, length), deviation(bars.close, length)
    return combine(lambda p, c, s: (p - c + 2 * s) / (4 * s or 1.0), bars.close, centre, spread)


def _band_width(bars: Bars, length: int) -> Series:
    return combine(lambda c, s: 4 * s / c, sma(bars.close, length), deviation(bars.close, length))


def _rate_of_change(bars: Bars, length: int) -> Series:
    return combine(lambda now, then: 100 * (now / then - 1), bars.close, shifted(bars.close, length))


def _williams(bars: Bars, length: int) -> Series:
    return combine(lambda k: k - 100, stochastic(bars.close, bars.high, bars.low, length))


def _trix(bars: Bars, length: int) -> Series:
    smooth = ema(ema(ema(combine(math.log, bars.close), length), length), length)
    return combine(lambda move: 10_000 * move, change(smooth))


def _choppiness(bars: Bars, length: int) -> Series:
    spread = total(true_range(bars), length)
    return combine(lambda s, h, low: 100 * math.log10(s / ((h - low) or 1.0)) / math.log10(max(2, length)),
                   spread, highest(bars.high, length), lowest(bars.low, length))  # fmt: skip


def _historical_volatility(bars: Bars, length: int) -> Series:
    returns = change(combine(math.log, bars.close))
    return combine(lambda one: 100 * one * math.sqrt(365), deviation(returns, length))


def _detrended(bars: Bars, length: int) -> Series:
    return combine(lambda p, a: p - a, bars.close, shifted(sma(bars.close, length), length // 2 + 1))


def _force_index(bars: Bars, length: int) -> Series:
    return ema(combine(lambda move, volume: move * volume, change(bars.close), bars.volume), length)


def _awesome(bars: Bars) -> Series:
    prices = middle(bars)
    return combine(lambda a, b: a - b, sma(prices, 5), sma(prices, 34))


def _price_volume_trend(bars: Bars) -> Series:
    return accumulated(combine(lambda m, p, v: v * m / p, change(bars.close), bars.close, bars.volume))


def _balance_of_power(bars: Bars) -> Series:
    return combine(lambda o, h, lo, c: (c - o) / ((h - lo) or 1.0), bars.open, bars.high, bars.low, bars.close)


def _net_volume(bars: Bars) -> Series:
    return combine(lambda move, volume: math.copysign(volume, move), change(bars.close), bars.volume)


def _chaikin_oscillator(bars: Bars) -> Series:
    flow = accumulated(money_flow_volume(bars))
    return combine(lambda a, b: a - b, ema(flow, 3), ema(flow, 10))


def _volume_oscillator(bars: Bars) -> Series:
    return combine(lambda a, b: 100 * (a - b) / b, ema(bars.volume, 5), ema(bars.volume, 10))


def _price_oscillator(bars: Bars) -> Series:
    return combine(lambda a, b: 100 * (a - b) / b, ema(bars.close, 12), ema(bars.close, 26))


def _coppock(bars: Bars) -> Series:
    return wma(combine(lambda a, b: a + b, _rate_of_change(bars, 14), _rate_of_change(bars, 11)), 10)


def _accumulation(bars: Bars) -> Series:
    return accumulated(money_flow_volume(bars))


def _vortex(bars: Bars, inputs: Inputs) -> StudyPlot:
    length = inputs.length(14, "in_0", "length")
    spread = total(true_range(bars), length)
    rises = total(combine(lambda h, low: abs(h - low), bars.high, shifted(bars.low, 1)), length)
    falls = total(combine(lambda low, h: abs(low - h), bars.low, shifted(bars.high, 1)), length)
    lines = tuple(
        Line(combine(lambda one, s: one / (s or 1.0), moves, spread), colour)
        for moves, colour in ((rises, BLUE), (falls, PINK))
    )
    return StudyPlot(f"VI {length}", lines, levels=(1,))


OSCILLATORS: dict[str, StudyFunction] = {
    "Accumulation/Distribution": partial(_plain, "A/D", _accumulation, "line"),
    "Aroon": _aroon,
    "Average Directional Index": _adx,
    "Average True Range": partial(_one, "ATR", 14, lambda bars, n: rma(true_range(bars), n), RED, ()),
    "Awesome Oscillator": partial(_plain, "AO", _awesome, "bars"),
    "Balance of Power": partial(_plain, "BOP", _balance_of_power, "line"),
    "Bollinger Bands %B": partial(_one, "BB %B", 20, _band_share, TEAL, (1, 0)),
    "Bollinger Bands Width": partial(_one, "BBW", 20, _band_width, BLUE, ()),
    "Chaikin Money Flow": partial(_one, "CMF", 20, _chaikin_flow, GREEN, (0,)),
    "Chaikin Oscillator": partial(_plain, "Chaikin Osc", _chaikin_oscillator, "line"),
    "Choppiness Index": partial(_one, "CHOP", 14, _choppiness, BLUE, (61.8, 38.2)),
    "Commodity Channel Index": partial(_one, "CCI", 20, _cci, BLUE, (100, 0, -100)),
    "Coppock Curve": partial(_plain, "Coppock", _coppock, "line"),
    "Detrended Price Oscillator": partial(_one, "DPO", 21, _detrended, TEAL, (0,)),
    "Directional Movement": _directional,
    "Elder's Force Index": partial(_one, "EFI", 13, _force_index, RED, (0,)),
    "Historical Volatility": partial(_one, "HV", 10, _historical_volatility, BLUE, ()),
    "MACD": _macd,
    "Momentum": partial(_one, "Mom", 10, lambda bars, n: change(bars.close, n), BLUE, (0,)),
    "Money Flow Index": partial(_one, "MFI", 14, _money_flow_index, PURPLE, (80, 20)),
    "Net Volume": partial(_plain, "Net Vol", _net_volume, "bars"),
    "On Balance Volume": _obv,
    "Price Oscillator": partial(_plain, "PPO", _price_oscillator, "line"),
    "Price Volume Trend": partial(_plain, "PVT", _price_volume_trend, "line"),
    "Rate Of Change": partial(_one, "ROC", 9, _rate_of_change, BLUE, (0,)),
    "Relative Strength Index": _rsi,
    "Standard Deviation": partial(_one, "StdDev", 20, lambda bars, n: deviation(bars.close, n), GREY, ()),
    "Stochastic": _stochastic,
    "Stochastic RSI": _stochastic_rsi,
    "TRIX": partial(_one, "TRIX", 18, _trix, RED, (0,)),
    "Volume": _volume,
    "Volume Oscillator": partial(_plain, "Vol Osc", _volume_oscillator, "line"),
    "Vortex Indicator": _vortex,
    "Williams %R": partial(_one, "%R", 14, _williams, PURPLE, (-20, -80)),
}
