"""Faults on demand, and the server itself."""

from __future__ import annotations

import ast
import asyncio
import hashlib
import io
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from engine.testing import chart_img
from engine.testing.chart_img import (
    BASIC,
    ENTERPRISE,
    MEGA,
    PATH,
    PRO,
    Answer,
    Match,
    Plan,
    RunningSimulator,
    account_from_text,
    key_fingerprint,
    running_simulator,
    serve,
)
from engine.testing.chart_img.faults import MESSAGES
from tests.testing.conftest import KEY, PNG, RICH, Client, post

FAULTS: dict[str, tuple[Answer, int, Any]] = {
    **{f"{status}": (Answer.error(status), status, {"message": MESSAGES[status]}) for status in (408, 502, 503)},
    "500": (Answer.error(500), 500, {"message": "Something Went Wrong"}),
    "504": (Answer.error(504), 504, {"message": "External Request Timeout"}),
    "504 of the gateway": (
        Answer.error(504, "Endpoint request timed out"), 504, {"message": "Endpoint request timed out"}
    ),
    "429 of the rate": (Answer.error(429), 429, {"message": "Too Many Requests"}),
    "429 of the day": (Answer.limit_exceeded(), 429, {"message": "Limit Exceeded"}),
    "401": (Answer.error(401), 401, {"message": "Invalid Request"}),
    "409": (Answer.error(409), 409, {"message": "Session Disconnected"}),
    "any body": (Answer("error", 503, body={"errors": [{"msg": "busy"}]}), 503, {"errors": [{"msg": "busy"}]}),
    "echo of the key": (Answer("echo_key"), 500, {"message": f"Invalid Request: x-api-key {RICH}"}),
}  # fmt: skip


@pytest.mark.parametrize(("answer", "status", "body"), FAULTS.values(), ids=FAULTS)
def test_a_scripted_error_is_answered_once_and_then_no_more(
    client: Client, answer: Answer, status: int, body: Any
) -> None:
    client.simulator.script(Match(), [answer])
    first, second = client.chart(), client.chart()

    assert (first.status_code, first.json()) == (status, body)
    assert "retry-after" not in first.headers
    assert second.status_code == 200
    assert client.simulator.used_today(RICH) == 1


@pytest.mark.parametrize("value", ["7", "Mon, 05 Jan 2026 10:00:30 GMT"])
def test_retry_after_is_sent_as_scripted(client: Client, value: str) -> None:
    client.simulator.script(Match(), [Answer.error(429, retry_after=value)])

    assert client.chart().headers["retry-after"] == value


def test_a_page_an_empty_body_and_half_a_picture_pass_for_success(client: Client) -> None:
    client.simulator.script(Match(), [Answer("html"), Answer("empty"), Answer("truncated")])
    page, empty, half = (client.chart() for _ in range(3))

    assert [one.status_code for one in (page, empty, half)] == [200, 200, 200]
    assert page.headers["content-type"].startswith("text/html")
    assert empty.content == b""
    assert half.content.startswith(PNG)
    with pytest.raises(OSError, match="truncated"):
        Image.open(io.BytesIO(half.content)).load()


def test_the_oversized_picture_is_twenty_megabytes_and_still_opens(client: Client) -> None:
    client.simulator.script(Match(), [Answer("oversized")])
    response = client.chart()

    assert len(response.content) == 20_000_000
    Image.open(io.BytesIO(response.content)).load()


def test_a_script_is_matched_by_symbol_interval_and_account(client: Client) -> None:
    fault = [Answer.error(500)]
    client.simulator.script(Match(symbol="BINANCE:ETHUSDT"), fault)
    client.simulator.script(Match(interval="1W"), fault)
    client.simulator.script(Match.account(KEY), fault)
    bodies: list[tuple[dict[str, Any], str]] = [
        ({}, RICH), ({"symbol": "BINANCE:ETHUSDT"}, RICH), ({"interval": "1W"}, RICH), ({}, KEY), ({}, KEY),
    ]  # fmt: skip

    assert [client.chart(body, key=key).status_code for body, key in bodies] == [200, 500, 500, 500, 200]


