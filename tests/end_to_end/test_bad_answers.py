"""Answers of the API that are none: each fails its request with a clear reason, and the step is finished."""

from __future__ import annotations

import httpx
import pytest

from tests.end_to_end.chart_export_world import Scenario, answer, export, flow_run, png
from tests.end_to_end.scenarios import FLOW_RUN

WHOLE = png("whole")


def html():
    return httpx.Response(200, content=b"<html><body>Welcome</body></html>", headers={"content-type": "text/html"})


ANSWERS = {
    "HTML": (html(), 1, "web page"),
    "an empty body": (httpx.Response(200, content=b""), 1, ""),
    "a truncated PNG": (WHOLE[:-20], 3, ""),
    "a PNG with a damaged chunk": (WHOLE[:40] + b"\x00\x01" + WHOLE[42:], 1, ""),
    "a picture of 20 MB": (WHOLE[:33] + b"\0" * 20_000_000, 1, ""),
    "a JPEG": (b"\xff\xd8\xff\xe0" + b"\0" * 64, 1, ""),
    "a redirect": (httpx.Response(302, headers={"location": "https://elsewhere.example"}), 1, ""),
    "401": (answer(401, "Invalid Request"), 1, "Invalid Request"),
    "403": (answer(403, "Forbidden"), 1, "Forbidden"),
    "404": (httpx.Response(404, content=b"not json"), 1, "not json"),
    "409": (answer(409, "Session Disconnected"), 1, "Session Disconnected"),
    "422 as a list": (httpx.Response(422, json=[{"value": "x", "msg": "is bad", "param": "interval"}]), 1, "is bad"),
    "422 as a message": (answer(422, "Invalid Interval"), 1, "Invalid Interval"),
    "408": (answer(408), 3, ""),
    "502 with HTML": (httpx.Response(502, content=b"<html>Bad Gateway</html>"), 3, ""),
    "504": (answer(504, "External Request Timeout"), 3, "External Request Timeout"),
    "a time-out": (httpx.ReadTimeout("slow"), 3, ""),
    "a broken transfer": (httpx.RemoteProtocolError("peer closed connection"), 3, ""),
}


@pytest.mark.parametrize("case", ANSWERS)
def test_it_fails_the_request_and_the_step_is_finished(case):
    given, calls, message = ANSWERS[case]
    seen = export(Scenario({FLOW_RUN: flow_run("a")}, {"a": [given]}))
    failure = seen.manifest["failures"][0]["error"]

    assert (seen.step["status"], seen.step["error"]["code"], failure["code"]) == ("FAILED", *["CHART_API_FAILED"] * 2)
    assert message in failure["message"]
    assert (len(seen.calls), seen.used("acc1") + seen.used("acc2")) == (calls, calls)
    assert failure["details"]["chartTemplateId"] == "a"
    assert list(seen.objects) == [name for name in seen.objects if name.endswith("manifest.json")]


def test_a_server_that_echoes_the_key_leaks_it_nowhere():
    key = "first-secret-key"
    echo = httpx.Response(403, json={"message": f"Forbidden for {key}", "x-api-key": key})
    seen = export(Scenario({FLOW_RUN: flow_run("a")}, {"a": [echo]}))
    everything = repr((seen.documents, seen.objects, seen.logs, seen.result))

    assert seen.step["error"]["code"] == "CHART_API_FAILED"
    assert "Forbidden for" in seen.step["error"]["message"]
    assert key not in everything
