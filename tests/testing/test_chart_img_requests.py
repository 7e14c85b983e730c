"""What a request may say, and how a wrong one is refused."""

from __future__ import annotations

import io
from typing import Any

import pytest
from PIL import Image

from engine.testing.chart_img import (
    ENTERPRISE,
    PATH,
)
from engine.testing.chart_img.field_rules import DRAWINGS, SCALES, STYLES
from engine.testing.chart_img.market import INTERVALS, last_price
from engine.testing.chart_img.picture import draw_picture
from engine.testing.chart_img.request_rules import ChartRequest, read_request
from engine.testing.chart_img.studies import STUDIES
from tests.testing.conftest import KEY, PNG, RICH, TEMPLATE_STUDIES, Client


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
