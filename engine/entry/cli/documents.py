"""`detent documents get | put | list`: the store's documents, as JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import anyio
import click

from engine.core.write import Key
from engine.entry.assembly import expect_store
from engine.entry.cli import EXIT_FAILED
from engine.entry.cli.options import configuration, store_option
from engine.entry.loading import put as put_document
from engine.entry.loading import read_document
from engine.errors import InvalidRequestError
from engine.store import open_store
from engine.store.port import UNREADABLE, Store


@click.group("documents")
def command() -> None:
    """Read and write documents of the store, as JSON."""


def _key(name: str) -> Key:
    collection, slash, document_id = name.partition("/")
    if not slash:
        raise InvalidRequestError(f"{name!r} names no document.", remedy="Write COLLECTION/ID.")
    return Key.of(collection, document_id)


async def _opened(url: str | None, *, to_read: bool = True) -> Store:
    place = configuration(store=url).store
    if to_read:
        expect_store(place)
    return await open_store(place)


@command.command("get")
@click.argument("name", metavar="COLLECTION/ID")
@store_option
def get(name: str, store: str | None) -> None:
    """Print one document."""
    key = _key(name)

    async def read() -> Any:
        opened = await _opened(store)
        try:
            return (await opened.get_many([key]))[key]
        finally:
            await opened.close()

    document = anyio.run(read)
    if document is None:
        click.echo(f"There is no document {name}.", err=True)
        sys.exit(EXIT_FAILED)
    click.echo(json.dumps(document, ensure_ascii=False, indent=2))


@command.command("put")
@click.argument("name", metavar="COLLECTION/ID")
@click.argument("file", metavar="[FILE|-]", default="-")
@store_option
def put(name: str, file: str, store: str | None) -> None:
    """Write one document, from a file or standard input, over one that is there."""
    key = _key(name)
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequestError(f"{file} cannot be read: {error}.") from None
    document = read_document(text, "standard input" if file == "-" else file)

    async def write() -> None:
        opened = await _opened(store, to_read=False)
        try:
            await put_document(opened, key, document, replace=True)
        finally:
            await opened.close()

    anyio.run(write)


@command.command("list")
@click.argument("name", metavar="COLLECTION[/ID]")
@click.option("--limit", type=click.IntRange(1), default=1000, show_default=True)
@store_option
def list_(name: str, limit: int, store: str | None) -> None:
    """Print documents of a collection, one a line, as {"id": …, "document": …}."""
    collection, _, wanted = name.partition("/")
    Key.of(collection, wanted or "any")

    async def read() -> Any:
        opened = await _opened(store)
        try:
            return await opened.query(collection, limit=None if wanted else limit)
        finally:
            await opened.close()

    is_whole = True
    for key, document in anyio.run(read):
        if wanted and key.id != wanted:
            continue
        if document is UNREADABLE:
            is_whole = False
            click.echo(f"The document {key.collection}/{key.id} cannot be read: it is no JSON object.", err=True)
        else:
            click.echo(json.dumps({"id": key.id, "document": document}, ensure_ascii=False))
    if not is_whole:
        sys.exit(EXIT_FAILED)
