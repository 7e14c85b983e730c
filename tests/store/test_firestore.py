"""The store in Firestore: the contract on the official emulator, and what a bad network or a bad project does."""

from __future__ import annotations

import base64
import random
import sys
from collections.abc import Callable
from typing import Any

import anyio
import grpc
import pytest
from google.cloud import firestore as client_library

from engine.core.bounds import DOCUMENT_BYTES_MAX
from engine.core.write import DELETE, Check, Create, Delete, Key, Set, Update
from engine.errors import (
    CommitUncertainError,
    ConfigurationError,
    ContentionError,
    InvalidRequestError,
    StoreUnavailableError,
)
from engine.store import firestore as subject
from engine.store import open_store
from engine.store.firestore import FirestoreStore
from engine.store.port import ATTEMPTS_MAX, Store, Where
from engine.testing import store_contract
from engine.testing.firestore_emulator import EMULATOR_HOST, fresh_project, running_firestore
from engine.testing.store_check import A, B, C, commit, fetch, opened, refused, same
from tests.store.firestore_wire import Wire, after, before

pytestmark = pytest.mark.anyio

LOST = grpc.StatusCode.UNAVAILABLE


@pytest.fixture
def project(firestore: str) -> str:
    return firestore.removeprefix("firestore://").partition("/")[0]


@pytest.fixture
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "_pause_s", lambda attempt: 0)


@pytest.mark.parametrize("check", store_contract.CHECKS, ids=store_contract.name)
async def test_the_store_keeps_its_contract(check: store_contract.StoreCheck, firestore: str) -> None:
    await check(lambda: open_store(firestore))


class Disturbed:
    """A store between whose decides and commits another client commits what `disturb` names."""

    def __init__(self, project: str, disturb: store_contract.Disturb) -> None:
        self.project, self.disturb = project, disturb
        self.wire = Wire()
        self.wire.before_commit = self._let_another_commit
        self.seen: Any = None

    async def open(self) -> Store:
        self.other = await FirestoreStore.open(self.project)
        self.own = await FirestoreStore.open(self.project, interceptors=self.wire.interceptors)
        return self  # type: ignore[return-value]

    async def _let_another_commit(self) -> None:
        if writes := self.disturb(*self.seen):
            await commit(self.other, *writes)

    async def transact(self, keys, decide):
        def seen(documents, now_ms):
            writes, result = decide(documents, now_ms)
            self.seen = (documents, writes)
            return writes, result

        return await self.own.transact(keys, seen)

    async def get_many(self, keys):
        return await self.own.get_many(keys)

    async def close(self) -> None:
        await self.own.close()
        await self.other.close()


@pytest.mark.parametrize("check", store_contract.DISTURBED_CHECKS, ids=store_contract.name)
async def test_only_what_is_written_or_checked_is_guarded(check: store_contract.DisturbedCheck, project: str) -> None:
    await check(lambda disturb: Disturbed(project, disturb).open())


@pytest.mark.parametrize("change", [Set(A, {"n": 2}), Delete(A)], ids=["changed", "deleted"])
@pytest.mark.parametrize("guard", [Check(A), Set(A, {"n": 3}), Update(A, {("m",): 1}), Delete(A)], ids=lambda one: type(one).__name__)  # fmt: skip
async def test_every_write_guards_a_document_that_was_there(guard, change, project: str) -> None:
    calls = []

    def decide(documents, now_ms):
        calls.append(documents[A])
        return ([guard, Set(B, {})] if len(calls) == 1 else []), None

    store = await Disturbed(project, lambda *_: [change] if len(calls) == 1 and calls[0] else []).open()
    await commit(store.other, Set(A, {"n": 1}))
    await store.transact([A, B], decide)

    assert calls == [{"n": 1}, {"n": 2} if isinstance(change, Set) else None]
    assert await fetch(store, B) is None
    await store.close()


