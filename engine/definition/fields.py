"""Reading single values of a definition: a string, an integer, a duration, a template, a guard.

Each reader reports what is wrong at its place and then answers a usable value, so that one mistake hides
no other. `Fields` is bound to one object of the text; `Scope` names are those of `vocabulary`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from engine.core.bounds import DELAY_S_MAX
from engine.core.diagnostic import Position
from engine.core.expression import VARIABLES, Expression, Template, parts
from engine.definition import vocabulary
from engine.definition.declaration import ExpressionUse, MachineDeclaration
from engine.definition.yaml_text import Path, Text
from engine.errors import ExpressionError

# Patterns are texts: `re` compiles one when it is first asked for, and keeps it, so a start pays for those it uses.
_DURATION: Final = r"([0-9]+(?:\.[0-9]+)?)\s*(ms|s|m|h|d)"
_NUMBER: Final = r"[0-9]{1,9}(?:\.[0-9]+)?"
_UNIT_S: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
STATE_NAME: Final = r"[A-Za-z_][A-Za-z0-9_]*"
MACHINE_NAME: Final = r"[A-Za-z][A-Za-z0-9_-]{0,99}"

ALWAYS_DEFINED: Final = frozenset(("input", "context", "visits", "run"))
NAMES: Final = {bool: "a boolean", int: "an integer", float: "a number", str: "a string", dict: "a map", list: "a list"}
LITERAL: Final = r"\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*'"
"""A text literal inside CEL."""
_BOUND: Final = r"\.(?:all|exists|exists_one|filter|map|optMap|optFlatMap)\(\s*([A-Za-z_]\w*)\s*,"
_CEL_PROBLEMS: Final = (
    (r"(?:Syntax error: )?(?:mismatched|extraneous) input '<EOF>'.*", "it ends too early", "Complete it."),
    (r"Syntax error: token recognition error at: '(=.*)'", "{} is no operator", "Compare with ==."),
    (
        r"Syntax error: token recognition error at: '(\$.*)'",
        "{} stands inside",
        "Names stand bare in CEL, without ${{ }}.",
    ),
    (r"Syntax error: token recognition error at: '(&.*)'", "{} is no operator", "Join conditions with &&."),
    (r"Syntax error: token recognition error at: '(\|.*)'", "{} is no operator", "Join conditions with ||."),
    (r"Syntax error: token recognition error at: '([\"'].*)'", "the quote of {} does not end", "Close the quote."),
    (r"Syntax error: (?:mismatched|extraneous) input 'and'.*", "'and' is no operator", "Join conditions with &&."),
    (r"Syntax error: (?:mismatched|extraneous) input 'or'.*", "'or' is no operator", "Join conditions with ||."),
    (r"(?:Syntax error: )?(?:mismatched|extraneous) input ('.*?') expecting.*", "{} is not expected here", ""),
    (r"found (no matching overload.*)", "{}", "Check the types; string(…), int(…) and double(…) convert."),
    (r"(.*)", "{}", ""),
)
"""What CEL says, in fewer words, with what to do."""
_CEL_REMEDY: Final = "Compare with ==, join with && and ||, negate with !, and quote text."
_EXAMPLES: Final = {
    "machine": "machine: chart_request", "version": "version: 1",
    "key": 'key: "${item.id}"', "summary": 'summary: "Shipped: ${result.count}"', "input": "input: {type: object}",
    "pools": "pools: {cards: {accounts: CARD_ACCOUNTS}}", "initial": "initial: READY",
    "states": "states: {READY: {type: final}}", "on": "on: {done: NEXT}", "after": "after: {30s: NEXT}",
    "invoke": "invoke: {action: mail.send}",
    "map": 'map: {machine: parcel, items: "${input.parcels}", key: "${item.id}"}',
    "with": 'with: {name: "${input.name}"}', "assign": 'assign: {picture: "${result.picture}"}',
    "errors": "errors: [TIMEOUT]", "retry": "retry: {attempts: 3}", "catch": "catch: FAILED",
    "accounts": "accounts: CARD_ACCOUNTS", "per_day": "per_day: 44", "per_second": "per_second: 1", "burst": "burst: 3",
    "max_visits": "max_visits: 3", "attempts": "attempts: 3", "factor": "factor: 2", "jitter": "jitter: 0.5",
    "items": 'items: "${context.requests}"', "concurrency": "concurrency: 4", "min_success": "min_success: 1",
    "target": "target: NEXT", "action": "action: mail.send", "guard": "guard: context.count > 1",
    "description": "description: what it is for",
}  # fmt: skip
_READ_AS_CUTOFF: Final = 0.75
"""How near a wrong name must be to a known one to be read as that one for the rest of the check."""


def kind_of(value: Any) -> str:
    """What a value is, for a message: numbers as they are, anything else by its kind."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    kind = NAMES.get(type(value), type(value).__name__)
    return kind if value else f"an empty {kind.partition(' ')[2]}"


