"""Structured logs: one JSON object a line on stderr, with every registered secret redacted.

Every record has `event`, `message` (the same), `severity`, `logger`, `time`, `timestamp_ms`, `correlation_id`,
`service` and `env`; those of a run have `run_id`, `machine`, `state` and, for a map's child, `item`; and whatever is
written while a function works on one event has what `telling` was given.
"""

from __future__ import annotations

import json
import logging
import secrets as randomness
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from types import MappingProxyType
from typing import IO, Any, Final

from engine.core import event as events
from engine.core.action import Remark
from engine.core.handler import Log
from engine.core.machine import Branch, Machine
from engine.core.secret import Secrets
from engine.core.snapshot import Snapshot
from engine.runs import Committed

RUNNER: Final = "detent"
SERVICE: Final = "worker-chart-export"
"""The contract's name of the service, where the platform gives it none."""
STRING_MAX: Final = 4096
LIST_MAX: Final = 200
_RESERVED: Final = frozenset(
    ("event", "message", "severity", "logger", "time", "timestamp_ms", "correlation_id", "service", "env")
)
_TOLD: Final[ContextVar[Mapping[str, Any]]] = ContextVar("detent_log_fields", default=MappingProxyType({}))


class JsonFormatter(logging.Formatter):
    """A record as one line of JSON; long strings and lists are cut, secrets redacted."""

    def __init__(self, secrets: Secrets, correlation_id: str, service: str, environment: str | None) -> None:
        super().__init__()
        self._secrets = secrets
        self._correlation_id = correlation_id
        self._service = service
        self._environment = environment

    def format(self, record: logging.LogRecord) -> str:
        """See the class."""
        at = datetime.fromtimestamp(record.created, UTC)
        message = record.getMessage()
        line: dict[str, Any] = {
            "event": message,
            "message": message,
            "severity": record.levelname,
            "logger": record.name,
            "time": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "timestamp_ms": round(record.created * 1000),
            "correlation_id": self._correlation_id,
            "service": self._service,
            "env": self._environment,
        }
        fields: Mapping[str, Any] = {**_TOLD.get(), **getattr(record, "fields", {})}
        line |= {_free(name): _bounded(value) for name, value in fields.items()}
        if record.exc_info:
            line["exception"] = _bounded(self.formatException(record.exc_info))
        return self._secrets.redact(json.dumps(line, ensure_ascii=False, default=str))


@contextmanager
def telling(**fields: Any) -> Iterator[None]:
    """Give every line that is written inside, by this task and those that it starts, these fields."""
    token = _TOLD.set({**_TOLD.get(), **fields})
    try:
        yield
    finally:
        _TOLD.reset(token)


def configure(
    level: str,
    secrets: Secrets,
    stream: IO[str] | None = None,
    *,
    service: str = SERVICE,
    environment: str | None = None,
) -> str:
    """Send every log to `stream` (stderr) as JSON lines; answers the correlation id of this process."""
    correlation_id = f"corr-{randomness.token_hex(4)}"
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter(secrets, correlation_id, service, environment))
    root = logging.getLogger()
    # A framework may have set the root logger up before us, at WARNING; what we say here holds.
    root.handlers[:] = [handler]
    root.setLevel(level)
    for noisy in ("httpx", "httpcore", "asyncio", "uvicorn"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    return correlation_id


class LogObserver:
    """Writes each commit, and what handlers and decides have to say, as log events."""

    def __init__(self, service: str) -> None:
        self._service = logging.getLogger(service)
        self._runner = logging.getLogger(RUNNER)

    def committed(self, machine: Machine, committed: Committed) -> None:
        """See `Observer`."""
        if committed.event is None:
            return
        snapshot = committed.head.snapshot
        place = committed.head.place
        fields = {
            **_of_run(snapshot, place.key if place else None),
            "seq": snapshot.seq,
            "status": snapshot.status.value,
            "took": events.tag(committed.event),
            "transition": [{"from": one.source, "on": one.event, "to": one.target} for one in committed.taken],
        }
        if isinstance(committed.event, (events.ActionFailed, events.StepRefused)):
            failure = committed.event.failure
            fields["error"] = {"code": failure.code, "message": failure.message}
        self._runner.info("step_committed", extra={"fields": fields})

    def declined(self, machine: Machine, snapshot: Snapshot, taken: tuple[Branch, ...]) -> None:
        """See `Observer`."""
        fields = {**_of_run(snapshot, None), "status": snapshot.status.value}
        self._runner.info("start_declined", extra={"fields": fields})

    def remarked(self, snapshot: Snapshot, item_key: str | None, remark: Remark) -> None:
        """See `Observer`."""
        self.log_for(snapshot, item_key)(remark.event, severity=remark.severity, **remark.fields)

    def log_for(self, snapshot: Snapshot, item_key: str | None) -> Log:
        """See `Observer`."""

        def log(event: str, /, severity: str = "INFO", **fields: Any) -> None:
            level = logging.getLevelNamesMapping().get(severity, logging.INFO)
            self._service.log(level, event, extra={"fields": {**_of_run(snapshot, item_key), **fields}})

        return log

    def trouble(self, event: str, severity: str, fields: Mapping[str, Any]) -> None:
        """See `Observer`."""
        level = logging.getLevelNamesMapping().get(severity, logging.WARNING)
        self._runner.log(level, event, extra={"fields": dict(fields)})


def _free(name: str) -> str:
    """A field's name that takes the place of none that every line has: `message` becomes `message_`."""
    return f"{name}_" if name in _RESERVED else name


def _of_run(snapshot: Snapshot, item_key: str | None) -> dict[str, Any]:
    fields: dict[str, Any] = {"run_id": snapshot.run_id, "machine": snapshot.machine, "state": snapshot.state}
    return fields if item_key is None else {**fields, "item": item_key}


def _bounded(value: Any) -> Any:
    if isinstance(value, str):
        return value if len(value) <= STRING_MAX else f"{value[:STRING_MAX]}…"
    if isinstance(value, Mapping):
        return {str(key): _bounded(entry) for key, entry in list(value.items())[:LIST_MAX]}
    if isinstance(value, (list, tuple)):
        return [_bounded(entry) for entry in value[:LIST_MAX]]
    return value
