"""The scenarios of the contract as a table: what there is, how the API answers, and what must be seen afterwards.

`test_contract.py` runs each; `test_transitions.py` proves that together they take every transition, and that
retargeting any one makes one of them fail.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from engine.core.action import Outcome
from engine.errors import ArtifactConflictError, ArtifactUnavailableError
from engine.handlers.accounts import Account
from tests.end_to_end.chart_export_world import (
    RUN_ID,
    STEP_ID,
    Scenario,
    Seen,
    answer,
    export,
    flow_run,
    limit_exceeded,
    png,
)

FLOW_RUN = f"flow_runs/{RUN_ID}"
NO_ACCOUNTS = "No Chart-IMG accounts available"


@dataclass
class Expected:
    """What must hold; `None` means that it is not looked at here."""

    state: str
    status: str
    code: str | None = None
    message: str | None = None
    items: list[str] | None = None
    failures: list[tuple[str, str]] | None = None
    used: dict[str, int] | None = None
    calls: int | None = None
    has_manifest: bool | None = None
    also: Callable[[Seen], None] | None = None


TABLE: dict[str, tuple[Callable[[], Scenario], Expected]] = {}


def scenario(expected: Expected) -> Callable[[Callable[[], Scenario]], Callable[[], Scenario]]:
    def add(make: Callable[[], Scenario]) -> Callable[[], Scenario]:
        TABLE[make.__name__] = (make, expected)
        return make

    return add


def with_step(*names: str, **step: Any) -> Scenario:
    return Scenario({FLOW_RUN: flow_run(*names, **step)})


def with_min_images(count: int, *names: str, **api: list[Any]) -> Scenario:
    document = flow_run(*names)
    document["steps"][STEP_ID]["inputs"]["minImages"] = count
    return Scenario({FLOW_RUN: document}, api)


def usage(account: str, used: int, day: str = "2026-01-05", **more: Any) -> dict[str, Any]:
    return {f"chart_img_accounts_usage/{account}": {"windowStart": f"{day}T00:00:00Z", "usageToday": used, **more}}


# The way of success


@scenario(Expected("SUCCEEDED", "SUCCEEDED", items=["a", "b", "c"], failures=[], used={"acc1": 3}, calls=3))
def every_chart_is_captured_and_published():
    return Scenario()


@scenario(
    Expected(
        "SUCCEEDED", "SUCCEEDED", items=["a", "c"], failures=[("b", "CHART_API_FAILED")], used={"acc1": 3}, calls=3
    )
)
def a_step_succeeds_when_enough_of_its_charts_do():
    return with_min_images(2, "a", "b", "c", b=[answer(400, "Invalid Symbol")])


@scenario(Expected("SUCCEEDED", "SUCCEEDED", items=["a"], failures=[("zz", "VALIDATION_FAILED")], calls=1))
def a_missing_template_fails_its_request_alone():
    return with_step("zz", "a")


@scenario(Expected("SUCCEEDED", "SUCCEEDED", items=["a"], used={"acc1": 2}, calls=2))
def a_server_error_is_tried_again():
    return Scenario({FLOW_RUN: flow_run("a")}, {"a": [answer(500), png("a")]})


@scenario(Expected("SUCCEEDED", "SUCCEEDED", items=["a"], calls=2))
def a_dropped_connection_is_tried_again():
    return Scenario({FLOW_RUN: flow_run("a")}, {"a": [httpx.ConnectError("dropped"), png("a")]})


@scenario(Expected("SUCCEEDED", "SUCCEEDED", items=["a"], used={"acc1": 44, "acc2": 1}, calls=2))
def an_exhausted_account_gives_way_to_the_next():
    return Scenario({FLOW_RUN: flow_run("a")}, {"a": [limit_exceeded(), png("a")]})


def _waited_for_retry_after(seen: Seen) -> None:
    assert (seen.clock.now_ms() - 1767605400000) >= 7000


@scenario(
    Expected("SUCCEEDED", "SUCCEEDED", items=["a"], used={"acc1": 2, "acc2": 0}, calls=2, also=_waited_for_retry_after)
)
def a_rate_limit_waits_as_long_as_it_is_told_and_exhausts_nobody():
    too_many = answer(429, "Too Many Requests", **{"retry-after": "7"})
    return Scenario({FLOW_RUN: flow_run("a")}, {"a": [too_many, png("a")]})


# The ways of failure after calls


def _manifest_beside_the_error(seen: Seen) -> None:
    assert seen.step["outputs"]["outputsManifestGcsUri"].endswith("/manifest.json")
    assert seen.step["outputs"]["kept"] == "as it was"
    assert seen.step["error"]["details"]["httpStatus"] == 422


@scenario(
    Expected(
        "FAILED", "FAILED", "CHART_API_FAILED", "Invalid Symbol", items=["a"],
        failures=[("b", "CHART_API_FAILED"), ("c", "CHART_API_FAILED")], calls=3, has_manifest=True,
        also=_manifest_beside_the_error,
    )
)  # fmt: skip
def a_step_without_enough_charts_fails_with_its_first_failure():
    return with_min_images(2, "a", "b", "c", b=[answer(422, "Invalid Symbol")], c=[answer(403, "Forbidden")])


@scenario(Expected("FAILED", "FAILED", "CHART_API_FAILED", items=[], used={"acc1": 3}, calls=3, has_manifest=True))
def three_attempts_are_all_there_are():
    return Scenario({FLOW_RUN: flow_run("a")}, {"a": [answer(503)]})


@scenario(Expected("FAILED", "FAILED", "CHART_API_FAILED", "The call took longer than its time", calls=3))
def a_call_that_never_answers_is_given_up():
    async def prepare(app, folder):
        async def stall(request):
            import anyio

            await anyio.sleep_forever()

        api = app.performer._services
        chart_img = next(service for kind, service in api.items() if kind.__name__ == "ChartImg")
        counted = chart_img._transport.handler

        async def handler(request):
            await counted(request)
            return await stall(request)

        chart_img._transport = httpx.MockTransport(handler)

    return Scenario({FLOW_RUN: flow_run("a")}, prepare=prepare)


@scenario(
    Expected(
        "SUCCEEDED", "SUCCEEDED", items=["a"],
        failures=[("b", "CHART_API_LIMIT_EXCEEDED"), ("c", "CHART_API_LIMIT_EXCEEDED")], used={"acc1": 44}, calls=1,
    )
)  # fmt: skip
def quota_that_runs_out_in_the_middle_keeps_what_there_is():
    one = (Account("acc1", "first-secret-key"),)
    documents = {FLOW_RUN: flow_run("a", "b", "c"), **usage("acc1", 43)}
    return Scenario(documents, accounts=one)


@scenario(
    Expected(
        "FAILED", "FAILED", "CHART_API_LIMIT_EXCEEDED", NO_ACCOUNTS, items=[],
        failures=[("a", "CHART_API_LIMIT_EXCEEDED")], used={"acc1": 44, "acc2": 44}, calls=2, has_manifest=True,
    )
)  # fmt: skip
def every_account_exhausted_by_the_api_still_accounts_for_each_request():
    return Scenario({FLOW_RUN: flow_run("a")}, {"a": [limit_exceeded()]})


def _nothing_was_spent(seen: Seen) -> None:
    assert {} == seen.objects
    exhausted = [fields for event, fields in seen.logs if event == "chart_api_limit_exceeded"]
    assert exhausted[0]["exhaustedAccounts"] == ["acc1", "acc2"]
    assert exhausted[0]["severity"] == "ERROR"


@scenario(
    Expected(
        "FAILED", "FAILED", "CHART_API_LIMIT_EXCEEDED", NO_ACCOUNTS, used={"acc1": 44, "acc2": 10}, calls=0,
        has_manifest=False, also=_nothing_was_spent,
    )
)  # fmt: skip
def accounts_without_units_are_never_called():
    documents = {FLOW_RUN: flow_run("a", "b"), **usage("acc1", 44), **usage("acc2", 10, dailyLimit=10)}
    return Scenario(documents)


@scenario(
    Expected(
        "FAILED", "FAILED", "CHART_API_LIMIT_EXCEEDED", calls=3, used={"acc1": 44, "acc2": 44, "acc3": 44, "acc4": 0}
    )
)
def attempts_are_bounded_over_all_accounts():
    accounts = tuple(Account(f"acc{number}", f"secret-key-number-{number}") for number in range(1, 5))
    return Scenario({FLOW_RUN: flow_run("a")}, {"a": [limit_exceeded()]}, accounts=accounts)


@scenario(
    Expected("FAILED", "FAILED", "VALIDATION_FAILED", "Chart template not found", items=[], calls=0, has_manifest=True)
)
def a_step_whose_templates_are_all_missing_spends_nothing():
    return with_step("yy", "zz")


@scenario(
    Expected(
        "FAILED", "FAILED", "VALIDATION_FAILED", "minImages must be a positive integer", calls=0, has_manifest=False
    )
)
def a_mistake_in_the_step_fails_it_before_anything_is_spent():
    return with_min_images(0, "a")


# Artifacts


def _failing(verb: str, error: Exception, only: str = "") -> Callable[..., Any]:
    async def prepare(app, folder):
        whole = getattr(app.artifacts, verb)

        async def fail(*arguments: Any, **named: Any) -> Any:
            if only in " ".join(map(str, arguments)):
                raise error
            return await whole(*arguments, **named)

        setattr(app.artifacts, verb, fail)

    return prepare


@scenario(Expected("SUCCEEDED", "SUCCEEDED", items=["a", "c"], failures=[("b", "GCS_WRITE_FAILED")], calls=3))
def a_picture_that_cannot_be_published_fails_its_request_alone():
    return Scenario(prepare=_failing("publish", ArtifactConflictError("other bytes lie there"), "/b/"))


@scenario(Expected("FAILED", "FAILED", "GCS_WRITE_FAILED", items=[], calls=1, has_manifest=True))
def pictures_that_cannot_be_kept_fail_the_step():
    full = ArtifactUnavailableError("no space is left")
    return Scenario({FLOW_RUN: flow_run("a")}, prepare=_failing("put_blob", full))


@scenario(Expected("FAILED", "FAILED", "MANIFEST_WRITE_FAILED", calls=1, has_manifest=False))
def a_manifest_that_cannot_be_written_fails_the_step():
    full = ArtifactUnavailableError("no space is left")
    return Scenario({FLOW_RUN: flow_run("a")}, prepare=_failing("write", full))


@scenario(Expected("FAILED", "FAILED", "MANIFEST_WRITE_FAILED", calls=1, has_manifest=False))
def a_manifest_that_cannot_be_looked_for_fails_the_step():
    return Scenario({FLOW_RUN: flow_run("a")}, prepare=_failing("stat", ArtifactUnavailableError("away")))


@scenario(Expected("FAILED", "FAILED", "MANIFEST_WRITE_FAILED", calls=1, has_manifest=False))
def an_unexpected_error_at_the_manifest_fails_the_step():
    return Scenario({FLOW_RUN: flow_run("a")}, prepare=_failing("write", RuntimeError("a bug")))


@scenario(Expected("FAILED", "FAILED", "GCS_WRITE_FAILED", calls=1, has_manifest=False))
def an_unexpected_error_at_publication_fails_the_step():
    return Scenario({FLOW_RUN: flow_run("a")}, prepare=_failing("publish", RuntimeError("a bug")))


@scenario(Expected("FAILED", "FAILED", "VALIDATION_FAILED", calls=0, has_manifest=False))
def an_unexpected_error_at_preparation_fails_the_step():
    async def prepare(app, folder):
        def uri(name):
            raise RuntimeError("a bug")

        app.artifacts.uri = uri

    return Scenario({FLOW_RUN: flow_run("a")}, prepare=prepare)


@scenario(Expected("FAILED", "FAILED", "CHART_API_FAILED", calls=0, has_manifest=False))
def requests_that_cannot_be_mapped_fail_the_step():
    async def prepare(app, folder):
        doubled = app._handlers["templates.build_requests"]

        async def build(request):
            outcome = await doubled.function(request)
            return Outcome("built", {**outcome.value, "requests": outcome.value["requests"] * 2})

        app.performer._handlers = {**app._handlers, "templates.build_requests": doubled._replace(function=build)}

    return Scenario({FLOW_RUN: flow_run("a")}, prepare=prepare)


# Somebody else


def _meanwhile(status: str, **api: Any) -> Scenario:
    """While the chart is captured, somebody sets the step's status."""

    async def prepare(app, folder):
        store = app.store
        chart_img = next(service for kind, service in app.performer._services.items() if kind.__name__ == "ChartImg")
        whole = chart_img._transport.handler

        async def handler(request):
            from engine.core.write import Key, Update

            key = Key("flow_runs", RUN_ID)
            path = ("steps", STEP_ID, "status")
            await store.transact([key], lambda found, now_ms: ([Update(key, {path: status})], None))
            return await whole(request)

        chart_img._transport = httpx.MockTransport(handler)

    return Scenario({FLOW_RUN: flow_run("a")}, api, prepare=prepare)


