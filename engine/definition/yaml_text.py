"""YAML text -> JSON data, with the position of every key and value.

PyYAML's C parser does the work; the rules on top are ours: YAML 1.2 core types (`on` is a key and `no` a
string, https://yaml.org/spec/1.2.2/#103-core-schema), duplicate keys refused, no tags, no merge keys, no
recursion through anchors, and bounds on size, depth and node count, so that no text can exhaust memory.
"""

from __future__ import annotations

import re
from typing import Any, Final, TypeAlias

import yaml

from engine.core.bounds import DEFINITION_BYTES_MAX, DEFINITION_NODES_MAX
from engine.core.diagnostic import Diagnostic, Position

Path: TypeAlias = tuple[str | int, ...]

DEPTH_MAX: Final = 100
"""Nesting of one text; the C parser recurses, and a hundred thousand brackets would end the process."""

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _CoreLoader(_Loader):  # type: ignore[misc]  # the base is chosen at import: the C parser where it is built
    """The safe loader with the implicit types of YAML 1.2's core schema instead of 1.1's."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - PyYAML's own shape


_NULL, _BOOL, _INT, _FLOAT, _STR, _SEQ, _MAP = (
    f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float", "str", "seq", "map")
)
for _tag, _pattern, _first in (
    (_NULL, r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    (_BOOL, r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    (_INT, r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    (
        _FLOAT,
        r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
):
    _CoreLoader.add_implicit_resolver(_tag, re.compile(rf"^(?:{_pattern})$"), _first)


class Text:
    """A parsed text: its data (JSON values), where each key and value stands, and what is wrong with it."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.data: Any = None
        self.diagnostics: list[Diagnostic] = []
        self._keys: dict[Path, Position] = {}
        self._values: dict[Path, Position] = {}

    def key_at(self, path: Path) -> Position:
        """Where the key that ends `path` stands; for a list entry, the entry itself."""
        return self._keys.get(path) or self.value_at(path)

    def value_at(self, path: Path) -> Position:
        """Where the value under `path` begins; the nearest enclosing value's place when it is not in the text."""
        while path and path not in self._values:
            path = path[:-1]
        return self._values.get(path, Position(1, 1))

    def report(self, position: Position, rule: str, message: str, remedy: str = "") -> None:
        """Add a diagnostic."""
        self.diagnostics.append(Diagnostic(self.file, position, rule, message, remedy))


def parse(text: str, file: str) -> Text:
    """Parse one document. Never raises on bad text: see `diagnostics`; `data` is `None` when nothing could be read."""
    result = Text(file)
    if len(text.encode(errors="replace")) > DEFINITION_BYTES_MAX:
        result.report(Position(1, 1), "text-too-large", f"the text is larger than {DEFINITION_BYTES_MAX} bytes")
        return result
    try:
        if (position := _too_deep(text)) is not None:
            result.report(position, "text-too-deep", f"the text is nested more than {DEPTH_MAX} levels deep")
            return result
        node = yaml.compose(text, Loader=_CoreLoader)
    except yaml.YAMLError as error:
        _report_syntax(result, error, text)
        return result
    if node is None:
        result.report(Position(1, 1), "text-empty", "the text holds no document", "Write a machine: name, initial, states.")
        return result
    _Builder(result).build(node)
    return result


def _too_deep(text: str) -> Position | None:
    # Each of these characters can open at most one level; fewer of them than the bound need no look.
    if sum(map(text.count, "[{-:?")) <= DEPTH_MAX:
        return None
    depth = 0
    for event in yaml.parse(text, Loader=_CoreLoader):
        if isinstance(event, (yaml.SequenceStartEvent, yaml.MappingStartEvent)):
            depth += 1
            if depth > DEPTH_MAX:
                return Position(event.start_mark.line + 1, event.start_mark.column + 1)
        elif isinstance(event, (yaml.SequenceEndEvent, yaml.MappingEndEvent)):
            depth -= 1
    return None


