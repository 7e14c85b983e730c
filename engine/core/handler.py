"""What a handler is to the runner: a declaration, a function, and the request that it is given.

A repeatable or unrepeatable handler is `async def` or plain (then it runs in a thread):
`handler(request) -> Outcome | Failure`. A transactional one is pure and plain:
`decide(request, documents, now) -> Decision`; it may be called several times for one commit, and
`documents(request)` names what it reads. It may write only what it named.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple, Protocol, TypeAlias, TypeVar

from engine.core.action import ActionDeclaration, Decision
from engine.core.machine import Pool
from engine.core.write import Document, Key

Service = TypeVar("Service")

Documents: TypeAlias = Mapping[Key, Document | None]
Decide: TypeAlias = "Callable[[ActionRequest, Documents, datetime], Decision]"
DocumentsOf: TypeAlias = "Callable[[ActionRequest], Sequence[Key]]"


class Log(Protocol):
    """Writes one structured log event with the run, the state and the item already in it."""

    def __call__(self, event: str, /, severity: str = "INFO", **fields: Any) -> None: ...


class ActionRequest(NamedTuple):
    """What is asked of a handler.

    `params` are the rendered `with` of the invoke. `idempotency_key` is the same for every attempt of one
    visit of the state. `item_key` names the item when the run is a map's child. `timeout_s` bounds the
    attempt. `pools` are the machine's. `service(T)` gives the one instance of T that the engine was made
    with: the `Store` and `Artifacts` ports, and whatever `Engine(services=[…])` was given.
    """

    params: Mapping[str, Any]
    run_id: str
    machine: str
    state: str
    attempt: int
    idempotency_key: str
    timeout_s: float | None
    pools: Mapping[str, Pool]
    services: Mapping[type[Any], Any]
    log: Log
    item_key: str | None = None

    def service(self, kind: type[Service]) -> Service:
        """The engine's instance of `kind`. Raises `LookupError` when it was made without one."""
        try:
            found: Service = self.services[kind]
        except KeyError:
            raise LookupError(f"the engine has no {kind.__name__}; give it to Engine(services=[…])") from None
        return found


class Handler(NamedTuple):
    """An action with the function that performs it; `documents` only for a transactional one."""

    declaration: ActionDeclaration
    function: Callable[..., Any]
    documents: DocumentsOf | None = None
