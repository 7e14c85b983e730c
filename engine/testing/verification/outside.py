"""What comes to runs from outside: cancels, signals and redrives, each sent by a process of its own.

A sender's commit is an effect like any other, so it can be crossed with crashes. Every run that waits for a signal that
was given is sent it; a schedule's moves send besides. What came into an inbox, and how the run stood then, is kept for
the rules (`asked.py`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

import anyio

from engine.core.snapshot import Snapshot
from engine.core.write import Document, Key, Set, Write
from engine.entry.application import Engine
from engine.errors import IllegalEventError
from engine.runs.inbox import is_taken_by
from engine.runs.records import RUNS, Signal, rest_of
from engine.testing.verification import trace
from engine.testing.verification.ending import family
from engine.testing.verification.schedule import Move
from engine.testing.verification.world import Problem

if TYPE_CHECKING:
    from engine.testing.verification.process import Process
    from engine.testing.verification.setting import Address
    from engine.testing.verification.universe import Universe

REASON = "the schedule says so"
PATIENCE_S = 5.0
"""How long one who redrives waits for timers."""


class Accepted(NamedTuple):
    """A message that came into a run's inbox; `signal_id` is empty for a cancel.

    `seq` is the last step that the run had taken, `is_held` whether a worker held it or had begun its action,
    `is_asked` whether the schedule or its given signals asked for it, and not the end of a map; `effect` brought it.
    """

    run_id: str
    signal_id: str
    seq: int
    is_held: bool
    is_asked: bool
    effect: int


class Refused(NamedTuple):
    """A redrive that was refused; `is_ready`: of a run that failed or was cancelled, with nothing of it under way."""

    run_id: str
    is_ready: bool
    message: str


class Outside:
    """See the module. `sent` says to whom each given signal went."""

    def __init__(self, universe: Universe) -> None:
        self._universe = universe
        self._machines = {machine.digest: machine for machine in family(universe.setting.machine)}
        self._begun: list[str] = []
        self._taken: dict[str, set[str]] = {}
        self._cancelled: set[str] = set()
        self._redriven: dict[str, int] = {}
        self._senders: set[Process] = set()
        self._answered: set[str] = set()
        self._sending: dict[str, Process] = {}
        self.accepted: list[Accepted] = []
        self.redrives: list[Refused] = []
        self.sent: dict[int, Address] = {}

    # What a schedule asks for

    async def come(self, process: Process, move: Move) -> None:
        """A move's message comes, while the process that it befalls stands still: just there, and nowhere else."""
        run_id = self._addressed(move)
        if run_id is None:
            return
        process.freeze()
        with anyio.CancelScope(shield=True):
            match move.verb:
                case "cancel":
                    await self._cancel(run_id).past(0)
                case "signal":
                    await self._signal(run_id, move.number or 1, _id(move.number or 1)).past(0)
                case "redrive":
                    await (await self._redrive(run_id)).past(1)
        process.thaw()

    def _addressed(self, move: Move) -> str | None:
        """The run that a move is for; `None` while it has not begun."""
        number = move.number or 1
        if move.verb != "signal":
            place = number if move.verb == "cancel" else 1
            return self._begun[place - 1] if place <= len(self._begun) else None
        arrived = {accepted.signal_id for accepted in self.accepted}
        if number > len(self._universe.setting.signals) or any(_id(n) not in arrived for n in range(1, number)):
            return None  # signals keep their order: in another they would mean something else
        address = self._universe.setting.addresses.get(number)
        runs = [run_id for run_id in self._begun if address in (None, self._address(self._universe.head(run_id)))]
        return runs[-1] if runs else None

    def _cancel(self, run_id: str) -> Process:
        async def cancel(app: Engine) -> None:
            with suppress(IllegalEventError):  # it has ended, or is on the way of a cancel: that is an answer
                await app.cancel(run_id, REASON)

        return self._sender(cancel)

    def _signal(self, run_id: str, number: int, signal_id: str, answered: Callable[[], None] = lambda: None) -> Process:
        given = self._universe.setting.signals[number - 1]

        async def send(app: Engine) -> None:
            with suppress(IllegalEventError):  # it has ended, say: that is an answer
                await app.signal(run_id, given.name, given.value, signal_id=signal_id)

        return self._sender(send, answered)

    async def _redrive(self, run_id: str) -> Process:
        universe = self._universe
        head = universe.head(run_id)
        family = [one for one in universe.heads() if one["root"] == head["root"]]
        is_ready = head["status"] in ("failed", "cancelled") and all(map(trace.has_ended, family))
        if is_ready:
            writes = list(universe.setting.world.before_redrive(universe.documents(), run_id))
            await universe.store.transact([write.key for write in writes], lambda found, now_ms: (writes, None))

        async def redrive(app: Engine) -> None:
            try:
                await app.redrive(run_id, patience_s=PATIENCE_S)
            except IllegalEventError as error:
                self.redrives.append(Refused(run_id, is_ready, error.message))

        return self._sender(redrive)

    def _sender(
        self, verb: Callable[[Engine], Awaitable[None]], answered: Callable[[], None] = lambda: None
    ) -> Process:
        process = self._universe.spawn(verb, answered)
        self._senders.add(process)
        return process

    # Signals that were given

    def offer(self) -> bool:
        """Send every waiting run the next signal that it waits for, unless that is under way; answers whether any."""
        if not self._universe.setting.signals:
            return False
        sent = [self._offered(head) for head in self._universe.heads() if head["status"] == "waiting"]
        return any(sent)

    def _offered(self, head: Mapping[str, Any]) -> bool:
        run_id = head["run_id"]
        found = self._next(head)
        if found is None:
            return False
        number, signal_id = found
        self.sent.setdefault(number, self._address(head))
        delivery = f"{run_id}~{signal_id}"
        under_way = self._sending.get(delivery)
        if under_way is not None and not under_way.has_ended.is_set():
            return False
        self._sending[delivery] = self._signal(run_id, number, signal_id, lambda: self._answered.add(delivery))
        return True

    def _next(self, head: Mapping[str, Any]) -> tuple[int, str] | None:
        """The first given signal that a run waits for and that it was not sent yet; after a redrive any once more.

        A run that ended keeps the signals that no state has taken, if it can be redriven; what a state had taken before
        its end, whoever redrives it sends again, under another id.
        """
        address = self._address(head)
        addresses = {**self._universe.setting.addresses, **self.sent}
        machine, snapshot = self._machines[head["digest"]], self._snapshot(head)
        fitting = []
        for number, given in enumerate(self._universe.setting.signals, start=1):
            is_its_own = addresses.get(number, address) == address
            if is_its_own and is_taken_by(machine, snapshot, Signal(0, "", given.name)):
                fitting.append(number)
        return self._untaken(head, fitting)

    def _untaken(self, head: Mapping[str, Any], fitting: Sequence[int]) -> tuple[int, str] | None:
        run_id, again = head["run_id"], self._redriven.get(head["run_id"], 0)
        waiting = {message["id"] for message in head.get("inbox") or () if message["kind"] == "signal"}
        arrived = {accepted.signal_id for accepted in self.accepted if accepted.run_id == run_id}
        taken = self._taken.get(run_id, set())
        untaken = [number for number in fitting if not taken & {_id(number, time) for time in range(again + 1)}]
        for number in untaken or (fitting[-1:] if again else []):
            ids = [_id(number), _id(number, again)] if number in untaken else [_id(number, again)]
            chosen = next((one for one in ids if f"{run_id}~{one}" not in self._answered), None)
            if chosen is not None and (not waiting or chosen in waiting):  # one that waits already may come twice
                return number, chosen
            if _id(number) in arrived:
                break  # it is to be taken before the next one is sent
        return None

    def _snapshot(self, head: Mapping[str, Any]) -> Snapshot:
        documents = self._universe.documents()
        rest = [documents[key]["text"] for key in rest_of(Key(RUNS, head["run_id"]), head)]
        return Snapshot.decode("".join((head["snapshot"], *rest)))

    def _address(self, head: Mapping[str, Any]) -> Address:
        place = head["place"]
        if place is None:
            return (head["key"] or head["run_id"],)
        return (*self._address(self._universe.head(place["parent"])), place["state"], place["key"])

    # What commits say

    def committed(
        self, process: Process, effect: trace.Effect, documents: Mapping[Key, Document | None], writes: Sequence[Write]
    ) -> Iterable[Problem]:
        """Note what a commit has brought; answers what it must not have done."""
        for taken in effect.steps:
            run_id = taken.run_id
            if run_id not in self._begun:
                self._begun.append(run_id)
            if taken.event["event"] == "signal_received":
                self._taken.setdefault(run_id, set()).add(taken.event["id"])
            if taken.event["event"] == "cancel_requested":
                self._cancelled.add(run_id)
            if taken.event["event"] == "run_redriven":
                self._redriven[run_id] = self._redriven.get(run_id, 0) + 1
        for write in writes:
            for message in trace.brought_by(write, documents):
                head: Any = documents[write.key]
                is_held = head["worker"] is not None or head["begun"]
                self.accepted.append(
                    Accepted(
                        write.key.id, message.get("id", ""), head["seq"], is_held, process in self._senders,
                        effect.number,
                    )
                )  # fmt: skip
        problems = [problem for write in writes for problem in self._untold(write, documents)]
        self.offer()
        return problems

    def _untold(self, write: Write, documents: Mapping[Key, Document | None]) -> Iterable[Problem]:
        """Items of a map that was left and is struck off, and that nobody has told to end."""
        before: Any = documents.get(write.key)
        if write.key.collection != RUNS or not isinstance(write, Set) or not before or not before.get("leaving"):
            return
        left: Any = write.document.get("leaving") or []
        struck = [one for one in before["leaving"] if one not in left]
        for head in self._universe.heads() if struck else ():
            place = head["place"] or {}
            of = {"state": place.get("state"), "visit": place.get("visit")}
            is_item = place.get("parent") == write.key.id and any(of.items() <= one.items() for one in struck)
            if not is_item or head["run_id"] in self._cancelled:
                continue
            is_told = any(message["kind"] == "cancel" for message in head.get("inbox") or ())
            if not is_told and head["status"] not in trace.ENDED:
                yield Problem("cancel-passed-over", f"{head['run_id']} is an item of a map that was left, and goes on")


def _id(number: int, again: int = 0) -> str:
    return f"signal-{number}" + (f"-again-{again}" if again else "")
