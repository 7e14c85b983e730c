"""A function's time: what of it may be worked in, and whether a machine's actions fit.

A function that reaches its timeout is killed in the middle of what it does. So a door that runs in one works within a
budget, and the difference, the reserve, is for what must still be done when the budget is over: storing what a call
has returned, the last commits, letting go of what is held. What does not fit is left at rest, and `sweep` goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from engine.core.action import ActionKind
from engine.core.bounds import ACTION_S_ASSUMED
from engine.core.machine import Machine
from engine.errors import ConfigurationError

RESERVE_S: Final = 60.0
"""Between the budget and the function's timeout: a lease's length, for a store that is away when a call returns."""

RELEASE_S: Final = 10.0
"""The last part of the reserve: what is still under way then is given up, and its run let go of."""

FUNCTION_TIMEOUT_S: Final = 540.0
"""The longest timeout that an event-driven function may have; `deploy` sets it."""

BUDGET_S_RANGE: Final = (1.0, 3600.0 - RESERVE_S)
"""An HTTP function may run for an hour."""


def read_budget_s(environ: Mapping[str, str]) -> float:
    """Seconds that one event or one sweep may work. Raises `ConfigurationError`.

    `DETENT_BUDGET_S`, else what the platform says of the function's timeout, less the reserve.
    """
    low, high = BUDGET_S_RANGE
    name = "DETENT_BUDGET_S" if environ.get("DETENT_BUDGET_S") else "CLOUD_RUN_TIMEOUT_SECONDS"
    try:
        value = float(environ.get(name) or FUNCTION_TIMEOUT_S)
    except ValueError:
        value = -1.0
    if name == "CLOUD_RUN_TIMEOUT_SECONDS":
        if not value - RESERVE_S >= low:  # also when it is no number
            raise ConfigurationError(
                name,
                f"leaves no time to work: {RESERVE_S:g} s of the function's timeout are kept to finish in.",
                remedy=f"Deploy the function with --timeout {FUNCTION_TIMEOUT_S:g}s.",
            )
        return min(value - RESERVE_S, high)
    if not low <= value <= high:
        raise ConfigurationError(
            name,
            "is no number of seconds that it may be.",
            remedy=f"Use {low:g} to {high:g}, and deploy the function "
            f"with a --timeout at least {RESERVE_S:g} s longer.",
        )
    return value


def longest_action_s(machine: Machine, kind_of: Callable[[str], ActionKind | None]) -> tuple[float, str]:
    """The longest time that an action of a machine or of its maps' machines may take, and its name."""
    found = [(0.0, "")]
    for state in machine.states.values():
        invoke = state.invoke
        if invoke is not None and kind_of(invoke.action) is not ActionKind.TRANSACTIONAL:
            found.append((ACTION_S_ASSUMED if invoke.timeout_s is None else invoke.timeout_s, invoke.action))
    found += [longest_action_s(child, kind_of) for child in machine.children.values()]
    return max(found)


def expect_budget(machine: Machine, budget_s: float, kind_of: Callable[[str], ActionKind | None]) -> float:
    """Refuse a budget in which some action could never be begun; answers the longest action's seconds.

    Raises `ConfigurationError`.
    """
    longest_s, action = longest_action_s(machine, kind_of)
    if longest_s > budget_s:
        raise ConfigurationError(
            "DETENT_BUDGET_S",
            f"gives {budget_s:g} s, and {action} of {machine.name} may take {longest_s:g} s: it could never be begun.",
            remedy="Raise the budget and the function's timeout, or lower the action's `timeout`.",
        )
    return longest_s
