"""The file itself: what it survives, what it is refused for, and how its queries are served."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import apsw
import pytest

import engine
from engine.core.write import Create, Key, Set
from engine.errors import ConfigurationError
from engine.store import open_store
from engine.store.port import Found, Index, Order, Where, select
from engine.store.sqlite import SqliteStore
from engine.store.sqlite_file import SCHEMA_VERSION
from engine.store.sqlite_query import query_statements
from engine.testing.store_check import commit
from engine.testing.store_contract_queries import OPERATORS

pytestmark = pytest.mark.anyio

ROOT = Path(engine.__file__).parent.parent

COMMITTER = """
import sys, anyio
from engine.core.write import Create, Key, Set
from engine.store.sqlite import SqliteStore

async def main(path, name, count):
    store = await SqliteStore.open(path)
    total = Key("totals", "all")
    for number in range(count):
        entry = Key("journal", f"{name}:{number}")
        def decide(documents, now_ms):
            return [Set(total, {"n": (documents[total] or {"n": 0})["n"] + 1}), Create(entry, {"n": number})], None
        await store.transact([total, entry], decide)
        print(number, flush=True)
    await store.close()

anyio.run(main, sys.argv[1], sys.argv[2], int(sys.argv[3]))
"""


def start_committer(path: Path, name: str, count: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", COMMITTER, str(path), name, str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)


async def test_documents_are_there_after_opening_again(tmp_path: Path) -> None:
    path, key = tmp_path / "new" / "folders" / "store.db", Key("things", "a")
    store = await SqliteStore.open(path)
    await commit(store, Create(key, {"int": 1, "real": 1.0}))
    await store.close()
    again = await open_store(f"sqlite:///{path}")
    document = (await again.get_many([key]))[key]
    await again.close()
    assert repr(document) == "{'int': 1, 'real': 1.0}"


async def test_a_killed_process_loses_no_commit_that_it_was_told_of(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with start_committer(path, "killed", 1_000_000) as process:
        assert process.stdout is not None
        for _ in range(200):
            acknowledged = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
        later = [int(line) for line in process.stdout.read().splitlines() if line]
    acknowledged = max([acknowledged, *later])

    store = await SqliteStore.open(path)
    entries = await store.query("journal", (), [Order("n")])
    (total,) = await store.query("totals")
    await store.close()
    assert [entry.document["n"] for entry in entries] == list(range(len(entries)))
    assert total.document == {"n": len(entries)}
    assert len(entries) in (acknowledged + 1, acknowledged + 2)
    assert apsw.Connection(str(path)).execute("PRAGMA integrity_check").get == "ok"


async def test_four_processes_share_a_file_and_lose_no_commit(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    processes = [start_committer(path, name, 100) for name in "abcd"]
    for process in processes:
        process.communicate()
    assert [process.returncode for process in processes] == [0, 0, 0, 0]
    store = await SqliteStore.open(path)
    (total,) = await store.query("totals")
    assert total.document == {"n": 400}
    assert len(await store.query("journal")) == 400
    await store.close()


def folder_in_the_way(path: Path) -> None:
    path.mkdir()


def file_in_place_of_the_folder(path: Path) -> None:
    path.parent.rmdir()
    path.parent.write_text("no folder")


def text_file(path: Path) -> None:
    path.write_text("this is no database, and it is longer than a header of one would be" * 20)


def another_program(path: Path) -> None:
    connection = apsw.Connection(str(path))
    connection.execute("CREATE TABLE theirs (x)")
    connection.close()


@pytest.mark.parametrize("problem", [folder_in_the_way, file_in_place_of_the_folder, text_file, another_program])
async def test_a_place_that_cannot_be_a_store_is_refused_at_open(tmp_path: Path, problem: object) -> None:
    path = tmp_path / "folder" / "store.db"
    path.parent.mkdir()
    assert callable(problem)
    problem(path)
    with pytest.raises(ConfigurationError) as raised:
        await SqliteStore.open(path)
    assert raised.value.variable == "DETENT_STORE"
    assert str(path) in str(raised.value)
    assert raised.value.remedy


async def test_a_file_of_a_newer_release_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    store = await SqliteStore.open(path)
    await store.close()
    with apsw.Connection(str(path)) as connection:
        connection.pragma("user_version", SCHEMA_VERSION + 1)
    with pytest.raises(ConfigurationError, match="newer release"):
        await SqliteStore.open(path)
    assert apsw.Connection(str(path)).pragma("user_version") == SCHEMA_VERSION + 1


RUNS = Index("runs", ("status", "due_at_ms"))
LATEST = Index("runs", ("started_at_ms",))
WAITING, DUE, LATER = Where("status", "==", "waiting"), Where("due_at_ms", "<=", 5), Where("due_at_ms", ">", 5)

PLANS = {
    "equal": ([WAITING], [], RUNS),
    "due": ([WAITING, DUE], [Order("due_at_ms")], RUNS),
    "later": ([WAITING, LATER], [Order("due_at_ms")], RUNS),
    "ordered": ([WAITING], [Order("due_at_ms")], RUNS),
    "descending": ([WAITING], [Order("due_at_ms", descending=True)], RUNS),
    "latest": ([], [Order("started_at_ms", descending=True)], LATEST),
}


@pytest.mark.parametrize(("where", "order_by", "index"), PLANS.values(), ids=PLANS.keys())
async def test_a_query_with_an_index_neither_scans_nor_sorts_everything(
    tmp_path: Path, where: Sequence[Where], order_by: Sequence[Order], index: Index
) -> None:
    store = await SqliteStore.open(tmp_path / "store.db", indexes=[RUNS, LATEST])
    connection = apsw.Connection(str(tmp_path / "store.db"))
    for sql, values in query_statements("runs", where, order_by, ("due_at_ms", "started_at_ms", "status")):
        plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}", values)]
        assert plan[0].startswith(f"SEARCH document USING INDEX runs({','.join(index.fields)}) ")
        assert not order_by or "USE TEMP B-TREE FOR ORDER BY" not in plan or "IS NULL" in sql
    connection.close()
    await store.close()


async def test_an_index_can_be_added_to_a_file_that_has_documents(tmp_path: Path) -> None:
    key = Key("runs", "a")
    store = await SqliteStore.open(tmp_path / "store.db")
    await commit(store, Set(key, {"status": "waiting", "due_at_ms": 2**62}))
    await store.close()
    for _ in range(2):
        store = await SqliteStore.open(tmp_path / "store.db", indexes=[RUNS, Index("it's", ('a"b', "c'd"))])
        assert [found.key for found in await store.query("runs", [Where("status", "==", "waiting")])] == [key]
        await store.close()


@pytest.mark.parametrize("value", [2**63, -(2**63) - 1, 10**400])
async def test_an_integer_beyond_64_bits_is_refused_as_every_store_must(tmp_path: Path, value: int) -> None:
    """Firestore holds no larger one, so what runs on a laptop must not either."""
    store = await SqliteStore.open(tmp_path / "store.db", indexes=[Index("big", ("n",))])
    with pytest.raises(ValueError, match="more than 63 bits"):
        await commit(store, Create(Key("big", "a"), {"n": value}))
    await store.close()


HARD_VALUES: tuple[int | float | str, ...] = (-(2**63), 2**63 - 1, 2**63 - 2, 9.3e18, -9.3e18, 1.5, True, "9")


async def test_integers_that_a_float_cannot_hold_are_compared_exactly(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "store.db", indexes=[Index("big", ("n",))])
    found = [Found(Key("big", f"{number:02}"), {"n": value}) for number, value in enumerate(HARD_VALUES)]
    await commit(store, *(Create(*entry) for entry in found))
    for value in (*HARD_VALUES, 2**63, 10**400):
        for operator in OPERATORS:
            where = [Where("n", operator, value)]
            assert await store.query("big", where) == select(found, where, (), None), where
    assert len(await store.query("big", (), [Order("n")])) == len(found)
    await store.close()


async def test_a_field_name_that_a_json_path_cannot_hold_is_compared_in_python(tmp_path: Path) -> None:
    names = ('a"b', "a\\b", "'", "", "a\nb", "$", "[0]", "a.b", '"')
    store = await SqliteStore.open(tmp_path / "store.db")
    found = [Found(Key("odd", str(n)), dict.fromkeys(names[: n + 1], -n)) for n in range(len(names))]
    await commit(store, *(Create(*entry) for entry in found))
    for name in names:
        where, order = [Where(name, "<", -2)], [Order(name)]
        assert await store.query("odd", where, order, 3) == select(found, where, order, 3), name
    await store.close()
