"""CEL expressions, and the templates that hold them.

Google's Common Expression Language (https://github.com/google/cel-spec) is typed, sandboxed and has no
loops without a list; nothing is ever passed to `eval`. A guard is bare CEL. In every other value of a
definition `${…}` holds CEL: a string that is one `${…}` keeps the value's type, any other string is
joined as text, and `$${` stands for the two characters `${`.

A bare path (`context.step.id`) is walked here in Python: it means the same and costs a hundredth.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Any, Final, NamedTuple, Protocol, TypeAlias

from engine.core import canonical, retry
from engine.errors import ExpressionError

VARIABLES: Final = ("input", "context", "result", "error", "item", "visits", "run")

_ITEMS: Final = "items_of_this_map"
"""The engine's own variable, for `evaluate_each`; `variables_named` does not know it, so no definition can use it."""

_EACH_MAX: Final = 200
"""Items in one evaluation: CEL's own `map` copies its list for each element, so that a thousand take 17 ms and four
thousand 250."""

_PATH: Final = rf"\s*({'|'.join(VARIABLES)})((?:\.[A-Za-z_][A-Za-z0-9_]*)*)\s*"
_LITERAL: Final = r"\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*'"
_WORD: Final = r"(?<!\.\?)(?<![.\w])[A-Za-z_]\w*"
_CEL_ERROR: Final = r"<input>:(\d+):(\d+): (.*)"  # texts: `re` compiles a pattern when it is first asked for
# Words that CEL reads as its own, so a field of that name needs brackets; such a path goes to CEL.
_RESERVED: Final = frozenset(
    "as break const continue else false for function if import in let loop null package namespace return true var "
    "void while".split()
)


class Scope(Protocol):
    """Gives an expression the variables that it names, and only those: handing data over costs time."""

    def variable(self, name: str) -> Any:
        """The JSON value of one of `VARIABLES`. Raises `KeyError` where it is not defined."""


