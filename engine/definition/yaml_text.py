"""YAML text -> JSON data, with the position of every key and value.

PyYAML's C parser does the work; the rules on top are ours: YAML 1.2 core types (`on` is a key and `no` a
string, https://yaml.org/spec/1.2.2/#103-core-schema), duplicate keys refused, no tags, no merge keys, no
recursion through anchors, and bounds on size, depth and node count, so that no text can exhaust memory.
"""

from __future__ import annotations

import re
from typing import Any, Final, NamedTuple, TypeAlias

import yaml

from engine.core.bounds import DEFINITION_BYTES_MAX, DEFINITION_DEPTH_MAX, DEFINITION_NODES_MAX
from engine.core.diagnostic import Diagnostic, Position
from engine.definition.place import Span, offset_of, position_of

Path: TypeAlias = tuple[str | int, ...]

_TOO_DEEP: Final = f"the text is nested more than {DEFINITION_DEPTH_MAX} levels deep"
_UNPRINTABLE: Final = yaml.reader.Reader.NON_PRINTABLE
"""What YAML does not print (https://yaml.org/spec/1.2.2/#51-character-set), but for the byte order mark. PyYAML has
compiled it already: a second such pattern would take three milliseconds of every start."""

_BYTE_ORDER_MARK: Final = "\ufeff"

_QUOTE: Final = "Quote a value that begins with or, inside { } or [ ], holds any of ${}[],:#&*!|>'\"%@`."
_SYNTAX_REMEDIES: Final = (
    ("found another document", "Keep one machine in a file; remove the line ---."),
    ("undefined alias", "Define the anchor (&name) before it, or quote a value that begins with *."),
    ("mapping values are not allowed", "Quote a value that holds a colon and a space; check the indentation."),
    ("expected key", "Check the indentation: keys of one object begin in one column."),
    ("block end", "Check the indentation: keys of one object begin in one column."),
    ("block mapping", "Check the indentation: keys of one object begin in one column."),
    ("could not find expected ':'", "Write key: value, with a space after the colon."),
    ("unexpected end of stream", "Close the quote that was opened."),
    ("duplicate anchor", "Give each anchor a name of its own."),
    ("escape character", "In double quotes a backslash begins an escape; use single quotes."),
    ("", _QUOTE),
)

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Form(NamedTuple):
    """How an implicit type is written; asked as a compiled pattern is, and compiled when it is first asked."""

    pattern: str

    def match(self, text: str) -> re.Match[str] | None:
        """What PyYAML asks of a resolver."""
        return re.fullmatch(self.pattern, text)


class _CoreLoader(_Loader):  # type: ignore[misc]  # the base is chosen at import: the C parser where it is built
    """The safe loader with the implicit types of YAML 1.2's core schema instead of 1.1's."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, _Form]]] = {}  # noqa: RUF012 - PyYAML's own shape


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
    _CoreLoader.add_implicit_resolver(_tag, _Form(_pattern), _first)


_OF_VALUES: Final = ("value-invalid", "duration-invalid")


class Text:
    """A parsed text: its data (JSON values), where each key and value stands, and what is wrong with it."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.data: Any = None
        self.diagnostics: list[Diagnostic] = []
        self._keys: dict[Path, Position] = {}
        self._values: dict[Path, Position] = {}
        self._source = ""
        self._key_spans: dict[Path, Span] = {}
        self._spans: dict[Path, Span] = {}
        self._written: dict[Path, str] = {}
        self._unreadable: set[Position] = set()

    def key_at(self, path: Path) -> Position:
        """Where the key that ends `path` stands; for a list entry, the entry itself."""
        path = self._as_written(path)
        return self._keys.get(path) or self._value_at(path)

    def value_at(self, path: Path) -> Position:
        """Where the value under `path` begins; the nearest enclosing value's place when it is not in the text."""
        return self._value_at(self._as_written(path))

    def data_at(self, path: Path) -> Any:
        """The value under a path of keys; `None` where there is none."""
        data = self.data
        for part in self._as_written(path):
            data = data.get(part) if isinstance(data, dict) else None
        return data

    def character_at(self, path: Path, value: str, offset: int, *, in_key: bool = False) -> Position:
        """Where the character at `offset` of the string `value` under `path` (or of the key itself) stands."""
        path = self._as_written(path)
        span = (self._key_spans if in_key else self._spans).get(path)
        if span is None:
            return self._value_at(path)
        return position_of(self._source, offset_of(self._source, span, value, offset))

    def read_as(self, path: Path, known: str, written: str) -> None:
        """From now on the key `known` in the object at `path` means the one that stands there as `written`."""
        self._written[(*path, known)] = written

    def _value_at(self, path: Path) -> Position:
        while path and path not in self._values:
            path = path[:-1]
        return self._values.get(path, Position(1, 1))

    def _as_written(self, path: Path) -> Path:
        if not self._written:
            return path
        return tuple(self._written.get(path[: index + 1], part) for index, part in enumerate(path))

    def report(self, position: Position, rule: str, message: str, remedy: str = "") -> None:
        """Add a diagnostic."""
        if rule in _OF_VALUES and position in self._unreadable:
            return  # what is no value at all has been reported already, and cannot be the right one
        self.diagnostics.append(Diagnostic(self.file, position, rule, message, remedy))


