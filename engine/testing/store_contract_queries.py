"""The store's contract for its queries: what matches, in which order, and how many.

`port.select` is the specification; where a check compares with it, the store must give the very same list.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from engine.core.write import Create, Delete, Key, Set, Update
from engine.store.port import Found, Operator, Order, Store, Where, select
from engine.testing.store_check import OpenStore, StoreCheck, commit, opened

OPERATORS: Final[tuple[Operator, ...]] = ("==", "<", "<=", ">", ">=")

MIXED: Final[Mapping[str, Any]] = {
    "absent": ...,
    "null": None,
    "false": False,
    "true": True,
    "minus": -1,
    "zero": 0,
    "zero_real": 0.0,
    "half": 0.5,
    "one": 1,
    "one_real": 1.0,
    "ten": 10,
    "int64": 2**63 - 1,
    "int64_least": -(2**63),
    "huge": 1e300,
    "empty": "",
    "digit": "1",
    "upper": "Z",
    "lower": "a",
    "longer": "aa",
    "accent": "é",
    "emoji": "😀",
    "fullwidth": "\uff5e",
    "nul": "a\0b",
    "map": {"a": 1},
    "list": [1],
    "text_of_a_map": '{"a":1}',
}

CHECKS: Final[list[StoreCheck]] = []


def _check(function: StoreCheck) -> StoreCheck:
    CHECKS.append(function)
    return function


async def _fill(store: Store, collection: str, documents: Mapping[str, Mapping[str, Any]]) -> list[Found]:
    found = [Found(Key(collection, id_), document) for id_, document in documents.items()]
    for start in range(0, len(found), 200):
        await commit(store, *(Create(*entry) for entry in found[start : start + 200]))
    return found


def _ids(found: Sequence[Found]) -> list[str]:
    return [entry.key.id for entry in found]


@_check
async def a_query_answers_whole_documents_by_id(open_store: OpenStore) -> None:
    async with opened(open_store) as store:
        await _fill(store, "things", {"b": {"n": 1}, "a": {"n": 2, "map": {"x": [1.0]}}, "B": {}, "é": {}})
        await _fill(store, "others", {"a": {"n": 3}})
        assert await store.query("things") == [
            Found(Key("things", "B"), {}),
            Found(Key("things", "a"), {"n": 2, "map": {"x": [1.0]}}),
            Found(Key("things", "b"), {"n": 1}),
            Found(Key("things", "é"), {}),
        ]
        assert await store.query("nothing") == []


@_check
async def every_operator_compares_values_of_one_kind_only(open_store: OpenStore) -> None:
    async with opened(open_store) as store:
        everything = await _fill(
            store, "mixed", {id_: {} if value is ... else {"f": value} for id_, value in MIXED.items()}
        )
        for value in MIXED.values():
            if isinstance(value, (str, int, float)):
                for operator in OPERATORS:
                    where = [Where("f", operator, value)]
                    expected = _ids(select(everything, where, (), None))
                    assert _ids(await store.query("mixed", where)) == expected, where


@_check
async def a_range_between_two_values(open_store: OpenStore) -> None:
    async with opened(open_store) as store:
        await _fill(store, "mixed", {id_: {} if value is ... else {"f": value} for id_, value in MIXED.items()})
        numbers = [Where("f", ">=", 0), Where("f", "<", 10)]
        texts = [Where("f", ">", "1"), Where("f", "<=", "aa")]
        by_f = [Order("f")]
        assert _ids(await store.query("mixed", numbers, by_f)) == ["zero", "zero_real", "half", "one", "one_real"]
        assert _ids(await store.query("mixed", texts, by_f)) == ["upper", "lower", "nul", "longer"]


@_check
async def several_conditions_must_all_hold(open_store: OpenStore) -> None:
    documents = {f"{n:02}": {"parity": "odd" if n % 2 else "even", "open": n % 3 == 0, "n": n} for n in range(24)}
    async with opened(open_store) as store:
        await _fill(store, "numbers", documents)
        where = [Where("parity", "==", "even"), Where("open", "==", True), Where("n", ">", 6)]
        assert _ids(await store.query("numbers", where, [Order("n")])) == ["12", "18"]
        assert _ids(await store.query("numbers", where, [Order("n", descending=True)], 1)) == ["18"]
        assert await store.query("numbers", [*where, Where("missing", "==", 1)]) == []


@_check
async def documents_are_ordered_by_a_field_and_ties_by_id(open_store: OpenStore) -> None:
    documents: dict[str, dict[str, Any]] = {"e": {"n": 1}, "d": {"n": 1.0}, "c": {"n": 0}, "b": {"n": 2}, "a": {"n": 1}}
    async with opened(open_store) as store:
        await _fill(store, "numbers", documents)
        assert _ids(await store.query("numbers", (), [Order("n")])) == ["c", "a", "d", "e", "b"]
        assert _ids(await store.query("numbers", (), [Order("n", descending=True)])) == ["b", "a", "d", "e", "c"]


@_check
async def strings_are_ordered_by_code_point(open_store: OpenStore) -> None:
    texts = ["", "1", "10", "2", "A", "Z", "a", "a b", "aa", "é", "漢", "\uff5e", "😀"]
    async with opened(open_store) as store:
        await _fill(store, "texts", {str(99 - index): {"t": text} for index, text in enumerate(texts)})
        assert [entry.document["t"] for entry in await store.query("texts", (), [Order("t")])] == texts


@_check
async def an_order_leaves_out_documents_without_its_field_and_puts_null_first(open_store: OpenStore) -> None:
    async with opened(open_store) as store:
        await _fill(store, "things", {"a": {}, "b": {"n": None}, "c": {"n": -5}, "d": {"n": 5}, "e": {"m": 1}})
        assert _ids(await store.query("things", (), [Order("n")])) == ["b", "c", "d"]
        assert _ids(await store.query("things", (), [Order("n", descending=True)])) == ["d", "c", "b"]


@_check
async def a_later_order_breaks_the_ties_of_an_earlier_one(open_store: OpenStore) -> None:
    documents = {f"{n:02}": {"tens": n // 4, "ones": n % 2} for n in range(8)}
    async with opened(open_store) as store:
        everything = await _fill(store, "numbers", documents)
        for order in ([Order("tens", True), Order("ones")], [Order("ones"), Order("tens")]):
            assert await store.query("numbers", (), order) == select(everything, (), order, None)


@_check
async def a_limit_counts_what_matches(open_store: OpenStore) -> None:
    documents = {f"{n:02}": {"n": n, "open": n % 5 == 0, "text": str(n)} for n in range(30)}
    async with opened(open_store) as store:
        await _fill(store, "numbers", documents)
        is_open = [Where("open", "==", True)]
        assert _ids(await store.query("numbers", is_open, limit=3)) == ["00", "05", "10"]
        assert _ids(await store.query("numbers", is_open, [Order("n", descending=True)], 2)) == ["25", "20"]
        assert _ids(await store.query("numbers", is_open, limit=1)) == ["00"]
        assert len(await store.query("numbers", is_open, limit=100)) == 6


@_check
async def a_query_sees_every_commit_before_it(open_store: OpenStore) -> None:
    where = [Where("status", "==", "waiting")]
    async with opened(open_store) as store:
        await _fill(store, "runs", {"a": {"status": "waiting"}, "b": {"status": "running"}})
        assert _ids(await store.query("runs", where)) == ["a"]
        await commit(store, Update(Key("runs", "b"), {("status",): "waiting"}), Delete(Key("runs", "a")))
        assert _ids(await store.query("runs", where)) == ["b"]
        await commit(store, Set(Key("runs", "b"), {"state": "waiting"}))
        assert await store.query("runs", where) == []


@_check
async def a_field_name_may_hold_any_letter(open_store: OpenStore) -> None:
    names = ("a_b", "é", "lease_expires_at_ms", "a b", "a-b", "a.b")
    async with opened(open_store) as store:
        await _fill(store, "things", {str(n): dict.fromkeys(names, n) for n in range(5)})
        for name in names:
            found = await store.query("things", [Where(name, ">", 2)], [Order(name, descending=True)])
            assert _ids(found) == ["4", "3"], name


@_check
async def a_thousand_documents(open_store: OpenStore) -> None:
    documents = {f"{n:04}": {"n": (n * 7919) % 1000, "odd": n % 2 == 1} for n in range(1000)}
    async with opened(open_store) as store:
        everything = await _fill(store, "numbers", documents)
        assert await store.query("numbers") == select(everything, (), (), None)
        where, order = [Where("n", ">=", 500)], [Order("n")]
        assert await store.query("numbers", where, order) == select(everything, where, order, None)
        assert await store.query("numbers", where, order, 10) == select(everything, where, order, 10)
