"""Colours, the same in every format.

Each kind of node has a fill, a line and a text colour with a contrast of at least 4.5 to 1 (WCAG 2 AA). Green
and vermilion stay apart for colour-blind eyes, and no meaning rests on colour alone: ends say their status,
errors are dashed, cancels dotted. What is named `ON_ANY` can be seen on a white and on a black page.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from engine.definition.diagram.picture import EdgeKind, NodeKind


class Colours(NamedTuple):
    """Fill, line and text of a node."""

    fill: str
    line: str
    text: str


INK: Final = "#1f2328"
MUTED: Final = "#57606a"
PAPER: Final = "#ffffff"
RIM: Final = "#d0d7de"
BOX_FILLS: Final = ("#f6f8fa", "#ffffff")
BOX_LINE: Final = "#8c959f"

NODES: Final = {
    NodeKind.START: Colours(INK, INK, INK),
    NodeKind.ACTION: Colours("#e8eef7", "#3d5a80", INK),
    NodeKind.MAP: Colours("#e6e2f6", "#5b4b9a", INK),
    NodeKind.CHOICE: Colours("#fbf1d0", "#806000", INK),
    NodeKind.WAIT: Colours("#ffffff", "#3d5a80", INK),
    NodeKind.SUCCEEDED: Colours("#d5f0e3", "#0b6e4f", INK),
    NodeKind.FAILED: Colours("#fbdfd4", "#a8350f", INK),
    NodeKind.CANCELLED: Colours("#e6e9ec", "#5f6b76", INK),
    NodeKind.CATCH: Colours("#ffffff", "#a8350f", "#a8350f"),
    NodeKind.CANCEL: Colours("#ffffff", "#5f6b76", "#4d5761"),
}

EDGES: Final = {EdgeKind.FLOW: "#3d444d", EdgeKind.ERROR: "#a8350f", EdgeKind.CANCEL: "#5f6b76"}
START_ON_ANY: Final = Colours("#818b96", "#818b96", "#818b96")
ON_ANY: Final = {EdgeKind.ERROR: "#d9572b", EdgeKind.CANCEL: "#818b96"}
"""Lines of edges on a page whose colour is not known; the flow keeps the page's own."""
