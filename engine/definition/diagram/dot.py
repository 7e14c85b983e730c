"""`Picture` -> DOT, in two dialects of one graph.

`write` is for people and their Graphviz: HTML-like labels and tooltips. `layout` is for `svg`: plain labels
of the same lines, since the WebAssembly build reads no HTML, and an id on all that is found again in its
output. Texts are escaped for the place they stand in; nothing of a definition is ever read as DOT.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Iterator, Mapping
from typing import Final, TypeAlias

from engine.definition.diagram import palette
from engine.definition.diagram.picture import Box, Edge, EdgeKind, Node, NodeKind, Part, Picture

FONT: Final = "Helvetica,Arial,sans-serif"
TITLE_SIZE: Final = 12
LINE_SIZE: Final = 10
BREAK: Final = r"\n"
GAP: Final = "\u00a0"
"""Beside the lines of an edge, so that no label touches its edge."""

Attributes: TypeAlias = Mapping[str, str]
Dialect: TypeAlias = Callable[[Part], Attributes]
"""What the two dialects do differently: the attributes that carry an element's texts."""

_SHAPES: Final[Mapping[NodeKind, Attributes]] = {
    NodeKind.START: {"shape": "circle", "style": "filled", "width": "0.16", "height": "0.16", "fixedsize": "true"},
    NodeKind.ACTION: {"style": "rounded,filled"},
    NodeKind.MAP: {"shape": "box3d", "style": "filled"},
    NodeKind.CHOICE: {"shape": "hexagon", "style": "filled", "margin": "0.02,0.04"},
    NodeKind.WAIT: {"style": "rounded,filled,dashed"},
    NodeKind.SUCCEEDED: {"style": "rounded,filled", "peripheries": "2"},
    NodeKind.FAILED: {"style": "rounded,filled", "peripheries": "2"},
    NodeKind.CANCELLED: {"style": "rounded,filled", "peripheries": "2"},
    NodeKind.CATCH: {"style": "rounded,filled,dashed", "height": "0.26", "margin": "0.1,0.03"},
    NodeKind.CANCEL: {"style": "rounded,filled,dotted", "height": "0.26", "margin": "0.1,0.03"},
}
_LINES: Final = {EdgeKind.FLOW: "solid", EdgeKind.ERROR: "dashed", EdgeKind.CANCEL: "dotted"}
# The way that is meant is drawn straight; the others go around it.
_WEIGHTS: Final = {EdgeKind.FLOW: "4", EdgeKind.ERROR: "1", EdgeKind.CANCEL: "1"}


def write(picture: Picture) -> str:
    """The graph for any Graphviz, with rich labels and tooltips."""
    return "\n".join(_graph(picture, _rich)) + "\n"


def layout(picture: Picture) -> str:
    """The graph for a Graphviz without HTML, with an id on every element."""
    return "\n".join(_graph(picture, _plain)) + "\n"


def quoted(text: str) -> str:
    """A DOT string that stands for itself: neither its escapes nor its entities are read."""
    return '"' + html.escape(text, quote=False).replace("\\", "\\\\").replace('"', '\\"') + '"'


def box_fill(box: Box) -> str:
    """The colour of a box: a box in a box differs from the one around it."""
    return palette.BOX_FILLS[box.depth % len(palette.BOX_FILLS)]


def _rich(part: Part) -> Attributes:
    if isinstance(part, Edge):
        rows = [_row(f"{GAP}{line}{GAP}", LINE_SIZE, is_bold=False) for line in part.lines]
    else:
        small = part.lines if isinstance(part, Node) else ()
        is_bold = not (isinstance(part, Node) and part.kind.is_handler)
        title = [_row(part.title, TITLE_SIZE if is_bold else LINE_SIZE, is_bold=is_bold)] if part.title else []
        rows = [*title, *(_row(line, LINE_SIZE, is_bold=False) for line in small)]
    found = {"tooltip": quoted(part.tooltip).replace("\n", BREAK)}
    if rows:
        found["label"] = f"<{'<BR/>'.join(rows)}>"
        if isinstance(part, Edge):
            found["labeltooltip"] = found["tooltip"]
    return found


def _row(text: str, size: int, *, is_bold: bool) -> str:
    inner = html.escape(text, quote=False)
    words = f"<B>{inner}</B>" if is_bold else inner
    return f'<FONT POINT-SIZE="{size}">{words}</FONT>'


def _plain(part: Part) -> Attributes:
    if isinstance(part, Edge):
        lines = tuple(f"{GAP}{line}{GAP}" for line in part.lines)
    else:
        title = (part.title,) if part.title else ()
        lines = (*title, *part.lines) if isinstance(part, Node) else title
    found = {"id": quoted(part.id)}
    if lines:
        found["label"] = f'"{BREAK.join(quoted(line)[1:-1] for line in lines)}"'
    return found


def _graph(picture: Picture, dialect: Dialect) -> Iterator[str]:
    yield f"digraph {quoted(picture.title)} {{"
    font = f'fontname="{FONT}", fontsize={TITLE_SIZE}'
    yield f"  graph [rankdir=TB, nodesep=0.35, ranksep=0.45, pad=0.2, labeljust=l, {font}]"
    yield f'  node [label="", shape=box, margin="0.14,0.07", height=0.4, {font}]'
    yield f'  edge [arrowsize=0.7, fontname="{FONT}", fontsize={LINE_SIZE}]'
    yield from _inside(picture, None, dialect, "  ")
    yield "}"


def _inside(picture: Picture, box: str | None, dialect: Dialect, indent: str) -> Iterator[str]:
    for part in picture.inside(box):
        if isinstance(part, Box):
            yield f"{indent}subgraph cluster_{part.id} {{"
            yield f"{indent}  graph {_listed(_box(part), dialect(part))}"
            yield from _inside(picture, part.id, dialect, indent + "  ")
            yield f"{indent}}}"
        elif isinstance(part, Edge):
            yield f"{indent}{part.source} -> {part.target} {_listed(_edge(part), dialect(part))}"
        else:
            yield f"{indent}{part.id} {_listed(_node(part), dialect(part))}"


def _node(node: Node) -> Attributes:
    colours = palette.NODES[node.kind]
    found = {"fillcolor": colours.fill, "color": colours.line, "fontcolor": colours.text, **_SHAPES[node.kind]}
    return {name: quoted(value) for name, value in found.items()}


def _box(box: Box) -> Attributes:
    colours = {"fillcolor": box_fill(box), "color": palette.BOX_LINE, "fontcolor": palette.MUTED}
    found = {"style": "rounded,filled", **colours}
    return {name: quoted(value) for name, value in found.items()}


def _edge(edge: Edge) -> Attributes:
    colour = palette.EDGES[edge.kind]
    found = {"style": _LINES[edge.kind], "color": colour, "fontcolor": colour, "weight": _WEIGHTS[edge.kind]}
    return {name: quoted(value) for name, value in found.items()}


def _listed(*groups: Attributes) -> str:
    return "[" + ", ".join(f"{name}={value}" for group in groups for name, value in group.items()) + "]"
