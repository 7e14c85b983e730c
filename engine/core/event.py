"""Events: facts that arrived, as frozen values. Each carries its instant, so that a step reads no clock.

`to_json` / `from_json` are the journal's form; the tag is the event's name in snake case.
"""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple, TypeAlias

from engine.core.action import Failure
from engine.core.canonical import Json


class RunStarted(NamedTuple):
    """A run begins with `input`. Its id, machine and key are in the empty snapshot already."""

    at_ms: int
    input: Json


class ActionReturned(NamedTuple):
    """The state's action answered with the outcome `name`. `interrupted` is such an outcome too."""

    at_ms: int
    name: str
    value: Json


class ActionFailed(NamedTuple):
    """The state's action (or its map) failed."""

    at_ms: int
    failure: Failure


class TimerFired(NamedTuple):
    """The timer `name` of the present state is due."""

    at_ms: int
    name: str


class MapFinished(NamedTuple):
    """Every item of the state's map has ended, or enough have: `items` in the order of the list."""

    at_ms: int
    items: Json


class SignalReceived(NamedTuple):
    """An event from outside, by name. `id` makes its delivery exactly once."""

    at_ms: int
    name: str
    value: Json
    id: str


class CancelRequested(NamedTuple):
    """Somebody asked that the run end."""

    at_ms: int
    reason: str


class RunRedriven(NamedTuple):
    """A run that FAILED or was CANCELLED starts again from `state`.

    `claim` is what the first action answered when it was performed again (`{name, value}`): a keyed run must have
    its work given to it anew. `None` where there was nothing to claim.
    """

    at_ms: int
    state: str
    claim: Json


class StepRefused(NamedTuple):
    """The engine did not take what an event would have led to: a bound, a secret, an input against its schema.

    `is_last` ends the run without asking its catches: it has had its chance.
    """

    at_ms: int
    failure: Failure
    is_last: bool = False


Event: TypeAlias = (
    RunStarted
    | ActionReturned
    | ActionFailed
    | TimerFired
    | MapFinished
    | SignalReceived
    | CancelRequested
    | RunRedriven
    | StepRefused
)

_TAGS: Final[dict[str, type[Any]]] = {
    "run_started": RunStarted,
    "action_returned": ActionReturned,
    "action_failed": ActionFailed,
    "timer_fired": TimerFired,
    "map_finished": MapFinished,
    "signal_received": SignalReceived,
    "cancel_requested": CancelRequested,
    "run_redriven": RunRedriven,
    "step_refused": StepRefused,
}
_NAMES: Final = {cls: tag for tag, cls in _TAGS.items()}
_FIELDS: Final = {cls: ("event", *cls._fields) for cls in _NAMES}


def tag(event: Event) -> str:
    """The event's name as the journal writes it."""
    return _NAMES[type(event)]


def to_json(event: Event) -> dict[str, Any]:
    """The journal's form of an event."""
    cls = type(event)
    fields: dict[str, Any] = dict(zip(_FIELDS[cls], (_NAMES[cls], *event), strict=True))
    if "failure" in fields:
        fields["failure"] = fields["failure"].to_json()
    return fields


def from_json(value: Mapping[str, Any]) -> Event:
    """The inverse of `to_json`. Raises `KeyError` or `TypeError` on a form that no release wrote."""
    fields = {name: entry for name, entry in value.items() if name != "event"}
    cls = _TAGS[value["event"]]
    if "failure" in fields:
        fields["failure"] = Failure.from_json(fields["failure"])
    event: Event = cls(**fields)
    return event
