"""One schedule's universe: the store, the artifacts and the time that all its processes share, and what befalls them.

Each effect asks here whether a move of the schedule awaits it. Plays on, recovering whatever died, until every start
event was answered and every run has ended, or nothing would ever move again; then the ending is judged elsewhere.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

import anyio

from engine.artifacts.memory import MemoryArtifacts
from engine.core.write import Document, Key, Update, Write
from engine.entry.application import DEFAULT_BUCKET, Engine
from engine.errors import CommitUncertainError
from engine.runs.records import RUNS
from engine.store.memory import MemoryStore
from engine.testing.verification import fencing, trace
from engine.testing.verification.ending import BEGINS_MS, OWN, TOUCHED, Ending
from engine.testing.verification.outside import Outside
from engine.testing.verification.ports import Crash
from engine.testing.verification.process import Call, Performance, Process
from engine.testing.verification.schedule import OUTSIDE, Move, Schedule
from engine.testing.verification.setting import LOCKING, Setting
from engine.testing.verification.world import Problem

PATIENCE_S: Final = 5.0
"""How long each process waits for timers before it ends; the next one is started when something is due."""

ROUNDS_MAX: Final = 100
"""Processes started one after another to get the runs to their ends, beside one for each move."""

IDLE_ROUNDS_MAX: Final = 3
"""Processes in turn that end without any effect, before the runs are given up: nothing will ever move them."""


class Universe:
    """See the module."""

    def __init__(self, setting: Setting, schedule: Schedule) -> None:
        self.setting = setting
        self.schedule = schedule
        self.is_locking = setting.semantics == LOCKING
        self.store = MemoryStore(self.now_ms, None if self.is_locking else self._disturb, setting.texts)
        self.artifacts = MemoryArtifacts(DEFAULT_BUCKET)
        self.memory = setting.world.begin()
        self.effects: list[trace.Effect] = []
        self.calls: list[Call] = []
        self.performances: list[Performance] = []
        self.problems: list[Problem] = []
        self.processes: list[Process] = []
        self.outside = Outside(self)
        self._tasks: set[asyncio.Task[None]] = set()
        self._moves: dict[tuple[int, str], list[Move]] = {}
        for move in schedule.moves:
            self._moves.setdefault((move.effect, move.point), []).append(move)
        self._answered: set[int] = set()
        self._delivered: set[int] = set()
        self._away_until_s = -1.0
        self._disturbances = 0
        self._disturbs = False
        self._happened = 0
        self._switched: list[Process] = []

    # Time

    def now_ms(self) -> int:
        """The instant that a right clock shows."""
        return BEGINS_MS + round(asyncio.get_running_loop().time() * 1000)

    @property
    def is_away(self) -> bool:
        """Whether the store is away."""
        return asyncio.get_running_loop().time() < self._away_until_s

    # Playing

    async def play(self) -> Ending:
        """Play the schedule to its end."""
        loop: Any = asyncio.get_running_loop()
        loop.on_idle = self._thaw_switched
        self.deliver(self.schedule.first - 1)
        before, idle = 0, 0
        for _ in range(ROUNDS_MAX + len(self.schedule.moves)):
            while self._tasks:
                await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
            waits_ms = self._waits_ms()
            if waits_ms is None and len(self._answered) == len(self.setting.inputs):
                break
            idle = idle + 1 if waits_ms is not None and len(self.effects) == before else 0
            before = len(self.effects)
            if idle == IDLE_ROUNDS_MAX or before >= self.setting.effects_max:
                break
            if not self.is_away and self.outside.offer():
                continue
            if waits_ms:
                await asyncio.sleep(waits_ms / 1000)
            if self.is_away:
                await asyncio.sleep(self._away_until_s - loop.time())
            self._go_on(waits_ms is not None)
        while self._tasks:
            await asyncio.wait(self._tasks)
        return self._ending()

    def _go_on(self, is_unfinished: bool) -> None:
        """Start the process that comes after those that have ended."""
        roots = [head["run_id"] for head in self.heads() if head["is_root"] and not trace.has_ended(head)]
        verb = self.schedule.by
        if is_unfinished and verb == "resume" and roots:
            self.resume(roots[0])
        elif is_unfinished and (verb != "start" or all(index in self._answered for index in self._delivered)):
            self.work()
        else:
            missing = [index for index in range(len(self.setting.inputs)) if index not in self._answered]
            again = [index for index in missing if index in self._delivered]
            self.deliver((again or missing or [0])[0])

    def _waits_ms(self) -> int | None:
        """How long to wait until something of the unfinished runs may be claimed; `None` when all have ended."""
        unfinished = [head for head in self.heads() if not trace.has_ended(head)]
        if not unfinished:
            return None
        held = [head["claimable_at_ms"] for head in unfinished if head["worker"] is not None]
        due = [head["claimable_at_ms"] for head in unfinished if head["claimable_at_ms"] is not None]
        at_ms = max(held) if held else min(due, default=0)
        return max(at_ms - self.now_ms() + 1, 0)

    def head(self, run_id: str) -> Any:
        """The head document of a run. Raises `KeyError` when there is none."""
        return json.loads(self.store.texts()[Key(RUNS, run_id)])

    def heads(self) -> list[Any]:
        """Every head document."""
        return [json.loads(text) for key, text in self.store.texts().items() if key.collection == RUNS]

    def documents(self) -> Mapping[Key, Any]:
        """Every document, decoded as it is asked for."""
        return _Documents(self.store)

    # Processes

    def deliver(self, index: int) -> None:
        """A start event arrives at a new process."""
        index = min(index, len(self.setting.inputs) - 1)
        self._delivered.add(index)
        setting = self.setting

        async def start(app: Engine) -> None:
            await app.run(setting.machine, setting.inputs[index], run_id=setting.run_id, patience_s=PATIENCE_S)

        self.spawn(start, lambda: self._answered.add(index))

    def resume(self, run_id: str) -> Process:
        """A new process resumes a run."""

        async def resume(app: Engine) -> None:
            await app.resume(run_id, patience_s=PATIENCE_S)

        return self.spawn(resume)

    def work(self) -> Process:
        """A new process takes whatever is due or abandoned."""

        async def work(app: Engine) -> None:
            await app.work_once(PATIENCE_S)

        return self.spawn(work)

    def _another(self) -> Process:
        """The second worker of a schedule: by its way of recovery, as far as there is something to recover."""
        roots = [head["run_id"] for head in self.heads() if head["is_root"]]
        if self.schedule.by == "start" or not roots:
            self.deliver(self.schedule.first - 1)
            return self.processes[-1]
        return self.work() if self.schedule.by == "worker" else self.resume(roots[0])

    def spawn(self, verb: Callable[[Engine], Awaitable[Any]], answered: Callable[[], Any] = lambda: None) -> Process:
        """A new process does one verb of an engine; `answered` is called when that has come to its end."""
        process = Process(self, f"w{len(self.processes) + 1}")
        self.processes.append(process)
        task = asyncio.get_running_loop().create_task(process.live(verb, answered))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return process

    def ended(self, process: Process) -> None:
        """A process is over: whoever waits for it goes on."""
        self._thaw_switched()

    def _thaw_switched(self) -> bool:
        thawed, self._switched = self._switched, []
        for process in thawed:
            process.thaw()
        return bool(thawed)

    # Effects

    def began(self, process: Process, kind: str, name: str, run_id: str | None) -> trace.Effect:
        """Number an effect that a process is about to have."""
        if not process.is_alive:
            raise Crash
        effect = trace.Effect(len(self.effects) + 1, kind, name, process.name, self.now_ms(), run_id)
        self.effects.append(effect)
        process.effects += 1
        process.moved.set()
        most = self.setting.effects_max
        if len(self.effects) == most:
            self.problems.append(Problem("run-endless", f"after {most} effects the runs go on still"))
        if len(self.effects) >= most:
            process.die()
            raise Crash
        return effect

    def began_commit(
        self, process: Process, documents: Mapping[Key, Document | None], writes: Sequence[Write]
    ) -> trace.Effect:
        """Number and name a commit."""
        kind, name, steps = trace.described(documents, writes)
        effect = self.began(process, kind, name, steps[0].run_id if steps else None)
        effect.steps = tuple(steps)
        return effect

    def happen(self) -> int:
        """Count something that has happened, from 1."""
        self._happened += 1
        return self._happened

    async def commit(
        self,
        seen: Mapping[Key, str],
        keys: Sequence[Key],
        writes: Sequence[Write],
        guarded: Sequence[Key],
        process: Process,
        *,
        disturb: bool,
    ) -> bool:
        """Commit writes if the guarded documents are as they were seen, as canonical texts; answers whether it was.

        `disturb`: with the semantics of preconditions another client changes what was read just before.
        """
        self._disturbs = disturb

        def decide(found: Mapping[Key, Document | None], now_ms: int) -> tuple[Sequence[Write], bool]:
            if not process.is_alive:
                raise Crash
            present = self.store.texts()
            if any(present.get(key) != seen.get(key) for key in guarded):
                return (), False
            return writes, True

        return await self.store.transact(keys, decide)

    def _disturb(self, documents: Mapping[Key, Document | None], writes: Sequence[Write]) -> Sequence[Write]:
        """Another client changes each document that is read between the decide and its commit, as Firestore lets it."""
        if not self._disturbs:
            return ()
        self._disturbs = False
        self._disturbances += 1
        return [
            Update(key, {(TOUCHED,): self._disturbances})
            for key, document in documents.items()
            if document is not None and key.collection not in OWN
        ]

    def committed(
        self, process: Process, effect: trace.Effect, documents: Mapping[Key, Document | None], writes: Sequence[Write]
    ) -> None:
        """A commit stands: is it one that this process may make, and does the world still hold together?"""
        effect.is_done = True
        effect.happened = self.happen()
        effect.kind, effect.name, steps = trace.described(documents, writes)
        effect.steps = tuple(steps)
        self.problems.extend(fencing.judge(process.name, process.clock.now_ms(), effect, documents, writes))
        self.problems.extend(self.outside.committed(process, effect, documents, writes))
        if any(write.key.collection not in OWN for write in writes) or steps:
            problems = self.setting.world.watch(self.documents(), self.artifacts.objects)
            self.problems.extend(
                problem._replace(message=f"{problem.message} (after {effect})") for problem in problems
            )

    async def meet(self, process: Process, effect: trace.Effect, point: str) -> bool:
        """An effect is about to begin, or has just happened; answers whether anything befell its process."""
        moves = self._moves.pop((effect.number, point), None)
        if moves is None:
            return False
        for move in moves:
            effect.notes.append(move.told())
            if move.verb == "lost" and effect.kind not in trace.COMMITS:
                continue  # an earlier move has shifted what comes where: only a commit's answer is the store's
            await self._befall(process, move)
        return True

    async def _befall(self, process: Process, move: Move) -> None:
        lease_ms = round(self.setting.world.lease_s * 1000)
        match move.verb:
            case "crash":
                process.die()
                raise Crash
            case "stop":
                process.stop()
                await anyio.lowlevel.checkpoint()
            case "stall":
                await self._stall(process, move.number)
            case "switch":
                self._switch(process)
            case "start":
                self.deliver(max(move.number, 1) - 1)
            case "ahead":
                process.offset_ms += lease_ms * 3 // 2
            case "back":
                process.offset_ms -= lease_ms * 3 // 2
            case "away":
                self._away_until_s = asyncio.get_running_loop().time() + (move.number or 10)
            case "lost":
                raise CommitUncertainError("the store did not say whether the commit was applied.")
            case verb if verb in OUTSIDE:
                await self.outside.come(process, move)

    async def _stall(self, process: Process, effects: int) -> None:
        """Stand still beyond the lease, until another has taken over: until it has ended, or had so many effects."""
        process.freeze()
        with anyio.CancelScope(shield=True):
            await asyncio.sleep(self.setting.world.lease_s + 1)
            other = self._another()
            await other.past(effects)
        process.thaw()

    def _switch(self, process: Process) -> None:
        """Stand still here and let another go on: the one that stood still before, or else a new one."""
        others, self._switched = self._switched, []
        for other in others:
            other.thaw()
        if not others:
            self._another()
        process.freeze()
        self._switched.append(process)

    def given_up(self, why: str) -> Ending:
        """The ending of a schedule that would never end by itself."""
        self.problems.append(Problem("run-endless", why))
        return self._ending()

    def _ending(self) -> Ending:
        return Ending(
            self.setting,
            self.schedule,
            self.store.texts(),
            self.artifacts.objects,
            self.effects,
            self.calls,
            self.performances,
            self.problems,
            self.outside.accepted,
            self.outside.redrives,
            self.outside.sent,
        )


class _Documents(Mapping[Key, Any]):
    """The documents of a store, decoded as they are asked for."""

    def __init__(self, store: MemoryStore) -> None:
        self._texts = store.texts()

    def __getitem__(self, key: Key) -> Any:
        return json.loads(self._texts[key])

    def __iter__(self) -> Any:
        return iter(self._texts)

    def __len__(self) -> int:
        return len(self._texts)


__all__ = ["Universe"]
