"""What of a map never changes, remembered: how many items and lanes it has, and the items themselves.

The commit that ends a child starts the next one of its lane. Without this it would learn in three rounds which
documents that takes, and would read and parse a hundred items for the one it starts. Being remembered is no claim to
being true now: whether the next item may begin is for the map's document to say, in the commit.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Final, NamedTuple, TypeAlias

from engine.core.write import Document, Key
from engine.runs.reading import read_items
from engine.runs.records import ITEMS_PER_CHUNK, Place, Tally, chunk_key, head_key
from engine.runs.transaction import MoreKeys

Documents: TypeAlias = Mapping[Key, "Document | None"]
Item: TypeAlias = tuple[str, Any]

MAPS_KNOWN_MAX: Final = 256
CHUNKS_KNOWN_MAX: Final = 64
"""Chunks at hand: a map of twenty lanes moves through one or two at a time."""


class _Shape(NamedTuple):
    items: int
    lanes: int
    has_quorum: bool


class KnownMaps:
    """See the module. One for each `Runs`."""

    def __init__(self) -> None:
        self._shapes: OrderedDict[Key, _Shape] = OrderedDict()
        self._chunks: OrderedDict[Key, list[Item]] = OrderedDict()

    def learn(self, of: Key, tally: Tally) -> None:
        """Remember how a map is laid out."""
        self._shapes[of] = _Shape(tally.items, tally.lanes, tally.min_success is not None)
        while len(self._shapes) > MAPS_KNOWN_MAX:
            self._shapes.popitem(last=False)

    def keys_at_end(self, place: Place) -> list[Key]:
        """The documents that the final commit of a child will most likely need."""
        of = place.map_key
        shape = self._shapes.get(of)
        if shape is None:
            return [of]
        following = place.number + shape.lanes
        keys = [of]
        if following >= shape.items or shape.has_quorum:
            keys.append(head_key(place.parent))
        return keys

    def item(self, of: Key, index: int, documents: Documents) -> Item:
        """Key and input of one item. Raises `MoreKeys` for the chunk that holds it."""
        wanted = chunk_key(of, index)
        chunk = self._chunks.get(wanted)
        if chunk is None:
            if wanted not in documents:
                raise MoreKeys([wanted])
            chunk = self._chunks[wanted] = read_items(wanted, documents[wanted])
            while len(self._chunks) > CHUNKS_KNOWN_MAX:
                self._chunks.popitem(last=False)
        key, value = chunk[index % ITEMS_PER_CHUNK]
        return key, value