class Expression:
    """One compiled CEL expression. Raises `ExpressionError`, with its column, when it does not compile."""

    __slots__ = ("_evaluate", "_is_walked", "names", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.names = variables_named(text)
        path = re.fullmatch(_PATH, text)
        segments = path.group(2).split(".")[1:] if path else []
        self._is_walked = path is not None and not _RESERVED.intersection(segments)
        if path is not None and self._is_walked:
            self._evaluate = _walker(path.group(1), segments)
        else:
            self._evaluate = _cel(text, self.names)

    def evaluate(self, scope: Scope) -> Any:
        """The JSON value of the expression. Raises `ExpressionError` when the data do not allow it."""
        try:
            return self._evaluate(scope)
        except _Unanswerable as problem:
            raise ExpressionError(f"${{{self.text}}} failed: {problem}.", expression=self.text) from None

    def evaluate_each(self, scope: Scope, items: Sequence[Any]) -> list[Any]:
        """The value for each element of `items` as `item`. Raises `ExpressionError`.

        What does not name the item is evaluated once, and CEL is handed the other variables once for many items: for
        each of them, a map would take a time that grows with the square of its length.
        """
        if "item" not in self.names:
            return [self.evaluate(scope)] * len(items)
        if self._is_walked or self.names == ("item",):
            return [self.evaluate(_WithItem(scope, item)) for item in items]
        found: list[Any] = []
        each = _each(self.text, self.names)
        for start in range(0, len(items), _EACH_MAX):
            batch = items[start : start + _EACH_MAX]
            try:
                found += each(_WithItems(scope, batch))
            except _Unanswerable:  # of some item: asked one by one, the first such says why
                found += [self.evaluate(_WithItem(scope, item)) for item in batch]
        return found

    def holds(self, scope: Scope) -> bool:
        """The value of a guard. Raises `ExpressionError` for anything but a bool."""
        value = self.evaluate(scope)
        if not isinstance(value, bool):
            kind = type(value).__name__
            raise ExpressionError(
                f"the guard {self.text!r} gave a {kind}, not a bool.", expression=self.text, remedy="Compare it."
            )
        return value

    def __repr__(self) -> str:
        return f"Expression({self.text!r})"


class _WithItem:
    """A scope with `item` set."""

    __slots__ = ("_item", "_scope")

    def __init__(self, scope: Scope, item: Any) -> None:
        self._scope = scope
        self._item = item

    def variable(self, name: str) -> Any:
        """See `Scope`."""
        return self._item if name == "item" else self._scope.variable(name)


class _WithItems(_WithItem):
    """A scope with every item under `_ITEMS`."""

    def variable(self, name: str) -> Any:
        """See `Scope`."""
        return self._item if name == _ITEMS else self._scope.variable(name)


class _Unanswerable(Exception):
    """The data do not allow an answer."""


Evaluate: TypeAlias = Callable[[Scope], Any]


def variables_named(text: str) -> tuple[str, ...]:
    """Those of `VARIABLES` that a CEL text mentions outside of its string literals."""
    words = set(re.findall(_WORD, re.sub(_LITERAL, '""', text)))
    return tuple(name for name in VARIABLES if name in words)


def _walker(variable: str, segments: list[str]) -> Evaluate:
    def walk(scope: Scope) -> Any:
        try:
            value = scope.variable(variable)
        except KeyError:
            raise _Unanswerable(f"{variable} is not defined here") from None
        reached = variable
        for segment in segments:
            if not isinstance(value, Mapping):
                raise _Unanswerable(f"{reached} is no map, so it has no {segment!r}")
            if segment not in value:
                raise _Unanswerable(f"{reached} has no key {segment!r}")
            value = value[segment]
            reached = f"{reached}.{segment}"
        return value

    return walk


@cache
def _each(text: str, names: tuple[str, ...]) -> Evaluate:
    """An expression over all items at once."""
    return _cel(f"{_ITEMS}.map(item, {text}\n)", (_ITEMS, *(name for name in names if name != "item")))


@cache
def _environment() -> Any:
    """The CEL environment, made on first use: a machine of bare paths never loads it."""
    from cel_expr_python import cel
    from cel_expr_python.ext import ext_math, ext_optional, ext_strings

    kind = cel.Type
    # A parameter declared DYN does not match a map at run time, so each combination is declared.
    overloads = [
        cel.Overload(f"backoff_{i}", kind.DOUBLE, [kind.INT, first, factor, error], impl=retry.backoff)
        for i, (first, factor, error) in enumerate(
            (first, factor, error)
            for first in (kind.INT, kind.DOUBLE)
            for factor in (kind.INT, kind.DOUBLE)
            for error in (kind.Map(kind.STRING, kind.DYN), kind.NULL)
        )
    ]
    return cel.NewEnv(
        variables=dict.fromkeys((*VARIABLES, _ITEMS), kind.DYN),
        functions=[cel.FunctionDecl("backoff", overloads)],
        extensions=[ext_strings.ExtStrings(), ext_math.ExtMath(), ext_optional.ExtOptional()],
    )


def _cel(text: str, names: tuple[str, ...]) -> Evaluate:
    try:
        program = _environment().compile(text)
    except RuntimeError as error:
        raise _compile_error(text, str(error)) from None

    def evaluate(scope: Scope) -> Any:
        data = {}
        for name in names:
            try:
                data[name] = scope.variable(name)
            except KeyError:
                continue  # CEL itself says so, if the branch that names it is reached at all
        try:
            value = program.eval(data=data)
            found = _plain(value)
        except (
            Exception
        ) as problem:  # data or a result that the binding cannot convert: half a surrogate, optional.none()
            raise _Unanswerable(f"CEL cannot take the data or give the value: {type(problem).__name__}") from None
        if value.type().name() == "ERROR":
            raise _Unanswerable(str(found).partition(": ")[2].rstrip(".") or "no value")
        return _as_json(found)

    return evaluate


def _plain(value: Any) -> Any:
    """A CEL value as Python's own.

    Not `value.plain_value()` for a null or for what may hold one: in cel-expr-python 0.1.3 that gives away a
    reference to None for each null, and before Python 3.12 the interpreter dies when None has none left.
    """
    kind = value.type().name()
    if kind == "NULL":
        return None
    if kind.startswith("MAP"):
        return {key: _plain(entry) for key, entry in value.value().items()}
    if kind.startswith("LIST"):
        return [_plain(entry) for entry in value.value()]
    return value.plain_value()


def _as_json(value: Any) -> Any:
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    try:
        return canonical.plain(value, "the value")
    except ValueError as problem:
        raise _Unanswerable(str(problem)) from None


def _compile_error(text: str, report: str) -> ExpressionError:
    found = re.search(_CEL_ERROR, report)
    if found is None:
        return ExpressionError(f"{text!r} is not CEL: {report}", expression=text)
    line, column, problem = int(found.group(1)), int(found.group(2)), found.group(3)
    offset = sum(len(part) + 1 for part in text.split("\n")[: line - 1]) + column
    problem = problem.replace(" (in container '')", "").removesuffix(" [INVALID_ARGUMENT]")
    return ExpressionError(
        f"{text!r} is not CEL: {problem}.",
        expression=text,
        column=offset,
        remedy=f"An expression may name {', '.join(VARIABLES)}.",
    )


class Part(NamedTuple):
    """A piece of a string in a definition: literal text, or CEL with the offset at which it begins."""

    text: str
    is_expression: bool
    offset: int


def parts(text: str) -> Iterator[Part]:
    """Split a string at its `${…}`. Raises `ExpressionError` for one that does not end."""
    at, literal = 0, ""
    while (start := text.find("${", at)) >= 0:
        if start > 0 and text[start - 1] == "$":  # $${ is an escaped ${
            literal += text[at : start - 1] + "${"
            at = start + 2
            continue
        literal += text[at:start]
        if literal:
            yield Part(literal, False, at)
        literal = ""
        end = _closing_brace(text, start + 2)
        if end < 0:
            raise ExpressionError(f"{text!r} has a ${{ without its }}.", expression=text, column=start + 1)
        yield Part(text[start + 2 : end], True, start + 2)
        at = end + 1
    if literal or at < len(text):
        yield Part(literal + text[at:], False, at)


def _closing_brace(text: str, at: int) -> int:
    depth = 0
    while at < len(text):
        if text[at] in "\"'":
            found = re.compile(_LITERAL).match(text, at)
            at = found.end() if found else at + 1
            continue
        if text[at] == "{":
            depth += 1
        elif text[at] == "}":
            if depth == 0:
                return at
            depth -= 1
        at += 1
    return -1


class Template:
    """A JSON value of a definition in which strings may hold `${…}`; `render` gives the value for one scope."""

    __slots__ = ("_parsed", "_render", "expressions", "is_constant", "value")

    def __init__(self, value: Any) -> None:
        self.value = value
        self.expressions: tuple[Expression, ...] = ()
        self._parsed = self._parse(value)
        self._render = _rendering(self._parsed)
        self.is_constant = not self.expressions

    def render(self, scope: Scope) -> Any:
        """The value. Raises `ExpressionError`."""
        return self._render(scope)

    def render_each(self, scope: Scope, items: Sequence[Any]) -> list[Any]:
        """The value for each element of `items` as `item`. Raises `ExpressionError`."""
        return _rendered_each(self._parsed, scope, items)

    def _parse(self, value: Any) -> Any:
        """The value with each string that holds `${…}` as an `Expression` or a `_Joined`."""
        if isinstance(value, Mapping):
            return {key: self._parse(entry) for key, entry in value.items()}
        if isinstance(value, (list, tuple)):
            return [self._parse(entry) for entry in value]
        if not isinstance(value, str):
            return value
        match [self._expression(part) if part.is_expression else part.text for part in parts(value)]:
            case [Expression() as only]:
                return only
            case []:
                return ""
            case [str() as only_text]:
                return only_text
            case pieces:
                return _Joined(pieces)

    def _expression(self, part: Part) -> Expression:
        try:
            expression = Expression(part.text)
        except ExpressionError as error:
            error.column += part.offset
            raise
        self.expressions += (expression,)
        return expression

    def __repr__(self) -> str:
        return f"Template({self.value!r})"


class _Joined(NamedTuple):
    """Literal text and expressions, joined as text."""

    pieces: list[str | Expression]


def _rendering(parsed: Any) -> Evaluate:
    match parsed:
        case Expression():
            return parsed.evaluate
        case _Joined(pieces=pieces):
            return lambda scope: "".join(
                piece if isinstance(piece, str) else _text(piece.evaluate(scope)) for piece in pieces
            )
        case dict():
            fields = {key: _rendering(entry) for key, entry in parsed.items()}
            return lambda scope: {key: render(scope) for key, render in fields.items()}
        case list():
            entries = [_rendering(entry) for entry in parsed]
            return lambda scope: [render(scope) for render in entries]
    return lambda scope: parsed


def _rendered_each(parsed: Any, scope: Scope, items: Sequence[Any]) -> list[Any]:
    """As `_rendering`, for all items, one expression after the other."""
    count = len(items)
    match parsed:
        case Expression():
            return parsed.evaluate_each(scope, items)
        case _Joined(pieces=pieces):
            texts = [
                [piece] * count if isinstance(piece, str) else [_text(v) for v in piece.evaluate_each(scope, items)]
                for piece in pieces
            ]
            return ["".join(row) for row in zip(*texts, strict=True)]
        case dict() if parsed:
            columns = [_rendered_each(entry, scope, items) for entry in parsed.values()]
            return [dict(zip(parsed, row, strict=True)) for row in zip(*columns, strict=True)]
        case list() if parsed:
            return [list(row) for row in zip(*(_rendered_each(entry, scope, items) for entry in parsed), strict=True)]
    return [parsed] * count


def _text(value: Any) -> str:
    return value if isinstance(value, str) else canonical.encode(value)
