"""What the functions answer, and what they say: the framework's own application around `main.py`, in this process."""

from __future__ import annotations

import json
import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import anyio
import functions_framework
import pytest
from werkzeug.test import Client

from engine.entry import cloud_function
from engine.entry.budget import FUNCTION_TIMEOUT_S
from engine.entry.event_work import EventWork
from engine.entry.resident import Opened, Resident
from engine.errors import ContentionError, DocumentUnreadableError, StoreUnavailableError

ROOT = Path(__file__).parent.parent.parent
RUN_ID = "20260105-080000_BTCUSDT_k3f7a"


@pytest.fixture
def environ(tmp_path):
    return {
        "DETENT_STORE": f"sqlite:///{tmp_path}/detent.db",
        "DETENT_ARTIFACTS": f"folder:{tmp_path}/out",
        "CHARTS_API_MODE": "mock",
        "K_SERVICE": "charts",
        "TDA_ENV": "stage",
    }


@pytest.fixture
def lines(capsys):
    """The log, as written to stderr: a list of events that is read again whenever it is asked."""
    before = logging.getLogger().handlers[:], logging.getLogger().level
    written = []

    def read(*names):
        written.extend(json.loads(line) for line in capsys.readouterr().err.splitlines())
        return [line for line in written if not names or line["event"] in names]

    yield read
    logging.getLogger().handlers[:], level = before
    logging.getLogger().setLevel(level)


@pytest.fixture
def function(environ, monkeypatch, lines):
    """A client of one of the functions."""
    resident = Resident(lambda: environ)
    monkeypatch.setattr(cloud_function, "RESIDENT", resident)
    monkeypatch.chdir(ROOT)

    def client(target):
        monkeypatch.setenv("FUNCTION_TARGET", target)
        return Client(functions_framework.create_app(target, str(ROOT / "main.py")))

    yield client
    resident.close()


def posted(client, *, subject=f"documents/flow_runs/{RUN_ID}", kind="google.cloud.firestore.document.v1.updated"):
    headers = {"ce-id": "event-1", "ce-source": "//x", "ce-specversion": "1.0", "ce-type": kind, "ce-subject": subject}
    return client.post("/", data=b"\x0a\x00", headers={**headers, "content-type": "application/protobuf"})


BASE = {"service": "charts", "env": "stage", "eventId": "event-1", "subject": f"documents/flow_runs/{RUN_ID}"}


def test_each_line_of_an_event_says_of_which(function, lines):
    answer = posted(function("chart_export_event"))

    assert 200 == answer.status_code
    received, ignored = lines()
    assert "cloud_event_received" == received["event"]
    assert ("cloud_event_ignored", "flow_run_not_found") == (ignored["event"], ignored["reason"])
    for line in (received, ignored):
        assert BASE == {name: line[name] for name in BASE}
        assert ("charts", "INFO") == (line["logger"], line["severity"])
        assert "google.cloud.firestore.document.v1.updated" == line["eventType"]


IGNORED = {
    "created": ({"kind": "google.cloud.firestore.document.v1.created"}, "event_type_filtered"),
    "another collection": ({"subject": "documents/chart_templates/x"}, "event_filtered"),
}


@pytest.mark.parametrize("name", IGNORED)
def test_what_is_not_for_us_is_acknowledged_without_opening_anything(name, function, lines, environ, tmp_path):
    given, reason = IGNORED[name]
    environ["CHARTS_API_MODE"] = "nonsense"  # it is not even asked for

    assert 200 == posted(function("chart_export_event"), **given).status_code
    assert [reason] == [line["reason"] for line in lines("cloud_event_ignored")]
    assert not (tmp_path / "detent.db").exists()


