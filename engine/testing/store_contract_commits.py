"""The store's contract for its writes: what each does, when it is refused, and what a commit holds together."""

from __future__ import annotations

from typing import Any, Final

import anyio

from engine.core.write import DELETE, Check, Create, Delete, Key, Set, Update, Write
from engine.errors import StoreUnavailableError, WriteRefusedError
from engine.store.port import Decide, Documents
from engine.testing.store_check import (
    A,
    B,
    C,
    DisturbedCheck,
    OpenDisturbed,
    OpenStore,
    StoreCheck,
    commit,
    fetch,
    number_in,
    opened,
    refused,
    same,
)

ODD_SEGMENTS: Final = (
    "a.b",
    "a:b",
    "a b",
    "`",
    "a`b",
    "a/b",
    "a\\b",
    '"',
    "'",
    "*",
    "~",
    "[0]",
    "é",
    "漢字",
    "😀",
    "0",
    "$",
)

CHECKS: Final[list[StoreCheck]] = []
DISTURBED_CHECKS: Final[list[DisturbedCheck]] = []


def _check(function: StoreCheck) -> StoreCheck:
    CHECKS.append(function)
    return function


def _deciding(*writes: Write) -> Decide[None]:
    return lambda _documents, _now_ms: (writes, None)


def _disturbed(function: DisturbedCheck) -> DisturbedCheck:
    DISTURBED_CHECKS.append(function)
    return function


@_check
async def a_missing_document_is_none(open_store: OpenStore) -> None:
    async with opened(open_store) as store:
        assert await store.get_many([A, B, A]) == {A: None, B: None}
        assert await store.get_many([]) == {}
        seen = await store.transact([A], lambda documents, _: ((), dict(documents)))
        assert seen == {A: None}


@_check
async def a_decide_sees_every_key_and_the_clock(open_store: OpenStore) -> None:
    async with opened(open_store) as store:
        await commit(store, Create(A, {"n": 1}))
        seen, now_ms = await store.transact([A, B], lambda documents, now: ((), (dict(documents), now)))
        assert seen == {A: {"n": 1}, B: None}
        assert type(now_ms) is int
        assert now_ms >= 0


@_check
async def create_makes_a_document(open_store: OpenStore) -> None:
    async with opened(open_store) as store:
        await commit(store, Create(A, {"n": 1}))
        assert await store.get_many([A, B]) == {A: {"n": 1}, B: None}


@_check
async def create_over_an_existing_document_writes_nothing(open_store: OpenStore) -> None:
    async with opened(open_store) as store:
        await commit(store, Create(B, {"n": 1}))
        await refused(WriteRefusedError, commit(store, Set(A, {}), Create(B, {"n": 2}), Set(C, {})))
        assert await store.get_many([A, B, C]) == {A: None, B: {"n": 1}, C: None}


@_check
async def set_replaces_the_whole_document(open_store: OpenStore) -> None:
    async with opened(open_store) as store:
        await commit(store, Set(A, {"old": 1}))
        await commit(store, Set(A, {"new": {}}))
        assert await fetch(store, A) == {"new": {}}


@_check
async def an_empty_document_is_a_document(open_store: OpenStore) -> None:
    async with opened(open_store) as store:
        await commit(store, Create(A, {}))
        assert await fetch(store, A) == {}
        await refused(WriteRefusedError, commit(store, Create(A, {})))


@_check
async def update_of_a_missing_document_writes_nothing(open_store: OpenStore) -> None:
    async with opened(open_store) as store:
        await refused(WriteRefusedError, commit(store, Set(A, {}), Update(B, {("n",): 1})))
        assert await store.get_many([A, B]) == {A: None, B: None}


@_check
async def update_changes_only_the_fields_it_names(open_store: OpenStore) -> None:
    async with opened(open_store) as store:
        await commit(store, Set(A, {"a": 1, "map": {"x": 1, "y": {"z": 1}}}))
        await commit(store, Update(A, {("b",): [2], ("map", "y", "w"): 1.0, ("map", "x"): None}))
        assert same(await fetch(store, A), {"a": 1, "b": [2], "map": {"x": None, "y": {"z": 1, "w": 1.0}}})


@_check
async def a_field_path_may_hold_any_character(open_store: OpenStore) -> None:
    async with opened(open_store) as store:
        await commit(store, Set(A, {"keep": 1}))
        await commit(store, Update(A, {(segment, *ODD_SEGMENTS): segment for segment in ODD_SEGMENTS}))
        expected: dict[str, Any] = {"keep": 1}
        for segment in ODD_SEGMENTS:
            inner: Any = segment
            for outer in reversed(ODD_SEGMENTS):
                inner = {outer: inner}
            expected[segment] = inner
        assert await fetch(store, A) == expected
        await commit(store, Update(A, {(segment,): DELETE for segment in ODD_SEGMENTS}))
        assert await fetch(store, A) == {"keep": 1}


