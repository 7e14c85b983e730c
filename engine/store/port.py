"""PORT: transactional documents, in four verbs.

`transact(keys, decide)` loads the documents under `keys`, calls the pure
`decide(documents, now_ms) -> (writes, result)`, applies the writes in one atomic commit and answers
`result`. On a conflict it loads again and calls `decide` afresh, so a decide must be pure and may be
called several times; what it raises passes through and nothing is written.

A document is guarded by being written or checked, and only then: whatever an answer rests on, its
decide writes or checks. A decide may write only under the keys that it asked for, but for a `Create`,
which has nothing to read: should there be a document after all, the store decides again with it loaded,
and the write's own condition then fails. The memory store is the test of these rules: it changes
unguarded documents behind a decide's back.

`now_ms` is the store's reading of the clock (milliseconds since 1970, UTC) for this call of `decide`.
Numbers keep their kind (1 stays an int, 1.0 a float), strings any Unicode, maps no order.
"""

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, Literal, NamedTuple, Protocol, TypeAlias, TypeVar

import orjson

from engine.core import canonical
from engine.core.bounds import DOCUMENT_BYTES_MAX
from engine.core.canonical import Json
from engine.core.write import Check, Create, Document, Key, Update, Write, apply
from engine.errors import DocumentUnreadableError, InvalidRequestError

Result = TypeVar("Result")

Documents: TypeAlias = Mapping[Key, Document | None]
"""What `decide` sees: every key asked for, `None` where there is no document."""

Decide: TypeAlias = Callable[[Documents, int], tuple[Sequence[Write], Result]]

Operator: TypeAlias = Literal["==", "<", "<=", ">", ">="]


class Where(NamedTuple):
    """A condition on one top-level field. A document without the field, or with null in it, never matches."""

    field: str
    operator: Operator
    value: str | int | float | bool


class Order(NamedTuple):
    """Order by one top-level field: documents without it are left out and null comes first, as in Firestore.

    The values are numbers, or strings (by code point), or booleans (false first); the order between these
    kinds, and among lists and maps, is not specified.
    """

    field: str
    descending: bool = False


class Index(NamedTuple):
    """The fields that some query filters or orders by, in the order in which an index needs them."""

    collection: str
    fields: tuple[str, ...]


class Found(NamedTuple):
    """A query's answer: the key and the document."""

    key: Key
    document: Document


class Store(Protocol):
    """See the module."""

    async def get_many(self, keys: Sequence[Key]) -> dict[Key, Document | None]:
        """The documents under `keys`, each as last committed; `None` where there is none.

        Raises `StoreUnavailableError`, `StoreDamagedError`, and `DocumentUnreadableError` for what is no document.
        """

    async def transact(self, keys: Sequence[Key], decide: Decide[Result]) -> Result:
        """Load, decide, commit; see the module.

        Raises `WriteRefusedError` when a write's own condition fails, `InvalidRequestError` for a document over
        its bound, `ContentionError` when conflicts do not end, `StoreUnavailableError` when nothing was
        written, `CommitUncertainError` when that is not known, and what `get_many` raises, with nothing written.
        """

    async def query(
        self, collection: str, where: Sequence[Where] = (), order_by: Sequence[Order] = (), limit: int | None = None
    ) -> list[Found]:
        """Documents of one collection. Ties, and a query without an order, go by id ascending.

        One that cannot be read hides no other: it is not found, or found as `UNREADABLE`.
        Raises `StoreUnavailableError`, `StoreDamagedError`.
        """

    async def close(self) -> None:
        """Finish what is under way and let go. Idempotent."""


UNREADABLE: Final[Document] = MappingProxyType({})
"""Stands in a query's answer for a document whose stored text is none. Reading it by its key says what is wrong."""

ATTEMPTS_MAX: Final = 64
"""Calls of one decide before `ContentionError`."""


def settle(
    texts: Mapping[Key, str | None], writes: Sequence[Write], documents: dict[Key, Document] | None = None
) -> dict[Key, str | None]:
    """What a commit leaves under every key that `writes` name: canonical texts in, canonical texts out.

    The specification of `transact`'s second half. Raises `WriteRefusedError`, `InvalidRequestError` as the port
    says, and `ValueError` for a bug: a key that was not asked for, two writes on one key, a value that is not JSON.
    What each text says is put into `documents`, for a store that keeps more than the text. Of a `Create` under a key
    that was not asked for it is taken that there is no document: whoever commits must see to that.
    """
    after: dict[Key, str | None] = {}
    for write in writes:
        key = write.key
        if key not in texts and not isinstance(write, Create):
            raise ValueError(f"a decide wrote {key.collection}/{key.id}, which it did not ask for")
        if key in after:
            raise ValueError(f"a decide wrote {key.collection}/{key.id} twice in one commit")
        before = texts.get(key)
        if isinstance(write, Check):
            after[key] = before
            continue
        # Only an update needs the old fields; the other writes need to know whether there is a document.
        present = None if before is None else document_of(before) if isinstance(write, Update) else {}
        document = apply(write, present)
        after[key] = None if document is None else document_text(key, document)
        if document is not None and documents is not None:
            documents[key] = document
    return after


