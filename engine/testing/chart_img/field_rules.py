"""One rule for every field of the request, as a table.

A rule takes the value and says what is wrong with it, or nothing. `FIELDS` holds the top-level fields,
`OVERRIDES` those of `override`; studies and drawings are checked element by element with their path.
In: JSON values. Out: `Problem` values, which know the API's array shape of a 422.
It never looks at two fields together: that is `request_rules.py`.
"""

from __future__ import annotations

import zoneinfo
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from engine.testing.chart_img.studies import STUDIES

STYLES = ("bar", "candle", "line", "area", "heikinAshi", "hollowCandle", "baseline", "hiLo", "column")
SCALES = ("regular", "percent", "indexedTo100", "logarithmic")
RANGES = ("1D", "5D", "1M", "3M", "6M", "1Y", "5Y", "ALL", "DTD", "WTD", "MTD", "YTD")
DRAWINGS = (
    "Order Line", "Trend Line", "Horizontal Line", "Vertical Line", "Long Position", "Short Position",
    "Fib Retracement", "Date Range", "Date Price Range", "Rectangle", "Arrow Marker", "Arrow Mark Up",
    "Arrow Mark Down", "Text", "Callout",
)  # fmt: skip

Rule = Callable[[Any], str | None]


@dataclass(frozen=True, slots=True)
class Problem:
    """One field error."""

    value: Any
    message: str
    path: str

    def as_json(self) -> dict[str, Any]:
        return {"value": self.value, "msg": self.message, "param": self.path, "location": "body"}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def a_text(value: Any) -> str | None:
    return None if isinstance(value, str) and value.strip() else "must be a non-empty string"


def a_flag(value: Any) -> str | None:
    return None if isinstance(value, bool) else "must be a boolean"


def a_list(value: Any) -> str | None:
    return None if isinstance(value, list) else "must be an array"


def an_object(value: Any) -> str | None:
    return None if isinstance(value, dict) else "must be an object"


def an_integer(low: int, high: int | None = None) -> Rule:
    wanted = f"must be an integer of at least {low}" if high is None else f"must be an integer from {low} to {high}"

    def rule(value: Any) -> str | None:
        good = isinstance(value, int) and not isinstance(value, bool) and value >= low
        return None if good and (high is None or value <= high) else wanted

    return rule


def a_number(low: float, high: float) -> Rule:
    return lambda value: None if _is_number(value) and low <= value <= high else f"must be from {low:g} to {high:g}"


def one_of(*choices: object) -> Rule:
    wanted = "must be one of " + ", ".join(map(str, choices))
    # `True == 1` in Python, so a type check keeps booleans out of numeric choices.
    return lambda value: None if any(type(value) is type(one) and value == one for one in choices) else wanted


def an_object_of(rules: Mapping[str, Rule], required: tuple[str, ...] = ()) -> Rule:
    """Known keys only, each by its rule; the message names the key."""

    def rule(value: Any) -> str | None:
        if not isinstance(value, dict):
            return "must be an object"
        for name in (*required, *value):
            if name not in value:
                return f"{name} is required"
            problem = rules[name](value[name]) if name in rules else "is not supported"
            if problem:
                return f"{name} {problem}"
        return None

    return rule


@lru_cache(maxsize=1)
def _time_zones() -> frozenset[str]:
    return frozenset(zoneinfo.available_timezones())


def a_time_zone(value: Any) -> str | None:
    """An IANA name with an area; plain `UTC` and its like are not in the API's list."""
    known = isinstance(value, str) and "/" in value and (value == "Etc/UTC" or value in _time_zones())
    return None if known else "must be a supported timezone"


def an_instant(value: Any) -> str | None:
    try:
        datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return "must be an ISO 8601 date"
    return None


