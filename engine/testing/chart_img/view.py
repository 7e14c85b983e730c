"""Which bars a picture shows and where they stand across it.

In: a request, the whole history and the width to fill. Out: a `View`: the slice of visible bars,
the empty room to their right, and the column of pixels of each bar.
Named ranges end at the market's fixed last instant; shifting left shows earlier bars, shifting right leaves room.
It never fetches or changes a bar.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from engine.testing.chart_img.market import LAST_INSTANT, Bars, interval_seconds, is_intraday
from engine.testing.chart_img.request_rules import ChartRequest

SPACING = 7.4
"""Pixels from bar to bar unless a range asks for more or fewer bars."""
SPACING_MAX = 22.0
ROOM_RIGHT = 4
"""Empty bars between the last candle and the price axis."""
BARS_MIN, BARS_MAX = 4, 1000

RANGE_DAYS = {"1D": 1, "5D": 5, "1M": 30.4, "3M": 91.3, "6M": 182.6, "1Y": 365.25, "5Y": 1826.25}


@dataclass(frozen=True, slots=True)
class View:
    """Bars `start` … `stop` of the history, on slots `spacing` pixels wide, the last `room` of them empty."""

    start: int
    stop: int
    room: int
    slots: int
    spacing: float

    @property
    def count(self) -> int:
        return self.stop - self.start

    def x(self, index: int) -> float:
        """The middle of the visible bar `index`; bars stand at the right when there are few."""
        return (self.slots - self.room - self.count + index + 0.5) * self.spacing

    def body_width(self) -> int:
        """An odd number of pixels, so that the wick stands in the middle."""
        width = max(1, int(self.spacing * 0.72))
        return width if width % 2 else max(1, width - 1)


def choose_view(request: ChartRequest, history: Bars, width: int) -> View:
    stop, wanted = _span(request, history)
    slots = wanted + ROOM_RIGHT if wanted else int(width / SPACING)
    stop = max(BARS_MIN, stop - request.shift_left)
    room = min(ROOM_RIGHT + request.shift_right, int(slots * 0.8))
    count = max(BARS_MIN, min(slots - room, stop, BARS_MAX))
    slots = max(count + room, min(slots, int(width / SPACING_MAX)))
    return View(stop - count, stop, room, slots, width / slots)


def local_times(times: list[datetime], request: ChartRequest) -> list[datetime]:
    """Opening times as the axis shows them: a day or longer is named by its date, whatever the time zone."""
    if not is_intraday(request.interval):
        return times
    zone = UTC if request.timezone == "Etc/UTC" else ZoneInfo(request.timezone)
    return [time.astimezone(zone) for time in times]


def _span(request: ChartRequest, history: Bars) -> tuple[int, int]:
    """Where the view ends and how many bars it holds; zero bars means as many as fit."""
    if request.range is None:
        return len(history), 0
    if isinstance(request.range, tuple):
        start = bisect_left(history.time, request.range[0])
        stop = max(BARS_MIN, bisect_right(history.time, request.range[1]))
        return stop, max(BARS_MIN, min(stop - start, BARS_MAX))
    if request.range == "ALL":
        return len(history), min(len(history), BARS_MAX)
    seconds = _range_seconds(request.range)
    count = int(seconds / interval_seconds(request.interval) + 0.999)
    return len(history), max(BARS_MIN, min(count, BARS_MAX))


def _range_seconds(name: str) -> float:
    if name in RANGE_DAYS:
        return RANGE_DAYS[name] * 86_400
    midnight = LAST_INSTANT.replace(hour=0, minute=0)
    start = {
        "DTD": midnight,
        "WTD": midnight - timedelta(days=midnight.weekday()),
        "MTD": midnight.replace(day=1),
        "YTD": midnight.replace(month=1, day=1),
    }[name]
    return (LAST_INSTANT - start).total_seconds()
