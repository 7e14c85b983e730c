"""The store's contract for what it holds: every kind of JSON value, every id, and how much."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from engine.core import canonical
from engine.core.bounds import DOCUMENT_BYTES_MAX
from engine.core.write import Create, Key, Set, Update
from engine.errors import InvalidRequestError
from engine.testing.store_check import A, B, OpenStore, StoreCheck, commit, fetch, opened, refused, same

ODD_IDS: Final = (
    "a:b", "a b", " ", "a.b", "...", "`", "'", '"', "\\", "%", "?", "#", "*", "[x]", "$", "__x", "x__", "é", "漢字",
    "😀", "\x01", "\n", "0", "-1", "x" * 1500,
)  # fmt: skip

VALUES: Final[Mapping[str, Any]] = {
    "null": None,
    "true": True,
    "false": False,
    "zero": 0,
    "one": 1,
    "minus": -7,
    "int64": 2**63 - 1,
    "int64_least": -(2**63),
    "one_real": 1.0,
    "zero_real": 0.0,
    "third": 1 / 3,
    "tiny": 5e-324,
    "huge": 1.7976931348623157e308,
    "empty": "",
    "digits": "007",
    "words": "null true 1",
    "nul": "a\0b",
    "control": "\t\r\n\x7f",
    "quotes": "\"'`\\/",
    "unicode": "é e\u0301 漢字 😀 \u2028 \ufeff \uffff",
    "long": "lang " * 60_000,
    "map": {},
    "list": [],
    "nested": {"a": {"b": {"c": [1, 1.0, True, None, "x", {"d": []}]}}},
}

CHECKS: Final[list[StoreCheck]] = []


def _check(function: StoreCheck) -> StoreCheck:
    CHECKS.append(function)
    return function


@_check
async def what_is_no_json_is_a_bug(open_store: OpenStore) -> None:
    bad: list[Any] = [float("nan"), float("inf"), b"bytes", {1: "key"}, {"set"}, object(), "\ud800"]
    async with opened(open_store) as store:
        for value in bad:
            await refused(ValueError, commit(store, Set(B, {}), Set(A, {"x": [value]})))
        await refused(ValueError, commit(store, Set(A, [])))  # type: ignore[arg-type]  # the point of the check
        assert await store.get_many([A, B]) == {A: None, B: None}


@_check
async def every_kind_of_value_comes_back_as_it_was(open_store: OpenStore) -> None:
    async with opened(open_store) as store:
        await commit(store, Set(A, VALUES), Set(B, {}))
        await commit(store, Update(B, {(field, "x"): value for field, value in VALUES.items()}))
        assert same(await fetch(store, A), VALUES)
        assert same(await fetch(store, B), {field: {"x": value} for field, value in VALUES.items()})


@_check
async def lists_of_lists_come_back_as_they_were(open_store: OpenStore) -> None:
    value: dict[str, Any] = {"lists": [[], [[]], [1, [2.0, [True, [None]]], {"x": [[0]]}]]}
    async with opened(open_store) as store:
        await commit(store, Set(A, value))
        assert same(await fetch(store, A), value)


@_check
async def a_document_may_be_as_long_as_its_bound_and_no_longer(open_store: OpenStore) -> None:
    async with opened(open_store) as store:
        for letter in ("x", "é"):
            room = DOCUMENT_BYTES_MAX - len(canonical.encode({"f": ""}))
            fitting = letter * (room // len(letter.encode()))
            fitting += "x" * (room - len(fitting.encode()))
            await commit(store, Set(A, {"f": fitting}))
            assert await fetch(store, A) == {"f": fitting}
            error = await refused(InvalidRequestError, commit(store, Set(B, {}), Set(A, {"f": fitting + "x"})))
            assert "things/a" in str(error)
            assert str(DOCUMENT_BYTES_MAX) in str(error)
            await refused(InvalidRequestError, commit(store, Update(A, {("g",): 1})))
            assert await store.get_many([A, B]) == {A: {"f": fitting}, B: None}


@_check
async def an_id_may_hold_any_character_that_a_key_allows(open_store: OpenStore) -> None:
    keys = [Key.of("odd", id_) for id_ in ODD_IDS] + [Key.of(id_, "x") for id_ in ODD_IDS]
    async with opened(open_store) as store:
        for number, key in enumerate(keys):
            await commit(store, Create(key, {"n": number}))
        assert await store.get_many(keys) == {key: {"n": number} for number, key in enumerate(keys)}
        assert [found.key.id for found in await store.query("odd")] == sorted(ODD_IDS)
        for collection in ODD_IDS:
            assert [found.key for found in await store.query(collection)] == [Key(collection, "x")]
