"""The neutral picture: what is drawn, before anyone decides how.

`compose` makes one from a machine; `mermaid`, `dot` and `svg` each write one out and look at nothing
else, so the formats cannot disagree. Ids are synthetic (`s3`, `b1`): the names of states, which may be
reserved words of a format, are only ever text. Texts hold no control characters and are not escaped.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple, TypeAlias


class NodeKind(StrEnum):
    """What a node stands for; each has its own shape and colours."""

    START = "start"
    ACTION = "action"
    MAP = "map"
    CHOICE = "choice"
    WAIT = "wait"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    CATCH = "catch"
    CANCEL = "cancel"

    @property
    def is_final(self) -> bool:
        """Whether a run ends here."""
        return self in (NodeKind.SUCCEEDED, NodeKind.FAILED, NodeKind.CANCELLED)

    @property
    def is_handler(self) -> bool:
        """Whether it is no state but the mark, inside a box, of what every state of the box inherits."""
        return self in (NodeKind.CATCH, NodeKind.CANCEL)


class EdgeKind(StrEnum):
    """The way that is meant, the way of an error, the way of a cancelled run."""

    FLOW = "flow"
    ERROR = "error"
    CANCEL = "cancel"


class Node(NamedTuple):
    """A state, the start, or a handler. `state` is the full name; `box` the id of the box around it."""

    id: str
    kind: NodeKind
    title: str
    lines: tuple[str, ...] = ()
    state: str = ""
    box: str | None = None
    tooltip: str = ""


class Box(NamedTuple):
    """A state that holds states."""

    id: str
    title: str
    state: str
    depth: int
    box: str | None = None
    tooltip: str = ""


class Edge(NamedTuple):
    """One line between two nodes, for one transition or for several that go the same way in the same style.

    `box` is the innermost box around both ends.
    """

    id: str
    kind: EdgeKind
    source: str
    target: str
    lines: tuple[str, ...] = ()
    box: str | None = None
    tooltip: str = ""


Part: TypeAlias = Node | Box | Edge


class Picture(NamedTuple):
    """Everything that is drawn, in the order of the definition."""

    title: str
    description: str
    nodes: tuple[Node, ...]
    boxes: tuple[Box, ...]
    edges: tuple[Edge, ...]

    def parts(self) -> list[Part]:
        """The nodes, the boxes, the edges."""
        return [*self.nodes, *self.boxes, *self.edges]

    def inside(self, box: str | None) -> list[Part]:
        """What lies directly in a box, or for `None` in none."""
        return [part for part in self.parts() if part.box == box]
