"""The price itself, in the nine styles of the API.

In: the visible bars, the view, a scale and the canvas. Out: the drawn series; `shown_bars` says which
prices a style really shows (Heikin Ashi shows averages), so that the scale and the legend agree with it.
It never computes a study and never touches what lies outside the pane.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from engine.testing.chart_img.axes import Scale
from engine.testing.chart_img.canvas import Box, Canvas, Point
from engine.testing.chart_img.market import Bars
from engine.testing.chart_img.plots import BLUE
from engine.testing.chart_img.view import View


@dataclass(frozen=True, slots=True)
class Pane:
    """A part of the picture with its own vertical scale."""

    canvas: Canvas
    view: View
    box: Box
    scale: Scale

    def colour(self, rising: bool) -> str:
        return self.canvas.theme.rising if rising else self.canvas.theme.falling


def shown_bars(bars: Bars, style: str) -> Bars:
    """The bars as the style shows them."""
    return _heikin_ashi(bars) if style == "heikinAshi" else bars


def _heikin_ashi(bars: Bars) -> Bars:
    opens, closes = [bars.open[0]], []
    for o, h, low, c in zip(bars.open, bars.high, bars.low, bars.close, strict=True):
        closes.append((o + h + low + c) / 4)
        opens.append((opens[-1] + closes[-1]) / 2)
    del opens[-1]
    highs = [max(trio) for trio in zip(bars.high, opens, closes, strict=True)]
    lows = [min(trio) for trio in zip(bars.low, opens, closes, strict=True)]
    return Bars(bars.time, opens, highs, lows, closes, bars.volume)


def draw_series(pane: Pane, bars: Bars, style: str) -> None:
    SERIES[style](pane, bars)


def _candles(pane: Pane, bars: Bars, hollow: bool = False) -> None:
    width, canvas, scale = pane.view.body_width(), pane.canvas, pane.scale
    before = bars.open[0]
    for index in range(len(bars)):
        open_, close = bars.open[index], bars.close[index]
        # A hollow candle is coloured by the close before and filled only when it fell.
        colour = pane.colour(close >= (before if hollow else open_))
        x = int(pane.view.x(index))
        left = x - width // 2
        upper, lower = sorted((scale.y(open_), scale.y(close)))
        wick_top, wick_bottom = sorted((scale.y(bars.high[index]), scale.y(bars.low[index])))
        if hollow and close >= open_ and width >= 3:
            canvas.down(x, wick_top, upper, colour)
            canvas.down(x, lower, wick_bottom, colour)
            canvas.outline((left, upper, left + width, lower + 1), colour)
        else:
            canvas.down(x, wick_top, wick_bottom + 1, colour)
            canvas.rectangle((left, upper, left + width, lower + 1), colour)
        before = close


def _ohlc(pane: Pane, bars: Bars) -> None:
    arm = max(2, pane.view.body_width() // 2)
    thick = 2 if pane.view.spacing >= 7 else 1
    for index in range(len(bars)):
        colour = pane.colour(bars.close[index] >= bars.open[index])
        x = int(pane.view.x(index))
        top, bottom = sorted((pane.scale.y(bars.high[index]), pane.scale.y(bars.low[index])))
        pane.canvas.rectangle((x, top, x + thick, bottom + 1), colour)
        open_, close = pane.scale.y(bars.open[index]), pane.scale.y(bars.close[index])
        pane.canvas.rectangle((x - arm, open_, x, open_ + thick), colour)
        pane.canvas.rectangle((x + thick, close, x + thick + arm, close + thick), colour)


def _high_low(pane: Pane, bars: Bars) -> None:
    width = pane.view.body_width()
    for index in range(len(bars)):
        left = int(pane.view.x(index)) - width // 2
        top, bottom = sorted((pane.scale.y(bars.high[index]), pane.scale.y(bars.low[index])))
        pane.canvas.rectangle((left, top, left + width, bottom + 1), BLUE)


def _columns(pane: Pane, bars: Bars) -> None:
    width, before = pane.view.body_width(), bars.open[0]
    for index, close in enumerate(bars.close):
        left = int(pane.view.x(index)) - width // 2
        top, bottom = sorted((pane.scale.y(close), float(pane.box.bottom)))
        pane.canvas.rectangle((left, top, left + width, bottom), pane.colour(close >= before))
        before = close


def _points(pane: Pane, bars: Bars) -> list[Point]:
    return [(pane.view.x(index), pane.scale.y(close)) for index, close in enumerate(bars.close)]


def _line(pane: Pane, bars: Bars) -> None:
    pane.canvas.curve(_points(pane, bars), BLUE, 2, pane.box)


def _area(pane: Pane, bars: Bars) -> None:
    points = _points(pane, bars)
    # Steps of falling strength stand for the gradient of the original.
    for share in (1.0, 0.83, 0.66, 0.5, 0.34, 0.18):
        floor = [(x, y + (pane.box.bottom - y) * share) for x, y in reversed(points)]
        pane.canvas.surface([*points, *floor], BLUE, 0.04, pane.box)
    pane.canvas.curve(points, BLUE, 2, pane.box)


def _baseline(pane: Pane, bars: Bars) -> None:
    """Green above the middle of the pane, red below."""
    points = _points(pane, bars)
    level = (pane.box.top + pane.box.bottom) // 2
    upper = Box(pane.box.left, pane.box.top, pane.box.right, level)
    lower = Box(pane.box.left, level, pane.box.right, pane.box.bottom)
    surface = [*points, (points[-1][0], level), (points[0][0], level)]
    for box, colour in ((upper, pane.colour(True)), (lower, pane.colour(False))):
        pane.canvas.surface(surface, colour, 0.14, box)
        pane.canvas.curve(points, colour, 2, box)
    pane.canvas.across(level, pane.box.left, pane.box.right, pane.canvas.theme.faint, (1, 3))


SERIES: dict[str, Callable[[Pane, Bars], None]] = {
    "candle": _candles,
    "heikinAshi": _candles,
    "hollowCandle": lambda pane, bars: _candles(pane, bars, hollow=True),
    "bar": _ohlc,
    "line": _line,
    "area": _area,
    "baseline": _baseline,
    "hiLo": _high_low,
    "column": _columns,
}
