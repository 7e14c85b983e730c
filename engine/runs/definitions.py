"""Definitions by digest: each run goes on with the definition that it began with, whatever the file says now."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Protocol

from engine.core import canonical
from engine.core.canonical import Json
from engine.core.machine import Machine
from engine.core.secret import Secrets
from engine.core.snapshot import Snapshot
from engine.core.write import Check, Create
from engine.errors import InvalidRequestError
from engine.runs.reading import MALFORMED, unreadable, unreadable_head
from engine.runs.records import definition_key
from engine.runs.transaction import Transactions
from engine.store.port import Store


class Compiler(Protocol):
    """What rebuilds a machine from its stored definition: `engine.definition.Catalogue`."""

    def get(self, digest: str) -> Machine | None: ...

    def rebuild(self, source: Mapping[str, Any], children: Mapping[str, Machine], file: str) -> Machine: ...


class Definitions:
    """The definitions of one store, with those this process knows at hand."""

    def __init__(self, store: Store, compiler: Compiler) -> None:
        self._store = store
        self._transactions = Transactions(store)
        self._compiler = compiler
        self._stored: dict[str, int] = {}  # the secrets that were known when a definition was looked at

    async def keep(self, machine: Machine, secrets: Secrets) -> None:
        """Make sure that a machine and its children are stored; writes each digest once for each process.

        Raises `SecretLeakError` for a definition that holds one of `secrets`, also one that was registered since.
        """
        if self._stored.get(machine.digest) == len(secrets):
            return
        secrets.refuse(canonical.encode(machine.source), sink="a definition")
        for child in machine.children.values():
            await self.keep(child, secrets)
        key = definition_key(machine.digest)
        document: dict[str, Json] = {
            "name": machine.name,
            "version": machine.version,
            "file": machine.file.replace("\\", "/").rpartition("/")[2],
            # In the order of the text, not sorted: pictures and lists of states follow it.
            "source": json.dumps(machine.source, ensure_ascii=False, allow_nan=False),
            "children": {name: child.digest for name, child in machine.children.items()},
        }
        await self._transactions.transact(
            [key],
            lambda found, now_ms, token: ([Check(key) if found[key] is not None else Create(key, document)], None),
        )
        self._stored[machine.digest] = len(secrets)

    async def of(self, snapshot: Snapshot) -> Machine:
        """The machine that a run began with. Raises as `machine`, and for a run in a state that it does not have."""
        machine = await self.machine(snapshot.digest)
        if snapshot.state and snapshot.state not in machine.states:
            raise unreadable_head(snapshot.run_id, f"snapshot.state is no state of {machine.name}")
        return machine

    async def machine(self, digest: str) -> Machine:
        """The machine with a digest.

        Raises `InvalidRequestError` when the store does not hold it, `DocumentUnreadableError` when what it holds is
        no definition.
        """
        known = self._compiler.get(digest)
        if known is not None:
            return known
        key = definition_key(digest)
        document: Any = (await self._store.get_many([key]))[key]
        if document is None:
            raise InvalidRequestError(
                f"the definition {digest[:12]} is not in the store.",
                remedy="A run needs the definition that it began with; restore the collection `definitions`.",
            )
        try:
            children = {name: await self.machine(inner) for name, inner in document["children"].items()}
            source: Any = canonical.decode(document["source"])
            machine = self._compiler.rebuild(source, children, document["file"])
        except MALFORMED as error:
            raise unreadable(key, document, (), error) from error
        if machine.digest != digest:
            raise InvalidRequestError(
                f"the definition {digest[:12]} in the store is not the one that its runs began with.",
                remedy="Restore the collection `definitions`.",
            )
        return machine
