"""What an answer of Chart-IMG means: a picture, or a failure with code, message and retriability.

In: an `Answer` (or that it was `Lost`) and the `Subject` of the call. Out: an `Outcome` or a `Failure`.
The table is the contract's ("Chart-IMG client") as `DECISIONS` changes it: `Limit Exceeded` is the quota
of the day, whatever the status; `Too Many Requests` is only a rate; 408, 425, 500, 502, 503 and 504 may
pass. Pure: no clock, no network, no logging. It never raises on any status, headers or bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple

from engine.core.action import Blob, Failure, Outcome
from engine.core.canonical import Json
from engine.handlers.chart_img_delay import delay_s
from engine.handlers.chart_img_message import Redact, bounded, message_in, one_line, parsed
from engine.handlers.chart_img_png import flaw_of

FAILED: Final = "CHART_API_FAILED"
LIMIT_EXCEEDED: Final = "CHART_API_LIMIT_EXCEEDED"
MOCK_MISSING: Final = "CHART_API_MOCK_MISSING"

RETRIABLE_STATUSES: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
_LIMIT_PHRASE: Final = "limit exceeded"


class Subject(NamedTuple):
    """What the call was about: it stands in every failure's details."""

    template_id: str
    symbol: str

    def details(self, **more: Json) -> dict[str, Json]:
        """The details of a failure; `None` is left out."""
        given = {name: value for name, value in more.items() if value is not None}
        return {"chartTemplateId": self.template_id, "chartImgSymbol": self.symbol, **given}


class Answer(NamedTuple):
    """An HTTP answer; header names are lower case, the body is decoded.

    `cut` says why the body is not all of it: "" (it is), "oversized" or "undecodable".
    """

    status: int
    headers: Mapping[str, str]
    content: bytes
    cut: str = ""


class Lost(NamedTuple):
    """A call without a usable answer. `reason` is "timeout", "network" or "request" (nothing was sent).

    `status` where the answer had begun; `message` is a whole sentence without secrets.
    """

    reason: str
    message: str
    status: int | None = None


def classify(answer: Answer | Lost, subject: Subject, redact: Redact, now: datetime) -> Outcome | Failure:
    """The meaning of `answer`. A picture is `Outcome("captured", {"picture": Blob, "http_status": 200})`."""
    if isinstance(answer, Lost):
        details = subject.details(reason=answer.reason, httpStatus=answer.status)
        return Failure(FAILED, answer.message, details, retriable=answer.reason != "request")
    if answer.status == 200:
        return _picture(answer, subject, redact)
    return _refusal(answer, subject, redact, now)


def _picture(answer: Answer, subject: Subject, redact: Redact) -> Outcome | Failure:
    if answer.cut == "oversized":
        return _unusable(
            answer, subject, redact, "The picture from Chart-IMG is larger than the bound (picture_bytes_max)"
        )
    if answer.cut:
        return _unusable(answer, subject, redact, "Chart-IMG's answer is compressed in a way that cannot be undone")
    flaw = flaw_of(answer.content)
    if flaw is None:
        return Outcome("captured", {"picture": Blob(answer.content, "image/png"), "http_status": 200})
    body = _body(answer, redact)
    if _LIMIT_PHRASE in message_in(body, redact).lower():
        return _limit(answer, subject, redact, body)
    # What was cut may be whole the next time; what is something else will be something else again.
    return _unusable(answer, subject, redact, f"Chart-IMG's answer {flaw.problem}", retriable=flaw.truncated)


def _unusable(answer: Answer, subject: Subject, redact: Redact, message: str, *, retriable: bool = False) -> Failure:
    body = _body(answer, redact)
    details = subject.details(
        httpStatus=answer.status,
        contentType=_header(answer, "content-type", redact),
        response=None if body is None else bounded(body, redact),
    )
    return Failure(FAILED, message, details, retriable)


def _refusal(answer: Answer, subject: Subject, redact: Redact, now: datetime) -> Failure:
    body = _body(answer, redact)
    said = message_in(body, redact)
    # A gateway may say it in a page or under a key of its own; on a 429 the phrase decides wherever it stands.
    is_quota_page = answer.status == 429 and _LIMIT_PHRASE.encode() in answer.content.lower()
    if _LIMIT_PHRASE in said.lower() or is_quota_page:
        return _limit(answer, subject, redact, body)
    retriable = answer.status in RETRIABLE_STATUSES
    return Failure(
        FAILED,
        _generic(answer.status) if not said or 300 <= answer.status < 400 else said,
        _details(answer, subject, redact, body),
        retriable,
        delay_s(answer.headers, now) if retriable else None,
    )


def _limit(answer: Answer, subject: Subject, redact: Redact, body: Any) -> Failure:
    """The day's quota is used up. `Retry-After` is not passed on: another account may be free at once."""
    message = message_in(body, redact) or "Limit Exceeded"
    return Failure(LIMIT_EXCEEDED, message, _details(answer, subject, redact, body), retriable=True)


def _details(answer: Answer, subject: Subject, redact: Redact, body: Any) -> dict[str, Json]:
    return subject.details(httpStatus=answer.status, response=None if body is None else bounded(body, redact))


def _body(answer: Answer, redact: Redact) -> Any:
    """The body parsed; None where it is empty, cut, or nothing that people could read."""
    is_binary = answer.content[:1] in (b"\x89", b"\xff") or any(b < 9 or 13 < b < 32 for b in answer.content[:256])
    return None if answer.cut or is_binary else parsed(answer.content, redact)


def _generic(status: int) -> str:
    if 300 <= status < 400:
        return f"Chart-IMG answered with a redirect (HTTP {status}); it is not followed, as the key would travel along"
    if status == 429:
        return "Chart-IMG refused the call because of its rate (HTTP 429)"
    return f"Chart-IMG answered with HTTP status {status}"


def _header(answer: Answer, name: str, redact: Redact) -> str | None:
    value = answer.headers.get(name)
    return None if value is None else one_line(redact(value), 200)
