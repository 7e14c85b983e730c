"""The documents in which runs are kept, and the values that they stand for.

| collection | id | holds |
| --- | --- | --- |
| `runs` | the run's id | the head: snapshot, fence, worker, when it may be claimed |
| `journal` | run id `~` seq | one event, with the fence and the token of its commit; create-only |
| `snapshot_parts` | run id `~` seq `~` part | what a head cannot hold of its snapshot; gone with the next one |
| `journal_parts` | the entry's id `~` part | what an entry cannot hold of its event; create-only |
| `run_keys` | machine `~` key | the newest run of a key |
| `maps` | run id `~` state `~` visit | how far a map has come |
| `map_items` | the map's id `~` chunk | its items, a hundred to a document, and (`~kept~`) those kept; create-only |
| `signals` | run id `~` the signal's id | a signal's name and value; create-only: it is delivered once, for ever |
| `definitions` | digest | a definition as its runs began with it; create-only |

Snapshots, entries and items are canonical JSON in one text field, since a document store keeps neither the
order of a map nor a list in a list; what is queried stands beside them.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple, TypeAlias
from urllib.parse import quote

from engine.core import canonical, event
from engine.core.bounds import DOCUMENT_BYTES_MAX
from engine.core.effect import StartMap, StopMap
from engine.core.event import Event
from engine.core.snapshot import Snapshot
from engine.core.write import Create, Document, Key
from engine.store.port import Index

RUNS: Final = "runs"
JOURNAL: Final = "journal"
JOURNAL_PARTS: Final = "journal_parts"
SNAPSHOT_PARTS: Final = "snapshot_parts"
RUN_KEYS: Final = "run_keys"
MAPS: Final = "maps"
MAP_ITEMS: Final = "map_items"
SIGNALS: Final = "signals"
DEFINITIONS: Final = "definitions"

INDEXES: Final = (
    Index(RUNS, ("claimable_at_ms",)),
    Index(RUNS, ("is_root", "created_at_ms")),
    Index(RUNS, ("root", "claimable_at_ms")),
)
"""What the queries of this package need of a store. A journal is read by its keys, and needs none."""

ITEMS_PER_CHUNK: Final = 100

PARTS_MAX: Final = 1_000
"""Documents of one text. The bounds of a snapshot and of an event let none have more than some twenty."""

PART_CHARACTERS: Final = DOCUMENT_BYTES_MAX // 5
"""Of a text, in one document: a character takes four bytes at the most, and escaped quotes count twice."""


class Place(NamedTuple):
    """Where a child run stands in its parent's map."""

    parent: str
    state: str
    visit: int
    number: int
    key: str

    @property
    def map_key(self) -> Key:
        return map_key(self.parent, self.state, self.visit)


class Cancel(NamedTuple):
    """Waits in an inbox: somebody asked that the run end."""

    at_ms: int
    reason: str


class Signal(NamedTuple):
    """Waits in an inbox: a signal, whose value lies in the document of its `id`."""

    at_ms: int
    id: str
    name: str


Message: TypeAlias = Cancel | Signal


