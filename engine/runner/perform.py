"""Performs one action once: finds its handler, bounds its time, stores its blobs, and answers an event.

Whatever a handler does, an event comes back: its outcome, its failure, TIMEOUT, or INTERNAL for an exception.
A store outage passes through as `StoreUnavailableError` when the action is repeatable, for the driver to wait out.
"""

from __future__ import annotations

import hashlib
import inspect
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final

import anyio
import anyio.to_thread

from engine.artifacts.port import Artifacts
from engine.core import canonical
from engine.core.action import ActionKind, Blob, Decision, EngineCode, Failure, Outcome
from engine.core.bounds import ACTION_S_ASSUMED, BLOB_BYTES_MAX, DELAY_S_MAX
from engine.core.effect import Perform
from engine.core.event import ActionFailed, ActionReturned, Event
from engine.core.handler import ActionRequest, Handler
from engine.core.machine import Machine
from engine.core.snapshot import Snapshot
from engine.core.write import Document, Key
from engine.errors import ArtifactError, SecretLeakError, StoreUnavailableError
from engine.runner.clock import Clock
from engine.runner.observer import Observer

logger: Final = logging.getLogger("detent.runner")

_SCALARS: Final = frozenset((str, int, float, bool, type(None)))

BLOB_WRITE_ATTEMPTS: Final = 3
"""Attempts to store what a paid call returned, before it is given up."""


class Performer:
    """Handlers with what they need: see the module."""

    def __init__(
        self,
        handlers: Mapping[str, Handler],
        services: Mapping[type[Any], Any],
        artifacts: Artifacts,
        clock: Clock,
        observer: Observer,
    ) -> None:
        self._handlers = handlers
        self._services = services
        self._artifacts = artifacts
        self._clock = clock
        self._observer = observer

    def kind_of(self, action: str) -> ActionKind | None:
        """The kind of an action; `None` when no handler is registered."""
        handler = self._handlers.get(action)
        return None if handler is None else handler.declaration.kind

    def longest_s(self, effect: Perform) -> float:
        """How long an action may take, in seconds; a transactional one is over with its commit."""
        if self.kind_of(effect.action) is ActionKind.TRANSACTIONAL:
            return 0
        return ACTION_S_ASSUMED if effect.timeout_s is None else effect.timeout_s

    # Transactional

    def keys(self, machine: Machine, effect: Perform, snapshot: Snapshot, item_key: str | None) -> Sequence[Key]:
        """The documents that a transactional action reads; none when its own code fails (its decide will tell)."""
        handler = self._handlers[effect.action]
        assert handler.documents is not None
        try:
            keys = tuple(handler.documents(self.request(machine, effect, snapshot, item_key)))
            return tuple(Key.of(key.collection, key.id) for key in keys)
        except Exception as error:
            self._report(effect, error)
            return ()

    def decide(
        self,
        machine: Machine,
        effect: Perform,
        snapshot: Snapshot,
        item_key: str | None,
        documents: Mapping[Key, Document | None],
        now_ms: int,
    ) -> Decision:
        """Run a transactional action's pure decide; an exception is a Failure."""
        handler = self._handlers[effect.action]
        now = datetime.fromtimestamp(now_ms / 1000, UTC)
        try:
            decision: Decision = handler.function(self.request(machine, effect, snapshot, item_key), documents, now)
            outcome = decision.outcome
            if isinstance(outcome, Outcome):
                outcome = Outcome(_name(outcome), canonical.plain(outcome.value, "the outcome's value"))
            elif isinstance(outcome, Failure):
                outcome = _sound(outcome)
            else:
                raise TypeError(f"a decide answered a {type(outcome).__name__}, neither Outcome nor Failure")
            for write in decision.writes:
                Key.of(write.key.collection, write.key.id)
            return decision._replace(outcome=outcome, writes=tuple(decision.writes), remarks=tuple(decision.remarks))
        except Exception as error:
            self._report(effect, error)
            return Decision(_internal(effect, error))

    # Repeatable and unrepeatable

    async def perform(self, machine: Machine, effect: Perform, snapshot: Snapshot, item_key: str | None) -> Event:
        """Perform the action and answer the event that its answer is."""
        handler = self._handlers.get(effect.action)
        if handler is None:
            return self._failed(Failure(EngineCode.INTERNAL, f"this process has no action {effect.action!r}"))
        answer = await self._answer(handler, self.request(machine, effect, snapshot, item_key), effect)
        if isinstance(answer, Failure):
            return self._failed(answer)
        if not isinstance(answer, Outcome):
            kind = type(answer).__name__
            message = f"the handler of {effect.action} answered a {kind}, neither Outcome nor Failure"
            return self._failed(Failure(EngineCode.INTERNAL, message))
        try:
            name = _name(answer)
            stored = await self._without_blobs(answer.value) if _holds_blob(answer.value) else answer.value
            value = canonical.plain(stored, "the outcome's value")
        except (ValueError, TypeError) as error:
            return self._failed(Failure(EngineCode.INTERNAL, f"{effect.action}: {error}"))
        except SecretLeakError as error:
            return self._failed(Failure(EngineCode.SECRET_LEAKED, error.message))
        except ArtifactError as error:
            return self._failed(Failure(EngineCode.BLOB_WRITE_FAILED, error.message, retriable=True))
        except Exception as error:  # of the artifact store, or of a value whose own methods raise
            self._report(effect, error)
            return self._failed(_internal(effect, error))
        return ActionReturned(self._clock.now_ms(), name, value)

    async def _answer(self, handler: Handler, request: ActionRequest, effect: Perform) -> Any:
        try:
            if effect.timeout_s is None:
                return await self._called(handler, request)
            return await self._called_in_time(handler, request, effect.timeout_s)
        except StoreUnavailableError as error:
            if handler.declaration.kind is ActionKind.REPEATABLE:
                raise
            # It may have cost something already, so it is not performed again: its definition says what then.
            return Failure(EngineCode.INTERNAL, f"{effect.action}: {error.message}", retriable=True)
        except SecretLeakError as error:
            return Failure(EngineCode.SECRET_LEAKED, error.message)
        except Exception as error:
            self._report(effect, error)
            return _internal(effect, error)

    def _called(self, handler: Handler, request: ActionRequest) -> Awaitable[Any]:
        function = handler.function
        if _is_asynchronous(function):
            asked: Awaitable[Any] = function(request)
            return asked
        return anyio.to_thread.run_sync(function, request, abandon_on_cancel=True)

    async def _called_in_time(self, handler: Handler, request: ActionRequest, timeout_s: float) -> Any:
        """The handler's answer, or TIMEOUT. The `Clock` measures, so that tests move it."""
        with anyio.CancelScope() as scope:
            timer = self._clock.call_later(timeout_s, scope.cancel)
            try:
                return await self._called(handler, request)
            finally:
                timer.cancel()
        message = f"{request.state} did not have an answer within {timeout_s:g} s"
        return Failure(EngineCode.TIMEOUT, message, retriable=True)

    async def _without_blobs(self, value: Any) -> Any:
        """`value` with each blob stored and replaced by what the context may hold of it."""
        if isinstance(value, Blob):
            if len(value.content) > BLOB_BYTES_MAX:
                raise ValueError(f"a blob of {len(value.content)} bytes is larger than {BLOB_BYTES_MAX}")
            sha256 = await self._stored(value)
            return {"sha256": sha256, "size": len(value.content), "content_type": value.content_type}
        if isinstance(value, Mapping):
            return {key: await self._without_blobs(entry) for key, entry in value.items()}
        if isinstance(value, (list, tuple)):
            return [await self._without_blobs(entry) for entry in value]
        return value

    async def _stored(self, blob: Blob) -> str:
        for attempt in range(1, BLOB_WRITE_ATTEMPTS + 1):
            try:
                sha256 = await self._artifacts.put_blob(blob.content, content_type=blob.content_type)
            except SecretLeakError:
                raise
            except ArtifactError:
                if attempt == BLOB_WRITE_ATTEMPTS:
                    raise
                await self._clock.sleep(0.2 * attempt)
            else:
                assert sha256 == hashlib.sha256(blob.content).hexdigest()
                return sha256
        raise AssertionError("the loop above returns or raises")

    def request(self, machine: Machine, effect: Perform, snapshot: Snapshot, item_key: str | None) -> ActionRequest:
        """What the handler is asked."""
        return ActionRequest(
            params=effect.params,
            run_id=snapshot.run_id,
            machine=machine.name,
            state=snapshot.state,
            attempt=effect.attempt,
            idempotency_key=effect.idempotency_key,
            timeout_s=effect.timeout_s,
            pools=machine.pools,
            services=self._services,
            log=self._observer.log_for(snapshot, item_key),
            item_key=item_key,
        )

    def _failed(self, failure: Failure) -> ActionFailed:
        return ActionFailed(self._clock.now_ms(), _sound(failure))

    def _report(self, effect: Perform, error: BaseException) -> None:
        # The traceback goes to the log alone, which redacts; a document holds the class and no text.
        logger.error("action_raised", exc_info=error, extra={"fields": {"action": effect.action}})


