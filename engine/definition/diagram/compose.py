"""`Machine` -> `Picture`: which nodes, boxes and edges there are, and what is written on them.

Every transition of the machine is in the picture: as an edge of its leaf or, when the leaf inherits it,
once in the box that declares it, from a mark there that stands for all its states. Pure, and in the order
of the definition; no sizes, colours or shapes are chosen here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from engine.core.machine import Branch, Machine, State, StateKind
from engine.definition.diagram import wording
from engine.definition.diagram.origin import Origin, origins
from engine.definition.diagram.picture import Box, Edge, EdgeKind, Node, NodeKind, Picture

_EDGE_KIND = {"catch": EdgeKind.ERROR, "cancel": EdgeKind.CANCEL}
_HANDLER_TITLE = {NodeKind.CATCH: "on error", NodeKind.CANCEL: "on cancel"}


def compose(machine: Machine) -> Picture:
    """The picture of a machine."""
    return _Composition(machine).picture()


class _Composition:
    """The picture under way. Edges are kept by where they go, so that parallel ones become one."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.ids = {name: f"s{index}" for index, name in enumerate(machine.states, 1)}
        self.boxes: dict[str, Box] = {}
        self.handlers: dict[tuple[str, NodeKind], Node] = {}
        self.edges: dict[tuple[EdgeKind, str, str], list[tuple[tuple[str, ...], str]]] = {}
        self.drawn: set[Origin] = set()

    def picture(self) -> Picture:
        machine = self.machine
        states = [self._node(state) for state in machine.states.values()]
        start = Node("start", NodeKind.START, "", tooltip=f"A run begins in {machine.initial}.")
        self._edge(EdgeKind.FLOW, start.id, self.ids[machine.initial], (), start.tooltip)
        for state in machine.states.values():
            self._leaf(state)
        nodes = (start, *self.handlers.values(), *states)
        title = f"{machine.name} version {machine.version}"
        boxes = tuple(self.boxes.values())
        return Picture(title, wording.drawable(machine.description), nodes, boxes, tuple(self._drawn_edges(nodes)))

    def _drawn_edges(self, nodes: Iterable[Node]) -> Iterator[Edge]:
        above = {box.id: box.box for box in self.boxes.values()}
        around = {node.id: _outwards(node.box, above) for node in nodes}
        for index, ((kind, source, target), parts) in enumerate(self.edges.items(), 1):
            box = next((box for box in around[source] if box in around[target]), None)
            tooltip = "\n".join(text for _, text in parts)
            yield Edge(f"e{index}", kind, source, target, _stacked(lines for lines, _ in parts), box, tooltip)

    def _node(self, state: State) -> Node:
        around, _, local = state.name.rpartition(".")
        kind = NodeKind(state.status.value if state.kind is StateKind.FINAL else state.kind.value)
        tooltip = [state.name, *wording.notes(state)]
        if state.description:
            tooltip.append(wording.drawable(state.description))
        return Node(
            self.ids[state.name], kind, wording.shortened(local, wording.NAME_LENGTH_MAX), wording.notes(state),
            state.name, self._box(around), "\n".join(tooltip),
        )  # fmt: skip

    def _box(self, name: str) -> str | None:
        """The id of the box of a state that holds states, made with those around it on first use."""
        if not name:
            return None
        if name not in self.boxes:
            around, _, local = name.rpartition(".")
            outer = self._box(around)
            title = wording.shortened(local, wording.NAME_LENGTH_MAX)
            self.boxes[name] = Box(f"b{len(self.boxes) + 1}", title, name, name.count("."), outer, name)
        return self.boxes[name].id

    def _leaf(self, state: State) -> None:
        for event, group in state.branches.items():
            if event not in _EDGE_KIND:
                for branch in group:
                    self._branch(branch, state, EdgeKind.FLOW, wording.label(branch, state, branch.index))
        for origin, branch in origins(self.machine, state):
            kind = _EDGE_KIND[branch.event]
            if origin.owner != state.name:
                self._inherited(origin, branch, state)
            elif kind is EdgeKind.CANCEL:
                self._branch(branch, state, kind, ("cancel", *wording.label(branch, state, 0)))
            else:
                self._branch(branch, state, kind, wording.label(branch, state, origin.place))

    def _branch(self, branch: Branch, state: State, kind: EdgeKind, lines: tuple[str, ...]) -> None:
        text = wording.sentence(branch, state, state.name)
        self._edge(kind, self.ids[state.name], self.ids[branch.target], lines, text)

    def _inherited(self, origin: Origin, branch: Branch, state: State) -> None:
        """Draw once, from the mark in the box of its owner, what every leaf in that box has a copy of."""
        if origin in self.drawn:
            return
        self.drawn.add(origin)
        kind = NodeKind(origin.event)
        if (origin.owner, kind) not in self.handlers:
            tooltip = f"What a state in {origin.owner} does {_HANDLER_TITLE[kind]}, unless it has a way of its own."
            self.handlers[origin.owner, kind] = Node(
                f"h{len(self.handlers) + 1}", kind, _HANDLER_TITLE[kind], box=self._box(origin.owner), tooltip=tooltip
            )
        lines = wording.label(branch, state, origin.place)
        if lines == (wording.ANY_ERROR,):
            lines = ()  # the mark has said it
        text = wording.sentence(branch, state, f"any state in {origin.owner}")
        source = self.handlers[origin.owner, kind].id
        self._edge(_EDGE_KIND[origin.event], source, self.ids[branch.target], lines, text)

    def _edge(self, kind: EdgeKind, source: str, target: str, lines: tuple[str, ...], text: str) -> None:
        self.edges.setdefault((kind, source, target), []).append((lines, text))


def _outwards(box: str | None, above: Mapping[str, str | None]) -> tuple[str, ...]:
    return () if box is None else (box, *_outwards(above[box], above))


def _stacked(labels: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    """The labels of parallel transitions one under the other, none twice."""
    return tuple(line for lines in dict.fromkeys(labels) for line in lines)
