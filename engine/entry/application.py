"""`Engine`: the concrete parts put together, for a program that runs machines in its own process.

async with engine.Engine(store="sqlite:///detent.db", artifacts="folder:out") as app:
    machine = app.load("machines/demo.yaml")
    result = await app.run(machine, {"n": 21}, run_id="demo-1")
"""

from __future__ import annotations

import copy
import math
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

import anyio

from engine.artifacts import open_artifacts
from engine.artifacts.port import Artifacts
from engine.core.action import Decision
from engine.core.bounds import (
    CONCURRENCY_MAX,
    DEFAULT_CONCURRENCY,
    DEFAULT_GRACE_S,
    DEFAULT_LEASE_S,
    GRACE_S_MAX,
    LEASE_S_MAX,
)
from engine.core.effect import Perform
from engine.core.handler import Handler
from engine.core.machine import Machine
from engine.core.secret import Secrets
from engine.core.snapshot import Snapshot, Status
from engine.core.write import Document, Key
from engine.definition import Catalogue
from engine.errors import InvalidRequestError
from engine.handlers.registry import ACTIONS, Registry
from engine.runner.clock import Clock, SystemClock
from engine.runner.driver import Driver
from engine.runner.observer import Observer, Shielded, Silent
from engine.runner.perform import Performer
from engine.runner.worker import Worker
from engine.runs import INDEXES, Definitions, FirstAction, Head, Runs, Started, Tenure, standing, start
from engine.store import open_store
from engine.store.port import Store

if TYPE_CHECKING:
    from engine.runs.deliver import Delivered

DEFAULT_STORE: Final = "sqlite:///.detent/detent.db"
DEFAULT_ARTIFACTS: Final = "folder:.detent/artifacts"
DEFAULT_BUCKET: Final = "local"
PATIENCE_S: Final = 60.0
"""How long a run is waited for when it waits for a timer."""


class RunResult(NamedTuple):
    """How a run stands when `run` comes back: ended, or waiting, or held by another worker.

    `status` is one of pending, running, waiting, succeeded, failed, cancelled; `is_unchanged` says that the
    run had ended before, or that there was nothing to do (then it was not even recorded); `held_by` names
    another worker that goes on with it.
    """

    run_id: str
    machine: str
    version: int
    state: str
    status: str
    output: Any
    error: Mapping[str, Any] | None
    steps: int
    duration_s: float
    is_unchanged: bool = False
    was_recorded: bool = True
    held_by: str | None = None
    waits_until_ms: int | None = None

    @property
    def is_final(self) -> bool:
        """Whether the run has ended."""
        return Status(self.status).is_final

    def to_json(self) -> dict[str, Any]:
        """The object that `--summary json` prints."""
        names = ("run_id", "machine", "version", "state", "status", "output", "error", "steps", "duration_s")
        return {name: getattr(self, name) for name in names}


