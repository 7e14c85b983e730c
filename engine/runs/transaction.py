"""One transaction: made again with the documents it turns out to need, and settled when its fate is unknown.

A commit carries its token in each journal entry and each head that it writes. When the store cannot say whether
a commit was applied, the same operation, made again, finds the token there and answers what that commit would have
answered; when it is not there, the decide is simply made again.
"""

from __future__ import annotations

import itertools
import os
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias

import anyio

from engine.core.write import Document, Key, Write
from engine.errors import CommitUncertainError, StoreUnavailableError
from engine.runs.reading import MALFORMED, expect_readable, read_head, read_rest, sound
from engine.runs.records import JOURNAL, RUNS, Head, head_key
from engine.store.port import Store

Documents: TypeAlias = Mapping[Key, "Document | None"]
Decide: TypeAlias = Callable[[Documents, int, str], "tuple[Sequence[Write], Any]"]

SETTLING_ATTEMPTS: Final = 3
"""Tries to learn the fate of a commit at once; then the caller waits, as for any store that is away."""

UNSETTLED_MAX: Final = 1_000
"""Commits of unknown fate that are remembered; an older one is then left to the end of its lease."""


class MoreKeys(Exception):
    """A decide needs documents that the transaction did not load."""

    def __init__(self, keys: Iterable[Key]) -> None:
        self.keys = tuple(keys)
        super().__init__(self.keys)


def head_in(documents: Documents, key: Key) -> Head | None:
    """The head under a key. Raises `MoreKeys` for it, or for the rest of its snapshot."""
    if key not in documents:
        raise MoreKeys([key])
    document = documents[key]
    if document is None:
        return None
    rest = read_rest(key, document)
    if missing := [part for part in rest if part not in documents]:
        raise MoreKeys(missing)
    return read_head(key, document, [documents[part] for part in rest])


async def stored_snapshot(store: Store, run_id: str) -> tuple[Head, str] | None:
    """A run's head, and the text of its snapshot just as it is stored. Raises `DocumentUnreadableError`."""
    key = head_key(run_id)
    documents, rest = await _with_rest(store, [key])
    document: Any = documents[key]
    if document is None:
        return None
    parts: list[Any] = [documents[part] for part in rest[key]]
    sound(key, document, parts)
    return read_head(key, document, parts), "".join((document["snapshot"], *(part["text"] for part in parts)))


async def read_heads(store: Store, keys: Sequence[Key], *, is_strict: bool = False) -> list[Head | None]:
    """The heads under keys, each as last committed. Raises `DocumentUnreadableError`.

    `is_strict`: also for what could be read, and has a field of another type than it should.
    """
    return list(await heads_under(store, keys, is_strict=is_strict))


async def heads_under(store: Store, keys: Sequence[Key], *, is_strict: bool = False) -> Iterator[Head | None]:
    """As `read_heads`; each is made when it is its turn, for one who keeps little of many."""
    documents, rest = await _with_rest(store, keys)

    def head(key: Key) -> Head | None:
        document = documents[key]
        if document is None:
            return None
        parts = [documents[part] for part in rest[key]]
        return read_head(key, sound(key, document, parts) if is_strict else document, parts)

    return map(head, keys)


async def _with_rest(store: Store, keys: Sequence[Key]) -> tuple[dict[Key, Document | None], dict[Key, list[Key]]]:
    """The documents under keys, with those that hold the rest of their snapshots; and which of them these are.

    A part that is not there means that the run has taken a step between the two reads, or, when it has not, that
    the part is lost.
    """
    before: dict[Key, Document | None] | None = None
    while True:
        found = await store.get_many(keys)
        rest = {key: read_rest(key, document) for key, document in found.items() if document is not None}
        wanted = [part for parts in rest.values() for part in parts]
        if not wanted:
            return found, rest
        parts = await store.get_many(wanted)
        if found == before or all(parts[part] is not None for part in wanted):
            return found | parts, rest
        before = found


class Transactions:
    """See the module. One for each `Runs`: an operation that was left unsettled may be made again by a later call."""

    def __init__(self, store: Store) -> None:
        self._store = store
        prefix = os.urandom(8).hex()
        self._tokens = (f"{prefix}.{number}" for number in itertools.count())
        self._unsettled: OrderedDict[Hashable, dict[str, Any]] = OrderedDict()

    async def transact(self, keys: Iterable[Key], decide: Decide, *, operation: Hashable = None) -> Any:
        """Make one transaction; `operation` names what it is for, so that the same one can be settled by a later call.

        Raises what the store and the decide raise; `CommitUncertainError` when the fate stays unknown, and
        `DocumentUnreadableError` where the decide failed for a document that is not as it should be.
        """
        wanted = list(dict.fromkeys(keys))
        # Only this operation's own tokens are looked for: another's, on the same documents, is no answer to this one.
        made = self._unsettled.pop(operation, {})
        is_unsettled = bool(made)
        attempts = 0

        def attempt(documents: Documents, now_ms: int) -> tuple[Sequence[Write], Any]:
            found = applied(made, documents)
            if found is not None:
                return [], found
            token = next(self._tokens)
            try:
                writes, result = decide(documents, now_ms, token)
            except MALFORMED as error:
                expect_readable(documents, error)
                raise
            made[token] = result
            return writes, result

        while True:
            try:
                return await self._store.transact(wanted, attempt)
            except MoreKeys as more:
                wanted = list(dict.fromkeys((*wanted, *more.keys)))
            except CommitUncertainError:
                is_unsettled = True
                attempts += 1
                if attempts == SETTLING_ATTEMPTS:
                    self._remember(operation, made)
                    raise
            except StoreUnavailableError:
                if is_unsettled:  # also when an earlier call left it so, and the store is away still
                    self._remember(operation, made)
                raise
            except anyio.get_cancelled_exc_class():
                self._remember(operation, made)
                raise

    def unheard(self, operation: Hashable) -> Mapping[str, Any]:
        """What the commits of an operation answer whose fate nobody has heard of, by token; forgotten with this."""
        return self._unsettled.pop(operation, {})

    def _remember(self, operation: Hashable, made: dict[str, Any]) -> None:
        if operation is None:
            return
        self._unsettled[operation] = made
        while len(self._unsettled) > UNSETTLED_MAX:
            self._unsettled.popitem(last=False)


def applied(made: Mapping[str, Any], documents: Documents) -> Any | None:
    """The answer of that commit among `made` which was applied, if its run still stands where that left it."""
    if not made:
        return None
    for key, document in documents.items():
        if document is not None and key.collection in (JOURNAL, RUNS):
            token = document.get("token")
            if isinstance(token, str) and token in made and _stands(made[token], documents):
                return made[token]
    return None


def committed_of(result: Any) -> Any:
    """What a verb's result says of a commit: a start's is more than that."""
    return getattr(result, "committed", None) or result


def heads_of(made: Mapping[str, Any]) -> list[Key]:
    """The heads that the commits `made` would have written."""
    heads = [getattr(committed_of(result), "head", None) for result in made.values()]
    return list(dict.fromkeys(head_key(head.run_id) for head in heads if head is not None))


def _stands(result: Any, documents: Documents) -> bool:
    """Whether nobody has gone on with the run since: a worker must not act on what is over."""
    head = getattr(committed_of(result), "head", None)
    if head is None:
        return True
    document = documents.get(head_key(head.run_id))
    return document is not None and (document["fence"], document["seq"]) == (head.fence, head.snapshot.seq)