def parse(text: str, file: str) -> Text:
    """Parse one document. Never raises on bad text: see `diagnostics`; `data` is `None` when nothing could be read."""
    result = Text(file)
    text = text.removeprefix(_BYTE_ORDER_MARK)
    result._source = text
    if len(text.encode(errors="replace")) > DEFINITION_BYTES_MAX:
        result.report(
            Position(1, 1), "text-too-large", f"the text is larger than {DEFINITION_BYTES_MAX} bytes",
            "Move a part of it into a machine of its own, and map it.",
        )  # fmt: skip
        return result
    if (refused := _refused(text)) is not None:
        message = f"the character U+{ord(text[refused]):04X} is not allowed in YAML"
        result.report(position_of(text, refused), "yaml-syntax", message, "Remove it.")
        return result
    try:
        if (position := _too_deep(text)) is not None:
            result.report(position, "text-too-deep", _TOO_DEEP, "Write it flatter.")
            return result
        node = yaml.compose(text, Loader=_CoreLoader)
    except yaml.YAMLError as error:
        _report_syntax(result, error)
        return result
    if node is None:
        remedy = "Write a machine: its name, initial and states."
        result.report(Position(1, 1), "text-empty", "the text holds no document", remedy)
        return result
    _Builder(result).build(node)
    return result


def _refused(text: str) -> int | None:
    """Where the first character stands that YAML does not have, or a byte order mark inside the text."""
    found = _UNPRINTABLE.search(text)
    mark = text.find(_BYTE_ORDER_MARK)
    if found is None:
        return mark if mark >= 0 else None
    return min(found.start(), mark) if mark >= 0 else found.start()


def _too_deep(text: str) -> Position | None:
    # Each of these characters can open at most one level; fewer of them than the bound need no look.
    if sum(map(text.count, "[{-:?")) <= DEFINITION_DEPTH_MAX:
        return None
    depth = 0
    for event in yaml.parse(text, Loader=_CoreLoader):
        if isinstance(event, (yaml.SequenceStartEvent, yaml.MappingStartEvent)):
            depth += 1
            if depth > DEFINITION_DEPTH_MAX:
                mark: Any = event.start_mark
                return Position(mark.line + 1, mark.column + 1)
        elif isinstance(event, (yaml.SequenceEndEvent, yaml.MappingEndEvent)):
            depth -= 1
    return None


def _report_syntax(result: Text, error: yaml.YAMLError) -> None:
    mark: Any = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    position = Position(1, 1) if mark is None else Position(mark.line + 1, mark.column + 1)
    if "quoted scalar" in str(getattr(error, "context", "")) and "end of stream" in str(getattr(error, "problem", "")):
        mark = getattr(error, "context_mark", mark)  # where the quote was opened, not where the text ends
        position = Position(mark.line + 1, mark.column + 1)
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "the text is not YAML"
    remedy = next((remedy for sign, remedy in _SYNTAX_REMEDIES if sign in problem), "")
    problem = problem.replace("but found another document", "a second document begins here")
    at = 0 if mark is None else mark.index
    if result._source[at : at + 1] == "\t":
        problem, remedy = "a tab stands where only spaces may", "Indent with spaces."
    result.report(position, "yaml-syntax", f"not YAML: {problem}", remedy)


