"""The HTTP face of the simulator: a Starlette application.

In: `POST /v2/tradingview/advanced-chart` as the vendor documents it, and `/_simulator/…` for tests in another
process. Out: pictures, the API's errors, scripted faults. The order of the checks: key (403), scripted fault,
rate (429), content type and JSON (400), fields (422), plan (403), daily quota (429), picture.
It never logs, and never returns an API key except in the fault that is made to do so.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any, NoReturn, Unpack

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from engine.testing.chart_img.answers import faulty
from engine.testing.chart_img.faults import Answer, script_from_json
from engine.testing.chart_img.picture import draw_picture
from engine.testing.chart_img.plans import BASIC, Plan
from engine.testing.chart_img.request_rules import ChartRequest, Refusal, read_request
from engine.testing.chart_img.simulator import Call, Options, Simulator

PATH = "/v2/tradingview/advanced-chart"
DEFAULTS = ChartRequest()
NOT_JSON = object()
"""Stands for a body that is not JSON at all; `None` is a JSON value."""


def create_app(accounts: Mapping[str, Plan] | None = None, **options: Unpack[Options]) -> Starlette:
    """A simulator of its own as an ASGI application; its `Simulator` is `app.state.simulator`."""
    return application_of(Simulator(accounts, **options))


def application_of(simulator: Simulator) -> Starlette:
    routes = [
        Route(PATH, _advanced_chart, methods=["POST"]),
        Route("/_simulator/faults", _add_faults, methods=["POST"]),
        Route("/_simulator/calls", _list_calls, methods=["GET"]),
        Route("/_simulator/reset", _reset, methods=["POST"]),
    ]
    app = Starlette(routes=routes, exception_handlers={HTTPException: _plain_error})
    app.state.simulator = simulator
    return app


async def _plain_error(_request: Request, error: Exception) -> Response:
    """404 and 405 as JSON, like every other error of the API."""
    assert isinstance(error, HTTPException)
    return JSONResponse({"message": error.detail}, error.status_code, dict(error.headers or {}))


async def _advanced_chart(request: Request) -> Response:
    simulator: Simulator = request.app.state.simulator
    key = request.headers.get("x-api-key")
    content = await request.body()
    body = _parsed(content)
    call = simulator.call_arrived(key, None if body is NOT_JSON else body)
    status: int | None = None
    answer = "error"
    try:
        response, answer = await _answered(request, simulator, key, content, body)
        status = None if answer in ("dropped", "interrupted", "stalled") else response.status_code
    finally:
        simulator.call_ended(call, status, answer)
    return response


async def _answered(
    request: Request, simulator: Simulator, key: str | None, content: bytes, body: Any
) -> tuple[Response, str]:
    """The response to a call and a word for it."""
    plan = simulator.plan_of(key)
    if key is None or plan is None:
        return JSONResponse({"message": "Forbidden"}, 403), "refused"
    has_token = simulator.take_token(key)
    scripted = simulator.scripted_answer(key, *_subject(body))
    if scripted is not None:
        if await _stalled(request, scripted.stall_s):
            return Response(status_code=499), "stalled"
        if scripted.kind != "picture":
            return await _faulty(simulator, scripted, key, body), scripted.kind
    if not has_token:
        return JSONResponse({"message": "Too Many Requests"}, 429), "refused"
    chart = _checked(request, content, body, plan)
    return await _drawn(simulator, key, chart)


async def _drawn(simulator: Simulator, key: str, chart: ChartRequest | Refusal) -> tuple[Response, str]:
    """The picture, or the refusal; a unit of the quota is held meanwhile and kept only for a picture."""
    if isinstance(chart, Refusal) and not simulator.count_failures:
        return JSONResponse(chart.body, chart.status), "refused"
    reserved_at = simulator.reserve_unit(key)
    if reserved_at is None:
        return JSONResponse({"message": "Limit Exceeded"}, 429), "refused"
    if isinstance(chart, Refusal):
        return JSONResponse(chart.body, chart.status), "refused"
    try:
        picture = await run_in_threadpool(draw_picture, chart)
    except BaseException:
        simulator.give_back_unit(key, reserved_at)
        raise
    return Response(picture, media_type=f"image/{chart.format}"), "picture"


def _parsed(content: bytes) -> Any:
    if not content.strip():
        return {}
    try:
        body = json.loads(content, parse_constant=_no_constant)
        # What JSON can say but not repeat (an infinite number, half a surrogate) is refused like a broken text.
        json.dumps(body, allow_nan=False, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return NOT_JSON
    return body


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _subject(body: Any) -> tuple[str, str]:
    """The symbol and interval a script may match, also of a request that will be refused."""
    named = body if isinstance(body, dict) else {}
    return str(named.get("symbol", DEFAULTS.symbol)), str(named.get("interval", DEFAULTS.interval))


def _checked(request: Request, content: bytes, body: Any, plan: Plan) -> ChartRequest | Refusal:
    media_type = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if content and media_type != "application/json":
        return Refusal(400, {"message": "Invalid Content-Type"})
    if body is NOT_JSON:
        return Refusal(400, {"message": "Invalid JSON"})
    return read_request(body, plan)


async def _faulty(simulator: Simulator, answer: Answer, key: str, body: Any) -> Response:
    """A fault; those made of a picture use the one asked for, or the default chart for a bad request."""
    picture = b""
    if answer.kind in ("truncated", "interrupted", "oversized"):
        plan = simulator.plan_of(key) or BASIC
        chart = read_request(body, plan)
        picture = await run_in_threadpool(draw_picture, chart if isinstance(chart, ChartRequest) else DEFAULTS)
    return faulty(answer, key, picture)


async def _stalled(request: Request, stall_s: float) -> bool:
    """Wait; true when the client went away (or the server stopped) before the time was over."""
    if stall_s <= 0:
        return False
    try:
        async with asyncio.timeout(stall_s):
            # The body is read already: what comes next can only be the disconnect.
            while (await request.receive())["type"] != "http.disconnect":
                pass
    except TimeoutError:
        return False
    return True


async def _add_faults(request: Request) -> Response:
    simulator: Simulator = request.app.state.simulator
    try:
        script = script_from_json(json.loads(await request.body()))
    except ValueError as error:
        return JSONResponse({"message": str(error)}, 422)
    simulator.add_script(script)
    return JSONResponse({"message": "Scripted", "answers": len(script.answers)}, 201)


async def _list_calls(request: Request) -> Response:
    simulator: Simulator = request.app.state.simulator
    calls: tuple[Call, ...] = simulator.calls
    return JSONResponse({"calls": [call.as_json() for call in calls], "counters": dict(simulator.counters)})


async def _reset(request: Request) -> Response:
    request.app.state.simulator.reset()
    return JSONResponse({"message": "Reset"})