@scenario(Expected("UNCHANGED", "FAILED", calls=1, has_manifest=True))
def a_step_that_somebody_failed_meanwhile_stays_as_it_is():
    return _meanwhile("FAILED")


@scenario(Expected("REFUSED", "FAILED", "VALIDATION_FAILED", "The step is no longer RUNNING", calls=1))
def a_step_that_somebody_cancelled_meanwhile_is_not_finished():
    return _meanwhile("CANCELLED")


@scenario(Expected("UNCHANGED", "SUCCEEDED", calls=1))
def a_failing_step_that_somebody_finished_meanwhile_stays_as_it_is():
    return _meanwhile("SUCCEEDED", a=[answer(400)])


@scenario(Expected("REFUSED", "FAILED", "CHART_API_FAILED", calls=1))
def a_failing_step_that_somebody_took_back_is_not_finished():
    return _meanwhile("READY", a=[answer(400)])


@scenario(Expected("UNCHANGED", "SUCCEEDED", calls=0))
def a_step_that_has_ended_is_left_alone():
    return with_step("a", status="SUCCEEDED", outputs={"outputsManifestGcsUri": "gs://bucket/old.json"})


@scenario(Expected("REFUSED", "FAILED", "VALIDATION_FAILED", calls=0))
def a_step_that_is_not_ready_is_refused():
    return with_step("a", status="PENDING")


