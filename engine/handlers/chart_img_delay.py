"""How long a server asks to be left alone.

In: the headers of an answer and the present time. Out: seconds, or None when nothing sensible is said.
`Retry-After` (seconds or an HTTP date) wins; otherwise the reset headers that rate limiters send, as
seconds or as an epoch. The answer is between 0 and `DELAY_S_MAX`, whatever the header says.
It never reads a clock of its own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

DELAY_S_MAX: Final = 3600.0
"""An hour. A longer pause is a mistake of the server, or a quota, which the ledger keeps."""

_RESET_HEADERS: Final = ("ratelimit-reset", "x-ratelimit-reset", "x-rate-limit-reset")
_NUMBER: Final = re.compile(r"[+-]?\d{1,30}(\.\d{1,30})?")
_EPOCH_S_MIN: Final = 1_000_000_000
_EPOCH_MS_MIN: Final = 1_000_000_000_000
"""A reset of at least this is an instant (in seconds, in milliseconds), not a span: as a span it is 32 years."""


def delay_s(headers: Mapping[str, str], now: datetime) -> float | None:
    """The pause that lower-case `headers` ask for, in seconds from `now`; None when they ask for none."""
    # The server's own clock, where it tells it: ours may be off by more than the pause.
    present = _instant(headers.get("date", "")) or now
    asked = headers.get("retry-after", "").strip()
    if asked:
        seconds = _number(asked)
        at = None if seconds is not None else _instant(asked)
        if at is not None:
            seconds = (at - present).total_seconds()
        if seconds is not None:
            return _within_bounds(seconds)
    for name in _RESET_HEADERS:
        reset = _number(headers.get(name, "").strip())
        if reset is not None:
            return _within_bounds(_span(reset, present))
    return None


def _span(reset: float, present: datetime) -> float:
    if reset >= _EPOCH_MS_MIN:
        return reset / 1000 - present.timestamp()
    return reset - present.timestamp() if reset >= _EPOCH_S_MIN else reset


def _number(text: str) -> float | None:
    return float(text) if _NUMBER.fullmatch(text) else None


def _instant(text: str) -> datetime | None:
    try:
        at = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return at if at.tzinfo is not None else at.replace(tzinfo=UTC)


def _within_bounds(seconds: float) -> float:
    return round(min(max(seconds, 0.0), DELAY_S_MAX), 3)
