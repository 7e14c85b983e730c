"""How the command line says instants and events."""

from __future__ import annotations

from datetime import UTC, datetime

from engine.core import event
from engine.core.event import Event
from engine.core.machine import Machine
from engine.handlers.registry import ACTIONS


def at(at_ms: int) -> str:
    """An instant in RFC 3339, UTC, to the millisecond."""
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def action_unknown(machine: Machine, state: str | None) -> str | None:
    """The action that a state performs, where this process does not know it."""
    invoke = machine.states[state].invoke if state is not None and state in machine.states else None
    return None if invoke is None or invoke.action in ACTIONS else invoke.action


def said(given: Event) -> str:
    """What there is to say of an event beside its name."""
    match given:
        case event.ActionReturned(_, name, _) | event.TimerFired(_, name):
            return name
        case event.ActionFailed(_, failure) | event.StepRefused(_, failure):
            return f"{failure.code}: {failure.message}"
        case event.MapFinished(_, items) if isinstance(items, list):
            return f"{len(items)} items"
        case event.SignalReceived(_, name, _, signal_id):
            return f"{name} ({signal_id})"
        case event.CancelRequested(_, reason):
            return reason
        case event.RunRedriven(_, state, _):
            return f"from {state}"
        case _:
            return ""
