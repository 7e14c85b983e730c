"""How a run begins: under an id, or under a key that admits one unfinished run.

A keyed start whose first action is transactional performs that action in the very commit that creates the
run: the claim of the work and the record of the run cannot disagree. When the action finds nothing to do
(the run would end at once and the action writes nothing), nothing is recorded at all, so nothing is left
that could block a later start.

The key may name what only the first action finds out (`context.step.step_id`); the transaction is then made
again with the documents of that key.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

from engine.core import canonical
from engine.core.action import ActionKind, Decision, Failure, Remark
from engine.core.bounds import KEY_CHARS_MAX
from engine.core.effect import Perform
from engine.core.event import Event, RunStarted
from engine.core.machine import Branch, Machine
from engine.core.scope import MomentScope
from engine.core.snapshot import Snapshot, empty
from engine.core.write import Check, Document, Key, Set, Write, id_problem
from engine.errors import ExpressionError, InvalidRequestError
from engine.runs import maps
from engine.runs.claim import Claim, Committed
from engine.runs.commit import Advanced, Commit, advance
from engine.runs.inputs import input_problem
from engine.runs.reading import MALFORMED, expect_readable
from engine.runs.records import SNAPSHOT_PARTS, Head, head_key, keyed_run_id, run_key_key
from engine.runs.runs import UNWRITABLE, Runs, unwritable
from engine.runs.transaction import MoreKeys, head_in

Documents: TypeAlias = Mapping[Key, "Document | None"]


RUN_ID_BYTES_MAX: Final = 400
"""A given run id: ids of items, journal entries and maps are made from it."""


class FirstAction(NamedTuple):
    """A transactional action as the start needs it: what it reads, and its pure decide."""

    keys: Callable[[Perform, Snapshot], Sequence[Key]]
    decide: Callable[[Perform, Snapshot, Documents, int], Decision]


class Started(NamedTuple):
    """The run that a start led to.

    `committed` when this start created it; `existing` when an unfinished (or, by id, any) run was there;
    otherwise there was nothing to do and `snapshot` is what the run would have ended as.
    """

    snapshot: Snapshot
    committed: Committed | None = None
    existing: Head | None = None
    remarks: tuple[Remark, ...] = ()
    taken: tuple[Branch, ...] = ()


class _Begun(NamedTuple):
    """The steps of a start, and what its first action writes."""

    taken: tuple[Advanced, ...]
    writes: tuple[Write, ...]
    remarks: tuple[Remark, ...]
    read: tuple[Key, ...]

    @property
    def snapshot(self) -> Snapshot:
        return self.taken[-1].step.snapshot

    @property
    def branches(self) -> tuple[Branch, ...]:
        return tuple(branch for advanced in self.taken for branch in advanced.step.taken)

    @property
    def is_nothing(self) -> bool:
        return self.snapshot.status.is_final and all(isinstance(write, Check) for write in self.writes)


async def start(
    runs: Runs, machine: Machine, value: Any, run_id: str | None, first: FirstAction, now_ms: int
) -> Started:
    """Begin a run, or find the one that its id or key belongs to.

    `run_id` names a run of a machine without a key. Raises `InvalidRequestError` for an input against the
    machine's schema, or an id that another machine or another input has.
    """
    try:
        value = canonical.plain(value, "input")
    except ValueError as error:
        raise InvalidRequestError(f"{machine.name} cannot take this input: {error}.", remedy="Give JSON.") from None
    text = canonical.encode(value)
    if "\\u0000" in text:  # CEL cuts a text there, and another step would be taken for this one
        raise InvalidRequestError(f"{machine.name} cannot take this input: it holds a NUL character.")
    problem = input_problem(machine, value)
    if problem is not None:
        raise InvalidRequestError(f"{machine.name} cannot take this input: {problem}.", remedy="Correct the input.")
    await runs.definitions.keep(machine, runs.secrets)
    starting = _Starting(runs, machine, value, text, first)
    if machine.key is not None:
        if run_id is not None:
            raise InvalidRequestError(
                f"{machine.name} has a key, so its runs are named by it.", remedy="Leave the run id out."
            )
        return await _acting(runs, starting)
    if run_id is None:
        raise InvalidRequestError(f"a run of {machine.name} needs an id.", remedy="Give one.")
    if problem := id_problem(run_id) or _clashes(run_id):
        raise InvalidRequestError(f"the run id {run_id!r} cannot be used: it {problem}.", remedy="Choose another.")
    return await _named(runs, starting, run_id)


async def standing(
    runs: Runs, machine: Machine, value: Any, first: FirstAction, known: Documents, now_ms: int
) -> Head | None:
    """The unfinished run that a start of a machine with a key would join; `None` when there is none.

    Nothing is written or checked, so it may be out of date when it is there. `known` are documents that the caller
    has just read. Raises `InvalidRequestError` for a key that cannot be one.
    """
    value = canonical.plain(value, "input")
    starting = _Starting(runs, machine, value, canonical.encode(value), first)
    documents = dict(known)
    torn: Sequence[Key] = ()
    while True:
        try:
            return starting.keyed(documents, now_ms, "")[1].existing
        except MoreKeys as more:
            found = await runs.store.get_many(more.keys)
            # A part that is gone: the run has taken a step since its head was read, or, the second time, it is lost.
            is_torn = any(key.collection == SNAPSHOT_PARTS and found[key] is None for key in more.keys)
            documents = dict(known) if is_torn and more.keys != torn else documents | found
            torn = more.keys if is_torn else torn
        except MALFORMED as error:
            expect_readable(documents, error)
            raise


def _clashes(run_id: str) -> str:
    """Why a given id could be, or outgrow, one that the engine makes from others; empty when it could not."""
    if "~" in run_id:
        return "must not hold '~', with which the engine joins the ids that it makes"
    if not run_id.isprintable():
        return "must have printable characters only, for people read it and type it"
    return "" if len(run_id.encode()) <= RUN_ID_BYTES_MAX else f"must be at most {RUN_ID_BYTES_MAX} bytes long"


async def _acting(runs: Runs, starting: "_Starting") -> Started:
    try:
        found: Started = await runs.begin([], starting.keyed, starting.operation)
    except UNWRITABLE as error:
        if isinstance(error, InvalidRequestError) or not starting.has_decided:
            raise
        # The first action asked for a write that cannot be made. That is its failure.
        starting.failure = unwritable(error)
        found = await runs.begin([], starting.keyed, starting.operation)
    return found


async def _named(runs: Runs, starting: "_Starting", run_id: str) -> Started:
    key = head_key(run_id)

    def decide(documents: Documents, now_ms: int, token: str) -> tuple[Sequence[Write], Started]:
        head = head_in(documents, key)
        if head is not None:
            same = canonical.encode(head.snapshot.input) == starting.text
            if head.snapshot.machine != starting.machine.name or not same:
                raise InvalidRequestError(
                    f"the run {run_id!r} exists with another machine or another input.", remedy="Choose another run id."
                )
            return [Check(key)], Started(head.snapshot, existing=head)
        return starting.created(documents, now_ms, token, starting.begun(documents, run_id, None, now_ms, act=False))

    found: Started = await runs.begin([key], decide, ("start", run_id))
    return found


class _Starting:
    """One start: pure over the documents of its transaction."""

    def __init__(self, runs: Runs, machine: Machine, value: Any, text: str, first: FirstAction) -> None:
        self.runs = runs
        self.machine = machine
        self.value = value
        self.text = text  # of the value, as canonical JSON
        self.operation = ("start", machine.digest, text)
        self.first = first
        self.has_decided = False
        self.failure: Failure | None = None  # what the first action's refused writes made of it

    def keyed(self, documents: Documents, now_ms: int, token: str) -> tuple[Sequence[Write], Started]:
        """The decide of a keyed start."""
        key = self._key({}) or self._key(self.begun(documents, "", None, now_ms, act=True).snapshot.context)
        if key is None:
            return self._keyless(documents, now_ms)
        if len(key) > KEY_CHARS_MAX:
            raise InvalidRequestError(
                f"the key of {self.machine.name} has {len(key)} characters; it may have {KEY_CHARS_MAX}.",
                remedy="Name the run by something shorter.",
            )
        key_of = run_key_key(self.machine.name, key)
        _need(documents, [key_of])
        latest: Any = documents[key_of]
        if latest is not None:
            head = head_in(documents, head_key(latest["run_id"]))
            if head is not None and not head.is_final:
                return [Check(key_of)], Started(head.snapshot, existing=head)
        generation = 1 if latest is None else latest["generation"] + 1
        run_id = keyed_run_id(self.machine.name, key, generation)
        begun = self.begun(documents, run_id, key, now_ms, act=True)
        if begun.is_nothing:
            checks = [Check(read) for read in {*begun.read, key_of}]
            return checks, Started(begun.snapshot, remarks=begun.remarks, taken=begun.branches)
        newest = Set(key_of, {"machine": self.machine.name, "key": key, "run_id": run_id, "generation": generation})
        _need(documents, [head_key(run_id)])
        writes, started = self.created(documents, now_ms, token, begun)
        return [*writes, newest], started

    def _keyless(self, documents: Documents, now_ms: int) -> tuple[Sequence[Write], Started]:
        """Nothing was found that has a key: right only when there is nothing to do."""
        begun = self.begun(documents, "", None, now_ms, act=True)
        if not begun.is_nothing:
            text = "" if self.machine.key is None else self.machine.key.value
            raise InvalidRequestError(
                f"the key {text!r} of {self.machine.name} has no value for this input.",
                remedy="The key may use input, and the context after the first action.",
            )
        return [Check(key) for key in begun.read], Started(begun.snapshot, remarks=begun.remarks, taken=begun.branches)

    def _key(self, context: Mapping[str, Any]) -> str | None:
        assert self.machine.key is not None
        snapshot = empty("", self.machine.name, self.machine.version, self.machine.digest)
        try:
            key = self.machine.key.render(MomentScope(snapshot._replace(input=self.value), context))
        except ExpressionError:
            return None
        return key if isinstance(key, str) and key else None

    def begun(self, documents: Documents, run_id: str, key: str | None, now_ms: int, *, act: bool) -> _Begun:
        """The first step, and with `act` the first action too when it is transactional."""
        snapshot = empty(run_id, self.machine.name, self.machine.version, self.machine.digest, key)
        started = self._advance(snapshot, RunStarted(now_ms, self.value))
        effect = started.effect
        after = started.step.snapshot
        if (
            not act
            or not isinstance(effect, Perform)
            or self.runs.kind_of(effect.action) is not ActionKind.TRANSACTIONAL
        ):
            return _Begun((started,), (), (), ())
        read = tuple(self.first.keys(effect, after))
        _need(documents, read)
        self.has_decided = True
        decision = Decision(self.failure) if self.failure else self.first.decide(effect, after, documents, now_ms)
        answer = self.runs.decided(decision, now_ms)
        acted = self._advance(after, answer.event)
        if acted.event is not answer.event:  # refused: the action has not happened
            return _Begun((started, acted), (), (), read)
        return _Begun((started, acted), tuple(answer.writes), answer.remarks, read)

    def _advance(self, snapshot: Snapshot, event: Event) -> Advanced:
        return advance(self.machine, snapshot, event, self.runs.secrets)

    def created(self, documents: Documents, now_ms: int, token: str, begun: _Begun) -> tuple[Sequence[Write], Started]:
        """The commit that creates a run with the steps it has begun with."""
        commit = Commit(now_ms, token, self.runs.tenure(), self.runs.secrets)
        snapshot = begun.snapshot
        head = commit.create(begun.taken, None, snapshot.run_id, own=True)
        maps.record_effects(commit, head, self.machine, begun.taken, documents)
        commit.writes.extend(begun.writes)
        _need(documents, commit.unasked(documents))
        claim = Claim(head, self.machine, begun.taken[-1].effect) if head.begun else None
        event = begun.taken[-1].event
        committed = Committed(head, claim, tuple(commit.woken), begun.branches, event, begun.remarks)
        return commit.writes, Started(snapshot, committed=committed, remarks=begun.remarks)


def _need(documents: Documents, keys: Sequence[Key]) -> None:
    missing = [key for key in keys if key not in documents]
    if missing:
        raise MoreKeys(missing)
