"""What an action declares, and what its handler answers.

An action is of one of three kinds, which the compiler sees and the runner obeys:

- `transactional`: names the documents it reads and decides purely; its writes and the step's record
  are one commit. Exactly once.
- `repeatable`: safe to perform again with the same idempotency key. At least once.
- `unrepeatable`: costs something each time. If a crash hides its outcome it is not performed again:
  the run receives the outcome `interrupted`. At most once per begun attempt.

A handler answers with an `Outcome` or a `Failure`. Both are data; exceptions are bugs.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final, NamedTuple

from engine.core.canonical import Json
from engine.core.write import Write

INTERRUPTED: Final = "interrupted"
"""The outcome of an unrepeatable action whose true outcome a crash has hidden."""


class ActionKind(StrEnum):
    """How often an action may happen; see the module."""

    TRANSACTIONAL = "transactional"
    REPEATABLE = "repeatable"
    UNREPEATABLE = "unrepeatable"


class ActionDeclaration(NamedTuple):
    """What the compiler knows of an action.

    `outcomes` are the names its handler may answer with (for an unrepeatable action `interrupted` is
    added by the engine), `errors` the failure codes it declares. `parameters` must be given, `optional`
    may be; `parameters=None` leaves the names unchecked.
    """

    name: str
    kind: ActionKind
    outcomes: tuple[str, ...] = ("done",)
    errors: tuple[str, ...] = ()
    parameters: tuple[str, ...] | None = None
    optional: tuple[str, ...] = ()

    @property
    def outcomes_to_handle(self) -> tuple[str, ...]:
        """The outcomes that a definition must have a transition for."""
        if self.kind is ActionKind.UNREPEATABLE:
            return (*self.outcomes, INTERRUPTED)
        return self.outcomes


class Blob(NamedTuple):
    """Bytes that a handler returns inside an outcome's value.

    The runner stores them by SHA-256 before the commit; the context then holds
    `{"sha256": hex, "size": bytes, "content_type": str}` in their place.
    """

    content: bytes
    content_type: str = "application/octet-stream"


class Outcome(NamedTuple):
    """A handler's answer: its name chooses the transition, its value is `result` in expressions."""

    name: str
    value: Any = {}  # noqa: RUF012 - a JSON value, which may hold `Blob`s, and is never changed in place


class Failure(NamedTuple):
    """A handler's answer when it could not do what was asked.

    `code` is stable; `message` is for people and holds no secret; `retriable` says that another
    attempt may succeed; `retry_after_s` is the least delay before it, in seconds.
    """

    code: str
    message: str
    details: Mapping[str, Json] | None = None
    retriable: bool = False
    retry_after_s: float | None = None

    def to_json(self) -> dict[str, Json]:
        """As `error` in expressions: keys without a value are left out, never null."""
        value: dict[str, Json] = {"code": self.code, "message": self.message, "retriable": self.retriable}
        if self.details is not None:
            value["details"] = dict(self.details)
        if self.retry_after_s is not None:
            value["retry_after_s"] = self.retry_after_s
        return value

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Failure":
        """The inverse of `to_json`."""
        return cls(
            value["code"],
            value["message"],
            value.get("details"),
            value.get("retriable", False),
            value.get("retry_after_s"),
        )


class Remark(NamedTuple):
    """A log event that a pure decide asks for; written once, after its commit."""

    event: str
    fields: Mapping[str, Json] = {}
    severity: str = "INFO"


class Decision(NamedTuple):
    """What a transactional action's `decide` returns: its outcome, and the writes that make it true."""

    outcome: Outcome | Failure
    writes: tuple[Write, ...] = ()
    remarks: tuple[Remark, ...] = ()


class EngineCode:
    """Failure codes that the engine itself gives; a definition may catch each by name."""

    INTERNAL: Final = "INTERNAL"
    """A handler raised. The message names the exception's class, never its text."""
    TIMEOUT: Final = "TIMEOUT"
    """An action, a wait or a map took longer than its `timeout`."""
    EXPRESSION_FAILED: Final = "EXPRESSION_FAILED"
    """A CEL expression met data that it cannot work with."""
    TRANSITION_MISSING: Final = "TRANSITION_MISSING"
    """No branch's guard held, or the outcome is one that the state does not handle."""
    VISITS_EXCEEDED: Final = "VISITS_EXCEEDED"
    """A state was entered more often than its `max_visits`."""
    MICROSTEPS_EXCEEDED: Final = "MICROSTEPS_EXCEEDED"
    """A chain of `always` did not come to rest."""
    CONTEXT_TOO_LARGE: Final = "CONTEXT_TOO_LARGE"
    """The snapshot would pass its bound."""
    JOURNAL_TOO_LONG: Final = "JOURNAL_TOO_LONG"
    """The run has taken as many steps as a run may."""
    MAP_INVALID: Final = "MAP_INVALID"
    """The items of a map are no list, too many, or two have one key."""
    BLOB_WRITE_FAILED: Final = "BLOB_WRITE_FAILED"
    """Bytes that a handler returned could not be stored."""
    INPUT_INVALID: Final = "INPUT_INVALID"
    """An item is not what the input schema of its map's machine asks for."""
    SECRET_LEAKED: Final = "SECRET_LEAKED"  # noqa: S105 - the name of a failure
    """The step would have written a secret; what held it was dropped."""


ENGINE_CODES: Final = frozenset(value for name, value in vars(EngineCode).items() if name.isupper())
