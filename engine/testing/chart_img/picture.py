"""From a chart request to the bytes of a picture.

In: a checked `ChartRequest`. Out: PNG or JPEG bytes, the same for the same request.
It lays out the main pane, one pane for each study that wants its own, and the axes, and has them drawn.
It never reads a clock, a file or the network, and draws "simulated data" on every picture.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, replace

from engine.testing.chart_img.axes import Scale, TimeLabel, price_text, time_labels
from engine.testing.chart_img.canvas import THEMES, Box, Canvas, text_width
from engine.testing.chart_img.drawings import draw_drawing
from engine.testing.chart_img.labels import (
    LABEL_SPACING,
    LEGEND_ROW,
    TITLE_SIZE,
    Legend,
    Tag,
    Tick,
    draw_price_axis,
    draw_simulated_mark,
    draw_tags,
    draw_time_axis,
    draw_time_grid,
    draw_watermark,
    plot_words,
    study_text,
    title_words,
)
from engine.testing.chart_img.market import Bars, history, price_decimals
from engine.testing.chart_img.plots import Inputs, StudyPlot
from engine.testing.chart_img.request_rules import ChartRequest
from engine.testing.chart_img.series import Pane, draw_series, shown_bars
from engine.testing.chart_img.studies import STUDIES
from engine.testing.chart_img.study_marks import draw_plot, draw_profile, plot_limits
from engine.testing.chart_img.view import View, choose_view, local_times

WARM_UP = 300
"""Bars before the first visible one that studies are computed from."""
AXIS_WIDTH_GUESS = 66
NARROW = 600
"""A main pane below this width has its title on two rows."""
FORCED_SHARE = 0.24
"""The part of the main pane's height that a study forced onto it may take."""


@dataclass(frozen=True, slots=True)
class Chart:
    """Everything a picture shows, before any pixel of it."""

    request: ChartRequest
    view: View
    bars: Bars
    overlays: tuple[StudyPlot, ...]
    forced: tuple[StudyPlot, ...]
    own: tuple[StudyPlot, ...]
    times: list[TimeLabel]
    decimals: int
    size: float

    def wants(self, name: str, default: bool = True) -> bool:
        """A switch of the request's `override`."""
        return bool(self.request.override.get(name, default))


@dataclass(frozen=True, slots=True)
class Unit:
    """What the price axis shows: the price itself, a percentage or an index of 100."""

    shown: Callable[[float], float]
    price: Callable[[float], float]
    text: Callable[[float], str]


def draw_picture(request: ChartRequest) -> bytes:
    chart = _chart(request)
    canvas = Canvas(request.width, request.height, THEMES[request.theme])
    right = request.width - _axis_width(chart)
    chart = _chart(request, right)
    bottom = request.height - round(chart.size + 14)
    boxes = _pane_boxes(chart, right, bottom)
    main = _draw_main(canvas, chart, boxes[0])
    for plot, box in zip(chart.own, boxes[1:], strict=True):
        canvas.across(box.top - 1, 0, request.width, canvas.theme.border)
        _draw_own(canvas, chart, plot, box)
    canvas.down(right, 0, bottom, canvas.theme.border)
    draw_time_axis(main, chart.times, bottom, chart.size)
    return _encoded(canvas, request.format)


def _chart(request: ChartRequest, width: int | None = None) -> Chart:
    past = history(request.symbol, request.interval)
    view = choose_view(request, past, request.width - AXIS_WIDTH_GUESS if width is None else width)
    warm = max(0, view.start - WARM_UP)
    known = past.between(warm, view.stop)
    bars = shown_bars(known, request.style).between(view.start - warm, len(known))
    overlays, forced, own = [], [], []
    for element in request.studies:
        plot = STUDIES[element.name](known, Inputs(element.input)).between(view.start - warm, len(known))
        if plot.overlay:
            overlays.append(plot)
        elif element.force_overlay:
            forced.append(replace(plot, overlay=True))
        else:
            own.append(plot)
    size = float(request.override.get("scalesFontSize", 12))
    labels = time_labels(local_times(list(bars.time), request), view.spacing, max(64.0, size * 5.4))
    decimals = price_decimals(past.close[-1])
    return Chart(request, view, bars, tuple(overlays), tuple(forced), tuple(own), labels, decimals, size)


def _axis_width(chart: Chart) -> int:
    """Room for the longest label of any pane."""
    texts = [_unit(chart).text(max(chart.bars.high)), price_text(max(chart.bars.high), chart.decimals)]
    for plot in chart.own:
        limits = plot_limits(plot) or (0.0, 0.0)
        texts += [study_text(plot, value, chart.decimals) for value in limits]
    return round(max(text_width(text, chart.size) for text in texts) + 18)


