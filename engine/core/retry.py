"""Backoff: how long to wait before another attempt. Pure; jitter comes from a seed, not from chance.

`Retry-After` is a floor under every delay (RFC 9110 section 10.2.3): a server that names an instant is
never asked sooner.
"""

import hashlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from engine.core.bounds import DELAY_S_MAX


class RetryPolicy(NamedTuple):
    """`attempts` in all (the first included); delays grow by `factor` from `backoff_s` to `backoff_s_max`.

    `errors` names the codes it covers; `None` covers every failure that says it is retriable.
    `jitter` in 0..1 is the part of the delay that the seed may take away.
    """

    attempts: int
    errors: frozenset[str] | None = None
    backoff_s: float = 1.0
    factor: float = 2.0
    backoff_s_max: float = 60.0
    jitter: float = 0.0

    def covers(self, code: str, *, retriable: bool) -> bool:
        """Whether a failure is one that this policy tries again."""
        return retriable if self.errors is None else code in self.errors

    def delay_s(self, attempt: int, retry_after_s: float | None, seed: str) -> float:
        """Seconds to wait after the failed attempt number `attempt` (from 1)."""
        grown = min(backoff(attempt, self.backoff_s, self.factor, None), self.backoff_s_max)
        jittered = grown * (1 - self.jitter * _fraction(f"{seed}:{attempt}"))
        return min(max(jittered, retry_after_s or 0.0), DELAY_S_MAX)


def backoff(attempt: int, first_s: float, factor: float, error: Mapping[str, Any] | None) -> float:
    """`first_s * factor ** (attempt - 1)` seconds, at least the error's `retry_after_s`; at most a year."""
    floor = error.get("retry_after_s") if error else None
    try:
        grown = float(first_s) * float(factor) ** max(int(attempt) - 1, 0)
    except OverflowError:
        grown = float(DELAY_S_MAX)
    return min(max(grown, float(floor or 0.0), 0.0), float(DELAY_S_MAX))


def _fraction(seed: str) -> float:
    return int.from_bytes(hashlib.sha256(seed.encode()).digest()[:6]) / 2**48