class Engine:
    """See the module. Opened by `async with`; every verb needs it open.

    `store` and `artifacts` are URLs (docs/architecture.md) or objects that implement the ports; `services` are
    objects that handlers ask for by their type; `actions` defaults to what `engine.action` has registered.
    """

    def __init__(
        self,
        *,
        store: str | Store = DEFAULT_STORE,
        artifacts: str | Artifacts = DEFAULT_ARTIFACTS,
        bucket: str = DEFAULT_BUCKET,
        actions: Registry | Mapping[str, Handler] | None = None,
        services: Sequence[object] = (),
        secrets: Secrets | None = None,
        clock: Clock | None = None,
        observer: Observer | None = None,
        lease_s: float = DEFAULT_LEASE_S,
        concurrency: int = DEFAULT_CONCURRENCY,
        worker: str | None = None,
        catalogue: Catalogue | None = None,
    ) -> None:
        if isinstance(lease_s, bool) or not isinstance(lease_s, (int, float)) or not 0 < lease_s <= LEASE_S_MAX:
            raise InvalidRequestError(f"lease_s must be a number of seconds up to {LEASE_S_MAX}, not {lease_s!r}.")
        is_integer = isinstance(concurrency, int) and not isinstance(concurrency, bool)
        if not is_integer or not 1 <= concurrency <= CONCURRENCY_MAX:
            raise InvalidRequestError(
                f"concurrency must be an integer from 1 to {CONCURRENCY_MAX}, not {concurrency!r}."
            )
        self.secrets = secrets if secrets is not None else Secrets()
        self.clock: Clock = clock or SystemClock()
        self.worker_name = worker or f"{socket.gethostname()}-{os.getpid()}-{os.urandom(3).hex()}"
        self._store_at = store
        self._artifacts_at = artifacts
        self._bucket = bucket
        self._handlers: Mapping[str, Handler] = ACTIONS if actions is None else actions
        self._services = services
        self._observer: Observer = Silent() if observer is None else Shielded(observer)
        self._lease_s = lease_s
        self._concurrency = concurrency
        self._until_ms: int | None = None
        self.catalogue = catalogue or Catalogue(_Declarations(self._handlers))

    async def __aenter__(self) -> Self:
        self.store = await self._opened_store()
        self.artifacts = self._opened_artifacts()
        services: dict[type[Any], Any] = {type(service): service for service in self._services}
        services |= {Store: self.store, Artifacts: self.artifacts, Secrets: self.secrets}
        self.performer = Performer(self._handlers, services, self.artifacts, self.clock, self._observer)
        self._definitions = Definitions(self.store, self.catalogue)
        self._put_together()
        return self

    @property
    def time_left_s(self) -> float:
        """Seconds until this worker's time is over; infinite without a limit, and never below 0."""
        return math.inf if self._until_ms is None else max(self._until_ms - self.clock.now_ms(), 0) / 1000

    def _put_together(self) -> None:
        self._serve_under(goes_on=True)
        self.runs = Runs(self.store, self._definitions, self.performer.kind_of, self._tenure, self.secrets)
        self._driver = Driver(self.runs, self.performer, self.clock, self._observer, self._lease_s)
        self.worker = Worker(self.runs, self._driver, self.clock, self._observer, self._concurrency)

    def within(self, budget_s: float) -> Engine:
        """This open engine as one more worker, whose time is over in `budget_s` seconds.

        An action that could last longer than that is not begun: its run is left at rest, for whoever comes next. The
        new one shares everything else, and needs no closing.
        """
        bounded = copy.copy(self)
        bounded._until_ms = self.clock.now_ms() + round(budget_s * 1000)
        bounded.worker_name = f"{self.worker_name}-{os.urandom(2).hex()}"
        bounded._put_together()
        return bounded

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # What was given open is its giver's to close.
        if isinstance(self._artifacts_at, str):
            await self.artifacts.close()
        if isinstance(self._store_at, str):
            await self.store.close()

    async def _opened_store(self) -> Store:
        if isinstance(self._store_at, str):
            return await open_store(self._store_at, indexes=INDEXES, now_ms=self.clock.now_ms)
        return self._store_at

    def _opened_artifacts(self) -> Artifacts:
        if isinstance(self._artifacts_at, str):
            return open_artifacts(self._artifacts_at, self._bucket, self.secrets)
        return self._artifacts_at

    def _tenure(self) -> Tenure:
        return self._present_tenure

    def _serve_under(self, *, goes_on: bool) -> None:
        lease_ms = round(self._lease_s * 1000)
        self._present_tenure = Tenure(self.worker_name, lease_ms, goes_on, self._until_ms, self.performer.longest_s)

    # Verbs

    def load(self, path: str | Path) -> Machine:
        """Compile a definition with its children. Raises `DefinitionError` with every diagnostic."""
        return self.catalogue.load(path)

    async def run(
        self,
        machine: Machine,
        input: Any,
        *,
        run_id: str | None = None,
        patience_s: float = PATIENCE_S,
    ) -> RunResult:
        """Start a run, or join the one of the same id or key, and drive it as far as this process can.

        Raises `InvalidRequestError` for an input that the machine does not take.
        """
        began_ms = self.clock.now_ms()
        started = await self._started(machine, input, run_id, began_ms, goes_on=True)
        if started.committed is None and started.existing is None:
            return self._declined(machine, started, began_ms)
        return await self._finish(started, began_ms, patience_s)

    async def _started(
        self, machine: Machine, input: Any, run_id: str | None, began_ms: int, *, goes_on: bool
    ) -> Started:
        self.catalogue.add(machine)
        if machine.key is None and run_id is None:
            run_id = f"{machine.name}-{began_ms}-{os.urandom(3).hex()}"
        runs = self.runs if goes_on else self._runs_under(lambda: self._tenure()._replace(goes_on=False))
        return await start(runs, machine, input, run_id, self._first_action(machine), began_ms)

    def _declined(self, machine: Machine, started: Started, began_ms: int) -> RunResult:
        self._observer.declined(machine, started.snapshot, started.taken)
        for remark in started.remarks:
            self._observer.remarked(started.snapshot, None, remark)
        return self._result(started.snapshot, began_ms, is_unchanged=True, was_recorded=False)

    def _runs_under(self, tenure: Callable[[], Tenure]) -> Runs:
        return Runs(self.store, self.runs.definitions, self.performer.kind_of, tenure, self.secrets)

    async def resume(self, run_id: str, *, patience_s: float = PATIENCE_S) -> RunResult:
        """Take a run that is due or abandoned and drive it. Raises `InvalidRequestError` for an unknown one."""
        began_ms = self.clock.now_ms()
        head = await self.runs.get(run_id)
        if head is None:
            raise InvalidRequestError(f"there is no run {run_id!r}.", remedy="See `detent runs list`.")
        return await self._finish(Started(head.snapshot, existing=head), began_ms, patience_s)

    async def _finish(self, started: Started, began_ms: int, patience_s: float) -> RunResult:
        committed, existing = started.committed, started.existing
        if existing is not None and existing.has_ended:
            return self._result(existing.snapshot, began_ms, is_unchanged=True)
        if committed is not None:
            await self._driver.begun(committed)
            if committed.head.is_final:
                return self._result(committed.head.snapshot, began_ms)
        if existing is not None:
            holder = await self.runs.holder_of(existing.root, began_ms)
            if holder is not None and holder != self.worker_name:
                return self._result(existing.snapshot, began_ms, head=existing._replace(worker=holder))
        run_id = started.snapshot.run_id
        waited = await self.worker.finish(run_id, committed, patience_s)
        return self._result(waited.head.snapshot, began_ms, head=waited.head)

    async def start(self, machine: Machine, input: Any, *, run_id: str | None = None) -> RunResult:
        """Record a run, or find the one of the same id or key, and leave it to workers. Raises as `run` does.

        Of a machine with a key the first transactional action is part of it; whatever comes after is a worker's.
        """
        began_ms = self.clock.now_ms()
        started = await self._started(machine, input, run_id, began_ms, goes_on=False)
        if started.committed is not None:
            await self._driver.begun(started.committed)
            return self._result(started.snapshot, began_ms, head=started.committed.head)
        if started.existing is not None:
            return self._result(started.snapshot, began_ms, head=started.existing, is_unchanged=True)
        return self._declined(machine, started, began_ms)

    async def signal(self, run_id: str, name: str, value: Any = None, *, signal_id: str | None = None) -> Delivered:
        """Send a signal, once for each `signal_id` (a new one when it is left out). Drives nothing.

        Raises `InvalidRequestError` and `IllegalEventError` as `engine.runs.signal` does.
        """
        from engine.runs.deliver import signal  # here, as in the verbs below: most programs only run machines

        chosen = f"signal-{os.urandom(8).hex()}" if signal_id is None else signal_id
        return await signal(self.runs, run_id, name, value, chosen)

    async def cancel(self, run_id: str, reason: str = "") -> Delivered:
        """Ask that a run end. Drives nothing; a call under way is awaited by whoever makes it.

        Raises `InvalidRequestError` for an unknown run, `IllegalEventError` for one that takes no cancel any more.
        """
        from engine.runs.deliver import cancel

        return await cancel(self.runs, run_id, reason)

    async def redrive(
        self, run_id: str, *, from_state: str | None = None, patience_s: float | None = PATIENCE_S
    ) -> RunResult:
        """Start a failed or cancelled run again from the state that failed, and drive it; `None` leaves it to workers.

        Raises `InvalidRequestError` and `IllegalEventError` as `engine.runs.redrive` does; nothing has changed then.
        """
        from engine.runs.redrive import redrive

        began_ms = self.clock.now_ms()
        runs = self._runs_under(lambda: self._tenure()._replace(goes_on=patience_s is not None))
        committed = await redrive(runs, run_id, self._first_action, from_state)
        await self._driver.begun(committed)
        if patience_s is None or committed.head.has_ended:
            return self._result(committed.head.snapshot, began_ms, head=committed.head)
        waited = await self.worker.finish(run_id, committed, patience_s)
        return self._result(waited.head.snapshot, began_ms, head=waited.head)

    async def work(self, stop: anyio.Event, grace_s: float = DEFAULT_GRACE_S, hurry: anyio.Event | None = None) -> int:
        """Drive whatever is due or abandoned until `stop` is set; answers how often a run was taken.

        Then nothing new is begun. What is under way has `grace_s` seconds to finish, or until `hurry` is set, and the
        rest is let go of.
        """
        from engine.runner.serving import serve

        if isinstance(grace_s, bool) or not isinstance(grace_s, (int, float)) or not 0 <= grace_s <= GRACE_S_MAX:
            raise InvalidRequestError(f"grace_s must be a number of seconds from 0 to {GRACE_S_MAX}, not {grace_s!r}.")

        begin_nothing = partial(self._serve_under, goes_on=False)
        try:
            return await serve(
                self.worker, self.clock, self._observer, stop, grace_s, hurry or anyio.Event(), begin_nothing
            )
        finally:
            self._serve_under(goes_on=True)

    async def work_once(self, patience_s: float = PATIENCE_S) -> int:
        """Drive everything in the store that is due or abandoned; answers how many runs that were."""
        return await self.worker.drain(patience_s)

    async def standing(self, machine: Machine, input: Any, known: Mapping[Key, Document | None]) -> Head | None:
        """The unfinished run that `run` would join, for a machine with a key. Reads only; `known` was just read."""
        return await standing(self.runs, machine, input, self._first_action(machine), known, self.clock.now_ms())

    def _first_action(self, machine: Machine) -> FirstAction:
        def keys(effect: Perform, snapshot: Snapshot) -> Sequence[Key]:
            return self.performer.keys(machine, effect, snapshot, None)

        def decide(
            effect: Perform, snapshot: Snapshot, documents: Mapping[Key, Document | None], now_ms: int
        ) -> Decision:
            return self.performer.decide(machine, effect, snapshot, None, documents, now_ms)

        return FirstAction(keys, decide)

    def _result(
        self,
        snapshot: Snapshot,
        began_ms: int,
        *,
        head: Head | None = None,
        is_unchanged: bool = False,
        was_recorded: bool = True,
    ) -> RunResult:
        error = snapshot.error
        return RunResult(
            snapshot.run_id,
            snapshot.machine,
            snapshot.version,
            snapshot.state,
            snapshot.status.value,
            snapshot.output,
            error,
            snapshot.seq,
            round((self.clock.now_ms() - began_ms) / 1000, 3),
            is_unchanged,
            was_recorded,
            None if head is None else head.worker,
            None if head is None else head.claimable_at_ms,
        )


class _Declarations(Mapping[str, Any]):
    """What the compiler sees of the handlers; looked up one by one, so unused modules stay unloaded."""

    def __init__(self, handlers: Mapping[str, Handler]) -> None:
        self._handlers = handlers

    def __getitem__(self, name: str) -> Any:
        return self._handlers[name].declaration

    def __iter__(self) -> Any:
        return iter(self._handlers)

    def __len__(self) -> int:
        return len(self._handlers)


__all__ = ["Engine", "RunResult"]
