"""The words around a chart: price axis, time axis, legends, value tags, watermarks.

In: panes, scales and the values to name. Out: text and grid lines on the canvas.
Tags on the price axis never cover each other, and an axis label gives way to a tag.
It never decides what a pane shows: that is `picture.py`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from engine.testing.chart_img.axes import TimeLabel, price_text, short_number, signed
from engine.testing.chart_img.canvas import Box, Canvas, is_pale, mixed, text_width
from engine.testing.chart_img.market import Bars
from engine.testing.chart_img.plots import StudyPlot
from engine.testing.chart_img.series import Pane
from engine.testing.chart_img.study_marks import plot_limits

LEGEND_SIZE, TITLE_SIZE = 12.0, 14.0
LEGEND_ROW = 18
TAG_PADDING = 6
LABEL_SPACING = 44.0
"""Pixels between two labels of a price axis."""


@dataclass(frozen=True, slots=True)
class Tag:
    """A coloured value on the price axis."""

    value: float
    text: str
    colour: str


@dataclass(frozen=True, slots=True)
class Tick:
    """A place on the scale and the text of its label."""

    value: float
    text: str


def study_text(plot: StudyPlot, value: float, decimals: int) -> str:
    """A study's value: as a price on the price, short when large, else to the precision of its pane."""
    if plot.overlay and not any(line.shape == "bars" for line in plot.lines):
        return price_text(value, decimals)
    low, high = plot_limits(plot) or (0.0, 1.0)
    largest = max(abs(low), abs(high), 1e-9)
    if largest >= 1000:
        return short_number(value)
    return f"{value:.{min(8, max(2, 2 - math.floor(math.log10(largest))))}f}"


def draw_price_axis(pane: Pane, ticks: Iterable[Tick], tags: Sequence[Tag], size: float, grid: bool) -> None:
    """Grid lines, labels and tags of one pane; the first tag keeps its place, the others make room."""
    theme, box = pane.canvas.theme, pane.box
    places = _tag_places([pane.scale.y(tag.value) for tag in tags], box, size + 6)
    for tick in ticks:
        y = pane.scale.y(tick.value)
        if box.top + size / 2 + 1 <= y <= box.bottom - size / 2 - 1:
            if grid:
                pane.canvas.across(y, box.left, box.right, theme.grid)
            if all(abs(y - place) > size + 2 for place in places):
                pane.canvas.text(box.right + TAG_PADDING + 2, y, tick.text, theme.text, size)


def draw_tags(pane: Pane, tags: Sequence[Tag], size: float) -> None:
    places = _tag_places([pane.scale.y(tag.value) for tag in tags], pane.box, size + 6)
    width = pane.canvas.image.width - pane.box.right
    half = (size + 5) / 2
    # Drawn from the last to the first: where room is short the more important tag lies on top.
    for tag, y in reversed(list(zip(tags, places, strict=True))):
        pane.canvas.badge((pane.box.right, round(y - half), pane.box.right + width - 1, round(y + half)), tag.colour, 2)
        words = "#131722" if is_pale(tag.colour) else "#ffffff"
        pane.canvas.text(pane.box.right + TAG_PADDING + 2, y, tag.text, words, size)


def _tag_places(wanted: Sequence[float], box: Box, height: float) -> list[float]:
    """For each tag the nearest free row to the one it wants."""
    places: list[float] = []
    low, high = box.top + height / 2, box.bottom - height / 2
    for y in wanted:
        start = max(low, min(high, y))
        offsets = [step * sign for step in range(int(box.height)) for sign in (1, -1)]
        free = (start + offset for offset in offsets if low <= start + offset <= high)
        places.append(next((at for at in free if all(abs(at - other) >= height for other in places)), start))
    return places


def draw_time_grid(pane: Pane, labels: Iterable[TimeLabel]) -> None:
    for label in labels:
        pane.canvas.down(pane.view.x(label.index), pane.box.top, pane.box.bottom, pane.canvas.theme.grid)