def test_no_payload_is_ever_told(function, lines):
    headers = {"ce-id": "1", "ce-source": "//x", "ce-specversion": "1.0", "content-type": "text/plain"}
    headers["ce-type"] = "google.cloud.firestore.document.v1.updated"
    answer = function("chart_export_event").post("/", data=b"somebody's private words", headers=headers)

    assert 200 == answer.status_code
    assert [("event_filtered", "bytes")] == [
        (line["reason"], line["dataType"]) for line in lines("cloud_event_ignored")
    ]
    assert "private" not in json.dumps(lines())


MENDABLE = {"away": StoreUnavailableError("the store is away."), "contention": ContentionError("too many at once.")}


@pytest.mark.parametrize("name", MENDABLE)
def test_what_another_delivery_could_mend_is_answered_503(name, function, lines, monkeypatch):
    async def failing(self):
        raise MENDABLE[name]

    monkeypatch.setattr(EventWork, "do", failing)
    answer = posted(function("chart_export_event"))

    assert 503 == answer.status_code
    (line,) = lines("cloud_event_failed")
    assert (MENDABLE[name].code, True, "ERROR") == (line["error"]["code"], line["retry"], line["severity"])
    assert not lines("Exception on / [POST]")  # no traceback for what is no bug


def test_a_document_that_cannot_be_read_is_no_outage_and_not_delivered_again(function, lines, monkeypatch):
    async def failing(self):
        raise DocumentUnreadableError("runs/x", "its field snapshot is missing")

    monkeypatch.setattr(EventWork, "do", failing)

    assert 200 == posted(function("chart_export_event")).status_code
    (line,) = lines("cloud_event_failed")
    assert ("DOCUMENT_UNREADABLE", False, "ERROR") == (line["error"]["code"], line["retry"], line["severity"])
    assert "runs/x" in line["error"]["message"]


def test_a_bug_is_told_with_its_traceback_and_not_delivered_again(function, lines, monkeypatch):
    async def failing(self):
        raise TypeError("a bug")

    monkeypatch.setattr(EventWork, "do", failing)

    assert 200 == posted(function("chart_export_event")).status_code
    (line,) = lines("cloud_event_failed")
    assert (False, "ERROR") == (line["retry"], line["severity"])
    assert "TypeError: a bug" in line["exception"]


def test_what_does_not_end_in_the_reserve_is_given_up_and_told(function, lines, monkeypatch):
    given_up = []

    async def endless(self):
        try:
            await anyio.sleep_forever()
        finally:
            given_up.append(self._run_id)

    monkeypatch.setattr(EventWork, "do", endless)
    monkeypatch.setattr(cloud_function, "_until_release_s", lambda opened: 0.05)

    assert 200 == posted(function("chart_export_event")).status_code
    assert [RUN_ID] == given_up == [line["runId"] for line in lines("budget_overrun")]


def test_events_of_one_instance_are_worked_on_at_once(function, lines, monkeypatch):
    """Each of two waits for the other: one after another they would be given up."""
    arrived = []

    async def meeting(self):
        arrived.append(anyio.Event())
        if len(arrived) == 2:
            arrived[0].set()
        await arrived[0].wait()

    monkeypatch.setattr(EventWork, "do", meeting)
    monkeypatch.setattr(cloud_function, "_until_release_s", lambda opened: 20)
    client = function("chart_export_event")
    with ThreadPoolExecutor(2) as threads:
        answers = list(threads.map(lambda number: posted(client), range(2)))

    assert [200, 200] == [answer.status_code for answer in answers]
    assert [] == lines("budget_overrun")


def test_the_budget_and_the_reserve_end_before_the_function_does():
    assert cloud_function._until_release_s(Opened(None, None, None, 480.0, 300.0, set())) == 530 < FUNCTION_TIMEOUT_S


WRONG = {
    "no accounts": {"CHARTS_API_MODE": "real"},
    "an account without a key": {"CHARTS_API_MODE": "real", "CHART_IMG_ACCOUNTS_JSON": '[{"id": "secret-like-value"}]'},
    "a mode that there is not": {"CHARTS_API_MODE": "fast"},
    "a budget too short": {"DETENT_BUDGET_S": "100"},
    "a store that there is not": {"DETENT_STORE": "mongo:x"},
    "no project": {"DETENT_STORE": ""},
    "no bucket": {"DETENT_ARTIFACTS": "", "ARTIFACTS_BUCKET": ""},
}


