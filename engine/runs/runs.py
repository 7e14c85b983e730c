"""`Runs`: claim, renew, commit, rest and find runs over a store; `start.py` begins them.

Each verb is one `transact`. Its decide checks the fence, takes the step and gathers the writes; when these
touch documents that were not asked for (a map's, the next child's), nothing is written and the transaction
is made again with them.
"""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, Protocol, TypeAlias

import anyio

from engine.core.action import ActionKind, Decision, EngineCode, Failure, Outcome, Remark
from engine.core.effect import Effect, Perform, StartMap
from engine.core.event import ActionFailed, ActionReturned, Event
from engine.core.machine import Machine
from engine.core.secret import Secrets
from engine.core.step import pending
from engine.core.write import Check, Document, Key, Set, Write
from engine.errors import DetentError, InvalidKeyError, InvalidRequestError, LeaseLostError, WriteRefusedError
from engine.runs import inbox, listing, maps
from engine.runs.claim import Answer, Claim, Committed, Held
from engine.runs.commit import Advanced, Commit, Tenure, advance, holds_secret, resting_until
from engine.runs.definitions import Definitions
from engine.runs.known_maps import KnownMaps
from engine.runs.listing import Listed
from engine.runs.reading import MALFORMED
from engine.runs.records import RUNS, Entry, Head, head_key, read_inbox
from engine.runs.transaction import (
    Decide,
    Documents,
    MoreKeys,
    Transactions,
    applied,
    committed_of,
    head_in,
    heads_of,
    read_heads,
)
from engine.store.port import Order, Store, Where

DecideAction: TypeAlias = Callable[[Documents, int], Decision]


RELEASE_S_MAX: Final = 2.0
"""How long a worker that is stopped may take to let go of a run."""

UNWRITABLE: Final = (WriteRefusedError, InvalidRequestError, InvalidKeyError, ValueError, TypeError, RecursionError)
"""What a store raises for writes that cannot be made: a bug of the handler that asked for them."""


def unwritable(error: Exception) -> Failure:
    """The failure of an action whose writes cannot be made; only detent's own errors are quoted."""
    told = error.message if isinstance(error, DetentError) else type(error).__name__
    return Failure(EngineCode.INTERNAL, f"a write of the action was refused: {told}")


class KindOf(Protocol):
    """Tells an action's kind; `None` for one that this process does not know."""

    def __call__(self, action: str) -> ActionKind | None: ...