def nearest(name: str, known: Iterable[str]) -> str:
    """A sentence that proposes the nearest known name, or lists them all when none is near."""
    close = near(name, known)
    if close is not None:
        return f"Did you mean {close!r}?"
    options = sorted(known)
    return f"Known here: {', '.join(options)}." if options else ""


def near(name: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The known name that is nearest to a wrong one, whatever its case; `None` when none is near."""
    import difflib  # here: only what is wrong needs it

    lower = {option.lower(): option for option in sorted(known)}
    close = difflib.get_close_matches(name.lower(), list(lower), n=1, cutoff=cutoff)
    return lower[close[0]] if close else None


def short(text: str) -> str:
    """A text for a message: one line, and not long."""
    line = " ".join(text.split())
    return line if len(line) <= 60 else f"{line[:59]}…"


def seconds(text: str) -> float | None:
    """A duration like `30s`, `500ms`, `2h` in seconds; `None` when it is none."""
    found = re.fullmatch(_DURATION, text.strip())
    return None if found is None else round(float(found.group(1)) * _UNIT_S[found.group(2)], 3)


class Fields:
    """One object of the text: its data, its path, and readers for its fields."""

    def __init__(self, text: Text, machine: MachineDeclaration, data: Mapping[str, Any], path: Path) -> None:
        self.text = text
        self.machine = machine
        self.data = data
        self.path = path

    @property
    def position(self) -> Position:
        return self.text.key_at(self.path)

    def has(self, name: str) -> bool:
        return name in self.data

    def at(self, name: str) -> Position:
        """Where the value of a field begins."""
        return self.text.value_at((*self.path, name))

    def report(self, name: str | None, rule: str, message: str, remedy: str = "") -> None:
        """Report at a field's key, or at the object itself."""
        place = self.path if name is None else (*self.path, name)
        self.text.report(self.text.key_at(place), rule, message, remedy)

    def expect_keys(self, allowed: Sequence[str], what: str) -> None:
        """Report every key that this kind of object does not have.

        One that is near to a known key is then read as that key, so that a slip is one diagnostic and not many.
        """
        read_as = {}
        for name, value in self.data.items():
            if name in allowed:
                continue
            homes = [f"{_a(home)}" for home, keys in vocabulary.OBJECTS.items() if name in keys]
            remedy = f"It belongs in {' or '.join(homes)}." if homes else nearest(name, allowed)
            self.report(name, "key-unknown", f"unknown key {short(name)!r} in {what}", remedy)
            meant = None if homes else near(name, allowed, _READ_AS_CUTOFF)
            if meant is not None and meant not in self.data and meant not in read_as:
                self.text.read_as(self.path, meant, name)
                read_as[meant] = value
            if name == "assign" and isinstance(value, dict):
                self.machine.assigned.update(value)
        if read_as:
            self.data = {**self.data, **read_as}

    def require(self, names: Sequence[str], what: str) -> None:
        """Report every key that is missing."""
        for name in names:
            if name not in self.data:
                self.report(None, "key-missing", f"{what} has no {name!r}", f"Add {name!r}.")

    def wrong(self, name: str, expected: str) -> None:
        found = kind_of(self.data[name])
        remedy = f"For example {_EXAMPLES[name]}." if name in _EXAMPLES else ""
        self.text.report(self.at(name), "value-invalid", f"{name!r} must be {expected}, not {found}", remedy)

    def string(self, name: str, default: str = "") -> str:
        value = self.data.get(name, default)
        if isinstance(value, str) and (value.strip() or name == "description" or name not in self.data):
            return value
        self.wrong(name, "a string" if name == "description" else "a non-empty string")
        return default

    def integer(self, name: str, low: int, high: int, default: int | None = None) -> int | None:
        if name not in self.data:
            return default
        value = self.data[name]
        if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
            return value
        self.wrong(name, f"an integer from {low} to {high}")
        return default

    def number(self, name: str, low: float, high: float, default: float) -> float:
        if name not in self.data:
            return default
        value = self.data[name]
        if isinstance(value, (int, float)) and not isinstance(value, bool) and low <= value <= high:
            return float(value)
        self.wrong(name, f"a number from {low} to {high}")
        return default

    def duration_s(self, name: str, default: float | None = None, *, in_key: bool = False) -> float | None:
        """A fixed duration in seconds: a number of seconds, or text like `30s`. In a key the number is text too."""
        if name not in self.data:
            return default
        value = self.data[name]
        amount = seconds(value) if isinstance(value, str) else value
        if in_key and amount is None and re.fullmatch(_NUMBER, value):
            amount = float(value)
        if isinstance(amount, (int, float)) and not isinstance(amount, bool) and 0 < amount <= DELAY_S_MAX:
            return float(amount)
        what = f"{short(name)!r} is no duration of" if in_key else f"{name!r} must be a duration of"
        self.text.report(
            self.text.key_at((*self.path, name)) if in_key else self.at(name), "duration-invalid",
            f"{what} more than 0, at most a year", "Write 30s, 500ms, 5m, 2h or 1d, or a number of seconds.",
        )  # fmt: skip
        return default

    def names(self, name: str) -> tuple[str, ...] | None:
        """A non-empty list of strings; `None` when absent."""
        if name not in self.data:
            return None
        value = self.data[name]
        if not isinstance(value, list) or not value:
            self.wrong(name, "a list of at least one string")
            return None
        for index, entry in enumerate(value):
            if not isinstance(entry, str) or not entry:
                message = f"{name!r} must hold strings, not {kind_of(entry)}"
                self.text.report(self.text.value_at((*self.path, name, index)), "value-invalid", message, "Quote it.")
        return tuple(entry for entry in value if isinstance(entry, str) and entry) or None

    def mapping(self, name: str) -> dict[str, Any]:
        value = self.data.get(name)
        if isinstance(value, dict):
            return value
        if name in self.data:
            self.wrong(name, "a map")
        return {}

    def inner(self, name: str | int, data: Mapping[str, Any]) -> Fields:
        """The object under a field."""
        return Fields(self.text, self.machine, data, (*self.path, name))

    # Expressions

    def guard(self, defined: frozenset[str]) -> Expression | None:
        """The bare CEL under `guard`."""
        if "guard" not in self.data:
            return None
        path, value = (*self.path, "guard"), self.data["guard"]
        if isinstance(value, bool):
            value = "true" if value else "false"
        if not isinstance(value, str) or not value.strip():
            self.wrong("guard", "a CEL expression")
            return None
        if "${" in re.sub(LITERAL, "", value):
            message = "a guard is bare CEL, without ${ }"
            self.text.report(self.at("guard"), "guard-not-bare", message, "Remove each ${ and its }.")
            return None
        try:
            expression = Expression(value)
        except ExpressionError as error:
            self._invalid(self.text.character_at(path, value, error.column - 1), error, defined)
            return None
        self._use(expression, self.text.character_at(path, value, 0), defined)
        return expression

    def template(self, name: str, defined: frozenset[str] = ALWAYS_DEFINED) -> Template | None:
        """A value that may hold `${…}`; `None` when absent or when it does not compile."""
        if name not in self.data:
            return None
        return self.template_at((*self.path, name), self.data[name], defined)

    def string_template(self, name: str, defined: frozenset[str]) -> Template | None:
        """A string that may hold `${…}`."""
        if self.string(name) == "":
            return None
        return self.template(name, defined)

    def templates(self, name: str, defined: frozenset[str] = ALWAYS_DEFINED) -> dict[str, Template]:
        """A map of names to templates."""
        found = {}
        for key, value in self.mapping(name).items():
            template = self.template_at((*self.path, name, key), value, defined)
            if template is not None:
                found[key] = template
        return found

    def assign(self, defined: frozenset[str]) -> dict[str, Template]:
        """The `assign` of an object: context names to templates."""
        found = self.templates("assign", defined)
        for name in self.mapping("assign"):
            self.machine.assigned.add(name)
            if not re.fullmatch(STATE_NAME, name):
                path = (*self.path, "assign", name)
                self.text.report(
                    self.text.key_at(path), "name-invalid", f"{short(name)!r} cannot be a name in the context",
                    "Use letters, digits and _.",
                )  # fmt: skip
        return found

    def delay(self, name: str, defined: frozenset[str], *, in_key: bool = False) -> Template | None:
        """A delay: seconds, text like `30s`, or one `${…}` that gives seconds. `in_key`: the text is a key itself."""
        value = self.data.get(name)
        if isinstance(value, str) and "${" in value:
            template = self.template_at((*self.path, name), value, defined, in_key=in_key)
            if template is not None and [part.is_expression for part in parts(value)] != [True]:
                message, remedy = "a delay with ${…} must be that alone", "Let it give seconds: ${input.minutes * 60}."
                self.text.report(self.at(name), "duration-invalid", message, remedy)
            return template
        amount = 0.0 if _is_zero(value) else self.duration_s(name, in_key=in_key)
        return None if amount is None else Template(amount)

    def template_at(self, path: Path, value: Any, defined: frozenset[str], *, in_key: bool = False) -> Template | None:
        """Compile the value under `path`, reporting each string in it that does not compile."""
        if isinstance(value, (dict, list)):
            return Template(value) if self._all_compile(path, value, defined) else None
        try:
            template = Template(value)
        except ExpressionError as error:
            position = self.text.character_at(path, value, error.column - 1, in_key=in_key)
            self._invalid(position, error, defined)
            return None
        offsets = [part.offset for part in parts(value) if part.is_expression] if template.expressions else []
        for expression, offset in zip(template.expressions, offsets, strict=True):
            self._use(expression, self.text.character_at(path, value, offset, in_key=in_key), defined)
        return template

    def _all_compile(self, path: Path, value: Any, defined: frozenset[str]) -> bool:
        if isinstance(value, (dict, list)):
            entries = value.items() if isinstance(value, dict) else enumerate(value)
            good = [self._all_compile((*path, key), entry, defined) for key, entry in entries]
            return all(good)
        return self.template_at(path, value, defined) is not None

    def _use(self, expression: Expression, position: Position, defined: frozenset[str]) -> None:
        self.machine.expressions.append(ExpressionUse(expression, position))
        for name in expression.names:
            if name not in defined and name not in bound_names(expression.text):
                self.text.report(position, "expression-variable", f"{name!r} is not defined here", _defined(defined))

    def _invalid(self, position: Position, error: ExpressionError, defined: frozenset[str]) -> None:
        problem = error.message.removeprefix(f"{error.expression!r} is not CEL: ")
        if problem == error.message:
            self.text.report(
                position, "expression-invalid", _without_brace(error), "Close it, or write $${ for the two signs."
            )
            return
        problem, remedy = _explained(problem.partition("\n")[0].rstrip("."))
        if "undeclared reference" in problem:
            remedy = _defined(defined)
        message = f"{short(error.expression)!r} is not CEL: {problem}" if error.expression.strip() else "${} is empty"
        self.text.report(position, "expression-invalid", message, remedy)


def _explained(problem: str) -> tuple[str, str]:
    """What CEL says of a text that does not compile, and what to do."""
    for pattern, message, remedy in _CEL_PROBLEMS:
        found = re.fullmatch(pattern, problem)
        if found is not None:
            return message.format(*map(str.strip, found.groups())), remedy.format() or _CEL_REMEDY
    return problem, _CEL_REMEDY


def bound_names(text: str) -> set[str]:
    """The names that macros of an expression bind, such as `item` in `context.items.all(item, item > 0)`."""
    return set(re.findall(_BOUND, re.sub(LITERAL, '""', text))) if "(" in text else set()


def _without_brace(error: ExpressionError) -> str:
    return f"{short(error.expression)!r} has a ${{ without its }}" if "${" in error.message else error.message


def _defined(defined: frozenset[str]) -> str:
    return f"Defined here: {', '.join(variable for variable in VARIABLES if variable in defined)}."


def _a(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def _is_zero(value: Any) -> bool:
    amount = seconds(value) if isinstance(value, str) else value
    return amount == 0 and not isinstance(amount, bool)