def draw_time_axis(pane: Pane, labels: Iterable[TimeLabel], top: int, size: float) -> None:
    theme, canvas = pane.canvas.theme, pane.canvas
    canvas.across(top, 0, canvas.image.width, theme.border)
    for label in labels:
        x, half = pane.view.x(label.index), text_width(label.text, size) / 2
        if half + 2 <= x <= pane.box.right - half:
            colour = theme.text if label.weight >= 3 else mixed(theme.text, theme.background, 0.8)
            canvas.text(x, (top + canvas.image.height) / 2, label.text, colour, size, "mm")


class Legend:
    """Rows of text at the upper left of a pane; words that do not fit are left out, never cut."""

    def __init__(self, pane: Pane, top: int, right: float) -> None:
        self._pane, self._y, self._right = pane, top, right

    @property
    def bottom(self) -> int:
        return self._y

    def row(self, words: Iterable[tuple[str, str]], size: float = LEGEND_SIZE, first_size: float | None = None) -> None:
        """Texts with their colours, on one row; the first may be larger."""
        x = 10.0
        for text, colour in words:
            own = size if first_size is None else first_size
            width = text_width(text, own)
            if x + width > self._right:
                break
            self._pane.canvas.text(x, self._y + LEGEND_ROW / 2, text, colour, own)
            x += width + (4 if len(text) == 1 else 8)
            first_size = None
        self._y += LEGEND_ROW


def title_words(symbol: str, interval: str, bars: Bars, pane: Pane, decimals: int, *, ohlc: bool, change: bool) -> list[
    tuple[str, str]
]:  # fmt: skip
    """Symbol, interval and exchange, then the last bar's prices and its change."""
    exchange, _, ticker = symbol.partition(":")
    is_formula = any(sign in symbol for sign in "+*/^()")
    name = symbol if is_formula or not ticker else f"{ticker} · {interval} · {exchange}"
    theme = pane.canvas.theme
    words = [(f"{symbol} · {interval}" if is_formula else name, theme.text)]
    open_, close = bars.open[-1], bars.close[-1]
    before = bars.close[-2] if len(bars) > 1 else open_
    colour = pane.colour(close >= open_)
    if ohlc:
        for letter, value in zip("OHLC", (open_, bars.high[-1], bars.low[-1], close), strict=True):
            words += [(letter, theme.faint), (price_text(value, decimals), colour)]
    if change:
        move = close - before
        percent = abs(move / before * 100) if before else 0.0
        text = f"{signed(move, price_text(abs(move), decimals))} ({signed(move, f'{percent:.2f}%')})"
        words.append((text, pane.colour(move >= 0)))
    return words


def plot_words(plot: StudyPlot, pane: Pane, decimals: int, *, values: bool) -> list[tuple[str, str]]:
    """A study's title and the last value of each of its lines in the line's colour."""
    words = [(plot.title, pane.canvas.theme.faint)]
    for line in plot.lines if values else ():
        last = line.values[-1] if line.values else None
        colour = line.colours[-1] if line.colours else line.colour
        words.append(("n/a" if last is None else study_text(plot, last, decimals), colour))
    return words


def draw_simulated_mark(canvas: Canvas, left: int, bottom: int) -> None:
    """Nobody shall take these prices for a market's."""
    text, size = "simulated data", 11.0
    width = text_width(text, size) + 16
    box = (left, bottom - 20, left + round(width), bottom)
    canvas.badge(box, mixed(canvas.theme.faint, canvas.theme.background, 0.16), 10, 0.95)
    canvas.text(
        left + width / 2, bottom - 10, text, mixed(canvas.theme.text, canvas.theme.background, 0.75), size, "mm"
    )


def draw_watermark(canvas: Canvas, box: Box, text: str, size: float, opacity: float) -> None:
    colour = mixed(canvas.theme.faint, canvas.theme.background, opacity)
    canvas.text((box.left + box.right) / 2, (box.top + box.bottom) / 2, text, colour, size, "mm")
