"""`Machine` -> `Picture`: which nodes, boxes and edges there are, and what is written on them.

Every transition of the machine is in the picture: as an edge of its leaf or, when the leaf inherits it,
once in the box that declares it, from a mark there that stands for all its states. Pure, and in the order
of the definition; no sizes, colours or shapes are chosen here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from engine.core.machine import Machine, State, StateKind
from engine.definition.diagram import wording
from engine.definition.diagram.origin import Origin, origins
from engine.definition.diagram.picture import Box, Edge, EdgeKind, Node, NodeKind, Picture
from engine.definition.diagram.wording import Placed

_EDGE_KIND: Final = {"catch": EdgeKind.ERROR, "cancel": EdgeKind.CANCEL}
_SAID_BY_MARK: Final = ((wording.ANY_ERROR,), (wording.CANCEL,))


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
        for event, branches in state.branches.items():
            if event not in _EDGE_KIND:
                self._own(EdgeKind.FLOW, [(branch.number, branch) for branch in branches], state)
        declared: dict[tuple[str, str], list[Placed]] = {}
        for origin, branch in origins(self.machine, state):
            declared.setdefault((origin.owner, origin.event), []).append((origin.place, branch))
        for (owner, event), group in declared.items():
            if owner == state.name:
                self._own(_EDGE_KIND[event], group, state)
            else:
                self._inherited(owner, event, group, state)

    def _own(self, kind: EdgeKind, group: list[Placed], state: State) -> None:
        for (_, branch), lines in zip(group, wording.labels(group, state), strict=True):
            text = wording.sentence(branch, state, state.name)
            self._edge(kind, self.ids[state.name], self.ids[branch.target], lines, text)

    def _inherited(self, owner: str, event: str, group: list[Placed], state: State) -> None:
        """Draw once, from the mark in the box of its owner, what every leaf in that box has a copy of."""
        for (place, branch), lines in zip(group, wording.labels(group, state), strict=True):
            origin = Origin(owner, event, place)
            if origin not in self.drawn:
                self.drawn.add(origin)
                said = () if lines in _SAID_BY_MARK else lines
                text = wording.sentence(branch, state, f"any state in {owner}")
                self._edge(_EDGE_KIND[event], self._handler(owner, event), self.ids[branch.target], said, text)

    def _handler(self, owner: str, event: str) -> str:
        """The id of the mark, made on first use."""
        kind = NodeKind(event)
        if (owner, kind) not in self.handlers:
            title = f"on {_EDGE_KIND[event]}"
            tooltip = f"What a state in {owner} does {title}, unless it has a way of its own."
            node = Node(f"h{len(self.handlers) + 1}", kind, title, box=self._box(owner), tooltip=tooltip)
            self.handlers[owner, kind] = node
        return self.handlers[owner, kind].id

    def _edge(self, kind: EdgeKind, source: str, target: str, lines: tuple[str, ...], text: str) -> None:
        self.edges.setdefault((kind, source, target), []).append((lines, text))


def _outwards(box: str | None, above: Mapping[str, str | None]) -> tuple[str, ...]:
    return () if box is None else (box, *_outwards(above[box], above))


def _stacked(labels: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    """The labels of parallel transitions one under the other, none twice."""
    lines: tuple[str, ...] = ()
    for label in dict.fromkeys(label for label in labels if label):
        lines += (f"or {label[0]}", *label[1:]) if lines else label
    return lines
