"""What the API accepts: a JSON value becomes a `ChartRequest` or a refusal.

In: the parsed body and the account's plan. Out: `ChartRequest`, or `Refusal(status, body)` in one of the two
422 shapes: an array of `{value, msg, param, location}` holding *all* field errors, or `{"message": …}`
for a symbol, an interval or a request that is well-formed but cannot be. Plan limits are 403.
It never stops at the first bad field and never changes a value: what is accepted is drawn as asked.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from engine.testing.chart_img.field_rules import FIELDS, Problem, drawing_problems, study_problems
from engine.testing.chart_img.market import INTERVALS
from engine.testing.chart_img.plans import Plan

SYMBOL_LENGTH_MAX = 256
TICKER = r"[A-Za-z0-9_]+:[A-Za-z0-9_.!&]+"
FORMULA_TOKEN = re.compile(rf"\s*(?:(?P<operand>{TICKER}|\d+(?:\.\d+)?)|(?P<sign>[-+*/^])|(?P<bracket>[()]))")


@dataclass(frozen=True, slots=True)
class Element:
    """One study or drawing of a request."""

    name: str
    input: Mapping[str, Any] = field(default_factory=dict)
    force_overlay: bool = False


@dataclass(frozen=True, slots=True)
class ChartRequest:
    """A request with every default filled in."""

    symbol: str = "BINANCE:BTCUSDT"
    interval: str = "1D"
    width: int = 800
    height: int = 600
    style: str = "candle"
    theme: str = "light"
    scale: str = "regular"
    session: str = "regular"
    timezone: str = "Etc/UTC"
    format: str = "png"
    range: str | tuple[datetime, datetime] | None = None
    override: Mapping[str, Any] = field(default_factory=dict)
    studies: tuple[Element, ...] = ()
    drawings: tuple[Element, ...] = ()
    shift_left: int = 0
    shift_right: int = 0
    watermark: str | None = None
    watermark_size: int = 32
    watermark_opacity: float = 0.5


@dataclass(frozen=True, slots=True)
class Refusal:
    """A status and the JSON body that goes with it."""

    status: int
    body: Any


def read_request(body: Any, plan: Plan) -> ChartRequest | Refusal:
    """Check everything a request can be refused for, in the API's order."""
    if not isinstance(body, dict) or any(name not in FIELDS for name in body):
        return Refusal(422, {"message": "Invalid Request"})
    problems = _problems(body)
    if problems:
        return Refusal(422, [problem.as_json() for problem in problems])
    if not is_symbol(body.get("symbol", ChartRequest().symbol)):
        return Refusal(422, {"message": "Invalid Symbol"})
    if body.get("interval", "1D") not in INTERVALS:
        return Refusal(422, {"message": "Invalid Interval"})
    request = _request(body)
    return _beyond_plan(request, plan) or request


def is_symbol(text: str) -> bool:
    """`EXCHANGE:SYMBOL`, or a formula of such symbols and numbers with + - * / ^ and brackets."""
    position, depth, operand_next, symbols = 0, 0, True, 0
    text = text.strip()
    if len(text) > SYMBOL_LENGTH_MAX:
        return False
    while position < len(text):
        token = FORMULA_TOKEN.match(text, position)
        if token is None:
            return False
        position = token.end()
        if token["operand"]:
            if not operand_next:
                return False
            operand_next = False
            symbols += ":" in token["operand"]
        elif token["sign"]:
            if operand_next:
                return False
            operand_next = True
        else:
            opening = token["bracket"] == "("
            if opening != operand_next:
                return False
            depth += 1 if opening else -1
            if depth < 0:
                return False
    return depth == 0 and not operand_next and symbols > 0


def _problems(body: dict[str, Any]) -> list[Problem]:
    problems: list[Problem] = []
    for name, rule in FIELDS.items():
        if name in body:
            message = rule(body[name])
            if message:
                problems.append(Problem(body[name], message, name))
    if isinstance(body.get("studies"), list):
        problems += study_problems(body["studies"])
    if isinstance(body.get("drawings"), list):
        problems += drawing_problems(body["drawings"])
    return problems


def _request(body: dict[str, Any]) -> ChartRequest:
    renamed = {
        "shiftLeft": "shift_left", "shiftRight": "shift_right",
        "watermarkSize": "watermark_size", "watermarkOpacity": "watermark_opacity",
    }  # fmt: skip
    values = {renamed.get(name, name): value for name, value in body.items()}
    for name in ("studies", "drawings"):
        values[name] = tuple(
            Element(one["name"], one.get("input", {}), one.get("forceOverlay", False)) for one in body.get(name, ())
        )
    if isinstance(values.get("range"), dict):
        span = values["range"]
        values["range"] = (read_instant(span["from"]), read_instant(span["to"]))
    return ChartRequest(**values)


def read_instant(text: str) -> datetime:
    """An ISO 8601 instant; without an offset it is UTC."""
    instant = datetime.fromisoformat(text)
    return instant if instant.tzinfo else instant.replace(tzinfo=UTC)


def _beyond_plan(request: ChartRequest, plan: Plan) -> Refusal | None:
    if request.width > plan.width_max or request.height > plan.height_max:
        limit = f"{plan.width_max}x{plan.height_max}"
        return Refusal(403, {"message": f"Exceed Max Usage Resolution Limit ({limit})"})
    if len(request.studies) + len(request.drawings) > plan.parameters_max:
        return Refusal(403, {"message": f"Exceed Max Usage Parameter Limit ({plan.parameters_max})"})
    if request.watermark is not None and not plan.custom_watermark:
        return Refusal(403, {"message": "Forbidden"})
    return None
