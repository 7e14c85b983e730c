"""One transaction: made again with the documents it turns out to need, and settled when its fate is unknown.

A commit carries its token in each journal entry that it writes, and a claim in the head. When the store cannot
say whether a commit was applied, the next transaction on the same documents finds the token there and answers
what that commit would have answered; when it is not there, the decide is simply made again.
"""

from __future__ import annotations

import itertools
import secrets as randomness
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, TypeAlias

from engine.core.write import Document, Key, Write
from engine.errors import CommitUncertainError
from engine.runs.records import JOURNAL, RUNS
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


class Transactions:
    """See the module. One for each `Runs`: what is unsettled outlives the call that left it so."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._tokens = (f"{randomness.token_hex(8)}.{number}" for number in itertools.count())
        self._unsettled: OrderedDict[str, Any] = OrderedDict()

    async def transact(self, keys: Iterable[Key], decide: Decide) -> Any:
        """Raises what the store and the decide raise; `CommitUncertainError` when the fate stays unknown."""
        wanted = list(dict.fromkeys(keys))
        made: dict[str, Any] = {}
        attempts = 0

        def attempt(documents: Documents, now_ms: int) -> tuple[Sequence[Write], Any]:
            settled = self._applied(documents)
            if settled is not None:
                return [], self._unsettled[settled]
            token = next(self._tokens)
            writes, result = decide(documents, now_ms, token)
            made[token] = result
            return writes, result

        while True:
            try:
                result = await self._store.transact(wanted, attempt)
            except MoreKeys as more:
                wanted = list(dict.fromkeys((*wanted, *more.keys)))
            except CommitUncertainError:
                self._remember(made)
                attempts += 1
                if attempts == SETTLING_ATTEMPTS:
                    raise
            else:
                for token in made:
                    self._unsettled.pop(token, None)
                return result

    def _applied(self, documents: Documents) -> str | None:
        """The token of an unsettled commit that turns out to have been applied."""
        if not self._unsettled:
            return None
        for key, document in documents.items():
            if document is not None and key.collection in (JOURNAL, RUNS):
                token = document.get("token")
                if isinstance(token, str) and token in self._unsettled:
                    return token
        return None

    def _remember(self, made: Mapping[str, Any]) -> None:
        self._unsettled.update(made)
        while len(self._unsettled) > UNSETTLED_MAX:
            self._unsettled.popitem(last=False)
