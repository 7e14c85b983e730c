"""From YAML text to a compiled `Machine`, or to every diagnostic at once.

`yaml_text` parses (YAML 1.2 core types, positions kept; `place` finds a character inside a value), `vocabulary`
names every key, `reader` and `branches` turn nodes into declarations with the help of `fields`, `compiler`
flattens and resolves them into a `Machine`, `lint` judges what states ask for and `graph` the ways between
them, `catalogue` finds files and children. Nothing here runs a machine.
"""

from engine.definition.catalogue import Catalogue, load_machine
from engine.definition.compiler import compile_source

__all__ = ["Catalogue", "compile_source", "load_machine"]
