"""Damage: a file whose pages do not fit together, and documents whose text is none. Neither passes with time."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import apsw
import pytest

from engine.core.write import Key, Set, Update
from engine.errors import (
    ConfigurationError,
    DetentError,
    DocumentUnreadableError,
    StoreDamagedError,
    StoreUnavailableError,
)
from engine.store.memory import MemoryStore
from engine.store.port import UNREADABLE, Index, Order, Where
from engine.store.sqlite import SqliteStore
from engine.testing.store_check import commit, fetch

pytestmark = pytest.mark.anyio

INDEX = Index("things", ("n",))
PAGE = 4096


def key(number: int) -> Key:
    return Key("things", f"t{number:03}")


async def filled(path: Path, count: int = 200) -> bytes:
    """A closed store of some hundred pages; its bytes."""
    store = await SqliteStore.open(path, indexes=[INDEX])
    await commit(store, *(Set(key(number), {"n": number, "kind": "x", "text": "x" * 1500}) for number in range(count)))
    await store.close()
    return path.read_bytes()


def noise(size: int) -> bytes:
    return random.Random(1).randbytes(size)  # noqa: S311 - any bytes do


def overwritten(content: bytes) -> bytes:
    return content[:PAGE] + noise(len(content) - PAGE)


def holed(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + noise(20 * PAGE) + content[middle + 20 * PAGE :]


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def cut_within_a_page(content: bytes) -> bytes:
    return content[: len(content) // 2 + 1234]


async def met(store: SqliteStore) -> list[DetentError | None]:
    """What reading everything, asking for everything and writing meet."""
    found: list[DetentError | None] = []
    for verb in (
        lambda: store.get_many([key(number) for number in range(200)]),
        lambda: store.query("things", [Where("kind", "==", "x")], [Order("n")]),
        lambda: commit(store, *(Update(key(number), {("n",): -1}) for number in range(200))),
    ):
        try:
            await verb()
            found.append(None)
        except DetentError as error:
            found.append(error)
    return found


@pytest.mark.parametrize("damage", [overwritten, holed, cut, cut_within_a_page])
async def test_a_damaged_file_is_told_as_such_and_never_as_an_outage(
    tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / "a store.db"
    path.write_bytes(damage(await filled(path)))
    try:
        store = await SqliteStore.open(path, indexes=[INDEX])
    except StoreDamagedError as error:
        found: list[DetentError | None] = [error]
    else:
        found = await met(store)
        await store.close()
    assert {type(error) for error in found} == {StoreDamagedError}
    for error in found:
        assert error is not None
        assert f"{path} is damaged" in error.message
        assert f"sqlite3 '{path}' .recover" in error.remedy
        assert not isinstance(error, StoreUnavailableError)


@pytest.mark.parametrize("damage", [overwritten, cut])
async def test_damage_done_while_the_store_is_open_is_told_by_reads_and_writes(
    tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / "store.db"
    content = await filled(path)
    store = await SqliteStore.open(path, indexes=[INDEX])
    path.write_bytes(damage(content))
    assert {type(error) for error in await met(store)} == {StoreDamagedError}
    await store.close()


async def test_a_write_that_met_damage_wrote_nothing(tmp_path: Path) -> None:
    """Its neighbour's document lies on a page that is whole: it is as it was."""
    path = tmp_path / "store.db"
    path.write_bytes(holed(await filled(path)))
    store = await SqliteStore.open(path, indexes=[INDEX])
    with pytest.raises(StoreDamagedError):
        await commit(store, Set(key(0), {"n": -1}), *(Update(key(number), {("n",): -1}) for number in range(1, 200)))
    document = await fetch(store, key(0))
    await store.close()
    assert document is not None
    assert document["n"] == 0


async def test_a_file_whose_beginning_is_gone_is_refused_with_both_ways_out(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    path.write_bytes(bytes(100) + (await filled(path))[100:])
    with pytest.raises(ConfigurationError, match="no SQLite database, or its beginning is damaged") as raised:
        await SqliteStore.open(path)
    assert "restore a copy" in raised.value.remedy


# Documents

BODIES = {
    "no JSON": b"{half of it",
    "a list": b"[1, 2]",
    "a number": b"7",
    "nothing": b"",
    "no UTF-8": b'{"n": "\xff"}',
}


async def edited(path: Path, body: bytes, number: int = 1) -> SqliteStore:
    """A store of three documents, one of which somebody has written over by SQL."""
    await filled(path, 3)
    with apsw.Connection(str(path)) as connection:
        connection.execute("UPDATE document SET body = CAST(? AS TEXT) WHERE id = ?", (body, key(number).id))
    return await SqliteStore.open(path, indexes=[INDEX])


@pytest.mark.parametrize("name", BODIES)
async def test_a_document_whose_text_is_none_is_named_by_whoever_reads_it(tmp_path: Path, name: str) -> None:
    store = await edited(tmp_path / "store.db", BODIES[name])
    for verb in (lambda: store.get_many([key(0), key(1)]), lambda: commit(store, Set(key(0), {}), Set(key(1), {}))):
        with pytest.raises(DocumentUnreadableError, match=r"things/t001 .* should be a JSON object") as raised:
            await verb()
        assert raised.value.document == "things/t001"
    assert (await fetch(store, key(0)) or {})["n"] == 0
    await store.close()


@pytest.mark.parametrize("name", BODIES)
@pytest.mark.parametrize(
    ("where", "order", "is_found"),
    [
        ([], [], True),
        ([Where("n", ">=", 0)], [Order("n")], True),
        ([], [Order("n", descending=True)], True),
        ([Where("kind", "==", "x")], [Order("n")], False),
    ],
    ids=["all", "by an index", "in order", "by a field of its text"],
)
async def test_a_document_whose_text_is_none_hides_no_other(
    tmp_path: Path, name: str, where: list[Where], order: list[Order], is_found: bool
) -> None:
    """It is found where an index holds it, by what the index holds."""
    store = await edited(tmp_path / "store.db", BODIES[name])
    found = {entry.key.id: entry.document for entry in await store.query("things", where, order, 10)}
    await store.close()
    assert {"t000", "t002"} <= found.keys()
    assert (found.get("t001") is UNREADABLE) == is_found


async def test_a_neighbour_in_the_same_commit_goes_on(tmp_path: Path) -> None:
    """What arrives together is committed together, but for what cannot be read."""
    store = await edited(tmp_path / "store.db", b"no JSON")
    with pytest.raises(DocumentUnreadableError):
        await commit(store, Set(key(1), {}))
    await commit(store, Set(key(2), {"n": 22}))
    assert await fetch(store, key(2)) == {"n": 22}
    await store.close()


async def test_an_error_of_a_decide_stays_its_own(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "store.db")

    def decide(documents: object, now_ms: int) -> tuple[list[Set], None]:
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        await store.transact([key(0)], decide)
    await store.close()


async def test_the_specification_names_such_a_document_too() -> None:
    store = MemoryStore(texts={key(0): '{"n":0}', key(1): "no JSON"})
    with pytest.raises(DocumentUnreadableError, match="things/t001"):
        await store.get_many([key(0), key(1)])
    with pytest.raises(DocumentUnreadableError, match="things/t001"):
        await commit(store, Set(key(1), {}))
    assert [entry.key for entry in await store.query("things", [Where("n", "==", 0)])] == [key(0)]
