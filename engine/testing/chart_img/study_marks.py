"""Draws what the studies ask for: lines, dots, bars from zero, bands, the volume profile.

In: a pane and a `StudyPlot` cut to the visible bars. Out: marks on the pane's canvas.
`plot_limits` says how much room a plot needs on its scale.
It never computes a study's values; the profile alone is counted here, since it depends on the visible bars.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from engine.testing.chart_img.canvas import Point, mixed, tiles
from engine.testing.chart_img.indicators import Column
from engine.testing.chart_img.market import Bars
from engine.testing.chart_img.plots import AMBER, BLUE, GREEN, RED, Band, Line, Profile, StudyPlot
from engine.testing.chart_img.series import Pane

PROFILE_SHARE = 0.3
"""The part of the pane's width that the longest row of a profile takes."""


def plot_limits(plot: StudyPlot) -> tuple[float, float] | None:
    """The lowest and highest value of the visible part, or nothing when all of it is unknown."""
    if plot.limits is not None:
        return plot.limits
    values = [value for line in plot.lines for value in line.values if value is not None]
    if not values:
        return None
    if any(line.shape == "bars" for line in plot.lines):
        values.append(0.0)
    return min(values), max(values)


def draw_plot(pane: Pane, plot: StudyPlot) -> None:
    _draw_levels(pane, plot)
    for band in plot.bands:
        _draw_band(pane, band)
    for line in plot.lines:
        if line.shape == "bars":
            _draw_bars(pane, line, plot.overlay)
        elif line.shape == "dots":
            radius = max(1.2, min(2.2, pane.view.spacing * 0.24))
            pane.canvas.dots(
                [point for run in _runs(pane, line.values) for point in run], radius, line.colour, pane.box
            )
        else:
            for run in _runs(pane, line.values):
                pane.canvas.curve(run, line.colour, line.width, pane.box)


def draw_profile(pane: Pane, profile: Profile, bars: Bars) -> None:
    """Rows of volume from the right edge, stronger inside the value area, a line at the fullest row."""
    bottom, top = min(bars.low), max(bars.high)
    height = (top - bottom) / profile.rows or 1.0
    rows = _count_rows(bars, profile.rows, bottom, height)
    totals = [up + down for up, down in rows]
    longest = max(abs(up - down) for up, down in rows) if profile.volume == "Delta" else max(totals)
    fullest = totals.index(max(totals))
    inside = _value_area(totals, fullest, profile.value_area_percent)
    width = pane.box.width * PROFILE_SHARE
    for index, (up, down) in enumerate(rows):
        upper, lower = pane.scale.y(bottom + (index + 1) * height), pane.scale.y(bottom + index * height)
        strength = 0.55 if index in inside else 0.25
        right = float(pane.box.right)
        for amount, colour in _row_parts(profile.volume, up, down):
            left = right - amount / (longest or 1.0) * width
            if right - left >= 0.5:
                shade = mixed(colour, pane.canvas.theme.background, strength)
                pane.canvas.rectangle((left, upper + 1, right, lower), shade)
            right = left
    level = pane.scale.y(bottom + (fullest + 0.5) * height)
    pane.canvas.across(level, pane.box.left, pane.box.right, mixed(RED, pane.canvas.theme.background, 0.8))


def _row_parts(volume: str, up: float, down: float) -> list[tuple[float, str]]:
    if volume == "Total":
        return [(up + down, BLUE)]
    if volume == "Delta":
        return [(abs(up - down), GREEN if up >= down else RED)]
    return [(up, BLUE), (down, AMBER)]


def _count_rows(bars: Bars, count: int, bottom: float, height: float) -> list[tuple[float, float]]:
    """Each bar's volume, spread evenly over the rows between its low and high."""
    ups, downs = [0.0] * count, [0.0] * count
    for index, volume in enumerate(bars.volume):
        first = min(count - 1, int((bars.low[index] - bottom) / height))
        last = min(count - 1, int((bars.high[index] - bottom) / height))
        side = ups if bars.close[index] >= bars.open[index] else downs
        for row in range(first, last + 1):
            side[row] += volume / (last - first + 1)
    return list(zip(ups, downs, strict=True))


def _value_area(totals: list[float], fullest: int, percent: float) -> range:
    """Grow from the fullest row towards the fuller neighbour until it holds the wanted share."""
    low = high = fullest
    held, wanted = totals[fullest], sum(totals) * percent / 100
    while held < wanted and (low > 0 or high < len(totals) - 1):
        below = totals[low - 1] if low > 0 else -1.0
        above = totals[high + 1] if high < len(totals) - 1 else -1.0
        if above >= below:
            high += 1
            held += above
        else:
            low -= 1
            held += below
    return range(low, high + 1)


def _runs(pane: Pane, values: Column) -> Iterator[list[Point]]:
    """Stretches of known values as points; an unknown value interrupts a line."""
    run: list[Point] = []
    for index, value in enumerate(values):
        if value is None:
            if run:
                yield run
            run = []
        else:
            run.append((pane.view.x(index), pane.scale.y(value)))
    if run:
        yield run


def _draw_bars(pane: Pane, line: Line, overlay: bool) -> None:
    width, zero = pane.view.body_width(), pane.scale.y(0.0)
    strength = 0.45 if overlay else 0.9
    for index, value in enumerate(line.values):
        if value is None:
            continue
        colour = line.colours[index] if line.colours else line.colour
        left = int(pane.view.x(index)) - width // 2
        top, bottom = sorted((pane.scale.y(value), zero))
        pane.canvas.rectangle((left, top, left + width, bottom), mixed(colour, pane.canvas.theme.background, strength))


def _draw_band(pane: Pane, band: Band) -> None:
    upper: list[Point] = []
    lower: list[Point] = []
    for index, (high, low) in enumerate(zip([*band.upper, None], [*band.lower, None], strict=True)):
        if high is not None and low is not None:
            upper.append((pane.view.x(index), pane.scale.y(high)))
            lower.append((pane.view.x(index), pane.scale.y(low)))
        elif upper:
            for part, tile in tiles(upper, pane.box):
                pane.canvas.surface([*upper[part], *reversed(lower[part])], band.colour, band.opacity, tile)
            upper, lower = [], []


def _draw_levels(pane: Pane, plot: StudyPlot) -> None:
    """Guide lines; the space between the outer two of a bounded study is tinted."""
    if not plot.levels:
        return
    rows = [pane.scale.y(level) for level in plot.levels]
    theme = pane.canvas.theme
    if len(rows) > 1 and plot.lines:
        corners = _corners(pane.box.left, pane.box.right, rows)
        pane.canvas.surface(corners, plot.lines[-1].colour, 0.07, pane.box)
    for row in rows:
        pane.canvas.across(row, pane.box.left, pane.box.right, mixed(theme.faint, theme.background, 0.65), (4, 4))


def _corners(left: float, right: float, rows: Iterable[float]) -> list[Point]:
    top, bottom = min(rows), max(rows)
    return [(left, top), (right, top), (right, bottom), (left, bottom)]
