"""One request with its reply, between this project's values and vcrpy's.

In: `Asked` and `Reply`, plain values. Out: what vcrpy's serializer writes, and back. The text of a file is
made and read by vcrpy alone, so that a cassette is a genuine one: vcrpy itself can replay it with httpx.
`key_of` says when two requests are the same one: method, path with its query, and the body as canonical
JSON. The host is left out, so that what was recorded against a simulator on any port replays.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl, urlencode, urlsplit

from engine.core.canonical import decode, encode
from engine.errors import ConfigurationError

VARIABLE: Final = "CHART_IMG_CASSETTE"
"""The variable that names the file: errors name it, and never its value."""

REQUEST_HEADERS: Final = {"content-type": "application/json"}
"""What a recorded request shows of its headers: nothing that belongs to a caller."""


class Asked(NamedTuple):
    """A request: `body` is the bytes that are sent."""

    method: str
    url: str
    body: bytes


class Reply(NamedTuple):
    """An answer: header names are lower case, `content` is the body without any content encoding."""

    status: int
    headers: Mapping[str, str]
    content: bytes


class Key(NamedTuple):
    """What makes two requests the same; cassettes are sorted by it."""

    method: str
    path: str
    body: str


def key_of(method: str, url: str, body: bytes) -> Key:
    """The key of a request."""
    parts = urlsplit(url)
    query = urlencode(sorted(parse_qsl(parts.query, keep_blank_values=True)))
    try:
        text = encode(decode(body))
    except (ValueError, RecursionError):
        text = body.decode("latin-1")
    return Key(method.upper(), (parts.path or "/") + (f"?{query}" if query else ""), text)


class Recorded(NamedTuple):
    """An interaction in vcrpy's own form. It is kept as it was read, whoever recorded it."""

    request: Any
    response: dict[str, Any]

    @property
    def key(self) -> Key:
        """The key of its request."""
        body = self.request.body_bytes
        return key_of(self.request.method, self.request.uri, body if isinstance(body, bytes) else b"")

    def reply(self) -> Reply:
        """The answer, its body decoded when whoever recorded it kept the content encoding."""
        from vcr.filters import decode_response

        response = decode_response(self.response)
        headers = {
            str(name).lower(): ", ".join(map(str, _values(given))) for name, given in response["headers"].items()
        }
        content = response["body"]["string"]
        return Reply(int(response["status"]["code"]), headers, content if isinstance(content, bytes) else b"")


def recorded(asked: Asked, reply: Reply) -> Recorded:
    """The interaction as vcrpy's httpx stub would keep it, without what must not or need not be kept."""
    from vcr.request import Request

    parts = urlsplit(asked.url)
    host = parts.netloc.rpartition("@")[2]
    url = parts._replace(netloc=host, fragment="").geturl()
    response = {
        "status": {"code": reply.status, "message": _phrase(reply.status)},
        "headers": {name: [value] for name, value in sorted(reply.headers.items())},
        "body": {"string": reply.content},
    }
    return Recorded(Request(asked.method.upper(), url, asked.body, dict(REQUEST_HEADERS)), response)


def text_of(interactions: list[Recorded], metadata: Mapping[str, Any] | None) -> str:
    """The text of a cassette."""
    from vcr.serialize import serialize
    from vcr.serializers import yamlserializer

    # vcrpy turns bodies into text in place, so it is given copies of what it changes.
    responses = [{**entry.response, "body": copy.copy(entry.response["body"])} for entry in interactions]
    content = {"requests": [entry.request for entry in interactions], "responses": responses}
    text: str = serialize({**content, "metadata": metadata} if metadata else content, yamlserializer)
    return text


def interactions_in(text: str) -> tuple[list[Recorded], Mapping[str, Any] | None]:
    """The interactions and the metadata of a cassette's text. Raises `ConfigurationError` saying where it is wrong."""
    import yaml
    from vcr.serialize import deserialize
    from vcr.serializers import yamlserializer

    if not text.strip():
        return [], None
    try:
        requests, responses, *metadata = deserialize(text, yamlserializer)
    except yaml.YAMLError as error:
        raise _broken(f"is no valid YAML{_place(error)}") from None
    except (ValueError, TypeError, KeyError, AttributeError, IndexError, RecursionError) as error:
        raise _broken(f"is no vcrpy cassette{_place(error.__cause__)}") from None
    entries = [Recorded(*pair) for pair in zip(requests, responses, strict=True)]
    for index, entry in enumerate(entries):
        if not _is_sound(entry):
            raise _broken(f"is no vcrpy cassette: interactions[{index}] lacks a uri, status, headers or body")
    return entries, metadata[0] if metadata else None


def _is_sound(entry: Recorded) -> bool:
    try:
        return bool(entry.key) and entry.reply().status >= 0
    except Exception:  # whatever a hand has made of it: the answer is no
        return False


def _broken(problem: str) -> ConfigurationError:
    return ConfigurationError(VARIABLE, f"the file {problem}.", remedy="Mend it, or move it away and record again.")


def _place(error: BaseException | None) -> str:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    if mark is not None:
        return f" at line {mark.line + 1}, column {mark.column + 1}"
    # PyYAML's reader errors (a forbidden character) know only an offset.
    position = getattr(error, "position", None)
    return "" if position is None else f" at character {position + 1}"


def _values(given: object) -> list[object]:
    return list(given) if isinstance(given, (list, tuple)) else [given]


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""