@_check
async def update_makes_the_maps_on_its_path(open_store: OpenStore) -> None:
    async with opened(open_store) as store:
        await commit(store, Set(A, {"text": "x", "list": [{}], "none": None}))
        paths = [("new", "map", "leaf"), ("text", "leaf"), ("list", "0", "leaf"), ("none", "leaf")]
        await commit(store, Update(A, dict.fromkeys(paths, 1)))
        expected = {"new": {"map": {"leaf": 1}}, "text": {"leaf": 1}, "list": {"0": {"leaf": 1}}, "none": {"leaf": 1}}
        assert await fetch(store, A) == expected


@_check
async def delete_as_a_value_removes_the_field(open_store: OpenStore) -> None:
    async with opened(open_store) as store:
        await commit(store, Set(A, {"a": 1, "b": {"c": 1, "d": 1}, "e": {"f": 1}}))
        await commit(store, Update(A, {("a",): DELETE, ("b", "c"): DELETE, ("e", "f"): DELETE, ("none",): DELETE}))
        assert await fetch(store, A) == {"b": {"d": 1}, "e": {}}


@_check
async def deleting_a_missing_document_is_no_error(open_store: OpenStore) -> None:
    async with opened(open_store) as store:
        await commit(store, Set(A, {}))
        await commit(store, Delete(A), Delete(B))
        assert await store.get_many([A, B]) == {A: None, B: None}
        await commit(store, Create(A, {"again": True}))
        assert await fetch(store, A) == {"again": True}


@_check
async def a_check_changes_nothing(open_store: OpenStore) -> None:
    async with opened(open_store) as store:
        await commit(store, Set(A, {"n": 1}))
        await commit(store, Check(A), Check(B), Set(C, {}))
        await commit(store, Check(A))
        assert await store.get_many([A, B, C]) == {A: {"n": 1}, B: None, C: {}}


@_check
async def a_decide_that_raises_writes_nothing(open_store: OpenStore) -> None:
    problem = LookupError("from the decide")

    def decide(_documents: Documents, _now_ms: int) -> tuple[list[Write], None]:
        raise problem

    async with opened(open_store) as store:
        await commit(store, Set(A, {"n": 1}))
        assert await refused(LookupError, store.transact([A, B], decide)) is problem
        assert await store.get_many([A, B]) == {A: {"n": 1}, B: None}
        await commit(store, Set(B, {}))
        assert await fetch(store, B) == {}


@_check
async def a_write_under_a_key_that_was_not_asked_for_is_a_bug(open_store: OpenStore) -> None:
    async with opened(open_store) as store:
        await refused(ValueError, store.transact([A], _deciding(Set(A, {}), Set(B, {}))))
        await refused(ValueError, store.transact([A], _deciding(Set(A, {}), Check(B))))
        assert await store.get_many([A, B]) == {A: None, B: None}


@_check
async def a_create_need_not_be_asked_for(open_store: OpenStore) -> None:
    async with opened(open_store) as store:
        await store.transact([A], _deciding(Set(A, {"n": 1}), Create(B, {"n": 2})))
        assert await store.get_many([A, B]) == {A: {"n": 1}, B: {"n": 2}}


@_check
async def a_create_that_was_not_asked_for_is_refused_where_there_is_a_document(open_store: OpenStore) -> None:
    async with opened(open_store) as store:
        await commit(store, Set(B, {"n": 1}))
        await refused(WriteRefusedError, store.transact([A], _deciding(Set(A, {}), Create(B, {"n": 2}))))
        assert await store.get_many([A, B]) == {A: None, B: {"n": 1}}


@_check
async def of_two_creates_at_once_one_is_refused_and_neighbours_go_on(open_store: OpenStore) -> None:
    async with opened(open_store) as store:
        await commit(store, Set(Key("claims", "2"), {"n": "there"}))
        told: list[str] = []

        async def create(number: int, key: Key) -> None:
            own = Key("own", str(number))
            try:
                await store.transact([own], _deciding(Set(own, {}), Create(key, {"n": number})))
            except WriteRefusedError:
                told.append(f"{number} refused")
            else:
                told.append(f"{number} made")

        async with anyio.create_task_group() as tasks:
            for number in range(4):
                tasks.start_soon(create, number, Key("claims", str(min(number, 2))))
        assert sorted(told) == ["0 made", "1 made", "2 refused", "3 refused"]
        found = await store.get_many([Key("own", str(number)) for number in range(4)])
        assert [document is not None for document in found.values()] == [True, True, False, False]


