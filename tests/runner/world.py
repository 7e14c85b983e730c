"""A world for tests of runs: one store, one clock that moves by itself, engines that come and go, actions that record."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.lowlevel

from engine.artifacts.port import ABSENT, Stored
from engine.core import canonical, event
from engine.core.handler import ActionRequest
from engine.core.machine import Machine
from engine.core.snapshot import Snapshot, empty
from engine.core.step import step
from engine.core.write import Key
from engine.definition.compiler import compile_text
from engine.definition.yaml_text import parse
from engine.entry.application import Engine
from engine.errors import StoreUnavailableError
from engine.handlers.registry import Registry
from engine.runner.observer import Silent
from engine.store.memory import MemoryStore
from engine.testing.clock import SimulatedClock

LEASE_S = 60


class Blobs:
    """Artifacts in a dict; `trouble`, when set, is raised by `put_blob`."""

    def __init__(self) -> None:
        self.content: dict[str, bytes] = {}
        self.trouble: list[Exception] = []

    async def put_blob(self, content: bytes, *, content_type: str) -> str:
        await anyio.lowlevel.checkpoint()
        if self.trouble:
            raise self.trouble.pop(0)
        sha256 = hashlib.sha256(content).hexdigest()
        self.content[sha256] = content
        return sha256

    async def stat(self, name: str) -> Stored | None:
        return Stored(ABSENT, "", 0) if name in self.content else None

    async def close(self) -> None: ...


class Seam:
    """A store whose every `transact` may be interfered with; never closed by the engines that share it.

    `before` and `after` are called around each commit and may raise; what `before` raises keeps it from happening.
    """

    def __init__(self, store: MemoryStore) -> None:
        self.inner = store
        self.before: Callable[[Sequence[Key]], Awaitable[None]] | None = None
        self.after: Callable[[Sequence[Key]], Awaitable[None]] | None = None
        self.is_cut = False
        self.read_trouble: Callable[[], Exception | None] = lambda: None

    async def get_many(self, keys: Sequence[Key]) -> Any:
        self._read()
        return await self.inner.get_many(keys)

    async def query(self, *arguments: Any, **named: Any) -> Any:
        self._read()
        return await self.inner.query(*arguments, **named)

    def _read(self) -> None:
        if (trouble := self.read_trouble()) is not None:
            raise trouble

    async def transact(self, keys: Sequence[Key], decide: Any) -> Any:
        if self.is_cut:
            raise StoreUnavailableError("nothing of a dead process arrives")
        if self.before is not None:
            await self.before(keys)
        result = await self.inner.transact(keys, decide)
        if self.after is not None:
            await self.after(keys)
        return result

    async def close(self) -> None: ...


class Recording(Silent):
    """An observer that keeps the runner's troubles and what was remarked."""

    def __init__(self) -> None:
        self.troubles: list[tuple[str, dict[str, Any]]] = []
        self.remarks: list[str] = []

    def remarked(self, snapshot: Any, item_key: Any, remark: Any) -> None:
        self.remarks.append(remark.event)

    def trouble(self, event: str, severity: str, fields: Any) -> None:
        self.troubles.append((event, dict(fields)))

    def named(self, name: str) -> list[dict[str, Any]]:
        return [fields for event, fields in self.troubles if event == name]


class World:
    """See the module."""

    def __init__(self, disturb: Any = None) -> None:
        self.clock = SimulatedClock(automatic=True)
        self.memory = MemoryStore(self.clock.now_ms, disturb)
        self.store = Seam(self.memory)
        self.blobs = Blobs()
        self.registry = Registry(own=())
        self.observer = Recording()
        self.calls: list[ActionRequest] = []
        self.machines: dict[str, Machine] = {}

    def action(self, name: str, kind: str = "repeatable", **more: Any) -> Any:
        return self.registry.action(name, kind=kind, **more)

    def machine(self, text: str) -> Machine:
        """Compile a definition whose maps name machines compiled before."""
        found = compile_text(text, "inline.yaml", self.registry.declarations(), self.machines.get)
        assert [str(diagnostic) for diagnostic in found.diagnostics] == []
        assert found.machine is not None
        self.machines[found.machine.name] = found.machine
        return found.machine

    def states(self, states: str, name: str = "small", **more: Any) -> Machine:
        """A machine whose first state is its initial one."""
        written = parse(states, "inline.yaml").data
        return self.machine(
            canonical.encode({"machine": name, "initial": next(iter(written)), "states": written, **more})
        )

    @asynccontextmanager
    async def engine(self, worker: str = "w1", **more: Any) -> AsyncIterator[Engine]:
        """A new process over the same store: it knows no definition but those that it is given or finds there."""
        made = Engine(
            store=self.store, artifacts=self.blobs, actions=self.registry, clock=self.clock, observer=self.observer,
            worker=worker, lease_s=LEASE_S, **more,
        )  # fmt: skip
        async with made as app:
            yield app

    def documents(self, collection: str) -> dict[str, Any]:
        return {
            key.id: canonical.decode(text) for key, text in self.memory._texts.items() if key.collection == collection
        }

    def head(self, run_id: str) -> dict[str, Any]:
        return self.documents("runs")[run_id]

    def journal(self, run_id: str) -> list[dict[str, Any]]:
        rows = sorted(
            (entry for entry in self.documents("journal").values() if entry["run_id"] == run_id),
            key=lambda row: row["seq"],
        )
        return [{**row, "entry": canonical.decode(row["entry"])} for row in rows]

    def expect_sound(self) -> None:
        """Every run's journal has no gap, one commit for each seq, and gives the stored snapshot byte for byte."""
        for run_id, head in self.documents("runs").items():
            rows = self.journal(run_id)
            assert [row["seq"] for row in rows] == list(range(1, head["seq"] + 1))
            assert [row["fence"] for row in rows] == sorted(row["fence"] for row in rows)
            program = self._by_digest(head["digest"])
            snapshot = empty(run_id, program.name, program.version, program.digest, head["key"])
            for row in rows:
                snapshot = Snapshot.decode(step(program, snapshot, event.from_json(row["entry"])).snapshot.encode())
            assert snapshot.encode() == head["snapshot"]

    def _by_digest(self, digest: str) -> Machine:
        return next(machine for machine in self.machines.values() if machine.digest == digest)


class Stalling:
    """An action that stands still, to have its worker die there: `begun` is set when it is reached; `go_on` lets it go."""

    def __init__(self) -> None:
        self.begun = anyio.Event()
        self.go_on = anyio.Event()
        self.keys: list[str] = []
        self.is_stalling = True

    async def reach(self, request: ActionRequest) -> None:
        self.keys.append(request.idempotency_key)
        if self.is_stalling:
            self.begun.set()
            await self.go_on.wait()


async def dies_in(world: World, stalling: Stalling, work: Callable[[], Awaitable[Any]]) -> None:
    """Do `work` until its action is reached; then the process is gone, without a word to the store."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(work)
        await stalling.begun.wait()
        world.store.is_cut = True
        tasks.cancel_scope.cancel()
    world.store.is_cut = stalling.is_stalling = False