def test_a_script_begins_at_the_nth_matching_call_and_can_repeat(client: Client) -> None:
    client.simulator.script(Match(interval="1h", nth=2), [Answer.error(500), Answer.error(503)], repeat=True)
    statuses = [client.chart({"interval": "1h"}).status_code for _ in range(5)]

    assert statuses == [200, 500, 503, 503, 503]
    assert client.chart({"interval": "4h"}).status_code == 200


def test_a_scripted_picture_is_the_ordinary_answer_with_its_checks(client: Client) -> None:
    client.simulator.script(Match(), [Answer.error(500), Answer("picture"), Answer.error(500)])

    assert [client.chart(key=KEY).status_code for _ in range(4)] == [500, 200, 500, 429]


def test_an_earlier_script_wins_and_both_count_the_call(client: Client) -> None:
    client.simulator.script(Match(), [Answer.error(500)])
    client.simulator.script(Match(), [Answer.error(502), Answer.error(503)])

    assert [client.chart().status_code for _ in range(3)] == [500, 503, 200]


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"kind": "explosion"}, "kind"),
        ({"status": 99}, "status"),
        ({"status": True}, "status"),
        ({"stall_s": -1}, "stall_s"),
        ({"size_bytes": 0}, "size_bytes"),
        ({"retry_after": 7}, "retry_after"),
    ],
)
def test_an_impossible_answer_cannot_be_made(values: dict[str, Any], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        Answer(**values)


def test_faults_are_scripted_and_calls_read_back_over_http(live: RunningSimulator) -> None:
    script = {"match": {"key": RICH, "interval": "1D"}, "answers": [{"status": 503, "retry_after": "3"}]}
    with httpx.Client(base_url=live.url) as other_process:
        assert other_process.post("/_simulator/faults", json=script).status_code == 201
        answer = post(live, {"interval": "1D"})
        post(live, {"symbol": "BINANCE:ETHUSDT"})
        listed = other_process.get("/_simulator/calls")
        reset = other_process.post("/_simulator/reset")
        after = other_process.get("/_simulator/calls").json()

    assert (answer.status_code, answer.headers["retry-after"]) == (503, "3")
    first, second = listed.json()["calls"]
    assert first["key_fingerprint"] == hashlib.sha256(RICH.encode()).hexdigest()[:8]
    assert (first["status"], first["answer"], first["interval"], first["plan"]) == (503, "error", "1D", "ENTERPRISE")
    assert (second["status"], second["answer"], second["body"]) == (200, "picture", {"symbol": "BINANCE:ETHUSDT"})
    assert listed.json()["counters"]["pictures"] == 1
    assert RICH not in listed.text
    assert reset.status_code == 200
    assert after["calls"] == []
    assert after["counters"]["calls"] == 0


@pytest.mark.parametrize(
    "body",
    [
        [],
        {},
        {"answers": []},
        {"answers": [{"kind": "explosion"}]},
        {"answers": [{"state": 500}]},
        {"answers": ["500"]},
        {"answers": [{"status": 500}], "match": {"nth": 0}},
        {"answers": [{"status": 500}], "match": {"study": "MACD"}},
        {"answers": [{"status": 500}], "then": "picture"},
    ],
)
def test_a_script_that_means_nothing_is_refused_over_http(client: Client, body: Any) -> None:
    response = client.request("POST", "/_simulator/faults", json=body)

    assert response.status_code == 422
    assert response.json()["message"]


def test_no_record_or_refusal_holds_an_api_key(client: Client) -> None:
    client.chart(key=KEY)
    client.chart(key="nobody-knows-this-one")

    text = repr(client.simulator.calls) + client.request("GET", "/_simulator/calls").text
    assert KEY not in text
    assert "nobody-knows-this-one" not in text
    assert key_fingerprint(KEY) in text


def test_a_dropped_connection_is_a_transport_error_not_an_answer(live: RunningSimulator) -> None:
    live.simulator.script(Match(), [Answer("dropped")])
    with pytest.raises(httpx.TransportError):
        post(live)

    assert [(call.status, call.answer) for call in live.simulator.calls] == [(None, "dropped")]
    assert post(live).status_code == 200


def test_an_interrupted_picture_ends_before_its_announced_length(live: RunningSimulator) -> None:
    live.simulator.script(Match(), [Answer("interrupted")])
    with pytest.raises(httpx.RemoteProtocolError):
        post(live)

    assert post(live).status_code == 200


def test_a_drop_in_process_is_a_connection_reset(client: Client) -> None:
    client.simulator.script(Match(), [Answer("dropped")])
    with pytest.raises(ConnectionResetError):
        client.chart()


def test_a_stalled_answer_outlasts_the_clients_patience(live: RunningSimulator) -> None:
    live.simulator.script(Match(), [Answer(stall_s=600)])
    with pytest.raises(httpx.ReadTimeout):
        post(live, timeout=0.05)

    assert post(live).status_code == 200


def test_a_short_stall_only_delays_the_answer(live: RunningSimulator) -> None:
    live.simulator.script(Match(), [Answer(stall_s=0.01), Answer.error(500), Answer("error", 503, stall_s=0.01)])

    assert [post(live).status_code for _ in range(3)] == [200, 500, 503]


def test_calls_in_flight_are_counted_when_a_call_arrives() -> None:
    async def two_at_once() -> list[int]:
        async with serve({RICH: ENTERPRISE}) as live, httpx.AsyncClient(base_url=live.url) as client:
            live.simulator.script(Match(interval="1h"), [Answer(stall_s=600)])
            headers = {"x-api-key": RICH}
            stalled = asyncio.create_task(client.post(PATH, json={"interval": "1h"}, headers=headers, timeout=600))
            await asyncio.to_thread(live.simulator.wait_for_calls, 1)
            second = await client.post(PATH, json={}, headers=headers)
            seen = [call.in_flight for call in live.simulator.calls]
            assert second.status_code == 200
            assert [call.status for call in live.simulator.calls] == [None, 200]
            assert live.simulator.counters["in_flight"] == 1
            stalled.cancel()
            return seen

    assert asyncio.run(two_at_once()) == [1, 2]


def test_a_reset_while_a_call_is_in_flight_leaves_a_clean_slate(live: RunningSimulator) -> None:
    call = live.simulator.call_arrived(RICH, {})
    live.simulator.reset()
    newer = live.simulator.call_arrived(KEY, {})
    live.simulator.call_ended(call, 200, "picture")

    assert live.simulator.calls == (newer,)
    assert live.simulator.counters["in_flight"] == 1


def test_a_stalled_call_does_not_hold_up_the_end() -> None:
    async def leave_early() -> float:
        async with serve({RICH: ENTERPRISE}) as live:
            live.simulator.script(Match(), [Answer(stall_s=600)])
            client = httpx.AsyncClient(base_url=live.url)
            stalled = asyncio.create_task(client.post(PATH, headers={"x-api-key": RICH}, timeout=600))
            await asyncio.to_thread(live.simulator.wait_for_calls, 1)
            left_at = time.monotonic()
        with pytest.raises(httpx.TransportError):
            await stalled
        await client.aclose()
        return time.monotonic() - left_at

    assert asyncio.run(leave_early()) < 5


def test_two_simulators_run_side_by_side_on_ports_of_their_own(running: RunningSimulator) -> None:
    with running_simulator(any_key=True) as other:
        assert other.url != running.url
        assert post(other, key="anybody").status_code == 200
        assert post(running, key="anybody").status_code == 403


@pytest.mark.parametrize(
    ("text", "account"),
    [("abc=PRO", ("abc", PRO)), ("abc=mega", ("abc", MEGA)), ("abc", ("abc", BASIC)), ("abc=", ("abc", BASIC))],
)
def test_an_account_of_the_command_line_is_a_key_and_a_plan(text: str, account: tuple[str, Plan]) -> None:
    assert account_from_text(text) == account


@pytest.mark.parametrize("text", ["", "=PRO", "secret=GOLD"])
def test_a_bad_account_is_refused_without_repeating_its_key(text: str) -> None:
    with pytest.raises(ValueError, match=r"plan|key") as raised:
        account_from_text(text)

    assert "secret" not in str(raised.value)


def test_the_simulator_imports_nothing_of_the_engine_outside_of_itself() -> None:
    imported: set[str] = set()
    for path in Path(chart_img.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom):
                imported.add(node.module or "")
            elif isinstance(node, ast.Import):
                imported |= {alias.name for alias in node.names}

    ours = {name for name in imported if name.split(".")[0] == "engine"}
    assert ours
    assert {name for name in ours if not name.startswith("engine.testing.chart_img")} == set()
