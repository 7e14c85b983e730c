"""Faults on demand: which call is answered how, instead of the ordinary answer.

In: a `Match` (symbol, interval, account, from the n-th such call) and the `Answer`s it shall get, one a call.
Out: for each call at most one scripted answer. When a script is used up, its calls are answered as usual.
`script_from_json` reads the same from JSON, so that a test in another process can script as well.
It never holds an API key: an account is matched by the fingerprint of its key.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args

Kind = Literal[
    "picture", "error", "html", "empty", "truncated", "interrupted", "oversized", "echo_key", "dropped",
]  # fmt: skip
"""picture: the ordinary answer (useful after a delay or between errors) · error: `status` and `message` as JSON ·
html: a 200 that is a web page · empty: a 200 without a body · truncated: a 200 with half of a picture ·
interrupted: the connection ends half-way through a picture · oversized: a valid picture of `size_bytes` ·
echo_key: an error that repeats the API key · dropped: the connection ends without an answer."""

MESSAGES = {
    400: "Bad Request", 401: "Invalid Request", 403: "Forbidden", 404: "Not Found", 408: "Request Timeout",
    409: "Session Disconnected", 422: "Invalid Request", 425: "Too Early", 429: "Too Many Requests",
    500: "Something Went Wrong", 502: "Bad Gateway", 503: "Service Unavailable", 504: "External Request Timeout",
}  # fmt: skip

OVERSIZED_BYTES = 20_000_000
SIZE_BYTES_MAX = 200_000_000
STALL_S_MAX = 3_600.0


def key_fingerprint(key: str) -> str:
    """What stands for an API key wherever a person or another process may look."""
    return hashlib.sha256(key.encode()).hexdigest()[:8]


@dataclass(frozen=True, slots=True)
class Answer:
    """One scripted answer; `stall_s` delays any kind, and ends early when the client goes away."""

    kind: Kind = "picture"
    status: int | None = None
    message: str | None = None
    body: Any = None
    """For errors: the whole JSON body instead of `{"message": message}`."""
    retry_after: str | None = None
    """The `Retry-After` header: seconds or an HTTP date, sent as it is."""
    stall_s: float = 0.0
    size_bytes: int = OVERSIZED_BYTES

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ValueError(f"kind must be one of {', '.join(get_args(Kind))}, not {self.kind!r}")
        if self.status is not None and (type(self.status) is not int or not 200 <= self.status <= 599):
            raise ValueError(f"status must be an integer from 200 to 599, not {self.status!r}")
        for name in ("message", "retry_after"):
            if not isinstance(getattr(self, name), str | None):
                raise ValueError(f"{name} must be a string, not {getattr(self, name)!r}")
        if not isinstance(self.stall_s, int | float) or not 0 <= self.stall_s <= STALL_S_MAX:
            raise ValueError(f"stall_s must be from 0 to {STALL_S_MAX:g}, not {self.stall_s!r}")
        if type(self.size_bytes) is not int or not 0 < self.size_bytes <= SIZE_BYTES_MAX:
            raise ValueError(f"size_bytes must be from 1 to {SIZE_BYTES_MAX}, not {self.size_bytes!r}")

    @classmethod
    def error(cls, status: int, message: str | None = None, *, retry_after: str | None = None) -> Answer:
        """A JSON error with the vendor's message for this status unless another is given."""
        return cls("error", status, message or MESSAGES.get(status, "Error"), retry_after=retry_after)

    @classmethod
    def limit_exceeded(cls, *, retry_after: str | None = None) -> Answer:
        """The 429 of a spent daily quota; `Answer.error(429)` is that of the rate."""
        return cls.error(429, "Limit Exceeded", retry_after=retry_after)

    @property
    def error_status(self) -> int:
        return 500 if self.status is None else self.status

    @property
    def error_body(self) -> Any:
        if self.body is not None:
            return self.body
        return {"message": self.message or MESSAGES.get(self.error_status, "Error")}


@dataclass(frozen=True, slots=True)
class Match:
    """Which calls a script is for; what is not given matches every call."""

    symbol: str | None = None
    interval: str | None = None
    key_fingerprint: str | None = None
    nth: int = 1
    """The script begins at the n-th call that matches, counted from 1."""

    def __post_init__(self) -> None:
        if type(self.nth) is not int or self.nth < 1:
            raise ValueError(f"nth must be an integer of at least 1, not {self.nth!r}")
        for name in ("symbol", "interval", "key_fingerprint"):
            if not isinstance(getattr(self, name), str | None):
                raise ValueError(f"{name} must be a string, not {getattr(self, name)!r}")

    @classmethod
    def account(cls, key: str, *, symbol: str | None = None, interval: str | None = None, nth: int = 1) -> Match:
        """Calls made with this API key."""
        return cls(symbol, interval, key_fingerprint(key), nth)

    def covers(self, symbol: str, interval: str, fingerprint: str) -> bool:
        wanted = ((self.symbol, symbol), (self.interval, interval), (self.key_fingerprint, fingerprint))
        return all(mine is None or mine == theirs for mine, theirs in wanted)


@dataclass(slots=True)
class Script:
    """A match, its answers in order, and how many calls it has seen."""

    match: Match
    answers: Sequence[Answer]
    repeat: bool = False
    """Whether the last answer is given again and again."""
    seen: int = field(default=0, init=False)

    def next_answer(self, symbol: str, interval: str, fingerprint: str) -> Answer | None:
        if not self.match.covers(symbol, interval, fingerprint):
            return None
        self.seen += 1
        index = self.seen - self.match.nth
        if index < 0:
            return None
        if index < len(self.answers):
            return self.answers[index]
        return self.answers[-1] if self.repeat else None


def script_from_json(body: Any) -> Script:
    """`{"match": {…}, "answers": [{…}, …], "repeat": false}`; the match may give a `key` to be fingerprinted."""
    if not isinstance(body, Mapping) or not set(body) <= {"match", "answers", "repeat"}:
        raise ValueError("a script is an object of match, answers and repeat")
    answers = body.get("answers")
    if not isinstance(answers, list) or not answers:
        raise ValueError("answers must be a list of at least one answer")
    match = dict(_known(body.get("match", {}), {one.name for one in fields(Match)} | {"key"}, "match"))
    if "key" in match:
        match["key_fingerprint"] = key_fingerprint(str(match.pop("key")))
    names = {one.name for one in fields(Answer)}
    return Script(Match(**match), [_answer(_known(one, names, "answer")) for one in answers], bool(body.get("repeat")))


def _answer(values: Mapping[str, Any]) -> Answer:
    implied: dict[str, Any] = {"kind": "error"} if "status" in values else {}
    return Answer(**{**implied, **values})


def _known(values: Any, names: set[str], what: str) -> Mapping[str, Any]:
    if not isinstance(values, Mapping):
        raise ValueError(f"{what} must be an object")
    unknown = sorted(set(values) - names)
    if unknown:
        raise ValueError(f"{what} does not know {', '.join(unknown)}; it knows {', '.join(sorted(names))}")
    return values
