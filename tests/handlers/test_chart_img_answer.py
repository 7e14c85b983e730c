"""What each answer of Chart-IMG means; the table of the contract, as DECISIONS changes it."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.action import Blob, Failure, Outcome
from engine.core.canonical import encode
from engine.core.secret import Secrets
from engine.handlers.chart_img_answer import Answer, Lost, Subject, classify
from engine.handlers.chart_img_delay import DELAY_S_MAX, delay_s
from engine.handlers.chart_img_message import bounded, message_in, parsed, redactor

NOW = datetime(2026, 1, 5, 8, 0, tzinfo=UTC)
KEY = "sk-live-0123456789abcdef"
SUBJECT = Subject("ctpl_a_v1", "BINANCE:BTCUSDT")
REDACT = redactor(Secrets([KEY]), KEY)


def refused(status: int, body: Any = None, headers: dict[str, str] | None = None) -> Failure:
    content = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    result = classify(Answer(status, headers or {}, content), SUBJECT, REDACT, NOW)
    assert isinstance(result, Failure)
    return result


def test_a_whole_picture_is_captured(png: Callable[..., bytes]):
    result = classify(Answer(200, {"content-type": "text/html"}, png()), SUBJECT, REDACT, NOW)

    assert result == Outcome("captured", {"picture": Blob(png(), "image/png"), "http_status": 200})


@pytest.mark.parametrize("status", [408, 425, 500, 502, 503, 504])
def test_what_may_pass_is_retriable(status: int):
    assert refused(status)[:2] == ("CHART_API_FAILED", f"Chart-IMG answered with HTTP status {status}")
    assert refused(status).retriable


@pytest.mark.parametrize("status", [100, 201, 204, 206, 400, 401, 403, 404, 409, 410, 413, 422, 501, 505, 599])
def test_what_will_not_pass_is_not_retriable(status: int):
    failure = refused(status, {"message": "Invalid Request"}, {"retry-after": "3"})

    assert failure == Failure(
        "CHART_API_FAILED",
        "Invalid Request",
        {
            "chartTemplateId": "ctpl_a_v1",
            "chartImgSymbol": "BINANCE:BTCUSDT",
            "httpStatus": status,
            "response": {"message": "Invalid Request"},
        },
    )


def test_a_rate_limit_does_not_exhaust_the_account():
    failure = refused(429, {"message": "Too Many Requests"}, {"retry-after": "2"})

    assert (failure.code, failure.message, failure.retriable, failure.retry_after_s) == (
        "CHART_API_FAILED",
        "Too Many Requests",
        True,
        2.0,
    )


def test_a_429_without_a_body_is_a_rate_limit():
    assert refused(429)[:2] == ("CHART_API_FAILED", "Chart-IMG refused the call because of its rate (HTTP 429)")


@pytest.mark.parametrize("status", [200, 400, 403, 422, 429, 500])
@pytest.mark.parametrize("body", [{"message": "Limit Exceeded"}, {"error": "daily LIMIT exceeded."}, b"limit exceeded"])
def test_a_used_up_quota_is_a_limit_whatever_the_status(status: int, body: Any):
    failure = refused(status, body, {"retry-after": "86400"})

    assert (failure.code, failure.retriable) == ("CHART_API_LIMIT_EXCEEDED", True)
    # Another account may be free at once, so the pause asked of this one is nobody else's.
    assert failure.retry_after_s is None


def test_a_quota_page_of_a_gateway_is_a_limit():
    failure = refused(429, b"<html><h1>Limit Exceeded</h1></html>")

    assert failure[:2] == ("CHART_API_LIMIT_EXCEEDED", "Limit Exceeded")


def test_a_usage_limit_of_the_plan_is_not_the_quota():
    assert refused(403, {"message": "Exceed Max Usage Parameter Limit (3)"}).code == "CHART_API_FAILED"


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_says_why_it_is_not_followed(status: int):
    failure = refused(status, b"Moved", {"location": "https://elsewhere.test/"})

    assert "not followed, as the key would travel" in failure.message
    assert not failure.retriable


@pytest.mark.parametrize(
    ("answer", "problem", "retriable"),
    [
        (Answer(200, {}, b""), "is empty", False),
        (Answer(200, {}, b"\x89PNG\r\n\x1a\n\0\0"), "cut off", True),
        (Answer(200, {"content-type": "text/html"}, b"<html>Soon back</html>"), "a web page", False),
        (Answer(200, {"content-type": "image/jpeg"}, b"\xff\xd8\xff\xe0\0"), "a JPEG picture", False),
        (Answer(200, {}, b"", "oversized"), "larger than the bound", False),
        (Answer(200, {}, b"", "undecodable"), "cannot be undone", False),
    ],
    ids=["empty", "truncated", "html", "jpeg", "oversized", "undecodable"],
)
def test_a_200_without_a_whole_picture_says_what_it_is(answer: Answer, problem: str, retriable: bool):
    failure = classify(answer, SUBJECT, REDACT, NOW)

    assert isinstance(failure, Failure)
    assert (failure.code, failure.retriable) == ("CHART_API_FAILED", retriable)
    assert problem in failure.message
    assert failure.details is not None
    assert failure.details.get("contentType") == answer.headers.get("content-type")


@pytest.mark.parametrize(("reason", "retriable"), [("timeout", True), ("network", True), ("request", False)])
def test_a_lost_call_keeps_its_reason(reason: str, retriable: bool):
    failure = classify(Lost(reason, "No answer"), SUBJECT, REDACT, NOW)

    assert failure == Failure("CHART_API_FAILED", "No answer", SUBJECT.details(reason=reason), retriable)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"message": "A", "error": "B"}, "A"),
        ({"message": "", "error": "B"}, "B"),
        ({"message": None, "msg": "C"}, "C"),
        ({"error": {"code": 7, "message": "D"}}, "D"),
        ({"message": ["E", {"msg": "F", "param": "width"}]}, "E; width: F"),
        ({"message": 42}, "42"),
        ({"errors": [{"message": "G"}, {"error": "H"}, {"msg": "I", "param": "x"}, "J", 3, None]}, "G; H; x: I; J; 3"),
        ([{"value": 1, "msg": "must be >= 400", "param": "width", "location": "body"}], "width: must be >= 400"),
        ("Plain", "Plain"),
        ({"errors": {}}, ""),
        ({"message": True}, ""),
        ([], ""),
        (None, ""),
    ],
)
def test_every_shape_of_message_is_understood(body: Any, message: str):
    assert message_in(body, REDACT) == message


def test_the_array_of_a_422_becomes_the_message():
    failure = refused(422, [{"value": 9, "msg": "Invalid value", "param": "interval", "location": "body"}])

    assert failure.message == "interval: Invalid value"


def test_an_echoed_key_is_nowhere_in_the_failure():
    bodies: list[Any] = [
        {"message": f"bad key {KEY}", KEY: [KEY, {"deep": KEY}]},
        f"<html>{KEY}</html>".encode(),
        json.dumps({"message": KEY}).replace("s", "\\u0073").encode(),
        f"\xff text {KEY}".encode("latin-1"),
    ]
    for body in bodies:
        assert KEY not in encode(refused(500, body, {"content-type": KEY}).to_json())
        assert KEY not in encode(refused(200, body, {"content-type": KEY}).to_json())


def test_a_short_key_is_redacted_too_and_so_is_one_of_digits():
    assert message_in({"message": "key k2!"}, redactor(Secrets(), "k2")) == "key [redacted]!"
    assert bounded({"used": 12345678}, redactor(Secrets(), "12345678")) == {"used": "[redacted]"}


def test_a_page_is_kept_as_an_excerpt_and_a_message_is_bounded():
    page = refused(502, b"<html>" + b"x" * 50_000)
    long = refused(400, {"message": "y" * 50_000})

    assert page.details is not None
    assert len(str(page.details["response"])) == 300
    assert page.message == "Chart-IMG answered with HTTP status 502"
    assert len(long.message) == 500


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text()


@given(st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=60))
def test_a_kept_response_is_small_json(body: Any):
    assert len(encode(bounded(body, REDACT)).encode()) <= 4096 * 4
    assert len(message_in(body, REDACT)) <= 500


def test_a_very_deep_body_is_kept_shallow():
    body = parsed(b'{"a":' * 500 + b"1" + b"}" * 500, REDACT)

    assert encode(bounded(body, REDACT)).count("{") <= 7
    assert isinstance(refused(500, b"[" * 60_000), Failure)


@given(
    st.integers(100, 999),
    st.binary() | st.sampled_from([b"{", b"[[[", b"\x89PNG", b'"\\ud800"', b"NaN", b"1e999", b"9" * 5000]),
    st.dictionaries(st.sampled_from(["retry-after", "content-type", "date", "ratelimit-reset"]), st.text()),
    st.sampled_from(["", "oversized", "undecodable"]),
)
def test_no_answer_makes_the_classifier_raise(status: int, content: bytes, headers: dict[str, str], cut: str):
    result = classify(Answer(status, headers, content, cut), SUBJECT, REDACT, NOW)

    assert isinstance(result, Failure)
    assert result.code in ("CHART_API_FAILED", "CHART_API_LIMIT_EXCEEDED")
    encode(result.to_json()).encode()
    assert result.retry_after_s is None or 0 <= result.retry_after_s <= DELAY_S_MAX


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": " 1.5 "}, 1.5),
        ({"retry-after": "-5"}, 0.0),
        ({"retry-after": "9" * 30}, DELAY_S_MAX),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "Mon, 05 Jan 2026 08:00:30 GMT"}, 30.0),
        ({"retry-after": "Mon, 05 Jan 2026 07:00:00 GMT"}, 0.0),
        ({"retry-after": "Tue, 05 Jan 2027 07:00:00 GMT"}, DELAY_S_MAX),
        ({"retry-after": "Mon, 05 Jan 2026 09:00:10 GMT", "date": "Mon, 05 Jan 2026 09:00:00 GMT"}, 10.0),
        ({"ratelimit-reset": "12"}, 12.0),
        ({"x-ratelimit-reset": str(int(NOW.timestamp()) + 20)}, 20.0),
        ({"x-rate-limit-reset": str((int(NOW.timestamp()) + 20) * 1000)}, 20.0),
        ({"retry-after": "soon", "ratelimit-reset": "4"}, 4.0),
    ],
    ids=str,
)
def test_the_pause_is_what_the_server_asks_within_bounds(headers: dict[str, str], expected: float | None):
    assert delay_s(headers, NOW) == expected
