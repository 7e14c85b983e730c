"""Which flow run an event names, in every encoding in which Firestore's events arrive; nothing else is believed."""

from __future__ import annotations

import base64
import json

import pytest
from google.events.cloud.firestore_v1 import Document, DocumentEventData

from engine.entry.cloud_event import PAYLOAD_BYTES_MAX, Named, named_in

RUN_ID = "20260105-080000_BTCUSDT_k3f7a"
PATH = f"projects/p/databases/tda-db/documents/flow_runs/{RUN_ID}"
UPDATED = "google.cloud.firestore.document.v1.updated"
IGNORED = Named(None, "event_filtered")


def payload(name: str = PATH) -> bytes:
    return DocumentEventData.serialize(DocumentEventData(value=Document(name=name), old_value=Document(name=PATH)))


def asked(data):
    """An event whose attributes name no document."""
    return named_in({"type": UPDATED}, lambda: data)


TYPES = {
    "updated": ("google.cloud.firestore.document.v1.updated", True),
    "written": ("google.cloud.firestore.document.v1.written", True),
    "updated with its author": ("google.cloud.firestore.document.v1.updated.withAuthContext", True),
    "written with its author": ("google.cloud.firestore.document.v1.written.withAuthContext", True),
    "created": ("google.cloud.firestore.document.v1.created", False),
    "deleted": ("google.cloud.firestore.document.v1.deleted", False),
    "created with its author": ("google.cloud.firestore.document.v1.created.withAuthContext", False),
    "of another service": ("google.cloud.storage.object.v1.finalized", False),
    "none": (None, False),
}


@pytest.mark.parametrize("name", TYPES)
def test_only_what_says_that_a_document_has_changed_is_for_us(name):
    kind, is_ours = TYPES[name]
    found = named_in({"type": kind, "subject": f"documents/flow_runs/{RUN_ID}"}, lambda: None)

    assert found == (Named(RUN_ID) if is_ours else Named(None, "event_type_filtered"))


ATTRIBUTES = {
    "subject": ({"subject": f"documents/flow_runs/{RUN_ID}"}, RUN_ID),
    "whole path": ({"subject": PATH}, RUN_ID),
    "below the run": ({"subject": f"documents/flow_runs/{RUN_ID}/notes/n1"}, RUN_ID),
    "document alone": ({"document": f"flow_runs/{RUN_ID}"}, RUN_ID),
    "another collection": ({"subject": "documents/chart_templates/x", "document": f"flow_runs/{RUN_ID}"}, None),
    "a collection that only ends so": ({"subject": f"documents/old_flow_runs/{RUN_ID}"}, None),
    "below another document": ({"subject": f"documents/x/y/flow_runs/{RUN_ID}"}, None),
    "a path in the middle": ({"subject": f"x/documents/flow_runs/{RUN_ID}"}, None),
    "no id": ({"subject": "documents/flow_runs/"}, None),
    "no path": ({"subject": "flow_runs"}, None),
}


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_the_attributes_name_the_document(name):
    attributes, run_id = ATTRIBUTES[name]
    found = named_in({"type": UPDATED, **attributes}, lambda: pytest.fail("the payload is not asked"))

    assert found == (Named(run_id) if run_id else IGNORED)


AS_JSON = {"value": {"name": PATH, "fields": {"status": {"stringValue": "RUNNING"}}}}

PAYLOADS = {
    "protobuf": payload(),
    "protobuf as base64": base64.b64encode(payload()),
    "protobuf as base64 text": base64.b64encode(payload()).decode(),
    "json": AS_JSON,
    "json bytes": json.dumps(AS_JSON).encode(),
    "json text": f"\n {json.dumps(AS_JSON)}",
}


@pytest.mark.parametrize("name", PAYLOADS)
def test_a_payload_names_the_document_when_the_attributes_do_not(name):
    assert asked(PAYLOADS[name]) == Named(RUN_ID)


GARBAGE = {
    "nothing": None,
    "empty": b"",
    "bytes that are base64 of an empty message when nobody looks closely": b"\xff\xff\xff",
    "text": "hello",
    "a message without a value": DocumentEventData.serialize(DocumentEventData()),
    "a message with an empty name": payload(""),
    "the document before it was deleted": DocumentEventData.serialize(DocumentEventData(old_value=Document(name=PATH))),
    "another collection": payload("projects/p/databases/d/documents/chart_templates/x"),
    "half a message": payload()[: len(PATH) // 2],
    "base64 of garbage": base64.b64encode(b"\xff\xff\xff"),
    "broken json": b'{"value": {"name": ',
    "deep json": b"{" + b'"a":{' * 100_000,
    "a list": [1, 2],
    "a number": 7,
    "a value that is no map": {"value": "x"},
    "a name that is no text": {"value": {"name": 7}},
    "more than two documents can be": b"{" + b" " * PAYLOAD_BYTES_MAX,
}


@pytest.mark.parametrize("name", GARBAGE)
def test_a_payload_that_names_nothing_is_not_for_us(name):
    assert asked(GARBAGE[name]) == IGNORED


@pytest.mark.parametrize("cut", range(0, len(payload()), 7))
def test_a_cut_payload_never_raises(cut):
    found = asked(payload()[:cut])

    assert found == IGNORED or RUN_ID.startswith(found.run_id)
