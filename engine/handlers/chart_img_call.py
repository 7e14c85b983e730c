"""One HTTP call to Chart-IMG: sent once, read within bounds, never repeated.

In: a URL, headers, bytes, and bounds in seconds and bytes. Out: an `Answer`, or that it was `Lost`.
Each call is paid for, so nothing here sends anything twice: no redirects, no retries, no re-sent POST on a
dropped connection (aiohttp repeats idempotent methods only). No proxy and no credentials come from the
environment, and no cookie is kept, as it would tie one account to another.

httpx is the interface and aiohttp its transport: at 20 calls in flight a call costs 0.6 ms of CPU instead
of 3.8 ms, for 0.1 s more at the first one. Both are imported on the first call; without aiohttp httpx's
own transport serves.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import aclosing, suppress
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TYPE_CHECKING, Final

import anyio

from engine.handlers.chart_img_answer import Answer, Lost
from engine.handlers.chart_img_message import BODY_BYTES_MAX

if TYPE_CHECKING:
    import httpx

CONNECTIONS_MAX: Final = 256
"""Calls in flight. More would wait for a connection within their own timeout."""

KEEPALIVE_S: Final = 15.0
"""Idle connections are dropped after this. Load balancers drop theirs after 60 s, and a POST that meets
a connection just dropped is a paid call lost."""

_CLOSE_S_MAX: Final = 1.0


def new_client(base_url: str, transport: httpx.AsyncBaseTransport | None = None) -> httpx.AsyncClient:
    """A client for the running event loop; the caller closes it. `transport` replaces the network."""
    import httpx

    return httpx.AsyncClient(
        transport=transport or _network(is_secure=base_url.lower().startswith("https:")),
        headers={"user-agent": "detent", "accept": "image/png, application/json", "accept-encoding": "identity"},
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
        timeout=None,  # noqa: S113 - `post` bounds the whole call, which httpx's timeouts do not
        follow_redirects=False,
        trust_env=False,
    )


async def post(
    client: httpx.AsyncClient,
    url: str,
    headers: Mapping[str, str],
    content: bytes,
    *,
    timeout_s: float,
    picture_bytes_max: int,
) -> Answer | Lost:
    """Send one POST; connecting, sending and reading the whole body take at most `timeout_s` together."""
    try:
        request = client.build_request("POST", url, headers=dict(headers), content=content)
    except Exception:  # whatever is wrong with it, it was not sent; and the text of the error may hold the key
        return Lost(
            "request", "The request to Chart-IMG could not be built; check CHART_IMG_BASE_URL and the account's key"
        )
    try:
        with anyio.fail_after(timeout_s):
            return await _exchange(client, request, picture_bytes_max)
    except _errors_before_sending():
        return Lost("request", "The request to Chart-IMG could not be sent: its address cannot be used")
    except _errors() as error:
        return _lost(error, within=f" within {timeout_s:g} s")


async def _exchange(client: httpx.AsyncClient, request: httpx.Request, picture_bytes_max: int) -> Answer | Lost:
    import httpx

    response = await client.send(request, stream=True)
    headers = {name.lower(): value for name, value in response.headers.items()}
    is_picture = response.status_code == 200
    content, cut = b"", ""
    try:
        content, cut = await _body(response, headers, picture_bytes_max if is_picture else BODY_BYTES_MAX)
    except httpx.DecodingError:
        cut = "undecodable"
    except _errors() as error:
        # Of a refusal the status says enough; a picture must be whole.
        if is_picture:
            return _lost(error, status=response.status_code)
        cut = "undecodable"
    finally:
        # A body that was left unread is closed with its connection. Closing must not cost the answer.
        with anyio.move_on_after(_CLOSE_S_MAX, shield=True), suppress(*_errors()):
            await response.aclose()
    return Answer(response.status_code, headers, content, cut)


async def _body(response: httpx.Response, headers: Mapping[str, str], bytes_max: int) -> tuple[bytes, str]:
    declared = headers.get("content-length", "")
    if response.status_code == 200 and declared.isdecimal() and int(declared[:20]) > bytes_max:
        return b"", "oversized"
    content = bytearray()
    async with aclosing(response.aiter_bytes()) as chunks:  # type: ignore[type-var]  # an async generator in fact
        async for chunk in chunks:
            content += chunk
            if len(content) > bytes_max:
                # A refusal's message stands at its beginning; of a picture no part is of use.
                return (b"", "oversized") if response.status_code == 200 else (bytes(content[:bytes_max]), "")
    return bytes(content), ""


def _lost(error: BaseException, *, within: str = "", status: int | None = None) -> Lost:
    import httpx

    cause = error.__cause__
    is_aiohttp = cause is not None and type(cause).__module__.partition(".")[0] == "aiohttp"
    # httpx-aiohttp reports a dropped connection as ConnectTimeout; the cause tells the truth.
    kind = cause if is_aiohttp else error
    if isinstance(kind, (TimeoutError, httpx.TimeoutException)):
        return Lost("timeout", f"Chart-IMG did not answer{within or ' in time'}", status)
    return Lost("network", f"The connection to Chart-IMG failed ({type(kind).__name__})", status)


def _errors() -> tuple[type[Exception], ...]:
    """What a transport may raise. Some errors of aiohttp reach us as they are."""
    import httpx

    own: tuple[type[Exception], ...] = (httpx.HTTPError, httpx.InvalidURL, OSError, EOFError)
    aiohttp = sys.modules.get("aiohttp")
    return (*own, aiohttp.ClientError) if aiohttp else own


def _errors_before_sending() -> tuple[type[Exception], ...]:
    import httpx

    own: tuple[type[Exception], ...] = (httpx.UnsupportedProtocol, httpx.InvalidURL, httpx.LocalProtocolError)
    aiohttp = sys.modules.get("aiohttp")
    return (*own, aiohttp.InvalidURL) if aiohttp else own


def _network(*, is_secure: bool) -> httpx.AsyncBaseTransport:
    """The transport over aiohttp where it is installed, else httpx's own: slower, and otherwise the same."""
    import httpx

    # Certificates are certifi's: slim images have none of their own. Loading them takes 20 ms.
    context = httpx.create_ssl_context(trust_env=False) if is_secure else None
    try:
        import aiohttp
        from httpx_aiohttp import AiohttpTransport
    except ImportError:
        limits = httpx.Limits(max_connections=CONNECTIONS_MAX, keepalive_expiry=KEEPALIVE_S)
        return httpx.AsyncHTTPTransport(verify=context or False, trust_env=False, limits=limits, retries=0)

    def session() -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(limit=CONNECTIONS_MAX, keepalive_timeout=KEEPALIVE_S, ssl=context or True)
        return aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False)

    # `verify` would only build a second context, which a session of ours never looks at.
    return AiohttpTransport(verify=False, trust_env=False, client=session)