def a_range(value: Any) -> str | None:
    """A named range, or from … to with from before to."""
    if not isinstance(value, dict):
        return one_of(*RANGES)(value)
    problem = an_object_of({"from": an_instant, "to": an_instant}, ("from", "to"))(value)
    if problem:
        return problem
    start, end = (datetime.fromisoformat(value[name]) for name in ("from", "to"))
    if (start if start.tzinfo else start.replace(tzinfo=UTC)) >= (end if end.tzinfo else end.replace(tzinfo=UTC)):
        return "from must be before to"
    return None


def a_price_range(value: Any) -> str | None:
    span = {"from": a_number(-1e15, 1e15), "to": a_number(-1e15, 1e15), "margin": a_number(0.001, 0.1)}
    problem = an_object_of(span, ("from", "to"))(value)
    return problem or (None if value["from"] < value["to"] else "from must be less than to")


_FLAGS = (
    "showLegend", "showLegendValues", "showMainPane", "showPriceLine", "showVertGrid", "showHorzGrid",
    "showSeriesLastValue", "showSeriesOHLC", "showBarChange", "showStudyLastValue", "showStudyPlotNamesAction",
    "showSymbolLabelsAction", "showSymbolWatermark", "showInvertScale", "showInvertScaleStudies",
)  # fmt: skip
OVERRIDES: Mapping[str, Rule] = {
    "style": an_object,
    "priceRange": a_price_range,
    "mainPaneHeight": an_integer(100, 1800),
    "scalesFontSize": an_integer(10, 50),
    **dict.fromkeys(_FLAGS, a_flag),
}

FIELDS: Mapping[str, Rule] = {
    "symbol": a_text,
    "interval": a_text,
    "width": an_integer(400),
    "height": an_integer(300),
    "style": one_of(*STYLES),
    "theme": one_of("light", "dark"),
    "scale": one_of(*SCALES),
    "session": one_of("regular", "extended"),
    "timezone": a_time_zone,
    "format": one_of("png", "jpeg"),
    "range": a_range,
    "override": an_object_of(OVERRIDES),
    "studies": a_list,
    "drawings": a_list,
    "shiftLeft": an_integer(1, 1000),
    "shiftRight": an_integer(1, 1000),
    "watermark": a_text,
    "watermarkSize": one_of(16, 32, 64, 128),
    "watermarkOpacity": a_number(0.1, 1),
}


def _values(value: Any) -> str | None:
    """The `input` and `override` of an element: names with plain values."""
    if not isinstance(value, dict):
        return "must be an object"
    plain = all(isinstance(one, str | bool) or _is_number(one) for one in value.values())
    return None if plain else "must hold only strings, numbers and booleans"


STUDY_FIELDS: Mapping[str, Rule] = {"forceOverlay": a_flag, "input": _values, "override": _values}
DRAWING_FIELDS: Mapping[str, Rule] = {
    "input": _values,
    "override": _values,
    "zOrder": lambda value: None if isinstance(value, str) else "must be a string",
}


def study_problems(studies: list[Any]) -> list[Problem]:
    return _elements("studies", studies, frozenset(STUDIES), STUDY_FIELDS, ())


def drawing_problems(drawings: list[Any]) -> list[Problem]:
    return _elements("drawings", drawings, frozenset(DRAWINGS), DRAWING_FIELDS, ("input",))


def _elements(
    field: str, elements: list[Any], names: frozenset[str], rules: Mapping[str, Rule], required: tuple[str, ...]
) -> list[Problem]:
    problems: list[Problem] = []
    for index, element in enumerate(elements):
        path = f"{field}[{index}]"
        if not isinstance(element, dict):
            problems.append(Problem(element, "must be an object", path))
            continue
        name = element.get("name")
        if not isinstance(name, str) or name not in names:
            problems.append(Problem(name, "must be a supported name", f"{path}.name"))
        problems += [Problem(None, "is required", f"{path}.{key}") for key in required if key not in element]
        for key, value in element.items():
            if key != "name":
                message = rules[key](value) if key in rules else "is not supported"
                if message:
                    problems.append(Problem(value, message, f"{path}.{key}"))
    return problems
