"""A surface to draw a chart on: crisp rectangles, smooth curves, measured text.

Straight horizontal and vertical things are drawn on whole pixels; curves are drawn three times as large
into a mask and reduced, because Pillow itself does not smooth lines.
In: pixels and hex colours. Out: a Pillow image.
It knows nothing of prices, bars or studies, and needs no font of the system: Pillow carries its own.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from PIL import Image, ImageColor, ImageDraw, ImageFont

SMOOTHING = 3
"""How many times larger a curve is drawn before it is reduced; beyond three the eye sees no gain."""
TILE_POINTS = 14

Point = tuple[float, float]


class Box(NamedTuple):
    """Left and top inside, right and bottom outside."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def width(self) -> int:
        return self.right - self.left

    @property
    def height(self) -> int:
        return self.bottom - self.top


@dataclass(frozen=True, slots=True)
class Theme:
    """The colours of one look."""

    background: str
    grid: str
    border: str
    text: str
    faint: str
    rising: str
    falling: str


THEMES = {
    "light": Theme("#ffffff", "#f0f3fa", "#e0e3eb", "#131722", "#787b86", "#089981", "#f23645"),
    "dark": Theme("#131722", "#1f2431", "#2f3441", "#d1d4dc", "#8a8e99", "#089981", "#f23645"),
}


@lru_cache(maxsize=512)
def mixed(colour: str, background: str, opacity: float) -> str:
    """The colour seen through: blended with its background, so that no layer needs transparency."""
    front, back = ImageColor.getrgb(colour)[:3], ImageColor.getrgb(background)[:3]
    parts = (round(f * opacity + b * (1 - opacity)) for f, b in zip(front, back, strict=True))
    return "#" + "".join(f"{part:02x}" for part in parts)


@lru_cache(maxsize=64)
def is_pale(colour: str) -> bool:
    """Whether white text would be hard to read on it."""
    red, green, blue = ImageColor.getrgb(colour)[:3]
    return 0.299 * red + 0.587 * green + 0.114 * blue > 165


@lru_cache(maxsize=32)
def _font(size: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=size)


def text_width(text: str, size: float) -> float:
    return _font(size).getlength(text)