@pytest.mark.parametrize("target", ["chart_export_event", "sweep"])
@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_configuration_answers_500_so_that_nothing_is_lost(name, target, function, lines, environ):
    environ |= WRONG[name]
    client = function(target)
    answer = posted(client) if target == "chart_export_event" else client.post("/")

    assert 500 == answer.status_code
    (line,) = lines("config_error")
    assert ("CONFIG_ERROR", "ERROR", "charts") == (line["error"]["code"], line["severity"], line["service"])
    assert "secret-like-value" not in json.dumps(lines()) + answer.get_data(as_text=True)


def test_a_function_that_was_configured_wrongly_is_right_as_soon_as_its_environment_is(function, environ):
    environ["CHARTS_API_MODE"] = "fast"
    client = function("chart_export_event")
    assert 500 == posted(client).status_code
    environ["CHARTS_API_MODE"] = "mock"

    assert 200 == posted(client).status_code


# The sweep


def test_a_sweep_reports_what_it_did(function, lines):
    answer = function("sweep").post("/")
    found = answer.get_json()

    assert 200 == answer.status_code
    assert {"driven": 0, "started": 0, "refused": 0, "left": 0, "is_cut": False} == {
        name: value for name, value in found.items() if name != "duration_s"
    }
    assert [0] == [line["driven"] for line in lines("sweep_finished")]


PATHS = {
    "a page that is not there": ("GET", "/nowhere", 404),
    "somebody who looks": ("GET", "/", 405),
    "its own name": ("POST", "/sweep", 200),
    "its own name, closed": ("POST", "/sweep/", 200),
}


@pytest.mark.parametrize("name", PATHS)
def test_only_a_post_to_its_own_path_sweeps(name, function):
    method, path, status = PATHS[name]
    answer = function("sweep").open(path, method=method)

    assert status == answer.status_code
    assert isinstance(answer.get_json(), dict)


def test_a_sweep_that_does_not_end_in_its_time_says_so(function, monkeypatch):
    async def endless(*arguments, **named):
        await anyio.sleep_forever()

    monkeypatch.setattr(cloud_function, "start_waiting", endless)
    monkeypatch.setattr(cloud_function, "_until_release_s", lambda opened: 0.05)
    answer = function("sweep").post("/")

    assert (200, True) == (answer.status_code, answer.get_json()["is_cut"])


def test_a_preflight_is_answered_where_the_sweep_is(function):
    answer = function("sweep").get("/__diag/preflight")

    assert 200 == answer.status_code, answer.get_json()
    assert answer.get_json()["result"] in ("READY", "DEGRADED")  # a function in mock mode is told of
    assert "OK" == answer.get_json()["sections"]["store"]["status"]


@pytest.mark.parametrize("name", WRONG)
def test_a_preflight_of_a_wrong_configuration_says_what_is_wrong(name, function, environ):
    environ |= WRONG[name]
    answer = function("sweep").get("/__diag/preflight")

    assert (503, "FAILED") == (answer.status_code, answer.get_json()["result"])
    assert "secret-like-value" not in answer.get_data(as_text=True)
    # What is wrong hides no more than it names.
    sections = answer.get_json()["sections"]
    assert "FAILED" in (sections["configuration"]["status"], sections["secrets"]["status"])
    assert "OK" == sections["clock"]["status"]


def test_a_sweep_without_a_store_says_that_it_is_away(function, lines, monkeypatch):
    async def failing(*arguments, **named):
        raise StoreUnavailableError("the store is away.")

    monkeypatch.setattr(cloud_function, "start_waiting", failing)
    answer = function("sweep").post("/")

    assert (503, "STORE_UNAVAILABLE") == (answer.status_code, answer.get_json()["error"])
    assert lines("sweep_failed")