def _pane_boxes(chart: Chart, right: int, bottom: int) -> list[Box]:
    """The main pane above, the others below it at equal heights, a hairline between them."""
    count = len(chart.own)
    share = min(0.23, 0.62 / count) if count else 0.0
    height = int(bottom * share)
    asked = chart.request.override.get("mainPaneHeight")
    if asked is not None and count:
        height = max(40, (bottom - min(asked, bottom - 40 * count)) // count)
    main_bottom = bottom - height * count
    boxes = [Box(0, 0, right, max(60, main_bottom))]
    for index in range(count):
        top = main_bottom + height * index
        boxes.append(Box(0, top + 1, right, top + height))
    return boxes


def _draw_main(canvas: Canvas, chart: Chart, box: Box) -> Pane:
    unit, pane = _unit(chart), Pane(canvas, chart.view, box, _main_scale(chart, box))
    shown = Scale(unit.shown(pane.scale.low), unit.shown(pane.scale.high), box.top, box.bottom, pane.scale.logarithmic)
    ticks = [Tick(unit.price(value), unit.text(value)) for value in shown.ticks(LABEL_SPACING)]
    tags = _main_tags(chart, pane, unit)
    if chart.wants("showSymbolWatermark", False):
        size = min(64.0, 1.5 * box.width / len(chart.request.symbol))
        draw_watermark(canvas, box, chart.request.symbol, size, 0.18)
    if chart.wants("showVertGrid"):
        draw_time_grid(pane, chart.times)
    draw_price_axis(pane, ticks, tags, chart.size, chart.wants("showHorzGrid"))
    for plot in chart.overlays:
        if plot.profile:
            draw_profile(pane, plot.profile, chart.bars)
    for plot in chart.forced:
        draw_plot(Pane(canvas, chart.view, box, _forced_scale(plot, box)), plot)
    if chart.wants("showMainPane"):
        draw_series(pane, chart.bars, chart.request.style)
    for plot in chart.overlays:
        draw_plot(pane, plot)
    for drawing in chart.request.drawings:
        draw_drawing(pane, chart.bars, drawing)
    last_y = pane.scale.y(chart.bars.close[-1])
    if chart.wants("showPriceLine") and box.top < last_y < box.bottom:
        canvas.across(last_y, 0, box.right, _last_colour(chart, pane), (1, 2))
    # With a price range of the request's own the series may leave its pane below: everything there is drawn later.
    canvas.rectangle((0, box.bottom, canvas.image.width, canvas.image.height), canvas.theme.background)
    draw_tags(pane, tags, chart.size)
    _draw_main_words(canvas, chart, pane)
    return pane


def _draw_main_words(canvas: Canvas, chart: Chart, pane: Pane) -> None:
    request, box = chart.request, pane.box
    draw_simulated_mark(canvas, 10, box.bottom - 8)
    if request.watermark is not None:
        draw_watermark(canvas, box, request.watermark, request.watermark_size, request.watermark_opacity)
    if not chart.wants("showLegend"):
        return
    legend = Legend(pane, box.top + 6, box.right - 8)
    ohlc, change = chart.wants("showSeriesOHLC"), chart.wants("showBarChange")
    words = title_words(request.symbol, request.interval, chart.bars, pane, chart.decimals, ohlc=ohlc, change=change)
    if box.width < NARROW:
        legend.row(words[:1], first_size=TITLE_SIZE)
        legend.row(words[1:])
    else:
        legend.row(words, first_size=TITLE_SIZE)
    for plot in (*chart.overlays, *chart.forced):
        legend.row(plot_words(plot, pane, chart.decimals, values=chart.wants("showLegendValues")))


def _draw_own(canvas: Canvas, chart: Chart, plot: StudyPlot, box: Box) -> None:
    low, high = plot_limits(plot) or (0.0, 1.0)
    margin = 0.0 if plot.limits else (high - low) * 0.08 or 1.0
    head = 24 if plot.limits is None else 8
    floor = box.bottom - (0 if low == 0.0 else 5)
    inverted = chart.wants("showInvertScaleStudies", False)
    scale = Scale(low if low == 0.0 else low - margin, high + margin, box.top + head, floor, inverted=inverted)
    pane = Pane(canvas, chart.view, box, scale)
    tags = []
    if chart.wants("showStudyLastValue"):
        for line in reversed(plot.lines):
            last = line.values[-1] if line.values else None
            if last is not None:
                colour = line.colours[-1] if line.colours else line.colour
                tags.append(Tag(last, study_text(plot, last, chart.decimals), colour))
    if chart.wants("showVertGrid"):
        draw_time_grid(pane, chart.times)
    values = plot.levels if plot.limits and plot.levels else scale.ticks(LABEL_SPACING * 0.7)
    ticks = [Tick(value, study_text(plot, value, chart.decimals)) for value in values]
    draw_price_axis(pane, ticks, tags, chart.size, chart.wants("showHorzGrid"))
    draw_plot(pane, plot)
    draw_tags(pane, tags, chart.size)
    if chart.wants("showLegend"):
        words = plot_words(plot, pane, chart.decimals, values=chart.wants("showLegendValues"))
        Legend(pane, box.top + 3, box.right - 8).row(words)


def _main_scale(chart: Chart, box: Box) -> Scale:
    """Room for every visible price and overlay, and for the legend above and the mark below."""
    asked = chart.request.override.get("priceRange")
    logarithmic = chart.request.scale == "logarithmic"
    inverted = chart.wants("showInvertScale", False)
    low, high = min(chart.bars.low), max(chart.bars.high)
    for plot in chart.overlays:
        limits = plot_limits(plot)
        if limits is not None and plot.lines:
            low, high = min(low, limits[0]), max(high, limits[1])
    if logarithmic and low <= 0:  # a band below zero has no place there; prices have one
        low = min(chart.bars.low)
    if asked is not None:
        margin = (asked["to"] - asked["from"]) * asked.get("margin", 0.0025)
        low, high = asked["from"] - margin, asked["to"] + margin
        if logarithmic:
            low, high = max(low, 1e-9), max(high, 2e-9)
        return Scale(low, high, box.top, box.bottom, logarithmic, inverted)
    rows = (2 if box.width < NARROW else 1) + len(chart.overlays) + len(chart.forced)
    head = min(box.height * 0.35, 14 + rows * LEGEND_ROW)
    foot = box.height * (FORCED_SHARE if chart.forced else 0.06) + 8
    fitted = Scale(low, high if high > low else low * 1.01 + 1e-9, box.top + head, box.bottom - foot, logarithmic)
    low, high = _value_at(fitted, box.bottom), _value_at(fitted, box.top)
    return Scale(low, high, box.top, box.bottom, logarithmic, inverted)


def _value_at(scale: Scale, y: float) -> float:
    """The value that stands at a row, also beyond the ends of the scale."""
    share = (scale.bottom - y) / (scale.bottom - scale.top)
    if scale.logarithmic:
        return float(scale.low * (scale.high / scale.low) ** share)
    return scale.low + share * (scale.high - scale.low)


def _forced_scale(plot: StudyPlot, box: Box) -> Scale:
    low, high = plot_limits(plot) or (0.0, 1.0)
    return Scale(low, high if high > low else low + 1.0, box.bottom - box.height * FORCED_SHARE, box.bottom)


def _unit(chart: Chart) -> Unit:
    first = chart.bars.close[0] or 1.0
    if chart.request.scale == "percent":
        return Unit(lambda price: (price / first - 1) * 100, lambda value: first * (1 + value / 100), _percent_text)
    if chart.request.scale == "indexedTo100":
        return Unit(lambda price: price / first * 100, lambda value: first * value / 100, lambda value: f"{value:.2f}")
    return Unit(lambda price: price, lambda value: value, lambda value: price_text(value, chart.decimals))


def _percent_text(value: float) -> str:
    return f"{value:+.2f}%"


def _last_colour(chart: Chart, pane: Pane) -> str:
    return pane.colour(chart.bars.close[-1] >= chart.bars.open[-1])


def _main_tags(chart: Chart, pane: Pane, unit: Unit) -> list[Tag]:
    """The last price first: the tags of the overlays make room for it."""
    tags = []
    if chart.wants("showSeriesLastValue"):
        close = chart.bars.close[-1]
        tags.append(Tag(close, unit.text(unit.shown(close)), _last_colour(chart, pane)))
    for plot in chart.overlays if chart.wants("showStudyLastValue") else ():
        for line in plot.lines:
            last = line.values[-1] if line.values else None
            if last is not None and pane.scale.low <= last <= pane.scale.high:
                tags.append(Tag(last, unit.text(unit.shown(last)), line.colour))
    return tags


def _encoded(canvas: Canvas, format_: str) -> bytes:
    buffer = io.BytesIO()
    if format_ == "jpeg":
        canvas.image.save(buffer, "JPEG", quality=90)
    else:
        canvas.image.save(buffer, "PNG", compress_level=6)
    return buffer.getvalue()
