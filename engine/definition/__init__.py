"""From YAML text to a compiled `Machine`, or to every diagnostic at once.

`yaml_text` parses (YAML 1.2 core types, positions kept), `vocabulary` names every key, `reader` turns
nodes into declarations, `compiler` flattens and resolves them into a `Machine`, `lint` judges the graph,
`library` finds files and children. Nothing here runs a machine.
"""

from engine.definition.compiler import compile_source
from engine.definition.library import Library, load_machine

__all__ = ["Library", "compile_source", "load_machine"]
