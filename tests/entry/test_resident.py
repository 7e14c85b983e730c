"""The one engine of a process: opened once, shared by threads, opened again after a failure, closed for good."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import anyio
import anyio.lowlevel
import pytest

from engine.entry.assembly import Assembly
from engine.entry.resident import Opened, Resident, function_environment
from engine.errors import ConfigurationError


@pytest.fixture
def environ(tmp_path):
    return {
        "DETENT_STORE": f"sqlite:///{tmp_path}/detent.db",
        "DETENT_ARTIFACTS": f"folder:{tmp_path}/out",
        "CHARTS_API_MODE": "mock",
    }


@pytest.fixture
def resident(environ):
    made = Resident(lambda: environ)
    yield made
    made.close()


async def thread_of(opened: Opened) -> tuple[int, int]:
    await anyio.lowlevel.checkpoint()
    return id(opened.app), threading.get_ident()


def test_calls_from_many_threads_share_one_engine_and_one_loop(resident, monkeypatch):
    opens = []
    engine = Assembly.engine
    monkeypatch.setattr(Assembly, "engine", lambda self: opens.append(self) or engine(self))
    with ThreadPoolExecutor(8) as threads:
        found = set(threads.map(lambda number: resident.call(thread_of), range(32)))

    assert 1 == len(opens)
    assert 1 == len(found)
    assert threading.get_ident() not in {thread for _, thread in found}


def test_calls_do_not_wait_for_one_another(resident):
    """Each of two waits for the other: one after another they would wait for ever."""
    met: list[anyio.Event] = []

    async def meet(opened: Opened) -> int:
        met.append(anyio.Event())
        met[0].set() if len(met) == 2 else None
        with anyio.fail_after(10):
            await met[0].wait()
        return len(met)

    with ThreadPoolExecutor(2) as threads:
        assert [2, 2] == list(threads.map(lambda number: resident.call(meet), range(2)))


def test_what_a_call_raises_is_its_own(resident):
    async def failing(opened: Opened) -> None:
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        resident.call(failing)
    assert resident.call(thread_of)


def test_an_engine_that_could_not_be_opened_is_tried_again_and_leaves_no_thread(resident, environ):
    environ["DETENT_BUDGET_S"] = "10"
    for _ in range(3):
        with pytest.raises(ConfigurationError):
            resident.call(thread_of)
        assert "detent-engine" not in {thread.name for thread in threading.enumerate()}
    del environ["DETENT_BUDGET_S"]

    assert resident.call(thread_of)


def test_the_environment_is_read_when_the_engine_is_opened_and_not_again(resident, environ):
    resident.call(thread_of)
    environ["CHARTS_API_MODE"] = "nonsense"

    assert resident.call(thread_of)


def test_a_closed_one_opens_another(resident):
    first, _ = resident.call(thread_of)
    resident.close()
    resident.close()

    assert resident.call(thread_of)[0]


GIVEN = {
    "its own project": ({"GOOGLE_CLOUD_PROJECT": "p", "ARTIFACTS_BUCKET": "b"}, "firestore://p/(default)", "gs:"),
    "a named database": (
        {"GOOGLE_CLOUD_PROJECT": "p", "FIRESTORE_DB": "tda-db", "CHARTS_BUCKET": "b"}, "firestore://p/tda-db", "gs:",
    ),
    "told otherwise": ({"DETENT_STORE": "memory:", "DETENT_ARTIFACTS": "folder:x"}, "memory:", "folder:x"),
}  # fmt: skip


@pytest.mark.parametrize("name", GIVEN)
def test_a_function_keeps_its_documents_in_firestore_and_its_objects_in_cloud_storage(name):
    environ, store, artifacts = GIVEN[name]
    found = function_environment(environ)

    assert (store, artifacts) == (found["DETENT_STORE"], found["DETENT_ARTIFACTS"])
