"""Scales and their labels: round prices, sensible times, short volumes.

In: numbers or instants and the pixels they may fill. Out: positions and texts, nothing drawn.
The price scale can be straight, logarithmic or turned upside down, and can show percent or an index of 100.
It never invents a label that is not on the scale.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from engine.testing.chart_img.market import price_decimals

LOG_FACTORS = ((1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8), (1, 1.5, 2, 3, 5, 7), (1, 2, 5), (1, 3), (1,))


@dataclass(frozen=True, slots=True)
class Scale:
    """From a value to a row of pixels between `top` (the highest) and `bottom`."""

    low: float
    high: float
    top: float
    bottom: float
    logarithmic: bool = False
    inverted: bool = False

    def y(self, value: float) -> float:
        low, high = self.low, self.high
        if self.logarithmic:
            low, high, value = math.log(low), math.log(high), math.log(max(value, 1e-12))
        share = (value - low) / ((high - low) or 1.0)
        if self.inverted:
            share = 1.0 - share
        return self.bottom - share * (self.bottom - self.top)

    def ticks(self, spacing: float) -> list[float]:
        """Round values at least about `spacing` pixels apart, lowest first."""
        wanted = max(2.0, abs(self.bottom - self.top) / spacing)
        if not self.logarithmic or self.high < 2.5 * self.low:
            return round_values(self.low, self.high, wanted)
        decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        ticks: list[float] = []
        for factors in LOG_FACTORS:
            all_ticks = (factor * 10.0**decade for decade in decades for factor in factors)
            ticks = [tick for tick in all_ticks if self.low <= tick <= self.high]
            rows = [self.y(tick) for tick in ticks]
            if all(abs(one - two) >= spacing * 0.6 for one, two in itertools.pairwise(rows)):
                break
        return ticks


def round_step(span: float, wanted: float) -> float:
    """The smallest of 1, 2, 2.5, 5 × 10ⁿ that cuts the span into at most `wanted` parts."""
    raw = max(span, 1e-12) / wanted
    power = 10.0 ** math.floor(math.log10(raw))
    return next((factor * power for factor in (1, 2, 2.5, 5) if factor * power >= raw), 10 * power)


def round_values(low: float, high: float, wanted: float) -> list[float]:
    step = round_step(high - low, wanted)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [index * step for index in range(first, last + 1)]


def price_text(price: float, decimals: int | None = None) -> str:
    return f"{price:,.{price_decimals(abs(price)) if decimals is None else decimals}f}"


def signed(value: float, text: str) -> str:
    """The text of an absolute value with its sign."""
    return ("-" if value < 0 else "+") + text


def short_number(value: float) -> str:
    """1.234K, 5.6M: for volumes and other large numbers of no fixed unit."""
    size = abs(value)
    for limit, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K")):
        if size >= limit:
            return f"{value / limit:,.2f}{letter}"
    return f"{value:,.2f}"


@dataclass(frozen=True, slots=True)
class TimeLabel:
    """One label under bar `index`; a new year or month weighs more than a day, a day more than an hour."""

    index: int
    text: str
    weight: int


Bucket = Callable[[datetime], object]


def _minutes(step: int) -> Bucket:
    return lambda time: (time.toordinal(), (time.hour * 60 + time.minute) // step)


def _days(step: int) -> Bucket:
    # The last days of a long month belong to the bucket before: no "31" right beside the next "1".
    return lambda time: (time.year, time.month, min((time.day - 1) // step, 30 // step - 1))


def _months(step: int) -> Bucket:
    return lambda time: (time.year * 12 + time.month - 1) // step


LADDER: tuple[tuple[float, Bucket], ...] = (
    *((minutes / 1440, _minutes(minutes)) for minutes in (1, 5, 10, 15, 30, 60, 120, 180, 240, 360, 720)),
    *((float(days), _days(days)) for days in (1, 2, 3, 5, 10, 15)),
    *((months * 30.4, _months(months)) for months in (1, 2, 3, 6, 12, 24, 36, 60, 120, 240)),
)
"""Steps of the time axis in days, each with the bucket whose change makes a label."""


def time_labels(times: Sequence[datetime], spacing: float, label_spacing: float) -> list[TimeLabel]:
    """Labels for local times at a step wide enough that texts do not touch."""
    if len(times) < 2:
        return [TimeLabel(0, _date(times[0]), 1)] if times else []
    bar_days = (times[-1] - times[0]).total_seconds() / 86_400 / (len(times) - 1)
    days_wanted = bar_days * label_spacing / spacing
    bucket = next((one for days, one in LADDER if days >= days_wanted), LADDER[-1][1])
    labels = [
        _label(index, before, now)
        for index, (before, now) in enumerate(itertools.pairwise(times), start=1)
        if bucket(before) != bucket(now)
    ]
    return _apart(labels, spacing, label_spacing * 0.72)


def _apart(labels: list[TimeLabel], spacing: float, distance: float) -> list[TimeLabel]:
    """Keep the heaviest labels; a lighter one gives way when it stands too close."""
    kept: list[TimeLabel] = []
    for label in sorted(labels, key=lambda one: -one.weight):
        if all(abs(label.index - other.index) * spacing >= distance for other in kept):
            kept.append(label)
    return sorted(kept, key=lambda one: one.index)


def _label(index: int, before: datetime, now: datetime) -> TimeLabel:
    if now.year != before.year:
        return TimeLabel(index, str(now.year), 4)
    if now.month != before.month:
        return TimeLabel(index, now.strftime("%b"), 3)
    if now.date() != before.date():
        return TimeLabel(index, str(now.day), 2)
    return TimeLabel(index, now.strftime("%H:%M"), 1)


def _date(time: datetime) -> str:
    return time.strftime("%d %b")
