"""Effects: what a step asks the runner to do next, as values. Nothing here performs anything."""

from collections.abc import Mapping
from typing import Any, NamedTuple, TypeAlias


class Perform(NamedTuple):
    """Perform an action once.

    `idempotency_key` is the same for every attempt of one visit of the state, so that an outside
    system can tell a repetition; `timeout_s` bounds this attempt.
    """

    action: str
    params: Mapping[str, Any]
    timeout_s: float | None
    attempt: int
    idempotency_key: str


class StartMap(NamedTuple):
    """Start a child run for each item; `keys[i]` names item `i` and is unique."""

    machine: str
    items: tuple[Any, ...]
    keys: tuple[str, ...]
    inputs: tuple[Any, ...]
    concurrency: int
    min_success: int | None


class StopMap(NamedTuple):
    """The map of the state `state`, at its visit number `visit`, was left: start no further item of it."""

    state: str
    visit: int


class Rest(NamedTuple):
    """Do nothing until `due_at_ms`; `None` means until a signal."""

    due_at_ms: int | None


class Finish(NamedTuple):
    """The run has ended."""


Effect: TypeAlias = Perform | StartMap | StopMap | Rest | Finish