@pytest.mark.parametrize("guard", [Check(A), Create(A, {"n": 3}), Set(A, {"n": 3}), Delete(A)], ids=lambda one: type(one).__name__)  # fmt: skip
async def test_every_write_guards_a_document_that_was_missing(guard, project: str) -> None:
    calls = []

    def decide(documents, now_ms):
        calls.append(documents[A])
        return ([guard, Set(B, {})] if len(calls) == 1 else []), None

    store = await Disturbed(project, lambda *_: [Set(A, {"n": 2})] if len(calls) == 1 else []).open()
    await store.transact([A, B], decide)

    assert calls == [None, {"n": 2}]
    assert await fetch(store, B) is None
    await store.close()


# Values


async def test_what_others_stored_natively_is_read_as_text_and_stays_as_it_is(project: str) -> None:
    native = client_library.Client(project=project)
    instant = client_library.SERVER_TIMESTAMP
    place = client_library.GeoPoint(47.5, 8.25)
    document = {"at": instant, "raw": b"\0\xff", "there": native.document("a/b"), "place": place, "nan": float("nan")}
    native.document("things/a").set({**document, "inner": {"at": instant}, "n": 1})
    stored = native.document("things/a").get().to_dict()
    async with opened(lambda: FirestoreStore.open(project)) as store:
        found = await fetch(store, A)
        await commit(store, Update(A, {("n",): 2, ("inner", "more"): 3}))
    left = native.document("things/a").get().to_dict()
    native.close()

    at = stored["at"].strftime("%Y-%m-%dT%H:%M:%S")
    assert found["at"].startswith(at)
    assert found["at"].endswith("Z")
    assert found["inner"]["at"] == found["at"]
    assert (found["raw"], found["nan"]) == (base64.b64encode(b"\0\xff").decode(), "NaN")
    assert found["there"].endswith("/documents/a/b")
    assert found["place"] == {"latitude": 47.5, "longitude": 8.25}
    assert (left["at"], left["raw"], left["place"]) == (stored["at"], b"\0\xff", place)
    assert left["inner"] == {"at": stored["at"], "more": 3}
    assert left["n"] == 2


async def test_the_contract_s_documents_are_native_and_only_a_list_in_a_list_is_text(project: str) -> None:
    native = client_library.Client(project=project)
    async with opened(lambda: FirestoreStore.open(project)) as store:
        await commit(
            store, Set(A, {"status": "READY", "n": 1, "real": 1.0, "list": [{"x": [True]}], "grid": [[1], []]})
        )
    left = native.document("things/a").get().to_dict()
    native.close()

    grid = [{"$json": "[1]"}, {"$json": "[]"}]
    assert left == {"status": "READY", "n": 1, "real": 1.0, "list": [{"x": [True]}], "grid": grid}


def nested(levels: int) -> Any:
    value: Any = 1
    for level in range(levels):
        value = {"x": value} if level % 2 else [value, {"y": 1}]
    return value


ODD: dict[str, Any] = {
    "deep": {"f": nested(19), "g": nested(20), "h": nested(90)},
    "marks": {"$json": "[1]"},
    "marks inside": {"a": {"$json": "[1]"}, "b": {"$json": 1}, "c": {"$json": {"$json": "{}"}}, "d": {"$json": "x", "e": 1}},
    "names": {"__name__": 1, "a": 2},
    "names inside": {"a": {"": 1}, "b": {"__x__": {"__type__": "__vector__"}}, "c": {"n" * 1501: 1}},
    "grid": {"a": [[[]], [1, [2, {"x": [[3]]}]]]},
}  # fmt: skip