@_check
async def two_writes_on_one_key_are_a_bug(open_store: OpenStore) -> None:
    async with opened(open_store) as store:
        await refused(ValueError, store.transact([A], _deciding(Set(A, {}), Delete(A))))
        await refused(ValueError, store.transact([A], _deciding(Check(A), Set(A, {}))))
        assert await fetch(store, A) is None


@_check
async def twenty_concurrent_increments_make_twenty(open_store: OpenStore) -> None:
    def increment(documents: Documents, _now_ms: int) -> tuple[list[Write], None]:
        return [Set(A, {"n": number_in((documents[A] or {}).get("n", 0)) + 1})], None

    async with opened(open_store) as store:
        async with anyio.create_task_group() as tasks:
            for _ in range(20):
                tasks.start_soon(store.transact, [A], increment)
        assert await fetch(store, A) == {"n": 20}


@_check
async def one_of_twenty_concurrent_claimers_wins(open_store: OpenStore) -> None:
    won: list[int] = []

    async with opened(open_store) as store:

        async def claim(number: int) -> None:
            def decide(documents: Documents, _now_ms: int) -> tuple[list[Write], bool]:
                if documents[A] is not None:
                    return [Check(A)], False
                return [Create(A, {"owner": number}), Set(Key("claims", str(number)), {})], True

            if await store.transact([A, Key("claims", str(number))], decide):
                won.append(number)

        async with anyio.create_task_group() as tasks:
            for number in range(20):
                tasks.start_soon(claim, number)
        assert len(won) == 1
        assert await fetch(store, A) == {"owner": won[0]}
        assert [found.key.id for found in await store.query("claims")] == [str(won[0])]


@_check
async def nobody_changes_the_store_through_an_alias(open_store: OpenStore) -> None:
    async with opened(open_store) as store:
        document: dict[str, Any] = {"list": [1], "map": {"x": 1}}
        await commit(store, Set(A, document))
        document["list"].append(2)
        read: Any = await fetch(store, A)
        assert read == {"list": [1], "map": {"x": 1}}
        read["map"]["x"] = 2
        (found,) = await store.query("things")
        assert found.document == {"list": [1], "map": {"x": 1}}

        def decide(documents: Documents, _now_ms: int) -> tuple[list[Write], None]:
            seen: Any = documents[A]
            seen["map"]["x"] = 3
            return [Update(A, {("n",): 1})], None

        await store.transact([A], decide)
        assert await fetch(store, A) == {"list": [1], "map": {"x": 1}, "n": 1}


@_check
async def a_closed_store_says_so(open_store: OpenStore) -> None:
    store = await open_store()
    await commit(store, Set(A, {}))
    await store.close()
    await store.close()
    await refused(StoreUnavailableError, store.get_many([A]))
    await refused(StoreUnavailableError, commit(store, Set(A, {})))
    await refused(StoreUnavailableError, store.query("things"))


@_check
async def a_store_that_did_nothing_can_be_closed(open_store: OpenStore) -> None:
    await (await open_store()).close()


@_disturbed
async def a_document_that_is_only_read_is_not_guarded(open_disturbed: OpenDisturbed) -> None:
    calls: list[Documents] = []

    def copy(documents: Documents, _now_ms: int) -> tuple[list[Write], None]:
        calls.append(documents)
        return [Set(B, {"copied": (documents[A] or {})["n"]})], None

    store = await open_disturbed(lambda documents, _: [Set(A, {"n": 2})] if A in documents and calls else [])
    await commit(store, Set(A, {"n": 1}))
    await store.transact([A, B], copy)
    assert len(calls) == 1
    assert await store.get_many([A, B]) == {A: {"n": 2}, B: {"copied": 1}}
    await store.close()


@_disturbed
async def a_change_of_a_checked_document_calls_the_decide_afresh(open_disturbed: OpenDisturbed) -> None:
    calls: list[Documents] = []

    def copy(documents: Documents, _now_ms: int) -> tuple[list[Write], int]:
        calls.append(documents)
        return [Check(A), Set(B, {"copied": (documents[A] or {})["n"]})], len(calls)

    store = await open_disturbed(lambda *_: [Set(A, {"n": 2})] if len(calls) == 1 else [])
    await commit(store, Set(A, {"n": 1}))
    assert await store.transact([A, B], copy) == 2
    assert await store.get_many([A, B]) == {A: {"n": 2}, B: {"copied": 2}}
    await store.close()
