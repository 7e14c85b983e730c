"""What a study asks the picture to show, as plain values.

In: columns computed by the studies, one value a bar. Out: `StudyPlot`, drawn by `study_marks.py`.
`Inputs` reads a study's own `input` object with its defaults.
A plot never knows pixels, panes or themes; a colour is a hex text that reads well on both themes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from engine.testing.chart_img.indicators import Column
from engine.testing.chart_img.market import Bars

BLUE, ORANGE, PURPLE, TEAL, RED, GREEN = "#2962ff", "#ff6d00", "#7e57c2", "#00897b", "#f23645", "#089981"
PINK, AMBER, GREY = "#e91e63", "#f9a825", "#787b86"

LENGTH_MAX = 500
"""Longer windows than this are cut: the simulated history has no more to show."""


@dataclass(frozen=True, slots=True)
class Line:
    """One value a bar, drawn as a line, as dots, or as bars from zero."""

    values: Column
    colour: str
    shape: Literal["line", "dots", "bars"] = "line"
    width: float = 1.5
    colours: Sequence[str] = ()
    """For bars: a colour for each value instead of one for all."""


@dataclass(frozen=True, slots=True)
class Band:
    """The space between two columns, faintly filled."""

    upper: Column
    lower: Column
    colour: str
    opacity: float = 0.08


@dataclass(frozen=True, slots=True)
class Profile:
    """Volume by price over the visible bars, drawn as a histogram from the right."""

    rows: int
    volume: str
    value_area_percent: float


@dataclass(frozen=True, slots=True)
class StudyPlot:
    """One study: its legend and everything to draw for it."""

    title: str
    lines: tuple[Line, ...] = ()
    bands: tuple[Band, ...] = ()
    overlay: bool = False
    levels: tuple[float, ...] = ()
    limits: tuple[float, float] | None = None
    profile: Profile | None = None

    def between(self, start: int, stop: int) -> StudyPlot:
        """The part of the plot that belongs to the visible bars."""
        lines = tuple(
            replace(line, values=line.values[start:stop], colours=line.colours[start:stop]) for line in self.lines
        )
        bands = tuple(replace(band, upper=band.upper[start:stop], lower=band.lower[start:stop]) for band in self.bands)
        return replace(self, lines=lines, bands=bands)


class Inputs:
    """A study's `input` object: the first of the given names that is there, else the default."""

    def __init__(self, values: Mapping[str, object]) -> None:
        self._values = values

    def number(self, default: float, *names: str) -> float:
        for name in names:
            value = self._values.get(name)
            if isinstance(value, int | float) and not isinstance(value, bool):
                return float(value)
        return default

    def length(self, default: int, *names: str) -> int:
        return max(1, min(LENGTH_MAX, int(self.number(default, *names))))

    def text(self, default: str, name: str) -> str:
        value = self._values.get(name)
        return value if isinstance(value, str) else default


StudyFunction = Callable[[Bars, Inputs], StudyPlot]