class Runs:
    """The verbs; see the module. `tenure` is a function, since a worker that is stopping begins nothing."""

    def __init__(
        self, store: Store, definitions: Definitions, kind_of: KindOf, tenure: Callable[[], Tenure], secrets: Secrets
    ) -> None:
        self.store = store
        self.definitions = definitions
        self.kind_of = kind_of
        self.tenure = tenure
        self.secrets = secrets
        self.known = KnownMaps()
        self._transactions = Transactions(store)
        self.transact = self._transactions.transact

    # Reading

    async def get(self, run_id: str) -> Head | None:
        """The head of a run as last committed. Raises `DocumentUnreadableError`, as all that reads runs here does."""
        return (await read_heads(self.store, [head_key(run_id)], is_strict=True))[0]

    async def journal(self, run_id: str, after: int = 0) -> list[Entry]:
        """The entries of a run after the `after`-th, first to last; none for a run that does not exist."""
        return await listing.journal(self.store, run_id, after)

    async def newest(self, limit: int) -> list[Listed]:
        """The runs that were created last, newest first, each as its head or as the error that reading it met."""
        return await listing.newest(self.store, limit)

    async def claimable(self, now_ms: int, limit: int) -> list[tuple[str, int]]:
        """Runs that are due or abandoned at `now_ms`, longest first, each with its instant."""
        where = [Where("claimable_at_ms", "<=", now_ms)]
        found = await self.store.query(RUNS, where, [Order("claimable_at_ms")], limit)
        return [(key.id, _instant(document)) for key, document in found]

    async def claimable_of(self, root: str, until_ms: int, limit: int) -> list[tuple[str, int]]:
        """As `claimable`, among one run and all that its maps have started."""
        where = [Where("root", "==", root), Where("claimable_at_ms", "<=", until_ms)]
        found = await self.store.query(RUNS, where, [Order("claimable_at_ms")], limit)
        return [(key.id, _instant(document)) for key, document in found]

    async def holder_of(self, root: str, now_ms: int) -> str | None:
        """A worker that holds one run of a family under a living lease: its parent, or an item of its maps."""
        where = [Where("root", "==", root), Where("claimable_at_ms", ">", now_ms)]
        for _, document in await self.store.query(RUNS, where, [Order("claimable_at_ms")]):
            if document.get("worker") is not None:
                return str(document["worker"])
        return None

    # Claiming

    async def claim(self, run_id: str) -> Committed | Held:
        """Take a run that is due or abandoned, with the step that its being so means.

        Raises `InvalidRequestError` for a run that does not exist.
        """
        try:
            return await self._claimed(run_id)
        except MALFORMED:
            await self.get(run_id)  # says so, where it was the head that is not as it should be
            raise

    async def _claimed(self, run_id: str) -> Committed | Held:
        (head,) = await read_heads(self.store, [head_key(run_id)])
        if head is None:
            raise InvalidRequestError(f"there is no run {run_id!r}.", remedy="See `detent runs list`.")
        if head.has_ended:
            return Held(head)
        machine = await self.definitions.of(head.snapshot)
        decide = self._claiming(run_id, machine)
        taken: Committed | Held = await self.begin([head_key(run_id)], decide, operation=("claim", run_id))
        return taken

    def _claiming(self, run_id: str, machine: Machine) -> Callable[[Documents, int, str], tuple[list[Write], Any]]:
        key = head_key(run_id)

        def decide(documents: Documents, now_ms: int, token: str) -> tuple[list[Write], Committed | Held]:
            head = head_in(documents, key)
            if head is None:
                raise LeaseLostError(f"run {run_id} is gone.")
            if head.claimable_at_ms is None or head.claimable_at_ms > now_ms:
                return [Check(key)], Held(head)
            tenure = self.tenure()
            commit = Commit(now_ms, token, tenure, self.secrets)
            remarks: tuple[Remark, ...] = ()
            effect: Effect = head.leaving[0] if head.leaving else pending(machine, head.snapshot)
            if head.begun and isinstance(effect, Perform) and self.kind_of(effect.action) is None:
                # Whether its call was made is for those to say that know it; until then nothing else happens.
                return [Check(key)], Held(head, declined=True)
            if not head.leaving:
                event, head, remarks = inbox.found_at_claim(machine, head, self._begun(head, effect), documents, now_ms)
                if event is not None:
                    advanced = advance(machine, head.snapshot, event, self.secrets)
                    answer = Answer(event, (), remarks)
                    return self._written(commit, head, machine, answer, advanced, documents, head.fence + 1)
            if not self._takes(effect, tenure, now_ms):
                return [Check(key)], Held(head, declined=True)
            claimed = head._replace(
                fence=head.fence + 1, worker=tenure.worker, claimable_at_ms=now_ms + tenure.lease_ms,
                begun=not head.leaving, updated_at_ms=now_ms,
            )  # fmt: skip
            writes: list[Write] = [Set(key, {**claimed.to_document(), "token": token})]
            return writes, Committed(claimed, Claim(claimed, machine, effect), remarks=remarks)

        return decide

    def _takes(self, effect: Effect, tenure: Tenure, now_ms: int) -> bool:
        """Whether this worker would begin an action; one that does not know it must leave the run to those that do."""
        if not isinstance(effect, Perform):
            return tenure.goes_on
        return self.kind_of(effect.action) is not None and tenure.begins(effect, now_ms)

    def _begun(self, head: Head, effect: Effect) -> ActionKind | None:
        """The kind of the action that an earlier owner has begun and not answered."""
        return self.kind_of(effect.action) if head.begun and isinstance(effect, Perform) else None

    def rests_until(self, machine: Machine, head: Head, now_ms: int) -> int | None:
        """When a run at rest may be claimed; `None` when only an event from outside moves it."""
        if inbox.is_urgent(machine, head):
            return now_ms
        return resting_until(pending(machine, head.snapshot), head.snapshot, now_ms)

    def let_go_until(self, machine: Machine, head: Head, now_ms: int) -> int | None:
        """As `rests_until`, for a run that was held and is let go of without a look at its map.

        A child that ended meanwhile woke nobody, since the holder would count for itself: so somebody looks now.
        """
        if isinstance(pending(machine, head.snapshot), StartMap):
            return now_ms
        return self.rests_until(machine, head, now_ms)

    async def renew(self, claim: Claim) -> Claim:
        """Move the lease's end. Raises `LeaseLostError`."""
        key = head_key(claim.head.run_id)

        def decide(documents: Documents, now_ms: int, token: str) -> tuple[list[Write], Claim]:
            head = self.own(claim, documents)
            until = max(head.claimable_at_ms or 0, now_ms + self.tenure().lease_ms)
            renewed = head._replace(claimable_at_ms=until, updated_at_ms=now_ms)
            return [Set(key, renewed.to_document())], claim._replace(head=renewed)

        held: Claim = await self.transact([key], decide)
        return held

    async def rest(self, claim: Claim, *, begun: bool = False) -> Committed:
        """Let go of a run where it stands. Raises `LeaseLostError`.

        `begun`: what it asks for may have been begun, which the next owner must know.
        """
        key = head_key(claim.head.run_id)

        def decide(documents: Documents, now_ms: int, token: str) -> tuple[list[Write], Committed]:
            head = self.own(claim, documents)
            until = self.rests_until(claim.machine, head, now_ms)
            rested = head._replace(worker=None, begun=begun, claimable_at_ms=until, updated_at_ms=now_ms)
            woken = () if until is None else ((head.run_id, until),)
            return [Set(key, rested.to_document())], Committed(rested, None, woken)

        rested: Committed = await self.transact([key], decide)
        return rested

    async def release(self, claim: Claim, *, begun: bool) -> None:
        """As `rest`, for a worker that is stopped and may not have heard whether its last commit was applied.

        Where it was, what that commit began is let go of, be it the next action or the next item of the lane: nobody
        had gone on to it. Raises `LeaseLostError`.
        """
        await self._released(self._transactions.unheard(_step_of(claim)), claim, begun=begun)

    async def begin(self, keys: Iterable[Key], decide: Decide, operation: Hashable) -> Any:
        """As `transact`, for a commit by which a run comes into this worker's hands: one that is stopped before it has
        heard of that lets go of it again."""
        try:
            return await self.transact(keys, decide, operation=operation)
        except anyio.get_cancelled_exc_class():
            with anyio.CancelScope(shield=True), anyio.move_on_after(RELEASE_S_MAX), suppress(DetentError):
                await self._released(self._transactions.unheard(operation), None, begun=False)
            raise

    async def _released(self, unheard: Mapping[str, Any], claim: Claim | None, *, begun: bool) -> None:
        """Let go of what the one of the `unheard` commits began that was applied; of `claim` when none was."""

        def decide(documents: Documents, now_ms: int, token: str) -> tuple[list[Write], None]:
            # Asked for only now: a store with a thread of its own may have decided after its asker was cancelled.
            wanted = heads_of(unheard)
            if missing := [key for key in wanted if key not in documents]:
                raise MoreKeys(missing)
            last = committed_of(applied(unheard, documents))
            held = claim if last is None else last.claim
            if held is None:
                return [Check(key) for key in wanted], None
            key = head_key(held.head.run_id)
            if key not in documents:
                raise MoreKeys([key])
            head = self.own(held, documents)
            until = self.let_go_until(held.machine, head, now_ms)
            is_begun = begun and last is None
            rested = head._replace(worker=None, begun=is_begun, claimable_at_ms=until, updated_at_ms=now_ms)
            return [Set(key, rested.to_document())], None

        await self.transact([] if claim is None else [head_key(claim.head.run_id)], decide)

    # Committing

    async def commit(self, claim: Claim, event: Event, writes: Sequence[Write] = ()) -> Committed:
        """Take one event. Raises `LeaseLostError`, and `IllegalEventError` with nothing written."""
        # The step rests on nothing that the transaction reads, so it is taken once, before it.
        head = claim.head
        advanced = advance(claim.machine, head.snapshot, event, self.secrets)
        answer = Answer(event, writes)
        keys = [write.key for write in writes]
        if advanced.step.snapshot.status.is_final and head.place is not None:
            keys += self.known.keys_at_end(head.place)
        return await self._step(claim, [*head.rest, *keys], lambda documents, now_ms: (answer, advanced))

    async def decide(self, claim: Claim, keys: Sequence[Key], action: DecideAction) -> Committed:
        """Perform a transactional action: its writes and the step are one commit. Raises `LeaseLostError`."""

        def answer(documents: Documents, now_ms: int) -> Answer:
            found = self.decided(action(documents, now_ms), now_ms)
            if all(isinstance(write, Check) for write in found.writes):
                # It changes nothing, so it rests on all that it read: a decide that answers "too late" must be right.
                return found._replace(writes=[Check(key) for key in dict.fromkeys(keys)])
            return found

        try:
            return await self.record(claim, keys, answer)
        except UNWRITABLE as error:
            failure = unwritable(error)
            return await self.record(claim, (), lambda documents, now_ms: Answer(ActionFailed(now_ms, failure)))

    def decided(self, decision: Decision, now_ms: int) -> Answer:
        """The event that a decision is, with the writes that make it true."""
        outcome = decision.outcome
        if any(holds_secret(self.secrets, write) for write in decision.writes):
            outcome = Failure(EngineCode.SECRET_LEAKED, "the action would have written a secret value; it was dropped")
            return Answer(ActionFailed(now_ms, outcome))
        if isinstance(outcome, Outcome):
            return Answer(ActionReturned(now_ms, outcome.name, outcome.value), decision.writes, decision.remarks)
        return Answer(ActionFailed(now_ms, outcome), decision.writes, decision.remarks)

    async def record(self, claim: Claim, keys: Sequence[Key], answer: Callable[[Documents, int], Answer]) -> Committed:
        """Take the event that `answer` gives for the documents under `keys`. Raises `LeaseLostError`."""

        def taken(documents: Documents, now_ms: int) -> tuple[Answer, Advanced]:
            found = answer(documents, now_ms)
            return found, advance(claim.machine, claim.head.snapshot, found.event, self.secrets)

        return await self._step(claim, [*claim.head.rest, *keys], taken)

    async def _step(
        self, claim: Claim, keys: Sequence[Key], taken: Callable[[Documents, int], tuple[Answer, Advanced]]
    ) -> Committed:
        def decide(documents: Documents, now_ms: int, token: str) -> tuple[list[Write], Committed]:
            head = self.own(claim, documents)
            commit = Commit(now_ms, token, self.tenure(), self.secrets)
            return self._written(commit, head, claim.machine, *taken(documents, now_ms), documents)

        wanted = [head_key(claim.head.run_id), *keys]
        committed: Committed = await self.transact(wanted, decide, operation=_step_of(claim))
        return committed

    def _written(
        self,
        commit: Commit,
        head: Head,
        machine: Machine,
        answer: Answer,
        advanced: Advanced,
        documents: Documents,
        fence: int | None = None,
    ) -> tuple[list[Write], Committed]:
        """The writes of one step of a run that this worker holds, and of what follows from it."""
        left = maps.still_open(head.run_id, advanced, documents)
        if left:
            head = head._replace(leaving=head.leaving + left)
        has_more = bool(head.inbox or head.leaving)
        is_urgent = has_more and inbox.is_urgent(machine, head._replace(snapshot=advanced.step.snapshot))
        after = commit.advance(head, [advanced], fence=fence, is_urgent=is_urgent)
        maps.record_effects(commit, after, machine, [advanced], documents)
        next_claim = Claim(after, machine, advanced.effect) if after.begun else None
        if after.is_final and after.place is not None:
            next_claim = self._next_in_lane(commit, after, machine, documents)
        # A step that was refused records another event; the action has then not happened, and writes nothing.
        happened = advanced.event is answer.event
        if happened and answer.writes:
            commit.writes.extend(answer.writes)
        missing = commit.unasked(documents)
        if missing:
            raise MoreKeys(missing)
        taken = advanced.step.taken
        remarks = (*(answer.remarks if happened else ()), *commit.dropped)
        return commit.writes, Committed(after, next_claim, tuple(commit.woken), taken, advanced.event, remarks)

    def _next_in_lane(self, commit: Commit, ended: Head, machine: Machine, documents: Documents) -> Claim | None:
        assert ended.place is not None
        if ended.place.map_key not in documents:
            raise MoreKeys([ended.place.map_key])
        found = maps.after_child(commit, ended, machine, self.known, documents, own=True)
        if found is None:
            return None
        head, effect = found
        return Claim(head, machine, effect)

    # Transactions

    def own(self, claim: Claim, documents: Documents) -> Head:
        """The claim's head, if the claim still stands. Raises `LeaseLostError`."""
        document, held = documents[head_key(claim.head.run_id)], claim.head
        stands = (held.fence, held.snapshot.seq, held.worker)
        if document is None or (document["fence"], document["seq"], document["worker"]) != stands:
            holder = (document and document["worker"]) or "nobody"
            raise LeaseLostError(
                f"run {claim.head.run_id} is no longer held under fence {claim.head.fence} (now held by {holder}).",
                remedy="Another worker goes on with it; nothing was written.",
            )
        # Senders write to the inbox beside the owner: what the transaction read is what there is.
        waiting = read_inbox(document)
        return claim.head._replace(inbox=waiting) if waiting or claim.head.inbox else claim.head


def _step_of(claim: Claim) -> tuple[str, str, int, int]:
    """What a commit under a claim is for: the names of its operation."""
    return "step", claim.head.run_id, claim.head.fence, claim.head.snapshot.seq


def _instant(document: Document) -> int:
    """When a found run may be claimed; one that cannot be read may be now, so that whoever takes it says so."""
    value = document.get("claimable_at_ms")
    return int(value) if isinstance(value, (int, float)) else 0
