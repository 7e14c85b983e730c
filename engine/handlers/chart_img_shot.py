"""What `chart_img.capture` is asked for, checked.

In: the rendered parameters of the action. Out: a `Shot`, or a `Failure` that says which parameter is wrong.
The body is canonical JSON: equal requests are equal bytes, on the wire and in a recording. Nothing is read,
called or logged here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from engine.cassette.fixture import stem_of
from engine.core.action import Failure
from engine.core.bounds import BLOB_BYTES_MAX
from engine.core.canonical import encode, plain
from engine.handlers.chart_img_answer import FAILED, Subject

TIMEOUT_S: Final = 30.0
"""Connecting, sending and reading together. The API's own gateway gives up after about as long."""

TIMEOUT_S_MAX: Final = 3600.0

PICTURE_BYTES_MAX: Final = 8 * 1024 * 1024
"""The largest plan's pictures (2048x1920) stay well below; one this size is no chart."""

_MARGIN_S_MAX: Final = 0.5
_TEXTS: Final = ("account", "template_id", "symbol", "timeframe")


class Shot(NamedTuple):
    """One chart to capture: for which template, symbol and timeframe, with which body, by which account."""

    account: str
    template_id: str
    symbol: str
    timeframe: str
    body: bytes
    stem: str
    timeout_s: float
    picture_bytes_max: int

    @property
    def subject(self) -> Subject:
        """What failures say they are about."""
        return Subject(self.template_id, self.symbol)


def shot_of(
    params: Mapping[str, Any], attempt_timeout_s: float | None, timeout_s: float, picture_bytes_max: int
) -> Shot | Failure:
    """The shot that `params` ask for. `attempt_timeout_s` is the state's; the rest are defaults."""
    texts = {name: params.get(name) for name in _TEXTS}
    for name, text in texts.items():
        if not isinstance(text, str) or not text:
            return _wrong(params, f"{name} must be a non-empty string")
    try:
        payload = plain(params.get("payload"))
        body = encode(payload).encode()
    except (ValueError, TypeError, RecursionError):
        return _wrong(params, "payload must be JSON")
    if not isinstance(payload, dict):
        return _wrong(params, "payload must be an object")
    seconds = params.get("timeout_s", timeout_s)
    if not _is_number(seconds) or not 0 < seconds <= TIMEOUT_S_MAX:
        return _wrong(params, f"timeout_s must be a number above 0, of at most {TIMEOUT_S_MAX:.0f}")
    bytes_max = params.get("picture_bytes_max", picture_bytes_max)
    if not _is_number(bytes_max) or bytes_max != int(bytes_max) or not 0 < bytes_max <= BLOB_BYTES_MAX:
        return _wrong(params, f"picture_bytes_max must be a whole number from 1 to {BLOB_BYTES_MAX}")
    account, template_id, symbol, timeframe = (str(texts[name]) for name in _TEXTS)
    stem = stem_of(symbol, timeframe, template_id)
    within = _within(float(seconds), attempt_timeout_s)
    return Shot(account, template_id, symbol, timeframe, body, stem, within, int(bytes_max))


def _within(seconds: float, attempt_timeout_s: float | None) -> float:
    """A little less than the state's own timeout, so that a slow call ends as ours, with its reason."""
    if attempt_timeout_s is None:
        return seconds
    return min(seconds, attempt_timeout_s - min(_MARGIN_S_MAX, attempt_timeout_s / 20))


def _is_number(value: object) -> bool:
    return (
        isinstance(value, (int, float))
        and not isinstance(value, bool)
        and value == value
        and abs(value) != float("inf")
    )


def _wrong(params: Mapping[str, Any], problem: str) -> Failure:
    given = (params.get("template_id"), params.get("symbol"))
    template_id, symbol = (text[:200] if isinstance(text, str) else "" for text in given)
    return Failure(
        FAILED, f"The capture cannot be made: {problem}", Subject(template_id, symbol).details(reason="parameters")
    )
