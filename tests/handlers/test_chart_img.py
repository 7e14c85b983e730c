"""The action in its three modes: what it answers, logs, keeps, and never does."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
import yaml

from engine.core.action import ActionKind, Failure
from engine.errors import ConfigurationError
from engine.handlers.chart_img import ChartImgSettings
from engine.handlers.registry import ACTIONS

pytestmark = pytest.mark.anyio

KEY = "sk-live-0123456789abcdef"
STEM = "BINANCE_BTCUSDT__1h__ctpl_a_v1"


class Wire(httpx.MockTransport):
    """Answers with what the test put in `answer`, and counts."""

    def __init__(self, answer: httpx.Response | Exception) -> None:
        super().__init__(self.handle)
        self.answer = answer
        self.requests: list[httpx.Request] = []

    def handle(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def no_wire() -> Wire:
    return Wire(AssertionError("the network was used"))


def picture_of(result: Any) -> bytes:
    assert result.name == "captured", result
    return result.value["picture"].content


def test_the_action_is_declared_as_unrepeatable():
    declared = ACTIONS["chart_img.capture"].declaration

    assert declared.kind is ActionKind.UNREPEATABLE
    assert declared.outcomes_to_handle == ("captured", "interrupted")
    assert declared.errors == ("CHART_API_FAILED", "CHART_API_LIMIT_EXCEEDED", "CHART_API_MOCK_MISSING")


def test_importing_the_handlers_imports_no_client_and_no_recorder():
    program = (
        "import sys, engine.handlers.chart_img, engine.handlers.chart_img_call, engine.cassette.cassette;"
        "print([name for name in ('httpx', 'aiohttp', 'vcr', 'yaml', 'httpx_aiohttp') if name in sys.modules])"
    )

    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert found.stdout.strip() == "[]"


async def test_a_capture_answers_with_the_picture_and_what_it_cost(
    bench: Callable[..., Any], png: Callable[..., bytes]
):
    one = bench(transport=Wire(httpx.Response(200, content=png())))

    result = await one.capture()

    assert picture_of(result) == png()
    assert {name: value for name, value in result.value.items() if name != "picture"} == {
        "http_status": 200,
        "account_id": "main",
        "mode": "real",
        "fixture_key": STEM,
    }
    assert not any(one.folder.iterdir())


async def test_each_call_is_logged_twice_without_payload_and_key(bench: Callable[..., Any], png: Callable[..., bytes]):
    one = bench(transport=Wire(httpx.Response(200, content=png())))
    await one.capture()
    one.service._transport.answer = httpx.Response(500, json={"message": f"bad {KEY}"})
    await one.capture()

    subject = {"chartTemplateId": "ctpl_a_v1", "chartImgSymbol": "BINANCE:BTCUSDT"}
    api = {"accountId": "main", "mode": "real"}
    finished = {"httpStatus": 200, "durationMs": 0, "chartTemplateId": "ctpl_a_v1", "fixtureKey": STEM}
    for _, _, fields in one.events:
        if "durationMs" in fields["chartsApi"]:
            assert fields["chartsApi"].pop("durationMs") >= 0
            fields["chartsApi"]["durationMs"] = 0
    start, end, _, failed = one.events
    assert start == ("chart_api_call_start", "INFO", {**subject, "chartsApi": api})
    assert end[2] == {**subject, "ok": True, "errorCode": None, "chartsApi": {**api, **finished}}
    assert failed[:2] == ("chart_api_call_finished", "WARNING")
    assert (failed[2]["errorCode"], failed[2]["chartsApi"]["httpStatus"]) == ("CHART_API_FAILED", 500)
    assert KEY not in str(one.events)
    assert "width" not in str(one.events)


async def test_an_unknown_account_costs_nothing(bench: Callable[..., Any]):
    wire = no_wire()
    failure = await bench(transport=wire).capture(account="nobody")

    assert (failure.code, failure.retriable, failure.details["reason"]) == ("CHART_API_FAILED", False, "account")
    assert wire.requests == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"account": ""},
        {"symbol": None},
        {"timeframe": 5},
        {"template_id": ["x"]},
        {"payload": None},
        {"payload": []},
        {"payload": {"x": float("nan")}},
        {"payload": {"x": "\ud800"}},
        {"timeout_s": 0},
        {"timeout_s": True},
        {"timeout_s": float("inf")},
        {"picture_bytes_max": 0},
        {"picture_bytes_max": 1.5},
        {"picture_bytes_max": 10**12},
    ],
    ids=str,
)
async def test_wrong_parameters_cost_nothing(bench: Callable[..., Any], wrong: dict[str, Any]):
    wire = no_wire()
    failure = await bench(transport=wire).capture(**wrong)

    assert (failure.code, failure.retriable, failure.details["reason"]) == ("CHART_API_FAILED", False, "parameters")
    assert next(iter(wrong)) in failure.message
    assert wire.requests == []


async def test_a_key_that_no_header_can_hold_is_not_sent(bench: Callable[..., Any]):
    one = bench(transport=no_wire())
    one.service._accounts._keys["main"] = "line\nbreak\u20ac"

    failure = await one.capture()

    assert (failure.details["reason"], failure.retriable) == ("request", False)


@pytest.mark.parametrize("mode", ["real", "mock", "record"])
@pytest.mark.parametrize("name", ["template_id", "symbol", "timeframe", "payload"])
async def test_a_secret_in_the_request_is_refused_before_the_call(bench: Callable[..., Any], mode: str, name: str):
    wire = no_wire()
    value: Any = {"note": f"key={KEY}"} if name == "payload" else KEY
    one = bench(mode, transport=wire)

    failure = await one.capture(**{name: value})

    assert (failure.code, failure.message) == ("CHART_API_FAILED", "The chart was refused: it holds a secret value")
    assert wire.requests == []
    assert not any(one.folder.iterdir())


@pytest.mark.parametrize("mode", ["real", "record"])
async def test_a_picture_that_holds_a_secret_is_refused(
    bench: Callable[..., Any], png: Callable[..., bytes], mode: str
):
    one = bench(mode, transport=Wire(httpx.Response(200, content=png(extra=KEY.encode()))))

    failure = await one.capture()

    assert failure.message == "The chart was refused: it holds a secret value"
    assert not list(one.folder.rglob("*.*"))


async def test_a_picture_above_the_consumers_limit_is_kept_with_a_warning(
    bench: Callable[..., Any], png: Callable[..., bytes]
):
    limit = 256 * 1024
    size = len(png(extra=b"x")) - 1
    one = bench(transport=Wire(httpx.Response(200, content=png(extra=bytes(limit - size)))))
    assert len(picture_of(await one.capture())) == limit
    assert "chart_api_picture_large" not in one.events.names

    one.service._transport.answer = httpx.Response(200, content=png(extra=bytes(limit - size + 1)))
    assert len(picture_of(await one.capture())) == limit + 1
    event, severity, fields = one.events[3]
    assert (event, severity, fields["sizeBytes"], fields["limitBytes"]) == (
        "chart_api_picture_large",
        "WARNING",
        limit + 1,
        limit,
    )


async def test_the_states_timeout_bounds_the_call(bench: Callable[..., Any]):
    class Silent(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            await anyio.sleep_forever()
            raise AssertionError

    failure = await bench(transport=Silent()).capture(attempt_timeout_s=0.05)

    assert (failure.details["reason"], failure.retriable) == ("timeout", True)


# --- mock ---------------------------------------------------------------------------------------------


async def test_mock_answers_from_the_fixture_and_needs_no_account(bench: Callable[..., Any], png: Callable[..., bytes]):
    one = bench("mock", transport=no_wire())
    (one.folder / "fixtures").mkdir()
    (one.folder / "fixtures" / f"{STEM}.png").write_bytes(png())

    assert picture_of(await one.capture(account="nobody")) == png()
    assert one.service._client is None


async def test_mock_without_anything_recorded_says_what_is_missing(bench: Callable[..., Any]):
    one = bench("mock", transport=no_wire())

    failure = await one.capture()

    details = {
        "chartTemplateId": "ctpl_a_v1",
        "chartImgSymbol": "BINANCE:BTCUSDT",
        "fixtureStem": STEM,
        "fixturesDir": str(one.folder / "fixtures"),
    }
    assert failure == Failure("CHART_API_MOCK_MISSING", "Chart-IMG fixture is missing", details)
    assert ("chart_api_mock_missing", "WARNING", details) in one.events


@pytest.mark.parametrize(
    ("name", "content", "code", "message", "status"),
    [
        ("429_LIMIT_EXCEEDED", '{"status": 429, "body": {"message": "Limit Exceeded"}}', "CHART_API_LIMIT_EXCEEDED", "Limit Exceeded", 429),
        ("429_X", '{"status": "429", "body": {"message": "Too Many Requests"}}', "CHART_API_FAILED", "Too Many Requests", 429),
        ("500_X", '{"status": 500, "body": null}', "CHART_API_FAILED", "Chart-IMG answered with HTTP status 500", 500),
        ("422_X", '[{"msg": "no", "param": "p"}]', "CHART_API_FAILED", "p: no", 422),
        ("400_X", '{"message": "Invalid Symbol"}', "CHART_API_FAILED", "Invalid Symbol", 400),
        ("0_X", '{"status": null, "body": null}', "CHART_API_FAILED", "The connection to Chart-IMG failed (recorded)", None),
        ("400_X", "{not json", "CHART_API_FAILED", "Error fixture is not valid JSON", None),
        ("400_X", '{"status": true, "body": 1}', "CHART_API_FAILED", "Error fixture has a status that is no HTTP status", None),
    ],
)  # fmt: skip
async def test_an_error_twin_is_classified_by_the_same_table_and_not_retriable(
    bench: Callable[..., Any], name: str, content: str, code: str, message: str, status: int | None
):
    one = bench("mock", transport=no_wire())
    (one.folder / "fixtures").mkdir()
    (one.folder / "fixtures" / f"{STEM}__{name}.json").write_text(content)

    failure = await one.capture()

    assert (failure.code, failure.message, failure.retriable, failure.retry_after_s) == (code, message, False, None)
    assert failure.details.get("httpStatus") == status


async def test_a_damaged_fixture_is_a_clear_failure(bench: Callable[..., Any], png: Callable[..., bytes]):
    one = bench("mock", transport=no_wire())
    (one.folder / "fixtures").mkdir()
    fixture = one.folder / "fixtures" / f"{STEM}.png"
    fixture.write_bytes(png()[:-4])

    failure = await one.capture()

    assert failure.message == "Fixture PNG is invalid: it is a PNG picture that was cut off"
    assert not failure.retriable


async def test_a_broken_cassette_is_named_by_its_variable_and_place(bench: Callable[..., Any]):
    one = bench("mock", transport=no_wire())
    (one.folder / "cassette.yaml").write_text("interactions:\n- request: {\n")

    failure = await one.capture()

    assert failure.message.startswith("CHART_IMG_CASSETTE: the file is no valid YAML at line 3, column 1")
    assert not failure.retriable


# --- record -------------------------------------------------------------------------------------------


async def test_record_always_calls_and_keeps_fixture_and_cassette(bench: Callable[..., Any], png: Callable[..., bytes]):
    wire = Wire(httpx.Response(200, content=png(), headers={"set-cookie": "a=b", "x-trace": KEY}))
    one = bench("record", transport=wire)
    assert picture_of(await one.capture()) == png()
    wire.answer = httpx.Response(200, content=png(3))
    assert picture_of(await one.capture()) == png(3)

    assert len(wire.requests) == 2
    assert (one.folder / "fixtures" / f"{STEM}.png").read_bytes() == png(3)
    text = (one.folder / "cassette.yaml").read_text()
    assert len(yaml.safe_load(text)["interactions"]) == 1
    for absent in (KEY, "x-api-key", "set-cookie", "x-trace", "date"):
        assert absent not in text.lower()


async def test_a_run_from_the_cassette_alone_gives_the_same_pictures(
    bench: Callable[..., Any], png: Callable[..., bytes]
):
    wire = Wire(httpx.Response(200, content=png()))
    recording = bench("record", transport=wire, base_url="http://127.0.0.1:1111")
    payloads = [{"number": number} for number in range(5)]
    for number, payload in enumerate(payloads):
        wire.answer = httpx.Response(200, content=png(number + 1))
        await recording.capture(payload=payload)
    for fixture in (recording.folder / "fixtures").iterdir():
        fixture.unlink()

    mock = bench("mock", transport=no_wire(), base_url="http://127.0.0.1:2222")
    for _ in range(2):
        assert [picture_of(await mock.capture(payload=payload)) for payload in payloads] == [
            png(number + 1) for number in range(5)
        ]


async def test_a_permanent_error_becomes_a_twin_and_a_success_removes_it(
    bench: Callable[..., Any], png: Callable[..., bytes]
):
    wire = Wire(httpx.Response(422, json={"message": "Invalid Symbol", "echo": KEY}))
    one = bench("record", transport=wire)
    await one.capture()
    twin = one.folder / "fixtures" / f"{STEM}__422_INVALID_SYMBOL.json"
    assert json.loads(twin.read_text()) == {"status": 422, "body": {"message": "Invalid Symbol", "echo": "[redacted]"}}
    assert (await bench("mock").capture()).message == "Invalid Symbol"

    wire.answer = httpx.Response(200, content=png())
    await one.capture()

    assert [path.name for path in (one.folder / "fixtures").iterdir()] == [f"{STEM}.png"]


@pytest.mark.parametrize(
    "transient",
    [
        httpx.Response(500),
        httpx.Response(429, json={"message": "Too Many Requests"}),
        httpx.Response(429, json={"message": "Limit Exceeded"}),
        httpx.Response(200, content=b"\x89PNG\r\n\x1a\n\0"),
        httpx.ReadTimeout("slow"),
        httpx.ConnectError("gone"),
    ],
    ids=["500", "rate", "quota", "truncated", "timeout", "network"],
)
async def test_a_transient_error_never_hides_a_success(
    bench: Callable[..., Any], png: Callable[..., bytes], transient: httpx.Response | Exception
):
    wire = Wire(httpx.Response(200, content=png()))
    one = bench("record", transport=wire)
    await one.capture()
    before = (one.folder / "cassette.yaml").read_bytes()
    wire.answer = transient

    assert (await one.capture()).retriable

    assert (one.folder / "cassette.yaml").read_bytes() == before
    assert [path.name for path in (one.folder / "fixtures").iterdir()] == [f"{STEM}.png"]


async def test_a_lost_call_is_recorded_nowhere_and_a_transient_error_only_in_the_cassette(bench: Callable[..., Any]):
    wire = Wire(httpx.ReadTimeout("slow"))
    one = bench("record", transport=wire)
    await one.capture()
    assert not any(one.folder.iterdir())

    wire.answer = httpx.Response(503, headers={"retry-after": "9"})
    await one.capture()

    assert [path.name for path in one.folder.iterdir()] == ["cassette.yaml"]
    replayed = await bench("mock").capture()
    assert (replayed.details["httpStatus"], replayed.retriable, replayed.retry_after_s) == (503, False, None)


async def test_a_corrupt_cassette_stops_a_recording_before_the_call(bench: Callable[..., Any]):
    wire = no_wire()
    one = bench("record", transport=wire)
    (one.folder / "cassette.yaml").write_text("- a list\n")

    failure = await one.capture()

    assert failure.message.startswith("CHART_IMG_CASSETTE: the file is no vcrpy cassette")
    assert wire.requests == []
    assert (one.folder / "cassette.yaml").read_text() == "- a list\n"
    with pytest.raises(ConfigurationError, match="CHART_IMG_CASSETTE"):
        one.service.check()


async def test_a_picture_that_cannot_be_recorded_is_still_captured(
    bench: Callable[..., Any], png: Callable[..., bytes]
):
    one = bench("record")

    def answer(_: httpx.Request) -> httpx.Response:
        # While the call is under way the folder's name is taken by a file.
        (one.folder / "fixtures").write_bytes(b"")
        return httpx.Response(200, content=png())

    one.service._transport = httpx.MockTransport(answer)

    assert picture_of(await one.capture()) == png()
    assert ("chart_api_record_failed", "ERROR", {"fixtureKey": STEM, "error": "FileExistsError"}) in one.events


async def test_recordings_in_flight_together_are_all_kept(bench: Callable[..., Any], png: Callable[..., bytes]):
    one = bench("record", transport=Wire(httpx.Response(200, content=png())))
    async with anyio.create_task_group() as group:
        for number in range(20):
            group.start_soon(lambda number=number: one.capture(payload={"n": number}, template_id=f"t{number}"))

    entries = yaml.safe_load((one.folder / "cassette.yaml").read_text())["interactions"]
    assert sorted(json.loads(entry["request"]["body"])["n"] for entry in entries) == list(range(20))
    assert len(list((one.folder / "fixtures").iterdir())) == 20


@pytest.mark.parametrize(
    ("wrong", "variable"),
    [
        ({"mode": "live"}, "CHARTS_API_MODE"),
        ({"base_url": "ftp://chart.test"}, "CHART_IMG_BASE_URL"),
        ({"base_url": "chart.test"}, "CHART_IMG_BASE_URL"),
        ({"base_url": "http://"}, "CHART_IMG_BASE_URL"),
        ({"base_url": "http://a b"}, "CHART_IMG_BASE_URL"),
        ({"base_url": "http://[::1"}, "CHART_IMG_BASE_URL"),
        ({"base_url": "http://a:99999"}, "CHART_IMG_BASE_URL"),
        ({"base_url": f"http://user:{KEY}@a"}, "CHART_IMG_BASE_URL"),
        ({"base_url": f"http://a?key={KEY}"}, "CHART_IMG_BASE_URL"),
    ],
    ids=str,
)
def test_wrong_settings_name_the_variable_and_no_value(wrong: dict[str, Any], variable: str):
    with pytest.raises(ConfigurationError) as raised:
        ChartImgSettings(**({"mode": "mock"} | wrong))

    assert raised.value.variable == variable
    assert KEY not in str(raised.value)


def test_settings_have_the_documented_defaults():
    settings = ChartImgSettings("mock")

    assert settings.url == "https://api.chart-img.com/v2/tradingview/advanced-chart"
    assert (settings.fixtures_dir, settings.cassette) == (Path("fixtures/chart_img"), Path("cassettes/chart_img.yaml"))
