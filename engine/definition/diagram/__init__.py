"""Pictures of a machine: Mermaid, DOT and SVG.

In goes a compiled `Machine`, out comes text, the same bytes each time. `compose` makes one neutral `Picture`
of the machine and each format writes that one out, so the three cannot disagree. Only SVG needs Graphviz,
which is loaded when one is asked for. Nothing here reads a file, a run, or a clock.
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias, get_args

from engine.core.machine import Machine
from engine.definition.diagram import dot, mermaid, svg
from engine.definition.diagram.compose import compose
from engine.definition.diagram.picture import Picture

Format: TypeAlias = Literal["mermaid", "dot", "svg"]
FORMATS: Final[tuple[Format, ...]] = get_args(Format)
_WRITERS: Final = {"mermaid": mermaid.write, "dot": dot.write, "svg": svg.write}

__all__ = ["FORMATS", "Format", "Picture", "compose", "draw"]


def draw(machine: Machine, format: Format) -> str:
    """The picture of a machine. Raises `ConfigurationError` for an SVG when Graphviz is not installed."""
    return _WRITERS[format](compose(machine))