def created_unasked(keys: Container[Key], writes: Sequence[Write]) -> list[Key]:
    """The keys of the documents that a decide creates without having asked for them."""
    return [write.key for write in writes if write.key not in keys]


def document_of(text: str) -> dict[str, Json]:
    """The document of a canonical text, as new containers that nobody else holds. Raises `ValueError`."""
    document: dict[str, Json] = orjson.loads(text)
    if type(document) is not dict:
        raise ValueError(f"a {type(document).__name__} stands there")  # as for what is no JSON
    return document


def reading_failure(keys: Sequence[Key], texts: Mapping[Key, str | None], error: ValueError) -> Exception:
    """What an error means that was met over the documents under `keys`, whose `texts` were read as far as they are.

    That of the first document whose text is none; `error` itself where each is one: then it was the decide's.
    """
    for key in keys:
        if key not in texts:  # reading ended here
            return error if isinstance(error, UnicodeEncodeError) else unreadable(key, error)
        text = texts[key]
        try:
            if text is not None:
                document_of(text)
        except ValueError as problem:
            return unreadable(key, problem)
    return error


def unreadable(key: Key, error: ValueError) -> DocumentUnreadableError:
    """The error for a document whose stored text is none."""
    return DocumentUnreadableError(
        f"{key.collection}/{key.id}",
        f"it should be a JSON object, and is not: {error}",
        remedy="detent cannot have written that: restore its row from a copy of the database.",
    )


def document_text(key: Key, document: Document) -> str:
    """The canonical text of a document.

    Raises `InvalidRequestError` over `DOCUMENT_BYTES_MAX`, and `ValueError` for what is no JSON map.
    """
    # Most documents are plain already, and seeing that is five times cheaper than making them so.
    try:
        text = canonical.encode_plain(document if _is_plain(document) else _plain(key, document))
    except TypeError as error:  # half of a surrogate pair
        raise ValueError(f"{key.collection}/{key.id} cannot be written as JSON: {error}") from None
    # An ASCII text has a byte for each character, and knows that it is one; others are measured.
    size = len(text) if text.isascii() else len(text.encode())
    if size > DOCUMENT_BYTES_MAX:
        raise InvalidRequestError(
            f"the document {key.collection}/{key.id} would be {size} bytes long; {DOCUMENT_BYTES_MAX} are the most.",
            remedy="Keep large values outside: return them as a Blob.",
        )
    return text


def _plain(key: Key, document: Document) -> Json:
    name = f"{key.collection}/{key.id}"
    if not isinstance(document, Mapping):
        raise ValueError(f"{name} must be a map, not a {type(document).__name__}")
    return canonical.plain(document, name)


_SURE: Final = frozenset((str, bool, type(None)))
"""Types of which every value is JSON. Numbers have some that are not."""

_INTEGER_END: Final = 2**63
"""As in Firestore, an integer has 64 bits."""


def _is_plain(document: object) -> bool:
    """Whether a document is surely JSON, of JSON's own types alone; of another `_plain` makes it, or says why not."""
    if type(document) is not dict:
        return False
    for name, entry in document.items():
        if type(name) is not str:
            return False
        kind = type(entry)
        if kind in _SURE or (kind is int and -_INTEGER_END <= entry < _INTEGER_END):
            continue
        if not (kind is list and _SURE.issuperset(map(type, entry))) and not _is_plain(entry):
            return False
    return True


def select(found: Iterable[Found], where: Sequence[Where], order_by: Sequence[Order], limit: int | None) -> list[Found]:
    """The answer of `query` among `found`. The specification that each store's own query must equal."""
    chosen = [
        entry
        for entry in found
        if matches(entry.document, where) and all(order.field in entry.document for order in order_by)
    ]
    chosen.sort(key=lambda entry: entry.key.id)
    for order in reversed(order_by):
        chosen.sort(key=lambda entry, field=order.field: _rank(entry.document[field]), reverse=order.descending)  # type: ignore[misc]
    return chosen if limit is None else chosen[: max(limit, 0)]


def _rank(value: Json) -> tuple[int, Any]:
    if value is None:
        return (0, 0)
    if isinstance(value, bool):
        return (1, value)
    if isinstance(value, (int, float)):
        return (2, value)
    return (3, value) if isinstance(value, str) else (4, 0)


def matches(document: Document, where: Sequence[Where]) -> bool:
    """Whether a document meets every condition. The specification that each store's own query must equal."""
    return all(_holds(document.get(condition.field), condition) for condition in where)


def _holds(value: Json, condition: Where) -> bool:
    if value is None or not _comparable(value, condition.value):
        return False
    left: Any = value
    match condition.operator:
        case "==":
            return bool(left == condition.value)
        case "<":
            return bool(left < condition.value)
        case "<=":
            return bool(left <= condition.value)
        case ">":
            return bool(left > condition.value)
        case ">=":
            return bool(left >= condition.value)


def _comparable(left: object, right: object) -> bool:
    """Values of different types never match each other (Firestore orders by type first); a bool is no number."""
    if isinstance(left, bool) or isinstance(right, bool):
        return isinstance(left, bool) and isinstance(right, bool)
    if isinstance(left, (int, float)) and isinstance(right, (int, float)):
        return True
    return isinstance(left, str) and isinstance(right, str)
