"""The Chart-IMG simulator against the contract's own tables: statuses, body shapes, plans, faults, pictures.

The application is called in process with a clock that only moves when told; a few tests go over loopback,
where a real connection is the point (drops, stalls, other processes). Nothing sleeps.
"""

from __future__ import annotations

import ast
import asyncio
import hashlib
import io
import itertools
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from engine.testing import chart_img
from engine.testing.chart_img import (
    BASIC,
    ENTERPRISE,
    MEGA,
    PATH,
    PLANS,
    PRO,
    ULTRA,
    Answer,
    Match,
    Plan,
    RunningSimulator,
    Simulator,
    account_from_text,
    create_app,
    key_fingerprint,
    running_simulator,
    serve,
)
from engine.testing.chart_img.allowance import Allowance
from engine.testing.chart_img.axes import time_labels
from engine.testing.chart_img.faults import MESSAGES
from engine.testing.chart_img.field_rules import DRAWINGS, SCALES, STYLES
from engine.testing.chart_img.market import INTERVALS, history, last_price
from engine.testing.chart_img.picture import draw_picture
from engine.testing.chart_img.request_rules import ChartRequest, is_symbol, read_request
from engine.testing.chart_img.studies import STUDIES

KEY = "secret-key-of-a-basic-account"
RICH = "secret-key-of-an-enterprise-account"
PNG = b"\x89PNG\r\n\x1a\n"
TEN_O_CLOCK = 1_767_607_200.0
"""2026-01-05T10:00:00Z."""

TEMPLATE_STUDIES: dict[str, list[dict[str, Any]]] = {
    "ctpl_price_ma1226_vol_v1": [
        {"name": "Moving Average Double", "input": {"firstPeriods": 12, "secondPeriods": 26, "method": "Exponential"}},
        {"name": "Volume", "forceOverlay": True},
    ],
    "ctpl_price_ma1226_bb_macd1226_v1": [
        {"name": "Moving Average Double", "input": {"firstPeriods": 12, "secondPeriods": 26, "method": "Simple"}},
        {"name": "Bollinger Bands", "input": {"in_0": 20, "in_1": 2}},
        {"name": "MACD", "input": {"in_0": 12, "in_1": 26, "in_2": 9, "in_3": "close"}},
    ],
    "ctpl_price_psar_adi_v1": [
        {"name": "Parabolic SAR", "input": {"in_0": 0.02, "in_1": 0.02, "in_2": 0.2}},
        {"name": "Average Directional Index", "input": {"in_0": 14, "in_1": 14}},
    ],
    "ctpl_price_rsi14_stochrsi_v1": [
        {"name": "Relative Strength Index", "input": {"length": 14, "smoothingLine": "SMA", "smoothingLength": 14}},
        {"name": "Stochastic RSI", "input": {"in_0": 14, "in_1": 14, "in_2": 3, "in_3": 3}},
    ],
    "ctpl_price_vpvr_obv_v1": [
        {"name": "Volume Profile Visible Range", "input": {"rows": 24, "volume": "Up/Down", "vaVolume": 70}},
        {"name": "On Balance Volume", "input": {"smoothingLine": "SMA", "smoothingLength": 9}},
    ],
}