class Head(NamedTuple):
    """A run's head document; see LEASES.md for `fence`, `worker`, `claimable_at_ms`, `begun`, `inbox` and `leaving`."""

    snapshot: Snapshot
    fence: int
    worker: str | None
    claimable_at_ms: int | None
    begun: bool
    created_at_ms: int
    updated_at_ms: int
    root: str
    place: Place | None = None
    parts: int = 1
    inbox: tuple[Message, ...] = ()
    leaving: tuple[StopMap, ...] = ()

    @property
    def run_id(self) -> str:
        return self.snapshot.run_id

    @property
    def rest(self) -> list[Key]:
        """Where the rest of a snapshot lies that the head's own document cannot hold."""
        if self.parts == 1:
            return []
        return _rest(SNAPSHOT_PARTS, f"{self.run_id}~{self.snapshot.seq:08d}", self.parts)

    @property
    def is_final(self) -> bool:
        return self.snapshot.status.is_final

    @property
    def has_ended(self) -> bool:
        """Whether it is final, and the items of the map that its end left have been told."""
        return self.is_final and not self.leaving

    def to_document(self, snapshot_text: str | None = None) -> dict[str, Any]:
        """The document; `snapshot` is canonical JSON text, and may be given by who has encoded it already."""
        snapshot = self.snapshot
        text = snapshot.encode() if snapshot_text is None else snapshot_text
        document: dict[str, Any] = {
            "run_id": snapshot.run_id,
            "machine": snapshot.machine,
            "version": snapshot.version,
            "digest": snapshot.digest,
            "key": snapshot.key,
            "state": snapshot.state,
            "status": snapshot.status.value,
            "seq": snapshot.seq,
            "fence": self.fence,
            "worker": self.worker,
            "claimable_at_ms": self.claimable_at_ms,
            "begun": self.begun,
            "created_at_ms": self.created_at_ms,
            "updated_at_ms": self.updated_at_ms,
            "root": self.root,
            "is_root": self.place is None,
            "place": None if self.place is None else self.place._asdict(),
            "snapshot": text[:PART_CHARACTERS],
        }
        if self.parts > 1:
            document["parts"] = self.parts
        if self.inbox:
            document["inbox"] = inbox_document(self.inbox)
        if self.leaving:
            document["leaving"] = [left._asdict() for left in self.leaving]
        return document

    @classmethod
    def read(cls, document: Document, rest: Sequence[Document | None] = ()) -> "Head":
        """The inverse of `to_document`; `rest` are the documents under `rest_of`."""
        fields: Any = document
        place = fields["place"]
        text = fields["snapshot"] if not rest else "".join((fields["snapshot"], *_texts(rest)))
        return cls(
            Snapshot.decode(text),
            fields["fence"],
            fields["worker"],
            fields["claimable_at_ms"],
            fields["begun"],
            fields["created_at_ms"],
            fields["updated_at_ms"],
            fields["root"],
            None if place is None else Place(**place),
            fields.get("parts", 1),
            read_inbox(document),
            tuple(StopMap(**left) for left in fields.get("leaving", ())),
        )


class Entry(NamedTuple):
    """One journal entry: the event that step `seq` took, under which fence, by which commit."""

    run_id: str
    seq: int
    fence: int
    token: str
    event: Event

    @classmethod
    def read(cls, document: Document, rest: Sequence[Document | None] = ()) -> "Entry":
        """The inverse of `entry_writes`; `rest` are the documents under `rest_of`."""
        fields: Any = document
        text = "".join((fields["entry"], *_texts(rest)))
        taken = event.from_json(canonical.decode(text))  # type: ignore[arg-type]  # an object, by `entry_writes`
        return cls(fields["run_id"], fields["seq"], fields["fence"], fields["token"], taken)


def entry_writes(run_id: str, seq: int, fence: int, token: str, text: str) -> list[Create]:
    """What records an entry; `text` is its event as canonical JSON."""
    key = entry_key(run_id, seq)
    document: dict[str, Any] = {"run_id": run_id, "seq": seq, "fence": fence, "token": token, "entry": text}
    count = parts_count(text)
    if count == 1:
        return [Create(key, document)]
    parts = parts_of(text)
    first = Create(key, {**document, "entry": parts[0], "parts": count})
    rest = zip(_rest(JOURNAL_PARTS, key.id, count), parts[1:], strict=True)
    return [first, *(Create(part_key, {"text": part}) for part_key, part in rest)]


