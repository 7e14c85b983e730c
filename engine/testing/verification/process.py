"""One process image: an `Engine` over ports of its own, with nothing remembered of any process before it.

It ends by itself, by a crash (nothing of it reaches the world any more), or told to stop. A fake service makes its
calls through `call`, so that they are effects with crash points, counted and held against the ledger.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import anyio

from engine.core.handler import ActionRequest, Handler
from engine.core.secret import Secrets
from engine.entry.application import Engine
from engine.errors import StoreError
from engine.testing.verification import trace
from engine.testing.verification.ports import (
    PERFORMING,
    Crash,
    ProcessActions,
    ProcessArtifacts,
    ProcessClock,
    ProcessStore,
    item,
)
from engine.testing.verification.schedule import AFTER, BEFORE
from engine.testing.verification.world import Problem

if TYPE_CHECKING:
    from engine.testing.verification.universe import Universe

Result = TypeVar("Result")


class Call(NamedTuple):
    """A paid call that reached the outside service: its effect's number, its run, the unit's pool and account.

    `happened` counts what has happened in the schedule, commits included, when it arrived.
    """

    effect: int
    happened: int
    run_id: str | None
    name: str
    pool: str | None
    account: str | None


class Performance(NamedTuple):
    """An action that was performed: by which effect, and under which key and attempt."""

    effect: int
    run_id: str
    action: str
    kind: str
    idempotency_key: str
    attempt: int


class Process:
    """See the module. `name` is its worker's; `offset_ms` what its clock is off by."""

    def __init__(self, universe: Universe, name: str) -> None:
        self.universe = universe
        self.name = name
        self.offset_ms = 0
        self.clock = ProcessClock(self)
        self.is_alive = True
        self.effects = 0
        self.has_ended = asyncio.Event()
        self.moved = asyncio.Event()
        self.when_thawed: list[Callable[[], None]] = []
        self._gate: asyncio.Event | None = None
        self._scope: anyio.CancelScope | None = None

    # Its life

    async def live(self, verb: Callable[[Engine], Awaitable[Any]], answered: Callable[[], None]) -> None:
        """Do one verb of an engine, and end."""
        setting = self.universe.setting
        secrets = Secrets()
        try:
            async with Engine(
                store=ProcessStore(self),
                artifacts=ProcessArtifacts(self),
                actions=ProcessActions(self, setting.handlers),
                services=setting.world.services(self, secrets, self.universe.memory),
                secrets=secrets,
                clock=self.clock,
                lease_s=setting.world.lease_s,
                worker=self.name,
                catalogue=setting.catalogue,
            ) as app:
                with anyio.CancelScope() as self._scope:
                    await verb(app)
                    answered()
        except asyncio.CancelledError:
            raise
        except StoreError:
            pass  # it says that it could not; whoever gave it the work gives it again
        except BaseException as error:
            if isinstance(error, (KeyboardInterrupt, SystemExit)):
                raise
            if self.is_alive:
                self.universe.problems.append(Problem("engine-raised", f"{self.name}: {_told(error)}"))
        finally:
            self.is_alive = False
            self.thaw()
            self.has_ended.set()
            self.universe.ended(self)

    def die(self) -> None:
        """From now on nothing of this process reaches the world."""
        self.is_alive = False
        self.thaw()

    def stop(self) -> None:
        """What SIGTERM does: the work is cancelled, and let go of."""
        if self._scope is not None:
            self._scope.cancel()

    def freeze(self) -> None:
        """Stand still at the next port."""
        self._gate = self._gate or asyncio.Event()

    def thaw(self) -> None:
        """Go on."""
        gate, self._gate = self._gate, None
        if gate is not None:
            gate.set()
        waiting, self.when_thawed = self.when_thawed, []
        for callback in waiting:
            callback()

    async def past(self, effects: int) -> None:
        """Wait until it has had so many effects, or has ended; 0 waits for its end."""
        while not self.has_ended.is_set() and (effects == 0 or self.effects < effects):
            self.moved.clear()
            moved = asyncio.ensure_future(self.moved.wait())
            ended = asyncio.ensure_future(self.has_ended.wait())
            await asyncio.wait((moved, ended), return_when=asyncio.FIRST_COMPLETED)
            moved.cancel()
            ended.cancel()

    @property
    def is_frozen(self) -> bool:
        """Whether it stands still."""
        return self._gate is not None

    async def go(self) -> None:
        """Pass a port. Raises `Crash` when the process is dead."""
        while self._gate is not None:
            with anyio.CancelScope(shield=True):
                await self._gate.wait()
        if not self.is_alive:
            raise Crash

    # Its effects

    @property
    def performing(self) -> ActionRequest:
        """The action that the present task performs. Raises `LookupError` outside of one."""
        request = PERFORMING.get()
        if request is None:
            raise LookupError("no action is being performed here")
        return request

    async def effect(self, kind: str, name: str, apply: Callable[[], Awaitable[Result]]) -> Result:
        """Do something to the world, with a crash point before and after it."""
        return await self._effect(self._began(kind, name), apply)

    async def call(
        self,
        name: str,
        answer: Callable[[], Awaitable[Result]],
        *,
        pool: str | None = None,
        account: str | None = None,
    ) -> Result:
        """Make one paid call of a fake service: it is counted when it arrives, whatever `answer` then says.

        With `pool` and `account` it must be covered by a unit of the ledger.
        """
        effect = self._began(trace.CALL, name + item())
        await self._met(effect, BEFORE)
        self.universe.calls.append(Call(effect.number, self.universe.happen(), effect.run_id, name, pool, account))
        effect.is_done = True
        result = await answer()
        await self._met(effect, AFTER)
        return result

    async def perform(self, handler: Handler, request: ActionRequest, apply: Callable[[], Awaitable[Result]]) -> Result:
        """Perform an action."""
        declaration = handler.declaration
        name = f"{request.machine} {request.state} performs {declaration.name}{item()}"
        effect = self._began(trace.ACTION, name)
        await self._met(effect, BEFORE)
        key, attempt = request.idempotency_key, request.attempt
        performance = Performance(effect.number, request.run_id, declaration.name, declaration.kind.value, key, attempt)
        self.universe.performances.append(performance)
        effect.is_done = True
        result = await apply()
        await self._met(effect, AFTER)
        return result

    async def _effect(self, effect: trace.Effect, apply: Callable[[], Awaitable[Result]]) -> Result:
        await self._met(effect, BEFORE)
        result = await apply()
        effect.is_done = True
        await self._met(effect, AFTER)
        return result

    def _began(self, kind: str, name: str) -> trace.Effect:
        request = PERFORMING.get()
        return self.universe.began(self, kind, name, None if request is None else request.run_id)

    async def _met(self, effect: trace.Effect, point: str) -> None:
        await self.go()
        await self.universe.meet(self, effect, point)
        await self.go()


def _told(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"