def _report_syntax(result: Text, error: yaml.YAMLError, text: str) -> None:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    position = Position(mark.line + 1, mark.column + 1) if mark else Position(1, 1)
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "the text is not YAML"
    if isinstance(error, yaml.reader.ReaderError):
        before = text[: error.position]
        position = Position(before.count("\n") + 1, len(before) - before.rfind("\n"))
        problem = f"the character U+{ord(text[error.position]):04X} is not allowed in YAML" if before != text else problem
    remedy = "Quote a value that begins with or, inside { } or [ ], holds any of ${}[],:#&*!|>'\"%@`."
    result.report(position, "yaml-syntax", f"not YAML: {problem}", remedy)


class _Builder:
    """Turns a node graph into data. An alias is built again at each place, so positions are those of the anchor."""

    def __init__(self, result: Text) -> None:
        self.result = result
        self.nodes = 0
        self.open: set[int] = set()

    def build(self, node: yaml.Node) -> None:
        self.result.data = self._value(node, ())

    def _value(self, node: yaml.Node, path: Path) -> Any:
        self.nodes += 1
        position = _position(node)
        self.result._values[path] = position
        if self.nodes > DEFINITION_NODES_MAX:
            if self.nodes == DEFINITION_NODES_MAX + 1:
                message = f"the text has more than {DEFINITION_NODES_MAX} nodes once its aliases are expanded"
                self.result.report(position, "text-too-large", message)
            return None
        if id(node) in self.open:
            self.result.report(position, "yaml-alias-recursive", "an anchor contains itself", "Repeat the part instead.")
            return None
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node)
        self.open.add(id(node))
        try:
            if isinstance(node, yaml.SequenceNode):
                self._expect(node, _SEQ)
                return [self._value(child, (*path, index)) for index, child in enumerate(node.value)]
            self._expect(node, _MAP)
            return self._mapping(node, path)
        finally:
            self.open.discard(id(node))

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        data: dict[str, Any] = {}
        for key_node, value_node in node.value:
            position = _position(key_node)
            if not isinstance(key_node, yaml.ScalarNode):
                self.result.report(position, "key-not-string", "a key must be a string", "Quote a key that holds { or [.")
                continue
            key = key_node.value
            if key == "<<" and key_node.style is None:
                self.result.report(position, "yaml-merge", "merge keys (<<) are not supported", "Write the keys out.")
                continue
            if key in data:
                first = self.result.key_at((*path, key))
                message = f"the key {key!r} stands here a second time (first on line {first.line})"
                self.result.report(position, "key-duplicate", message, "Remove one of the two.")
                continue
            self.result._keys[(*path, key)] = position
            data[key] = self._value(value_node, (*path, key))
        return data

    def _scalar(self, node: yaml.ScalarNode) -> Any:
        text: str = node.value
        if node.tag == _STR:
            return text
        if node.tag == _NULL:
            return None
        if node.tag == _BOOL:
            return text.lower() == "true"
        if node.tag == _INT:
            base = {"0o": 8, "0x": 16}.get(text[:2].lower(), 10)
            if len(text) <= 4300:  # Python's own bound on the digits it reads
                return int(text, base)
        elif node.tag == _FLOAT:
            number = float(text)
            if number == number and abs(number) != float("inf"):
                return number
        else:
            self._expect(node, _STR)
            return text
        self.result.report(_position(node), "number-invalid", f"{text[:20]} is no number that JSON can hold")
        return None

    def _expect(self, node: yaml.Node, tag: str) -> None:
        if node.tag != tag:
            self.result.report(_position(node), "yaml-tag", f"the tag {node.tag} is not supported", "Remove the tag.")


def _position(node: yaml.Node) -> Position:
    quoted = isinstance(node, yaml.ScalarNode) and node.style in ("'", '"')
    return Position(node.start_mark.line + 1, node.start_mark.column + 1 + (1 if quoted else 0))