def parts_count(text: str) -> int:
    """How many documents it takes to hold a canonical text."""
    return -(-len(text) // PART_CHARACTERS)


def parts_of(text: str) -> list[str]:
    """A canonical text in pieces, each of which one document holds."""
    return [text[start : start + PART_CHARACTERS] for start in range(0, len(text), PART_CHARACTERS)]


class Tally(NamedTuple):
    """How far a map has come. `lanes_open` counts the lanes whose last item has not ended.

    `kept` items of a redriven map stand beside the `items`: they succeeded before and are not among the lanes.
    """

    digest: str
    root: str
    items: int
    lanes: int
    lanes_open: int
    min_success: int | None
    succeeded: int = 0
    failed: int = 0
    is_stopped: bool = False
    is_left: bool = False
    kept: int = 0

    @property
    def is_decided(self) -> bool:
        """Whether `min_success` is reached, or cannot be any more."""
        if self.min_success is None:
            return False
        return self.succeeded >= self.min_success or self.items - self.failed < self.min_success


@lru_cache(maxsize=4096)
def head_key(run_id: str) -> Key:
    return Key.of(RUNS, run_id)


def entry_key(run_id: str, seq: int) -> Key:
    return Key(JOURNAL, f"{run_id}~{seq:08d}")  # valid where the head's key is: each step makes one


def rest_of(key: Key, document: Document) -> list[Key]:
    """Where the rest of a head's snapshot or of a journal entry lies; nowhere for most."""
    fields: Any = document
    if "parts" not in fields:
        return []
    parts = fields["parts"]
    if parts > PARTS_MAX:
        raise ValueError("more parts than any text has")
    if key.collection == JOURNAL:
        return _rest(JOURNAL_PARTS, key.id, parts)
    return _rest(SNAPSHOT_PARTS, f"{key.id}~{fields['seq']:08d}", parts)


def _rest(collection: str, whole: str, parts: int) -> list[Key]:
    return [Key(collection, f"{whole}~{number}") for number in range(1, parts)]


def _texts(rest: Sequence[Document | None]) -> Iterator[str]:
    for document in rest:
        if document is None:
            raise LookupError("a part is missing")  # parts are written with what they are parts of
        yield str(document["text"])


def signal_key(run_id: str, signal_id: str) -> Key:
    return Key.of(SIGNALS, _bounded(f"{run_id}~{_escaped(signal_id)}"))


def inbox_document(inbox: Iterable[Message]) -> list[dict[str, Any]]:
    """The field `inbox` of a head."""
    return [{"kind": _KINDS[type(message)], **message._asdict()} for message in inbox]


def read_inbox(document: Document) -> tuple[Message, ...]:
    """What waits in a head; most hold no such field."""
    waiting: Any = document.get("inbox")
    if not waiting:
        return ()
    return tuple(
        _MESSAGES[message["kind"]](**{name: value for name, value in message.items() if name != "kind"})
        for message in waiting
    )


_MESSAGES: Final[dict[str, type[Cancel | Signal]]] = {"cancel": Cancel, "signal": Signal}
_KINDS: Final = {cls: kind for kind, cls in _MESSAGES.items()}


def run_key_key(machine: str, key: str) -> Key:
    return Key.of(RUN_KEYS, _bounded(f"{machine}~{_escaped(key)}"))


@lru_cache(maxsize=1024)
def map_key(run_id: str, state: str, visit: int) -> Key:
    return Key.of(MAPS, _bounded(f"{run_id}~{state}~{visit}"))


@lru_cache(maxsize=1024)
def chunk_key(of: Key, index: int) -> Key:
    """The document that holds item `index` of a map."""
    return Key.of(MAP_ITEMS, f"{of.id}~{index // ITEMS_PER_CHUNK}")


class Kept(NamedTuple):
    """An item that succeeded before its map was redriven: the run that stands for it, and its input's digest."""

    run_id: str
    digest: str


def kept_key(of: Key, index: int) -> Key:
    """The document that holds the `index`-th kept item of a map."""
    return Key.of(MAP_ITEMS, f"{of.id}~kept~{index // ITEMS_PER_CHUNK}")


def chunk_texts(effect: StartMap) -> Iterator[str]:
    """The keys and inputs of a map's items as they are stored, `ITEMS_PER_CHUNK` to a text."""
    items = list(zip(effect.keys, effect.inputs, strict=True))
    for start in range(0, len(items), ITEMS_PER_CHUNK):
        yield canonical.encode(items[start : start + ITEMS_PER_CHUNK])


def definition_key(digest: str) -> Key:
    return Key.of(DEFINITIONS, digest)


def keyed_run_id(machine: str, key: str, generation: int) -> str:
    """The id of the `generation`-th run of a key, from 1."""
    return _bounded(f"{machine}~{_escaped(key)}~{generation}")


@lru_cache(maxsize=4096)
def child_run_id(place: Place) -> str:
    return _bounded(f"{place.parent}~{place.state}~{place.visit}~{_escaped(place.key)}")


def _escaped(key: str) -> str:
    """A key with what no document id may hold, and `~`, which parts ids, percent-encoded; the rest stays readable."""
    safe = " !\"#$&'()*+,:;<=>?@[\\]^`{|}" if key.isascii() else " :,=@"
    return quote(key, safe=safe).replace("~", "%7E")


def _bounded(text: str) -> str:
    """`text`, or when it is too long for an id of ids, its beginning and a digest."""
    if len(text.encode()) <= 400:
        return text
    return f"{text.encode()[:300].decode(errors='ignore')}~{canonical.digest(text)[:32]}"


def tally_document(tally: Tally) -> dict[str, Any]:
    return tally._asdict()
