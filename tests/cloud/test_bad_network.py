"""A chart export over a network that loses requests and answers: the real client, the real emulator."""

from __future__ import annotations

import grpc
import pytest

from engine.store.firestore import FirestoreStore
from tests.end_to_end.chart_export_world import RUN_ID, Scenario, Seen, export, flow_run
from tests.store.firestore_wire import Trouble, Wire, after, before

STATUS = grpc.StatusCode


def exported(wire: Wire, firestore: str) -> Seen:
    trouble, wire.trouble = wire.trouble, lambda method, number: None

    async def opened(now_ms):
        project = firestore.removeprefix("firestore://").partition("/")[0]
        return await FirestoreStore.open(project, now_ms=now_ms, interceptors=wire.interceptors)

    async def prepare(app, folder):
        wire.calls.clear()
        wire.trouble = trouble

    return export(Scenario({f"flow_runs/{RUN_ID}": flow_run("a", "b", "c")}, prepare=prepare), opened)


def every(count: int, made: Trouble, methods: tuple[str, ...] = ("Commit",)):
    return lambda method, number: made if method in methods and number % count == 0 else None


@pytest.mark.parametrize(
    "trouble",
    [
        pytest.param(every(2, after(STATUS.UNAVAILABLE)), id="every second answer to a commit is lost"),
        pytest.param(every(2, before(STATUS.DEADLINE_EXCEEDED)), id="every second commit is lost on its way"),
        pytest.param(every(3, before(STATUS.ABORTED)), id="every third commit meets another"),
        pytest.param(every(2, before(STATUS.UNAVAILABLE), ("BatchGetDocuments", "RunQuery")), id="every second read is refused"),
        pytest.param(
            lambda method, number: before(STATUS.UNAVAILABLE) if 10 <= number < 20 else None, id="nobody answers for a while"
        ),
    ],
)  # fmt: skip
def test_each_picture_is_paid_for_once_and_published(trouble, firestore: str) -> None:
    wire = Wire()
    wire.trouble = trouble
    seen = exported(wire, firestore)

    assert wire.troubled >= 5
    assert seen.step["status"] == "SUCCEEDED"
    assert sorted(name for name, _ in seen.calls) == ["a", "b", "c"]
    assert seen.used("acc1") + seen.used("acc2") == 3
    assert [item["chartTemplateId"] for item in seen.manifest["items"]] == ["a", "b", "c"]
    for name, head in seen.documents.items():
        if name.startswith("runs/"):
            entries = [
                one
                for key, one in seen.documents.items()
                if key.startswith("journal/") and one["run_id"] == head["run_id"]
            ]
            assert sorted(one["seq"] for one in entries) == list(range(1, head["seq"] + 1))