class Canvas:
    """The picture while it is being drawn."""

    def __init__(self, width: int, height: int, theme: Theme) -> None:
        self.theme = theme
        self.image = Image.new("RGB", (width, height), theme.background)
        self._pen = ImageDraw.Draw(self.image)

    def rectangle(self, box: tuple[float, float, float, float], colour: str) -> None:
        """Filled, on whole pixels, at least one pixel wide and high."""
        left, top, right, bottom = (round(side) for side in box)
        self._pen.rectangle((left, top, max(left, right - 1), max(top, bottom - 1)), fill=colour)

    def outline(self, box: tuple[float, float, float, float], colour: str) -> None:
        left, top, right, bottom = (round(side) for side in box)
        self._pen.rectangle((left, top, max(left, right - 1), max(top, bottom - 1)), outline=colour)

    def across(self, y: float, left: float, right: float, colour: str, dash: tuple[int, int] | None = None) -> None:
        """A horizontal hairline, dashed as (drawn, skipped) pixels."""
        row, start, stop = round(y), round(left), round(right)
        if dash is None:
            self._pen.line((start, row, stop - 1, row), fill=colour)
            return
        for x in range(start, stop, sum(dash)):
            self._pen.line((x, row, min(x + dash[0], stop) - 1, row), fill=colour)

    def down(self, x: float, top: float, bottom: float, colour: str, dash: tuple[int, int] | None = None) -> None:
        """A vertical hairline."""
        column, start, stop = round(x), round(top), round(bottom)
        if dash is None:
            self._pen.line((column, start, column, stop - 1), fill=colour)
            return
        for y in range(start, stop, sum(dash)):
            self._pen.line((column, y, column, min(y + dash[0], stop) - 1), fill=colour)

    def curve(self, points: Sequence[Point], colour: str, width: float, clip: Box) -> None:
        """A smooth line through the points, cut at the edges of `clip`; many points run from left to right."""
        for part, tile in tiles(points, clip):
            area = _around(points[part], width, tile) if len(points[part]) > 1 else None
            if area is not None:
                mask, pen = _mask(area)
                thickness = max(1, round(width * SMOOTHING))
                pen.line(_enlarged(points[part], area), fill=255, width=thickness, joint="curve")
                self._apply(mask, area, colour)

    def surface(self, points: Sequence[Point], colour: str, opacity: float, clip: Box) -> None:
        """A filled polygon, seen through."""
        if len(points) < 3:
            return
        area = _around(points, 1, clip)
        if area is None:
            return
        mask, pen = _mask(area)
        pen.polygon(_enlarged(points, area), fill=round(255 * opacity))
        self._apply(mask, area, colour)

    def dots(self, points: Sequence[Point], radius: float, colour: str, clip: Box) -> None:
        """Round dots at the points."""
        if not points:
            return
        area = _around(points, 2 * radius, clip)
        if area is None:
            return
        mask, pen = _mask(area)
        for x, y in _enlarged(points, area):
            reach = radius * SMOOTHING
            pen.ellipse((x - reach, y - reach, x + reach, y + reach), fill=255)
        self._apply(mask, area, colour)

    def badge(self, box: tuple[float, float, float, float], colour: str, radius: float, opacity: float = 1.0) -> None:
        """A filled rectangle with round corners."""
        area = Box(math.floor(box[0]), math.floor(box[1]), math.ceil(box[2]), math.ceil(box[3]))
        mask, pen = _mask(area)
        size = (0, 0, mask.width - 1, mask.height - 1)
        pen.rounded_rectangle(size, radius * SMOOTHING, fill=round(255 * opacity))
        self._apply(mask, area, colour)

    def text(self, x: float, y: float, text: str, colour: str, size: float, anchor: str = "lm") -> None:
        """Text by Pillow's anchors: the default hangs on the left middle."""
        self._pen.text((round(x), round(y)), text, fill=colour, font=_font(size), anchor=anchor)

    def _apply(self, mask: Image.Image, area: Box, colour: str) -> None:
        self.image.paste(colour, (area.left, area.top, area.right, area.bottom), mask.reduce(SMOOTHING))


def tiles(points: Sequence[Point], clip: Box) -> Iterator[tuple[slice, Box]]:
    """Cut a long run of points into upright tiles, each with a point more at either end.

    A curve that wanders over the whole pane needs a mask of the whole pane; its tiles need little ones.
    The tiles do not overlap, so that no pixel is blended twice; the extra points keep the joints smooth.
    """
    if len(points) <= 2 * TILE_POINTS:
        yield slice(0, len(points)), clip
        return
    left = clip.left
    for start in range(0, len(points), TILE_POINTS):
        stop = start + TILE_POINTS
        right = clip.right if stop >= len(points) else min(clip.right, round(points[stop][0]))
        yield slice(max(0, start - 1), stop + 2), Box(left, clip.top, right, clip.bottom)
        left = max(left, right)


def _around(points: Sequence[Point], reach: float, clip: Box) -> Box | None:
    """The part of the clip box that the points touch: small masks are fast masks."""
    xs, ys = [x for x, _ in points], [y for _, y in points]
    area = Box(
        max(clip.left, math.floor(min(xs) - reach)),
        max(clip.top, math.floor(min(ys) - reach)),
        min(clip.right, math.ceil(max(xs) + reach) + 1),
        min(clip.bottom, math.ceil(max(ys) + reach) + 1),
    )
    return area if area.width > 0 and area.height > 0 else None


def _mask(area: Box) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    mask = Image.new("L", (area.width * SMOOTHING, area.height * SMOOTHING), 0)
    return mask, ImageDraw.Draw(mask)


def _enlarged(points: Sequence[Point], area: Box) -> list[Point]:
    """From the middle of a pixel to the middle of the nine that stand for it."""
    half = SMOOTHING / 2
    return [((x - area.left) * SMOOTHING + half, (y - area.top) * SMOOTHING + half) for x, y in points]
