"""The drawings of a request: lines, zones and notes a user put on the chart.

In: a drawing's name and `input`. Out: marks on the main pane.
What is drawn follows from the input: one price is a level, two instants and prices are a line or a zone,
an entry with target and stop is a position, an instant alone is an upright line.
It never fails on an input it cannot place; such a drawing is simply not there, as on the real chart.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from engine.testing.chart_img.canvas import Point, mixed
from engine.testing.chart_img.market import Bars
from engine.testing.chart_img.plots import BLUE, GREEN, RED
from engine.testing.chart_img.request_rules import Element, read_instant
from engine.testing.chart_img.series import Pane

FIB_LEVELS = (0.0, 0.236, 0.382, 0.5, 0.618, 0.786, 1.0)
ZONES = ("Rectangle", "Date Range", "Date Price Range")


def draw_drawing(pane: Pane, bars: Bars, drawing: Element) -> None:
    values = drawing.input
    start = _point(pane, bars, values, "startDatetime", "startPrice")
    end = _point(pane, bars, values, "endDatetime", "endPrice")
    if _price(values, "entryPrice") is not None:
        _position(pane, values)
    elif start is not None and end is not None:
        _between(pane, drawing.name, start, end)
    elif (price := _price(values, "price", "orderPrice")) is not None:
        _level(pane, bars, drawing, price)
    elif (x := _column(pane, bars, values, "datetime")) is not None:
        pane.canvas.down(x, pane.box.top, pane.box.bottom, BLUE)


def _price(values: Mapping[str, Any], *names: str) -> float | None:
    for name in names:
        value = values.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
    return None


def _instant(values: Mapping[str, Any], name: str) -> datetime | None:
    try:
        return read_instant(values[name])
    except (KeyError, TypeError, ValueError):
        return None


def _column(pane: Pane, bars: Bars, values: Mapping[str, Any], name: str) -> float | None:
    instant = _instant(values, name)
    if instant is None:
        return None
    return pane.view.x(max(0, bisect_right(bars.time, instant) - 1))


def _point(pane: Pane, bars: Bars, values: Mapping[str, Any], time: str, price: str) -> Point | None:
    x, value = _column(pane, bars, values, time), _price(values, price)
    return None if x is None or value is None else (x, pane.scale.y(value))


def _between(pane: Pane, name: str, start: Point, end: Point) -> None:
    if name == "Fib Retracement":
        for level in FIB_LEVELS:
            y = end[1] + (start[1] - end[1]) * level
            pane.canvas.across(y, min(start[0], end[0]), pane.box.right, mixed(BLUE, pane.canvas.theme.background, 0.6))
            pane.canvas.text(min(start[0], end[0]) - 4, y, f"{level:g}", BLUE, 11, "rm")
    elif name in ZONES:
        corners = [start, (end[0], start[1]), end, (start[0], end[1])]
        pane.canvas.surface(corners, BLUE, 0.16, pane.box)
        pane.canvas.curve([*corners, start], BLUE, 1, pane.box)
    else:
        pane.canvas.curve([start, end], BLUE, 2, pane.box)


def _position(pane: Pane, values: Mapping[str, Any]) -> None:
    """A zone of gain and a zone of loss beside the last bars."""
    entry = pane.scale.y(_price(values, "entryPrice") or 0.0)
    left, right = pane.box.right - pane.box.width * 0.22, pane.box.right - 8.0
    for name, colour in (("targetPrice", GREEN), ("stopPrice", RED)):
        price = _price(values, name)
        if price is not None:
            y = pane.scale.y(price)
            pane.canvas.surface([(left, entry), (right, entry), (right, y), (left, y)], colour, 0.22, pane.box)
    if pane.box.top <= entry <= pane.box.bottom:
        pane.canvas.across(entry, left, right, pane.canvas.theme.faint)


def _level(pane: Pane, bars: Bars, drawing: Element, price: float) -> None:
    """A price across the chart, with its text; a marker or note when it also has an instant."""
    y = pane.scale.y(price)
    if not pane.box.top <= y <= pane.box.bottom:
        return
    text = drawing.input.get("text")
    x = _column(pane, bars, drawing.input, "datetime")
    if x is None:
        pane.canvas.across(y, pane.box.left, pane.box.right, BLUE, (6, 3) if drawing.name == "Order Line" else None)
        x = pane.box.right - 8.0
    elif drawing.name.startswith("Arrow"):
        way = -1 if drawing.name == "Arrow Mark Down" else 1
        colour = RED if way < 0 else GREEN
        pane.canvas.surface([(x, y), (x - 6, y + 10 * way), (x + 6, y + 10 * way)], colour, 1.0, pane.box)
    if isinstance(text, str) and text:
        pane.canvas.text(x, y - 9, text, BLUE, 12, "rm")