WAYS = Path(__file__).with_name("ways.json")
"""Golden: how often each state is entered in each scenario. `python -m tests.end_to_end.scenarios` writes it anew."""


def check(seen: Seen, expected: Expected, name: str) -> None:
    """Raise `AssertionError` unless what was seen is what must be, by the way that it must go."""
    assert seen.way == json.loads(WAYS.read_text())[name]
    check_end(seen, expected)


def check_end(seen: Seen, expected: Expected) -> None:
    """Raise `AssertionError` unless what was seen is what must be."""
    result = seen.result
    assert (result.state, result.output["status"]) == (expected.state, expected.status)
    if expected.code is not None:
        error = result.error if expected.state == "REFUSED" else seen.step["error"]
        assert error["code"] == expected.code
        if expected.message is not None:
            assert error["message"] == expected.message
    if expected.state in ("SUCCEEDED", "FAILED"):
        assert seen.step["status"] == expected.state
        assert seen.step["finishedAt"].endswith("Z")
    if expected.calls is not None:
        assert len(seen.calls) == expected.calls
    if expected.has_manifest is not None:
        assert (seen.manifest is not None) == expected.has_manifest
    if expected.items is not None:
        assert seen.manifest is not None
        assert [item["chartTemplateId"] for item in seen.manifest["items"]] == expected.items
        assert len(seen.manifest["items"]) == result.output["itemsCount"]
    if expected.failures is not None:
        assert seen.manifest is not None
        found = [(one["request"]["chartTemplateId"], one["error"]["code"]) for one in seen.manifest.get("failures", [])]
        assert found == expected.failures
    for account, used in (expected.used or {}).items():
        assert seen.used(account) == used
    if expected.also is not None:
        expected.also(seen)
    _hold_always(seen)


def _hold_always(seen: Seen) -> None:
    """What holds whatever happened: every object named exists, no child is unfinished, each unit is explained."""
    if seen.manifest is not None:
        for item in seen.manifest["items"]:
            assert item["png_gcs_uri"].removeprefix("gs://bucket/") in seen.objects
    assert all(run["claimable_at_ms"] is None for name, run in seen.documents.items() if name.startswith("runs/"))
    reserved = [
        entry
        for name, entry in seen.documents.items()
        if name.startswith("journal/") and '"reserved"' in entry["entry"]
    ]
    assert len(seen.calls) <= len(reserved)


if __name__ == "__main__":
    from tests.end_to_end.crash import CRASH, export_with_a_crash_during_the_call

    found = {name: export(make()).way for name, (make, _) in TABLE.items()}
    found[CRASH] = export_with_a_crash_during_the_call().way
    WAYS.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