@pytest.mark.parametrize("name", ODD)
async def test_a_document_that_firestore_cannot_hold_comes_back_as_it_was(name: str, firestore: str) -> None:
    async with opened(lambda: open_store(firestore)) as store:
        await commit(store, Set(A, ODD[name]), Set(B, {}))
        await commit(store, Update(B, {(field, "in", "side"): value for field, value in ODD["deep"].items()}))

        assert same(await fetch(store, A), ODD[name])
        assert same(await fetch(store, B), {field: {"in": {"side": value}} for field, value in ODD["deep"].items()})
        await commit(store, Update(A, {("more", "$json"): "[1]"}))
        assert same(await fetch(store, A), {**ODD[name], "more": {"$json": "[1]"}})


async def test_a_part_of_a_value_that_stands_as_text_can_be_changed(firestore: str) -> None:
    deep = {"x": nested(30), "map": {"keep": 1}}
    path = ("deep", *["m"] * 40)
    inner: Any = deep
    for _ in range(40):
        inner = {"m": inner}
    async with opened(lambda: open_store(firestore)) as store:
        await commit(store, Set(A, {"deep": inner, "other": 1}))
        await commit(store, Update(A, {(*path, "map", "new"): [[2]], (*path, "x"): DELETE, (*path, "none"): DELETE}))

        found: Any = await fetch(store, A)
        for segment in path:
            found = found[segment]
        assert found == {"map": {"keep": 1, "new": [[2]]}}


