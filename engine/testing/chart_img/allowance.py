"""One account's rate and daily quota, counted by an injected clock.

The rate is a token bucket: it holds `burst` tokens and gains `per_second` of them each second.
The quota belongs to the UTC day of the clock; a unit is reserved before a picture is drawn
and given back when no picture came of it, so that calls in flight cannot overrun the limit.
In: a plan and instants in seconds. Out: yes or no. It never reads a clock of its own.
"""

from __future__ import annotations

from engine.testing.chart_img.plans import Plan

SECONDS_PER_DAY = 86_400


class Allowance:
    """Mutable state of one account; the simulator guards it with its lock."""

    def __init__(self, plan: Plan, now: float) -> None:
        self.plan = plan
        self._tokens = float(plan.burst)
        self._refilled_at = now
        self._day = int(now // SECONDS_PER_DAY)
        self._used = 0

    def take_token(self, now: float) -> bool:
        """Spend one token of the rate, or say that there is none."""
        elapsed = max(0.0, now - self._refilled_at)
        self._tokens = min(float(self.plan.burst), self._tokens + elapsed * self.plan.per_second)
        self._refilled_at = max(now, self._refilled_at)
        # The tolerance keeps ten refills of 0.1 from adding up to 0.9999….
        if self._tokens < 1.0 - 1e-9:
            return False
        self._tokens -= 1.0
        return True

    def reserve(self, now: float) -> bool:
        """Reserve one unit of today's quota, or say that it is exhausted."""
        day = int(now // SECONDS_PER_DAY)
        if day != self._day:
            self._day, self._used = day, 0
        if self._used >= self.plan.daily:
            return False
        self._used += 1
        return True

    def give_back(self, reserved_at: float) -> None:
        """Return a unit reserved at that instant; a unit of an earlier day is gone already."""
        if int(reserved_at // SECONDS_PER_DAY) == self._day and self._used > 0:
            self._used -= 1

    @property
    def used_today(self) -> int:
        return self._used
