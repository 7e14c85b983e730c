"""What a CloudEvent of Eventarc says: which flow run has changed. Nothing else of it is believed.

In: an event's attributes and data, in any encoding in which Firestore's events arrive (binary and structured mode,
protobuf, JSON, protobuf as base64). Out: the flow run's id, or the reason why the event is not for us. The document is
read again by whoever asks, so a payload that is old, cut or made up changes nothing. Never raises.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from engine.handlers.flow_steps import FLOW_RUNS

TYPES: Final = (".updated", ".written", ".updated.withAuthContext", ".written.withAuthContext")
"""How the type of an event ends that says that a document has changed."""

PAYLOAD_BYTES_MAX: Final = 4 * 1024 * 1024
"""A payload in which a name is looked for: an event holds a document twice, and each has at most 1 MiB."""

_MARK: Final = f"documents/{FLOW_RUNS}/"


class Named(NamedTuple):
    """The flow run that an event names; `reason` says why there is none (the contract's word for it)."""

    run_id: str | None
    reason: str = ""


def named_in(attributes: Mapping[str, Any], data: Callable[[], Any]) -> Named:
    """Judge an event. `data` is asked for only when its attributes do not name a document."""
    if not str(attributes.get("type") or "").endswith(TYPES):
        return Named(None, "event_type_filtered")
    subject, document = attributes.get("subject"), attributes.get("document")
    name = subject if isinstance(subject, str) and subject else None
    if name is None and isinstance(document, str) and document:
        name = f"documents/{document}"  # Eventarc's own attribute: the path below the database
    if name is None:
        name = _name_in(data())
    run_id = name.partition(_MARK)[2].partition("/")[0] if _is_path(name) else ""
    return Named(run_id) if run_id else Named(None, "event_filtered")


def _is_path(name: str) -> bool:
    """Whether a name is a document's path; with a project before it, or from `documents/` on."""
    return name.startswith(_MARK) or (name.startswith("projects/") and f"/{_MARK}" in name)


def _name_in(data: Any) -> str:
    """`value.name` of a payload; empty when there is none that can be read."""
    if isinstance(data, str):
        data = data.encode()
    if isinstance(data, (bytes, bytearray)):
        data = _decoded(bytes(data))
    value = data.get("value") if isinstance(data, Mapping) else None
    name = value.get("name") if isinstance(value, Mapping) else None
    return name if isinstance(name, str) else ""


def _decoded(payload: bytes) -> Any:
    if len(payload) > PAYLOAD_BYTES_MAX:
        return None
    if payload.lstrip()[:1] == b"{":
        try:
            return json.loads(payload)
        except (ValueError, RecursionError):
            return None
    found = _protobuf(payload)
    if found is None:
        try:
            # Without `validate` any bytes are base64 of something, and an empty message is a valid one.
            found = _protobuf(base64.b64decode(payload, validate=True))
        except (binascii.Error, ValueError):
            found = None
    return found


def _protobuf(payload: bytes) -> Any:
    """A `DocumentEventData` as far as it is asked for; `None` when it is none, or names nothing."""
    from google.events.cloud.firestore_v1 import DocumentEventData  # a cold start needs it only here
    from google.protobuf.message import DecodeError

    try:
        name = DocumentEventData.deserialize(payload).value.name
    except (DecodeError, ValueError):
        return None
    return {"value": {"name": name}} if name else None
