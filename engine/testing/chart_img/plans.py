"""The plans an account can have, as the vendor's table lists them.

In: nothing. Out: frozen `Plan` values and the look-up `PLANS` by name.
A plan says how often, how many a day, how large and how full a picture may be.
Make a plan for one test with `dataclasses.replace(BASIC, daily=2)`.
It never counts anything: that is `allowance.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class Plan:
    """What one API key is allowed."""

    name: str
    per_second: float
    burst: int
    daily: int
    width_max: int
    height_max: int
    parameters_max: int
    """The most studies and drawings together in one request."""
    custom_watermark: bool = False


BASIC = Plan("BASIC", 1, 3, 50, 800, 600, 3)
PRO = Plan("PRO", 10, 15, 500, 1920, 1080, 5)
MEGA = Plan("MEGA", 15, 25, 1000, 1920, 1600, 10)
ULTRA = Plan("ULTRA", 35, 50, 3000, 2048, 1920, 25, custom_watermark=True)
ENTERPRISE = Plan("ENTERPRISE", 35, 50, 5000, 2048, 1920, 50, custom_watermark=True)

PLANS: Mapping[str, Plan] = MappingProxyType({plan.name: plan for plan in (BASIC, PRO, MEGA, ULTRA, ENTERPRISE)})


def account_from_text(text: str) -> tuple[str, Plan]:
    """An API key and its plan from `KEY=PLAN`; a key alone is on BASIC."""
    key, _, name = text.partition("=")
    if not key.strip():
        raise ValueError("an account is KEY=PLAN and its key is missing")
    plan = PLANS.get(name.strip().upper() or BASIC.name)
    if plan is None:
        # The key stays out of the message: it may be a real one.
        raise ValueError(f"no such plan: {name.strip()!r}; the plans are {', '.join(PLANS)}")
    return key.strip(), plan