def large_documents() -> dict[str, Any]:
    chance = random.Random(7)  # noqa: S311
    letters = "".join(chr(code) for code in range(33, 127) if chr(code) not in '"\\')
    room = DOCUMENT_BYTES_MAX - len('{"f":""}')
    return {
        "random text": {"f": "".join(chance.choices(letters, k=room))},
        "small integers": {"f": [chance.randrange(10) for _ in range(room // 2)]},
        "empty lists": {"f": [[]] * (room // 3 - 1)},
        "many fields": {f"{number:06}": number % 10 for number in range(DOCUMENT_BYTES_MAX // 12)},
        "two halves": {"a": "x" * (room // 2 - 10), "b": "é" * (room // 4 - 10)},
    }


@pytest.mark.parametrize("name", ["random text", "small integers", "empty lists", "many fields", "two halves"])
async def test_a_document_of_a_mebibyte_of_text_fits(name: str, firestore: str) -> None:
    document = large_documents()[name]
    async with opened(lambda: open_store(firestore)) as store:
        await commit(store, Set(A, document))
        assert same(await fetch(store, A), document)
        first = next(iter(document))
        await commit(store, Update(A, {(first,): 1}))
        assert same(await fetch(store, A), {**document, first: 1})


# Requests


async def open_wired(project: str, wire: Wire) -> FirestoreStore:
    store = await FirestoreStore.open(project, interceptors=wire.interceptors)
    wire.calls.clear()
    wire.reads.clear()
    return store


async def test_many_documents_are_read_in_one_request(project: str) -> None:
    wire = Wire()
    store = await open_wired(project, wire)
    keys = [Key("things", f"{number:04}") for number in range(1_000)]
    await commit(store, *(Create(key, {"n": key.id}) for key in keys))
    wire.calls.clear()

    assert await store.get_many(keys) == {key: {"n": key.id} for key in keys}
    assert wire.calls == {"BatchGetDocuments": 1}
    assert len(await store.get_many([*keys, A])) == 1_001
    assert wire.calls == {"BatchGetDocuments": 3}
    await store.close()


async def test_a_transact_is_one_read_and_one_commit_and_an_answer_that_changes_nothing_is_one_read(
    project: str,
) -> None:
    wire = Wire()
    store = await open_wired(project, wire)
    await store.transact([A, B], lambda *_: ([Set(A, {}), Check(B)], None))
    assert wire.calls == {"BatchGetDocuments": 1, "Commit": 1}
    assert await store.transact([A, B], lambda documents, _: ([Check(A), Check(B)], documents[A])) == {}
    assert wire.calls == {"BatchGetDocuments": 2, "Commit": 1}
    await store.close()


# Trouble


@pytest.mark.parametrize("status", ["UNAVAILABLE", "DEADLINE_EXCEEDED", "INTERNAL", "CANCELLED", "UNKNOWN"])
@pytest.mark.parametrize("made", [before, after], ids=["lost on the way", "answer lost"])
async def test_a_commit_without_an_answer_is_uncertain_and_not_sent_again(
    status: str, made: Callable[..., Any], project: str
) -> None:
    wire = Wire()
    store = await open_wired(project, wire)
    code = getattr(grpc.StatusCode, status)
    wire.trouble = lambda method, number: made(code) if method == "Commit" else None

    error = await refused(CommitUncertainError, commit(store, Create(A, {"n": 1})))

    assert project in str(error)
    assert wire.calls["Commit"] == 1
    wire.trouble = lambda method, number: None
    assert await fetch(store, A) == ({"n": 1} if made is after else None)
    await store.close()


@pytest.mark.parametrize("status", ["ABORTED", "FAILED_PRECONDITION", "ALREADY_EXISTS"])
async def test_a_commit_that_meets_another_is_decided_again(status: str, project: str, no_pause: None) -> None:
    wire, calls = Wire(), []
    store = await open_wired(project, wire)
    code = getattr(grpc.StatusCode, status)
    wire.trouble = lambda method, number: before(code) if method == "Commit" and number <= 5 else None

    await store.transact([A], lambda documents, _: ([Set(A, {"n": len(calls)})], calls.append(1)))

    assert len(calls) == 6
    assert await fetch(store, A) == {"n": 5}
    await store.close()


async def test_a_conflict_without_end_is_contention_and_writes_nothing(project: str, no_pause: None) -> None:
    wire = Wire()
    store = await open_wired(project, wire)
    wire.trouble = lambda method, number: before(grpc.StatusCode.ABORTED) if method == "Commit" else None

    await refused(ContentionError, commit(store, Create(A, {})))

    assert wire.calls["Commit"] == ATTEMPTS_MAX
    await store.close()


async def test_a_moment_s_trouble_with_a_read_is_not_noticed(project: str, no_pause: None) -> None:
    wire = Wire()
    store = await open_wired(project, wire)
    wire.trouble = lambda method, number: before(LOST) if number <= 2 else None

    assert await fetch(store, A) is None
    assert await store.query("things") == []
    await store.close()


async def test_a_read_that_nobody_answers_is_an_outage_at_once(project: str, no_pause: None) -> None:
    wire = Wire()
    store = await open_wired(project, wire)
    wire.trouble = lambda method, number: before(LOST)

    for attempt in (store.get_many([A]), store.query("things"), commit(store, Set(A, {}))):
        await refused(StoreUnavailableError, attempt)

    assert wire.calls == {"BatchGetDocuments": 6, "RunQuery": 3}
    await store.close()


REFUSALS = {
    "PERMISSION_DENIED": ("Missing or insufficient permissions.", "roles/datastore.user"),
    "UNAUTHENTICATED": ("Request had invalid credentials.", "roles/datastore.user"),
    "NOT_FOUND": ("The database (default) does not exist for project x", "gcloud firestore databases create"),
    "FAILED_PRECONDITION": ("The Cloud Firestore API is not available for Firestore in Datastore Mode", "Native mode"),
}


@pytest.mark.parametrize("status", REFUSALS)
async def test_a_database_that_cannot_be_used_says_why_and_what_to_do(status: str, project: str) -> None:
    said, remedy = REFUSALS[status]
    wire = Wire()
    store = await open_wired(project, wire)
    wire.trouble = lambda method, number: before(getattr(grpc.StatusCode, status), said)

    unavailable = await refused(StoreUnavailableError, store.get_many([A]))
    opening = await refused(ConfigurationError, FirestoreStore.open(project, interceptors=wire.interceptors))

    for error in (unavailable, opening):
        assert project in str(error)
        assert remedy in str(error)
    await store.close()


async def test_an_api_that_is_not_enabled_says_which_command_enables_it(project: str) -> None:
    wire = Wire()
    said = "Cloud Firestore API has not been used in project 123 before or it is disabled."
    wire.trouble = lambda method, number: before(grpc.StatusCode.PERMISSION_DENIED, said)

    error = await refused(ConfigurationError, FirestoreStore.open(project, interceptors=wire.interceptors))

    assert f"gcloud services enable firestore.googleapis.com --project {project}" in str(error)


async def test_a_query_without_its_index_says_which_file_to_deploy(project: str) -> None:
    wire = Wire()
    store = await open_wired(project, wire)
    said = "The query requires an index. You can create it here: https://console.firebase.google.com/x"
    wire.trouble = lambda method, number: before(grpc.StatusCode.FAILED_PRECONDITION, said)

    error = await refused(StoreUnavailableError, store.query("runs", [Where("root", "==", "r")]))

    assert "deploy/firestore.indexes.json" in str(error)
    assert "https://console.firebase.google.com/x" in str(error)
    await store.close()


async def test_no_quota_left_is_an_outage_and_a_commit_was_not_made(project: str) -> None:
    wire = Wire()
    store = await open_wired(project, wire)
    wire.trouble = lambda method, number: before(grpc.StatusCode.RESOURCE_EXHAUSTED) if method == "Commit" else None

    await refused(StoreUnavailableError, commit(store, Set(A, {})))
    await store.close()


async def test_what_the_server_cannot_hold_is_the_caller_s_to_change(project: str) -> None:
    wire = Wire()
    store = await open_wired(project, wire)
    wire.trouble = lambda method, number: (
        before(grpc.StatusCode.INVALID_ARGUMENT, "too large") if method == "Commit" else None
    )

    error = await refused(InvalidRequestError, commit(store, Set(A, {})))

    assert "too large" in str(error)
    await store.close()


async def test_a_store_comes_back_with_its_database(monkeypatch: pytest.MonkeyPatch, firestore: str) -> None:
    with running_firestore() as emulator:
        monkeypatch.setenv(EMULATOR_HOST, emulator.host)
        store = await FirestoreStore.open(fresh_project())
        await commit(store, Set(A, {"n": 1}))
        emulator.stop()
        await refused(StoreUnavailableError, store.get_many([A]))
        await refused(StoreUnavailableError, commit(store, Set(B, {})))
        emulator.restart()
        for _ in range(200):
            try:
                assert await fetch(store, A) is None  # the emulator forgets; a database would not
                break
            except StoreUnavailableError:
                await anyio.sleep(0.05)
        await commit(store, Set(C, {"n": 2}))
        assert await fetch(store, C) == {"n": 2}
        await store.close()


async def test_an_emulator_that_is_not_there_is_an_outage(monkeypatch: pytest.MonkeyPatch, firestore: str) -> None:
    monkeypatch.setenv(EMULATOR_HOST, "127.0.0.1:1")

    error = await refused(StoreUnavailableError, open_store(firestore))

    assert "127.0.0.1:1" in str(error)


async def test_without_credentials_the_error_says_how_to_get_some(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.delenv(EMULATOR_HOST, raising=False)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))

    error = await refused(ConfigurationError, open_store("firestore://some-project/(default)"))

    assert "gcloud auth application-default login" in str(error)
    assert "none.json" not in str(error)


@pytest.mark.parametrize("url", ["firestore:", "firestore://", "firestore:///x", "firestore://a/b/c", "firestore:a"])
async def test_a_url_without_a_project_names_no_store(url: str) -> None:
    await refused(ConfigurationError, open_store(url))


async def test_without_the_library_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "engine.store.firestore")
    monkeypatch.setitem(sys.modules, "google.cloud.firestore_v1.services.firestore", None)

    error = await refused(ConfigurationError, open_store("firestore://some-project/(default)"))

    assert "detent[google]" in str(error)