class _Builder:
    """Turns a node graph into data. An alias is built again at each place, so positions are those of the anchor."""

    def __init__(self, result: Text) -> None:
        self.result = result
        self.nodes = 0
        self.open: set[int] = set()

    def build(self, node: yaml.Node) -> None:
        data = self._value(node, ())
        if not any(found.rule in ("text-too-large", "text-too-deep") for found in self.result.diagnostics):
            self.result.data = data

    def _value(self, node: yaml.Node, path: Path) -> Any:
        self.nodes += 1
        position = _position(node)
        self.result._values[path] = position
        if self.nodes > DEFINITION_NODES_MAX:
            if self.nodes == DEFINITION_NODES_MAX + 1:
                message = f"the text has more than {DEFINITION_NODES_MAX} nodes once its aliases are expanded"
                self.result.report(position, "text-too-large", message, "Repeat less through aliases.")
            return None
        if id(node) in self.open:
            self._refuse(
                node, "yaml-alias-recursive", "an anchor contains itself", "Write the part out where it is used."
            )
            return None
        # Through aliases, which `_too_deep` does not see.
        if len(self.open) >= DEFINITION_DEPTH_MAX and not isinstance(node, yaml.ScalarNode):
            self._refuse(node, "text-too-deep", _TOO_DEEP, "Write it flatter.")
            return None
        if isinstance(node, yaml.ScalarNode):
            self.result._spans[path] = _span(node)
            return self._scalar(node)
        self.open.add(id(node))
        try:
            self._has_tag(node, _SEQ if isinstance(node, yaml.SequenceNode) else _MAP)
            if isinstance(node, yaml.SequenceNode):
                return [self._value(child, (*path, index)) for index, child in enumerate(node.value)]
            return self._mapping(node, path)
        finally:
            self.open.discard(id(node))

    def _mapping(self, node: yaml.Node, path: Path) -> dict[str, Any]:
        data: dict[str, Any] = {}
        for key_node, value_node in node.value:
            position = _position(key_node)
            if not isinstance(key_node, yaml.ScalarNode):
                message = "a key must be a string"
                self.result.report(position, "key-not-string", message, "Quote a key or value that begins with { or [.")
                continue
            key = key_node.value
            self._has_tag(key_node, _STR if key_node.style else _untagged(key))
            if key == "<<" and not key_node.style:
                self.result.report(position, "yaml-merge", "merge keys (<<) are not supported", "Write the keys out.")
                continue
            if key in data:
                first = self.result.key_at((*path, key))
                message = f"the key {key!r} stands here a second time (first on line {first.line})"
                self.result.report(position, "key-duplicate", message, "Remove one of the two.")
                continue
            self.result._keys[(*path, key)] = position
            self.result._key_spans[(*path, key)] = _span(key_node)
            data[key] = self._value(value_node, (*path, key))
        return data

    def _scalar(self, node: yaml.ScalarNode) -> Any:
        text: str = node.value
        if not self._has_tag(node, _STR if node.style else _untagged(text)) or node.style or node.tag == _STR:
            return text
        if node.tag == _NULL:
            return None
        if node.tag == _BOOL:
            return text.lower() == "true"
        number = _number(text)
        if number is None:
            message = f"{text[:20]}{'…' * (len(text) > 20)} is no number of 64 bits"
            self._refuse(node, "number-invalid", message, "Quote it, if it is text.")
        return number

    def _has_tag(self, node: yaml.Node, tag: str) -> bool:
        """Whether a node has the tag that its writing implies; any other was written out, and is refused."""
        if node.tag == tag:
            return True
        name = node.tag.replace("tag:yaml.org,2002:", "!!")
        self._refuse(node, "yaml-tag", f"the tag {name} is not supported", "Remove the tag.")
        return False

    def _refuse(self, node: yaml.Node, rule: str, message: str, remedy: str) -> None:
        position = _position(node)
        self.result._unreadable.add(position)
        if rule != "text-too-deep" or all(found.rule != rule for found in self.result.diagnostics):
            self.result.report(position, rule, message, remedy)


def _untagged(text: str) -> str:
    """The tag that the core schema gives to a plain scalar; any other was written out."""
    resolvers = _CoreLoader.yaml_implicit_resolvers.get(text[:1], ())
    return next((tag for tag, pattern in resolvers if pattern.match(text)), _STR)


def _number(text: str) -> int | float | None:
    """A number of the core schema; `None` for what neither an int of 64 bits nor a finite float holds."""
    try:
        if (base := {"0o": 8, "0x": 16}.get(text[:2])) is not None:
            whole: int | float = int(text[2:], base)
        else:
            whole = int(text) if text.lstrip("+-").isdigit() else float(text.replace(".inf", "inf"))
    except ValueError:  # .nan, other spellings of infinity, more digits than Python reads
        return None
    if isinstance(whole, float):
        return whole if abs(whole) != float("inf") else None
    return whole if -(2**63) <= whole < 2**63 else None


def _position(node: yaml.Node) -> Position:
    return Position(node.start_mark.line + 1, node.start_mark.column + 1)


def _span(node: yaml.ScalarNode) -> Span:
    return Span(node.start_mark.index, node.end_mark.index, node.style or "")