class Clock:
    """Time that moves only when told."""

    def __init__(self, now: float = TEN_O_CLOCK) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Client:
    """Calls the application in process, as any HTTP client would."""

    def __init__(self, accounts: dict[str, Plan] | None = None, **options: Any) -> None:
        self.clock = Clock()
        known = {KEY: BASIC, RICH: ENTERPRISE} if accounts is None else accounts
        self.app = create_app(known, clock=self.clock, **options)
        self.simulator: Simulator = self.app.state.simulator

    def request(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        async def call() -> httpx.Response:
            transport = httpx.ASGITransport(self.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://simulator") as client:
                return await client.request(method, path, **arguments)

        return asyncio.run(call())

    def chart(self, body: Any = None, *, key: str | None = RICH) -> httpx.Response:
        headers = {} if key is None else {"x-api-key": key}
        return self.request("POST", PATH, headers=headers, json={} if body is None else body)


@pytest.fixture
def client() -> Client:
    return Client()


@pytest.fixture(scope="module")
def running() -> Iterator[RunningSimulator]:
    with running_simulator({KEY: BASIC, RICH: ENTERPRISE}) as simulator:
        yield simulator


@pytest.fixture
def live(running: RunningSimulator) -> RunningSimulator:
    running.simulator.reset()
    return running


def post(live: RunningSimulator, body: Any = None, *, key: str = RICH, timeout: float = 10.0) -> httpx.Response:
    return httpx.post(live.url + PATH, headers={"x-api-key": key}, json=body or {}, timeout=timeout)


def field_error(field: str, value: Any) -> Any:
    """What a client must see for one bad field: the array shape, naming the field and its value."""
    return ("array", field, value)


REFUSALS: dict[str, tuple[Any, int, Any]] = {
    "symbol is a number": ({"symbol": 5}, 422, field_error("symbol", 5)),
    "symbol is empty": ({"symbol": ""}, 422, field_error("symbol", "")),
    "symbol has no exchange": ({"symbol": "BTCUSDT"}, 422, "Invalid Symbol"),
    "symbol has a space": ({"symbol": "BINANCE:BTC USDT"}, 422, "Invalid Symbol"),
    "formula is not closed": ({"symbol": "(BINANCE:BTCUSDT+BINANCE:ETHUSDT/2"}, 422, "Invalid Symbol"),
    "interval is a number": ({"interval": 60}, 422, field_error("interval", 60)),
    "interval in lower case": ({"interval": "1d"}, 422, "Invalid Interval"),
    "week in lower case": ({"interval": "1w"}, 422, "Invalid Interval"),
    "interval in upper case": ({"interval": "4H"}, 422, "Invalid Interval"),
    "width below 400": ({"width": 399}, 422, field_error("width", 399)),
    "height below 300": ({"height": 299}, 422, field_error("height", 299)),
    "width is a text": ({"width": "800"}, 422, field_error("width", "800")),
    "width is a flag": ({"width": True}, 422, field_error("width", True)),
    "width is null": ({"width": None}, 422, field_error("width", None)),
    "style": ({"style": "candles"}, 422, field_error("style", "candles")),
    "theme": ({"theme": "Dark"}, 422, field_error("theme", "Dark")),
    "scale": ({"scale": "log"}, 422, field_error("scale", "log")),
    "session": ({"session": "night"}, 422, field_error("session", "night")),
    "plain UTC": ({"timezone": "UTC"}, 422, field_error("timezone", "UTC")),
    "unknown time zone": ({"timezone": "Europe/Atlantis"}, 422, field_error("timezone", "Europe/Atlantis")),
    "format": ({"format": "jpg"}, 422, field_error("format", "jpg")),
    "range": ({"range": "2D"}, 422, field_error("range", "2D")),
    "range without to": ({"range": {"from": "2025-01-01"}}, 422, field_error("range", {"from": "2025-01-01"})),
    "range of nonsense": (
        {"range": {"from": "soon", "to": "later"}}, 422, field_error("range", {"from": "soon", "to": "later"})
    ),
    "range backwards": (
        {"range": {"from": "2025-02-01", "to": "2025-01-01T00:00:00Z"}}, 422,
        field_error("range", {"from": "2025-02-01", "to": "2025-01-01T00:00:00Z"}),
    ),
    "override is a list": ({"override": []}, 422, field_error("override", [])),
    "override of an unknown key": ({"override": {"showAll": True}}, 422, field_error("override", {"showAll": True})),
    "font too large": (
        {"override": {"scalesFontSize": 51}}, 422, field_error("override", {"scalesFontSize": 51})
    ),
    "pane too low": ({"override": {"mainPaneHeight": 99}}, 422, field_error("override", {"mainPaneHeight": 99})),
    "margin too wide": (
        {"override": {"priceRange": {"from": 1, "to": 2, "margin": 0.2}}}, 422,
        field_error("override", {"priceRange": {"from": 1, "to": 2, "margin": 0.2}}),
    ),
    "price range backwards": (
        {"override": {"priceRange": {"from": 2, "to": 1}}}, 422,
        field_error("override", {"priceRange": {"from": 2, "to": 1}}),
    ),
    "studies is an object": ({"studies": {}}, 422, field_error("studies", {})),
    "study is a text": ({"studies": ["MACD"]}, 422, field_error("studies[0]", "MACD")),
    "study without a name": ({"studies": [{"input": {}}]}, 422, field_error("studies[0].name", None)),
    "short name of another version": ({"studies": [{"name": "RSI"}]}, 422, field_error("studies[0].name", "RSI")),
    "study of an unknown key": (
        {"studies": [{"name": "MACD", "inputs": {}}]}, 422, field_error("studies[0].inputs", {})
    ),
    "input is a list": ({"studies": [{"name": "MACD", "input": []}]}, 422, field_error("studies[0].input", [])),
    "overlay is a text": (
        {"studies": [{"name": "Volume", "forceOverlay": "yes"}]}, 422, field_error("studies[0].forceOverlay", "yes")
    ),
    "drawing of an unknown name": (
        {"drawings": [{"name": "Line", "input": {}}]}, 422, field_error("drawings[0].name", "Line")
    ),
    "drawing without input": (
        {"drawings": [{"name": "Horizontal Line"}]}, 422, field_error("drawings[0].input", None)
    ),
    "shift of nothing": ({"shiftLeft": 0}, 422, field_error("shiftLeft", 0)),
    "shift too far": ({"shiftRight": 1001}, 422, field_error("shiftRight", 1001)),
    "watermark size": ({"watermarkSize": 24}, 422, field_error("watermarkSize", 24)),
    "watermark opacity": ({"watermarkOpacity": 0.05}, 422, field_error("watermarkOpacity", 0.05)),
    "unknown field": ({"studeis": []}, 422, "Invalid Request"),
    "body is a list": ([], 422, "Invalid Request"),
    "body is null": (..., 422, "Invalid Request"),
}  # fmt: skip


@pytest.mark.parametrize(("body", "status", "expected"), REFUSALS.values(), ids=REFUSALS)
def test_a_bad_request_is_refused_in_the_documented_shape(
    client: Client, body: Any, status: int, expected: Any
) -> None:
    if body is ...:
        headers = {"x-api-key": RICH, "content-type": "application/json"}
        response = client.request("POST", PATH, headers=headers, content=b"null")
    else:
        response = client.chart(body)

    assert response.status_code == status
    assert response.headers["content-type"] == "application/json"
    if isinstance(expected, str):
        assert response.json() == {"message": expected}
        return
    [problem] = response.json()
    assert set(problem) == {"value", "msg", "param", "location"}
    assert (problem["param"], problem["value"], problem["location"]) == (expected[1], expected[2], "body")
    assert problem["msg"]


def test_all_field_errors_come_at_once(client: Client) -> None:
    response = client.chart({"width": 1, "theme": "pink", "studies": [{"name": "RSI"}], "interval": "1d"})

    assert [problem["param"] for problem in response.json()] == ["width", "theme", "studies[0].name"]


ACCEPTED: dict[str, dict[str, Any]] = {
    "nothing": {},
    **{f"style {style}": {"style": style} for style in STYLES},
    **{f"scale {scale}": {"scale": scale} for scale in SCALES},
    **{f"interval {interval}": {"interval": interval, "width": 400, "height": 300} for interval in INTERVALS},
    **{f"range {name}": {"range": name, "interval": "1h"} for name in ("1D", "5Y", "ALL", "DTD", "WTD", "MTD", "YTD")},
    "range of dates": {"range": {"from": "2025-06-01", "to": "2025-09-01T00:00:00.000Z"}},
    "range before all history": {"range": {"from": "1970-01-01", "to": "1971-01-01"}},
    "range after all history": {"range": {"from": "2090-01-01", "to": "2091-01-01"}},
    "formula": {"symbol": "(BINANCE:BTCUSDT + BINANCE:ETHUSDT*2) / 10"},
    "perpetual": {"symbol": "BYBIT:BTCUSDT.P"},
    "future": {"symbol": "CME:ES1!"},
    "time zone": {"timezone": "Pacific/Honolulu", "interval": "15m"},
    "documented default time zone": {"timezone": "Etc/UTC"},
    "extended session": {"session": "extended"},
    "shifted": {"shiftLeft": 1000, "shiftRight": 1000},
    "watermark": {"watermark": "mine", "watermarkSize": 64, "watermarkOpacity": 0.4},
    "overridden": {
        "override": {
            "priceRange": {"from": -5, "to": 1e6, "margin": 0.1}, "mainPaneHeight": 1800, "scalesFontSize": 50,
            "showLegend": False, "showInvertScale": True, "showSymbolWatermark": True, "style": {"x": 1},
        },
        "scale": "logarithmic", "studies": [{"name": "MACD"}],
    },
    **{f"template {name}": {"studies": studies, "height": 600} for name, studies in TEMPLATE_STUDIES.items()},
}  # fmt: skip


@pytest.mark.parametrize("body", ACCEPTED.values(), ids=ACCEPTED)
def test_every_documented_request_is_answered_with_a_png_of_its_size(client: Client, body: dict[str, Any]) -> None:
    response = client.chart(body)

    assert response.status_code == 200
    assert response.headers["content-type"] == "image/png"
    assert response.content.startswith(PNG)
    assert Image.open(io.BytesIO(response.content)).size == (body.get("width", 800), body.get("height", 600))


@pytest.mark.parametrize("name", STUDIES)
def test_every_known_study_changes_the_picture(name: str) -> None:
    plain = draw_picture(ChartRequest(width=400, height=300))
    request = read_request({"width": 400, "height": 300, "studies": [{"name": name}]}, ENTERPRISE)

    assert isinstance(request, ChartRequest)
    assert draw_picture(request) != plain


def test_the_simulator_knows_the_studies_of_all_templates_and_forty_more() -> None:
    used = {study["name"] for studies in TEMPLATE_STUDIES.values() for study in studies}

    assert used <= set(STUDIES)
    assert len(set(STUDIES) - used) >= 40


@pytest.mark.parametrize("name", DRAWINGS)
def test_every_drawing_is_accepted_and_never_breaks_a_picture(client: Client, name: str) -> None:
    price = last_price("BINANCE:BTCUSDT")
    inputs: list[dict[str, Any]] = [
        {"price": price, "text": "here"},
        {"price": price, "datetime": "2025-12-20", "text": "here"},
        {"startDatetime": "2025-12-01", "startPrice": price, "endDatetime": "2026-01-01", "endPrice": price * 1.05},
        {"entryPrice": price, "targetPrice": price * 1.1, "stopPrice": price * 0.95},
        {"datetime": "2025-12-20"},
        {"datetime": "no date", "price": "no price"},
    ]  # fmt: skip
    response = client.chart({"drawings": [{"name": name, "input": one, "zOrder": "top"} for one in inputs]})

    assert response.status_code == 200


def test_jpeg_is_answered_as_jpeg(client: Client) -> None:
    response = client.chart({"format": "jpeg"})

    assert response.headers["content-type"] == "image/jpeg"
    assert Image.open(io.BytesIO(response.content)).format == "JPEG"


def test_an_empty_body_asks_for_all_defaults(client: Client) -> None:
    bare = client.request("POST", PATH, headers={"x-api-key": RICH})

    assert bare.status_code == 200
    assert bare.content == client.chart({"symbol": "BINANCE:BTCUSDT", "interval": "1D", "width": 800}).content


PROTOCOL: dict[str, tuple[str, str, dict[str, str], bytes, int, Any]] = {
    "no key": ("POST", PATH, {}, b"", 403, {"message": "Forbidden"}),
    "empty key": ("POST", PATH, {"x-api-key": ""}, b"", 403, {"message": "Forbidden"}),
    "unknown key": ("POST", PATH, {"x-api-key": "nobody"}, b"", 403, {"message": "Forbidden"}),
    "key as a bearer": ("POST", PATH, {"authorization": f"Bearer {KEY}"}, b"", 403, {"message": "Forbidden"}),
    "key in the query": ("POST", f"{PATH}?key={KEY}", {}, b"", 403, {"message": "Forbidden"}),
    "form": (
        "POST", PATH, {"x-api-key": KEY, "content-type": "application/x-www-form-urlencoded"}, b"a=b", 400,
        {"message": "Invalid Content-Type"},
    ),
    "no content type": ("POST", PATH, {"x-api-key": KEY}, b"{}", 400, {"message": "Invalid Content-Type"}),
    "broken json": (
        "POST", PATH, {"x-api-key": KEY, "content-type": "application/json"}, b"{", 400, {"message": "Invalid JSON"}
    ),
    "not a number": (
        "POST", PATH, {"x-api-key": KEY, "content-type": "application/json"}, b'{"width": NaN}', 400,
        {"message": "Invalid JSON"},
    ),
    "infinite number": (
        "POST", PATH, {"x-api-key": KEY, "content-type": "application/json"}, b'{"width": 1e999}', 400,
        {"message": "Invalid JSON"},
    ),
    "half a surrogate": (
        "POST", PATH, {"x-api-key": KEY, "content-type": "application/json"}, b'{"theme": "\\ud800"}', 400,
        {"message": "Invalid JSON"},
    ),
    "json nested too deep": (
        "POST", PATH, {"x-api-key": KEY, "content-type": "application/json"}, b"[" * 100_000, 400,
        {"message": "Invalid JSON"},
    ),
    "other path": ("POST", "/v2/tradingview/mini-chart", {"x-api-key": KEY}, b"", 404, {"message": "Not Found"}),
    "other method": ("GET", PATH, {"x-api-key": KEY}, b"", 405, {"message": "Method Not Allowed"}),
}  # fmt: skip


@pytest.mark.parametrize(("method", "path", "headers", "content", "status", "body"), PROTOCOL.values(), ids=PROTOCOL)
def test_the_protocol_is_kept_as_documented(
    client: Client, method: str, path: str, headers: dict[str, str], content: bytes, status: int, body: Any
) -> None:
    response = client.request(method, path, headers=headers, content=content)

    assert (response.status_code, response.json()) == (status, body)


@pytest.mark.parametrize(
    ("plan", "row"),
    [
        (BASIC, ("BASIC", 1, 3, 50, 800, 600, 3)),
        (PRO, ("PRO", 10, 15, 500, 1920, 1080, 5)),
        (MEGA, ("MEGA", 15, 25, 1000, 1920, 1600, 10)),
        (ULTRA, ("ULTRA", 35, 50, 3000, 2048, 1920, 25)),
        (ENTERPRISE, ("ENTERPRISE", 35, 50, 5000, 2048, 1920, 50)),
    ],
    ids=[*PLANS],
)
def test_a_plan_has_the_limits_of_its_row_and_holds_them(plan: Plan, row: tuple[Any, ...]) -> None:
    name, rate, burst, daily, width, height, parameters = row
    studies = [{"name": "Volume"}] * parameters

    assert plan == replace(PLANS[name], per_second=rate, burst=burst, daily=daily)
    assert isinstance(read_request({"width": width, "height": height, "studies": studies}, plan), ChartRequest)
    too_wide, too_high = read_request({"width": width + 1}, plan), read_request({"height": height + 1}, plan)
    too_full = read_request({"studies": studies, "drawings": [{"name": "Text", "input": {}}]}, plan)
    resolution = {"message": f"Exceed Max Usage Resolution Limit ({width}x{height})"}
    assert [(one.status, one.body) for one in (too_wide, too_high) if not isinstance(one, ChartRequest)] == [
        (403, resolution),
        (403, resolution),
    ]
    assert not isinstance(too_full, ChartRequest)
    assert (too_full.status, too_full.body) == (403, {"message": f"Exceed Max Usage Parameter Limit ({parameters})"})


def test_basic_plan_refuses_a_fourth_study(client: Client) -> None:
    response = client.chart({"studies": [{"name": "Volume"}] * 4}, key=KEY)

    assert (response.status_code, response.json()) == (403, {"message": "Exceed Max Usage Parameter Limit (3)"})


def test_basic_plan_refuses_a_watermark_of_its_own(client: Client) -> None:
    assert client.chart({"watermark": "mine"}, key=KEY).status_code == 403
    assert client.chart({"watermark": "mine"}, key=RICH).status_code == 200


def test_a_bad_field_is_told_before_a_plan_limit(client: Client) -> None:
    assert client.chart({"width": 5000, "theme": "pink"}, key=KEY).status_code == 422


def test_the_rate_allows_a_burst_then_one_call_a_second(client: Client) -> None:
    statuses = [client.chart(key=KEY).status_code for _ in range(4)]
    client.clock.now += 0.999
    early = client.chart(key=KEY)
    client.clock.now += 0.001
    on_time = client.chart(key=KEY)

    assert statuses == [200, 200, 200, 429]
    assert (early.status_code, early.json()) == (429, {"message": "Too Many Requests"})
    assert on_time.status_code == 200
    assert client.chart(key=KEY).status_code == 429


def test_a_refused_request_spends_rate_but_no_quota(client: Client) -> None:
    statuses = [client.chart({"width": 1}, key=KEY).status_code for _ in range(4)]

    assert statuses == [422, 422, 422, 429]
    assert client.simulator.used_today(KEY) == 0


def test_an_unknown_key_spends_nothing(client: Client) -> None:
    assert [client.chart(key="nobody").status_code for _ in range(5)] == [403] * 5


def test_the_daily_limit_ends_at_utc_midnight() -> None:
    client = Client({KEY: replace(BASIC, daily=2, burst=99)})
    statuses = [client.chart(key=KEY).status_code for _ in range(2)]
    spent = client.chart(key=KEY)
    client.clock.now = TEN_O_CLOCK + 14 * 3600 - 1
    last_second = client.chart(key=KEY)
    client.clock.now += 1

    assert statuses == [200, 200]
    assert (spent.status_code, spent.json()) == (429, {"message": "Limit Exceeded"})
    assert last_second.status_code == 429
    assert client.chart(key=KEY).status_code == 200
    assert client.simulator.used_today(KEY) == 1


def test_failures_spend_the_quota_when_asked_to() -> None:
    client = Client({KEY: replace(BASIC, daily=1, burst=99)}, count_failures=True)

    assert client.chart({"width": 1}, key=KEY).status_code == 422
    assert client.chart(key=KEY).json() == {"message": "Limit Exceeded"}


def test_a_unit_of_yesterday_is_not_given_back_today() -> None:
    allowance = Allowance(replace(BASIC, daily=1), TEN_O_CLOCK)
    assert allowance.reserve(TEN_O_CLOCK)
    assert allowance.reserve(TEN_O_CLOCK + 86_400)

    allowance.give_back(TEN_O_CLOCK)

    assert allowance.used_today == 1
    allowance.give_back(TEN_O_CLOCK + 86_400)
    assert allowance.used_today == 0


def test_accounts_do_not_share_rate_or_quota(client: Client) -> None:
    for _ in range(4):
        client.chart(key=KEY)

    assert client.chart(key=RICH).status_code == 200
    assert (client.simulator.used_today(KEY), client.simulator.used_today(RICH)) == (3, 1)


def test_any_key_lets_every_key_in_at_the_default_plan() -> None:
    client = Client({}, any_key=True, default_plan=PRO)

    assert client.chart({"width": 1920, "height": 1080}, key="anybody").status_code == 200
    assert client.chart({"width": 1921}, key="anybody").status_code == 403
    assert client.chart(key=None).status_code == 403


def test_the_same_request_gives_the_same_bytes_and_any_difference_shows(client: Client) -> None:
    base = {"symbol": "BINANCE:ETHUSDT", "interval": "4h"}
    changes: list[dict[str, Any]] = [
        {}, {"symbol": "BINANCE:BTCUSDT"}, {"interval": "1h"}, {"studies": [{"name": "MACD"}]}, {"theme": "dark"},
        {"style": "line"}, {"timezone": "Asia/Tokyo"}, {"range": "5D"}, {"override": {"showLegend": False}},
    ]  # fmt: skip
    differences = [{**base, **change} for change in changes]
    pictures = [client.chart(body).content for body in differences]

    assert len(set(pictures)) == len(differences)
    assert client.chart(base).content == pictures[0]
    assert Client().chart(base).content == pictures[0]


def test_all_intervals_of_a_symbol_end_at_one_plausible_price() -> None:
    assert {round(history("BINANCE:BTCUSDT", one).close[-1], 2) for one in INTERVALS} == {
        round(last_price("BINANCE:BTCUSDT"), 2)
    }
    assert 60_000 <= last_price("BINANCE:BTCUSDT") <= 100_000
    assert 2_600 <= last_price("BINANCE:ETHUSDT") <= 3_900


@pytest.mark.parametrize("interval", INTERVALS)
def test_every_bar_is_a_possible_candle(interval: str) -> None:
    bars = history("KRAKEN:DOGEUSD", interval)

    assert list(bars.time) == sorted(set(bars.time))
    for o, h, low, c, volume in zip(bars.open, bars.high, bars.low, bars.close, bars.volume, strict=True):
        assert 0 < low <= min(o, c) <= max(o, c) <= h
        assert volume > 0


@pytest.mark.parametrize("interval", INTERVALS)
def test_labels_of_the_time_axis_never_touch(interval: str) -> None:
    times = list(history("BINANCE:BTCUSDT", interval).time[-100:])
    spacing = min(22.0, 730 / len(times))
    labels = time_labels(times, spacing, 66)

    assert len(labels) >= 2
    gaps = [(after.index - before.index) * spacing for before, after in itertools.pairwise(labels)]
    assert min(gaps) >= 45


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("BINANCE:BTCUSDT", True),
        ("(A:B+C:D)/10", True),
        ("1/BINANCE:BTCUSDT", True),
        ("A:B-C:D*2^3", True),
        ("BTCUSDT", False),
        ("", False),
        ("10/2", False),
        ("A:B+", False),
        ("A:B C:D", False),
        ("()", False),
        ("A:B)(", False),
        ("A:B:C", False),
        (":B", False),
        ("A:", False),
        ("A:" + "B" * 300, False),
    ],
)
def test_a_symbol_is_an_exchange_and_a_ticker_or_a_formula_of_them(text: str, expected: bool) -> None:
    assert is_symbol(text) is expected


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    width=st.integers(400, 2048),
    height=st.integers(300, 1920),
    interval=st.sampled_from(INTERVALS),
    style=st.sampled_from(STYLES),
    scale=st.sampled_from(SCALES),
    studies=st.lists(
        st.fixed_dictionaries(
            {"name": st.sampled_from([*STUDIES]), "forceOverlay": st.booleans()},
            optional={"input": st.dictionaries(st.sampled_from(["in_0", "length", "rows"]), st.integers(-5, 900))},
        ),
        max_size=12,
    ),
    shift=st.integers(1, 1000),
    theme=st.sampled_from(["light", "dark"]),
)  # fmt: skip
def test_whatever_is_accepted_can_be_drawn(shift: int, **body: Any) -> None:
    request = read_request({**body, "shiftLeft": shift, "symbol": "X:Y"}, ENTERPRISE)

    assert isinstance(request, ChartRequest)
    assert draw_picture(request).startswith(PNG)


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