@lru_cache(maxsize=1024)
def _is_asynchronous(function: Callable[..., Any]) -> bool:
    return inspect.iscoroutinefunction(function)


def _holds_blob(value: Any) -> bool:
    kind = type(value)
    if kind in _SCALARS:
        return False
    if kind is dict:  # nearly always, and of scalars alone: seen without a call for each
        return not _SCALARS.issuperset(map(type, value.values())) and any(map(_holds_blob, value.values()))
    if isinstance(value, (list, tuple)):
        return isinstance(value, Blob) or any(map(_holds_blob, value))
    return isinstance(value, Mapping) and any(map(_holds_blob, value.values()))


def _name(outcome: Outcome) -> str:
    name: Any = outcome.name
    if not isinstance(name, str) or not name:
        raise TypeError(f"the outcome's name is a {type(name).__name__}, not a string that names something")
    return name


def _sound(failure: Failure) -> Failure:
    """A handler's failure with what the journal cannot hold put right: the failure itself must not get lost."""
    code: Any = failure.code
    details: Any = failure.details
    delay: Any = failure.retry_after_s
    try:
        details = canonical.plain(details, "the failure's details") if isinstance(details, Mapping) else None
    except ValueError:
        details = None
    is_number = isinstance(delay, (int, float)) and not isinstance(delay, bool) and delay >= 0
    message = str(failure.message).encode(errors="replace").decode()
    is_named = isinstance(code, str) and bool(code) and code.isprintable()
    least = min(delay, DELAY_S_MAX) if is_number else None
    return Failure(code if is_named else EngineCode.INTERNAL, message, details, bool(failure.retriable), least)


def _internal(effect: Perform, error: BaseException) -> Failure:
    return Failure(EngineCode.INTERNAL, f"the handler of {effect.action} raised {type(error).__name__}")
