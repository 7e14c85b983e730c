"""The Cloud Functions: `chart_export_event` for Eventarc's Firestore events, `sweep` for Cloud Scheduler.

An event is acknowledged (2xx) unless another delivery could mend what went wrong: 503 when the store is away or does
not come to an end of its conflicts, 500 when the function is configured wrongly, so that nothing is lost until it is
deployed again. A step that FAILED is a result like any other. What is acknowledged by mistake is found by `sweep`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import anyio
import functions_framework
from cloudevents.http import CloudEvent
from flask import Request
from werkzeug.exceptions import InternalServerError, ServiceUnavailable

from engine.entry.budget import RELEASE_S, RESERVE_S
from engine.entry.cloud_event import named_in
from engine.entry.event_work import EventWork
from engine.entry.logs import telling
from engine.entry.resident import Opened, Resident
from engine.entry.starts import start_waiting
from engine.errors import (
    ArtifactUnavailableError,
    ConfigurationError,
    DefinitionError,
    DetentError,
    DocumentUnreadableError,
    StoreError,
)

RESIDENT: Final = Resident()

SWEEP_PATIENCE_S: Final = 10.0
"""How long a sweep waits for a timer: what is due later is the next one's, and waiting is paid for."""

LEFT_MAX: Final = 1_000
"""Due runs that are counted after a sweep."""

Answer = tuple[dict[str, Any], int]


@functions_framework.cloud_event
def chart_export_event(event: CloudEvent) -> None:
    """Work on the flow run that has changed. Raises werkzeug's 500 and 503; see the module."""
    log = RESIDENT.log()
    attributes = event.get_attributes()
    fields = {
        "eventId": attributes.get("id"),
        "eventType": attributes.get("type"),
        "subject": attributes.get("subject"),
    }
    with telling(**fields):
        log.info("cloud_event_received")
        named = named_in(attributes, event.get_data)
        if named.run_id is None:
            more = {"dataType": type(event.get_data()).__name__} if named.reason == "event_filtered" else {}
            log.info("cloud_event_ignored", extra={"fields": {"reason": named.reason, **more}})
            return
        _event_answered(named.run_id, fields)


def _event_answered(run_id: str, fields: Mapping[str, Any]) -> None:
    async def work(opened: Opened) -> None:
        with telling(**fields), anyio.move_on_after(_until_release_s(opened)) as time:
            await EventWork(opened, opened.app.within(opened.budget_s), run_id).do()
        if time.cancelled_caught:
            RESIDENT.log().error("budget_overrun", extra={"fields": {"runId": run_id, "budgetS": opened.budget_s}})

    try:
        RESIDENT.call(work)
    except (ConfigurationError, DefinitionError) as error:
        _say_wrong("config_error", error, runId=run_id)
        raise InternalServerError(f"{error.code}: see the function's log.") from None
    except DocumentUnreadableError as error:  # of no use to deliver it again: it waits for a person
        _say_wrong("cloud_event_failed", error, runId=run_id, retry=False)
    except (StoreError, ArtifactUnavailableError) as error:
        _say_wrong("cloud_event_failed", error, runId=run_id, retry=True)
        raise ServiceUnavailable(f"{error.code}: to be delivered again.") from None
    except Exception:
        # Delivered again it would do the same, for a day. Whatever it left undone is in the store, for `sweep`.
        RESIDENT.log().exception("cloud_event_failed", extra={"fields": {"runId": run_id, "retry": False}})


@functions_framework.http
def sweep(request: Request) -> Answer:
    """Take over what was abandoned, fire due timers, and start what lost its event: `POST /`.

    Answers `{"driven": runs taken, "started": steps begun, "left": what is still to do, …}`. `GET /__diag/preflight`
    answers what `detent doctor` says: 200 when all is ready or degraded, 503 when something failed.
    """
    routes = _ROUTES.get(request.path.rstrip("/") or "/")
    if routes is None:
        return {"error": "NOT_FOUND", "message": f"There is nothing at this path, but at {', '.join(_ROUTES)}."}, 404
    method = "GET" if request.method == "HEAD" else request.method
    if method not in routes:
        return {"error": "METHOD_NOT_ALLOWED", "message": f"Use {' or '.join(routes)}."}, 405
    try:
        return routes[method]()
    except (ConfigurationError, DefinitionError) as error:
        _say_wrong("config_error", error)
        return {"error": error.code, "message": str(error)}, 500
    except DocumentUnreadableError as error:
        _say_wrong("sweep_failed", error)
        return {"error": error.code, "message": str(error)}, 500
    except (StoreError, ArtifactUnavailableError) as error:
        _say_wrong("sweep_failed", error)
        return {"error": error.code, "message": error.message}, 503


def _swept() -> Answer:
    async def work(opened: Opened) -> dict[str, Any]:
        began_ms = opened.app.clock.now_ms()
        app = opened.app.within(opened.budget_s)
        found = {"driven": 0, "started": 0, "refused": 0, "left": 0}
        with anyio.move_on_after(_until_release_s(opened)) as time:
            found["driven"] = await app.work_once(SWEEP_PATIENCE_S)
            begun = await start_waiting(app, opened.machine, longest_s=opened.longest_s, patience_s=SWEEP_PATIENCE_S)
            due = await app.runs.claimable(app.clock.now_ms(), LEFT_MAX)
            found |= {"started": begun.started, "refused": begun.refused, "left": begun.left + len(due)}
        seconds = round((app.clock.now_ms() - began_ms) / 1000, 3)
        return {**found, "is_cut": time.cancelled_caught, "duration_s": seconds}

    found = RESIDENT.call(work)
    RESIDENT.log().info("sweep_finished", extra={"fields": found})
    return found, 200


def _preflighted() -> Answer:
    report = RESIDENT.preflight()
    return report.to_json(), report.http_status


def _until_release_s(opened: Opened) -> float:
    """When what is still under way is given up: the budget is over, and nearly all of the reserve."""
    return opened.budget_s + RESERVE_S - RELEASE_S


def _say_wrong(event: str, error: DetentError, **fields: Any) -> None:
    told = {"code": error.code, "message": error.message, "remedy": error.remedy}
    RESIDENT.log().error(event, extra={"fields": {**fields, "error": told}})


_ROUTES: Final[Mapping[str, Mapping[str, Callable[[], Answer]]]] = {
    "/": {"POST": _swept},
    "/sweep": {"POST": _swept},
    "/__diag/preflight": {"GET": _preflighted},
}
