"""`Picture` -> Mermaid, as GitHub draws it: a flowchart, because its edges can be dashed and its nodes coloured.

Ids are the picture's and every text is quoted. Within quotes Mermaid still reads entities (`#`), directives
(`%%{`), formulas (`$$`), Markdown and HTML, so whatever is not a letter, a digit or plainly harmless is
written as an entity of its own. Colours that must show on a light and on a dark page are chosen for both.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from engine.definition.diagram import palette
from engine.definition.diagram.picture import Box, Edge, EdgeKind, Node, NodeKind, Picture

# Above ASCII nothing has a meaning. `:` and `style` on one line would meet a repair of Mermaid's own.
_SPECIAL: Final = re.compile(r"[^A-Za-z0-9 _.,()\[\]/?!'≤×…→\u00a1-\u205f\u2061-\U0010ffff-]")
# Formulas, icons and line breaks are looked for after the entities are read: a word joiner parts them.
_PARTED: Final = re.compile(r"(?<=\$)(?=\$)|(?<=\\)(?=n)|(?<=:)(?=fa-)")
_WORD_JOINER: Final = "\u2060"
_LIST: Final = re.compile(r"^(\d+)([.)])|^([-+])(?= )")

_SHAPES: Final = {
    NodeKind.START: "(({}))",
    NodeKind.ACTION: "({})",
    NodeKind.MAP: "[[{}]]",
    NodeKind.CHOICE: "{{{{{}}}}}",
    NodeKind.WAIT: "({})",
    NodeKind.SUCCEEDED: "([{}])",
    NodeKind.FAILED: "([{}])",
    NodeKind.CANCELLED: "([{}])",
    NodeKind.CATCH: "([{}])",
    NodeKind.CANCEL: "([{}])",
}
_ARROWS: Final = {EdgeKind.FLOW: "-->", EdgeKind.ERROR: "-.->", EdgeKind.CANCEL: "-.->"}
_DASHES: Final = {EdgeKind.ERROR: "6 4", EdgeKind.CANCEL: "2 4"}
_NODE_DASHES: Final = {NodeKind.WAIT: "6 4", NodeKind.CATCH: "4 3", NodeKind.CANCEL: "2 3"}


def write(picture: Picture) -> str:
    """The text of a Mermaid flowchart."""
    lines = ["flowchart TB", f"  accTitle: {escaped(picture.title)}"]
    if picture.description:
        lines.append(f"  accDescr: {escaped(picture.description)}")
    lines += _inside(picture, None, "  ")
    lines += (f"  {_edge(edge)}" for edge in picture.edges)
    lines += _classes(picture)
    lines += _link_styles(picture)
    return "\n".join(lines) + "\n"


def escaped(text: str) -> str:
    """Text that stands for itself within quotes and after a keyword."""
    text = _PARTED.sub(_WORD_JOINER, text)
    text = _SPECIAL.sub(lambda found: f"#{ord(found.group())};", text)
    return _LIST.sub(lambda found: f"{found.group(1) or ''}#{ord(found.group(2) or found.group(3))};", text)


def _inside(picture: Picture, box: str | None, indent: str) -> Iterator[str]:
    for part in picture.inside(box):
        if isinstance(part, Box):
            yield f'{indent}subgraph {part.id}["<b>{escaped(part.title)}</b>"]'
            yield from _inside(picture, part.id, indent + "  ")
            yield f"{indent}end"
        elif isinstance(part, Node):
            yield f"{indent}{part.id}{_SHAPES[part.kind].format(_label(part))}:::{part.kind}"


def _label(node: Node) -> str:
    if node.kind is NodeKind.START:
        return '" "'
    title = escaped(node.title) if node.kind.is_handler else f"<b>{escaped(node.title)}</b>"
    return '"' + "<br/>".join([title, *(f"<small>{escaped(line)}</small>" for line in node.lines)]) + '"'


def _edge(edge: Edge) -> str:
    text = "<br/>".join(escaped(line) for line in edge.lines)
    label = f'|"{text}"|' if text else ""
    return f"{edge.source} {_ARROWS[edge.kind]}{label} {edge.target}"


def _classes(picture: Picture) -> Iterator[str]:
    used = {node.kind for node in picture.nodes}
    for kind in NodeKind:
        if kind in used:
            colours = palette.START_ON_ANY if kind is NodeKind.START else palette.NODES[kind]
            style = f"fill:{colours.fill},stroke:{colours.line},color:{colours.text}"
            if kind in _NODE_DASHES:
                style += f",stroke-dasharray:{_NODE_DASHES[kind]}"
            elif kind.is_final:
                style += ",stroke-width:3px"
            yield f"  classDef {kind} {style}"
    if picture.boxes:
        yield f"  classDef box fill:none,stroke:{palette.BOX_LINE}"
        yield f"  class {','.join(box.id for box in picture.boxes)} box"


def _link_styles(picture: Picture) -> Iterator[str]:
    for kind, dashes in _DASHES.items():
        numbers = ",".join(str(index) for index, edge in enumerate(picture.edges) if edge.kind is kind)
        if numbers:
            yield f"  linkStyle {numbers} stroke:{palette.ON_ANY[kind]},stroke-dasharray:{dashes}"
