"""The pure half of the port: what a commit leaves, and the URLs that name a store."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import pytest

from engine.core.write import DELETE, Document, FieldPath, FieldValue, Key, Set, Update, Write
from engine.errors import ConfigurationError, InvalidRequestError
from engine.store import open_store
from engine.store.memory import MemoryStore
from engine.store.port import document_text, settle
from engine.store.sqlite import SqliteStore

A = Key("things", "a")


def left_by(write: Write, before: str | None) -> str | None:
    return settle({A: before}, [write])[A]


@pytest.mark.parametrize("before", ['{"keep":1}', '{"keep":1,"map":"text"}', '{"keep":1,"map":{}}'])
def test_removing_a_field_that_is_not_there_changes_nothing(before: str) -> None:
    assert left_by(Update(A, {("map", "inner", "leaf"): DELETE}), before) == before


def test_a_field_path_inside_another_of_the_same_update_is_a_bug() -> None:
    both: list[Mapping[FieldPath, FieldValue]] = [{("a",): 1, ("a", "b"): 2}, {("a", "b"): 2, ("a",): DELETE}]
    for fields in both:
        with pytest.raises(ValueError, match="inside another"):
            left_by(Update(A, fields), "{}")
    with pytest.raises(ValueError, match="at least one segment"):
        left_by(Update(A, {(): 1}), "{}")


def test_any_mapping_and_tuple_become_plain_json() -> None:
    empty: Document = MappingProxyType({})
    document: Document = MappingProxyType({"map": MappingProxyType({"list": (1, (2.0,), [empty])})})
    assert left_by(Set(A, document), None) == '{"map":{"list":[1,[2.0],[{}]]}}'


def test_what_is_no_json_is_named_by_its_path() -> None:
    with pytest.raises(ValueError, match=r"things/a\.map\.x"):
        document_text(A, {"map": {"x": b"bytes"}})


def test_a_document_too_long_names_itself_and_its_size() -> None:
    with pytest.raises(InvalidRequestError, match="things/a would be 1048577 bytes long"):
        document_text(A, {"f": "x" * (1024 * 1024 + 1 - len('{"f":""}'))})


@pytest.mark.anyio
async def test_each_url_opens_its_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert isinstance(await open_store("memory:"), MemoryStore)
    for url, path in (("sqlite:///relative.db", "relative.db"), (f"sqlite:///{tmp_path}/absolute.db", "absolute.db")):
        store = await open_store(url)
        assert isinstance(store, SqliteStore)
        await store.close()
        assert (tmp_path / path).exists()


@pytest.mark.anyio
@pytest.mark.parametrize("url", ["", "memory:x", "sqlite:", "sqlite:///", "sqlite://host/path", "mongo:///x"])
async def test_a_url_that_names_no_store_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        await open_store(url)
    assert raised.value.variable == "DETENT_STORE"
    assert raised.value.remedy
