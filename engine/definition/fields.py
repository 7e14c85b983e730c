"""Reading single values of a definition: a string, an integer, a duration, a template, a guard.

Each reader reports what is wrong at its place and then answers a usable value, so that one mistake hides
no other. `Fields` is bound to one object of the text; `Scope` names are those of `vocabulary`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from engine.core.bounds import DELAY_S_MAX
from engine.core.diagnostic import Position
from engine.core.expression import VARIABLES, Expression, Template
from engine.definition.declaration import ExpressionUse, MachineDeclaration
from engine.definition.yaml_text import Path, Text
from engine.errors import ExpressionError

_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)")
_UNIT_S: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
STATE_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
MACHINE_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,99}")

ALWAYS_DEFINED: Final = frozenset(("input", "context", "visits", "run"))
NAMES: Final = {bool: "a boolean", int: "an integer", float: "a number", str: "a string", dict: "a map", list: "a list"}


def kind_of(value: Any) -> str:
    """What a value is, for a message."""
    return "nothing" if value is None else NAMES.get(type(value), type(value).__name__)


def nearest(name: str, known: Iterable[str]) -> str:
    """A sentence that proposes the nearest known name, or lists them all when none is near."""
    options = sorted(known)
    close = difflib.get_close_matches(name, options, n=1, cutoff=0.6)
    if close:
        return f"Did you mean {close[0]!r}?"
    return f"Known here: {', '.join(options)}." if options else ""


def seconds(text: str) -> float | None:
    """A duration like `30s`, `500ms`, `2h` in seconds; `None` when it is none."""
    found = _DURATION.fullmatch(text.strip())
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
        """Report every key that this kind of object does not have."""
        for name in self.data:
            if name not in allowed:
                self.report(name, "key-unknown", f"unknown key {name!r} in {what}", nearest(name, allowed))

    def require(self, names: Sequence[str], what: str) -> None:
        """Report every key that is missing."""
        for name in names:
            if name not in self.data:
                self.report(None, "key-missing", f"{what} has no {name!r}", f"Add {name!r}.")

    def wrong(self, name: str, expected: str) -> None:
        found = kind_of(self.data[name])
        self.text.report(self.at(name), "value-invalid", f"{name!r} must be {expected}, not {found}")

    def string(self, name: str, default: str = "") -> str:
        value = self.data.get(name, default)
        if isinstance(value, str) and (value.strip() or name == "description" or name not in self.data):
            return value
        self.wrong(name, "a non-empty string")
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

    def duration_s(self, name: str, default: float | None = None) -> float | None:
        """A fixed duration in seconds: a number of seconds, or text like `30s`."""
        if name not in self.data:
            return default
        value = self.data[name]
        amount = seconds(value) if isinstance(value, str) else value
        if isinstance(amount, (int, float)) and not isinstance(amount, bool) and 0 < amount <= DELAY_S_MAX:
            return float(amount)
        self.text.report(
            self.at(name), "duration-invalid", f"{name!r} must be a duration of more than 0, at most a year",
            "Write 30s, 500ms, 5m, 2h or 1d, or a number of seconds.",
        )  # fmt: skip
        return default

    def names(self, name: str) -> tuple[str, ...] | None:
        """A non-empty list of strings; `None` when absent."""
        if name not in self.data:
            return None
        value = self.data[name]
        if isinstance(value, list) and value and all(isinstance(entry, str) and entry for entry in value):
            return tuple(value)
        self.wrong(name, "a list of at least one string")
        return None

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
        value = self.data["guard"]
        if isinstance(value, bool):
            value = "true" if value else "false"
        if not isinstance(value, str) or not value.strip():
            self.wrong("guard", "a CEL expression")
            return None
        if value.strip().startswith("${") and value.strip().endswith("}"):
            self.text.report(
                self.at("guard"), "guard-not-bare", "a guard is bare CEL, without ${ }", "Remove the ${ and the }."
            )
            value = value.strip()[2:-1]
        try:
            expression = Expression(value)
        except ExpressionError as error:
            self._invalid((*self.path, "guard"), error)
            return None
        self._use(expression, self.at("guard"), defined)
        return expression

    def template(self, name: str, defined: frozenset[str] = ALWAYS_DEFINED) -> Template | None:
        """A value that may hold `${…}`; `None` when absent or when it does not compile."""
        if name not in self.data:
            return None
        return self.template_at((*self.path, name), self.data[name], defined)

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
            if not STATE_NAME.fullmatch(name):
                path = (*self.path, "assign", name)
                self.text.report(
                    self.text.key_at(path), "name-invalid", f"{name!r} cannot be a name in the context",
                    "Use letters, digits and _.",
                )  # fmt: skip
        return found

    def delay(self, name: str, defined: frozenset[str]) -> Template | None:
        """A delay: seconds, text like `30s`, or `${…}` that gives seconds."""
        value = self.data.get(name)
        if isinstance(value, str) and "${" in value:
            return self.template(name, defined)
        amount = 0.0 if value == 0 and not isinstance(value, bool) else self.duration_s(name)
        return None if amount is None else Template(amount)

    def template_at(self, path: Path, value: Any, defined: frozenset[str]) -> Template | None:
        """Compile the value under `path`, reporting each string in it that does not compile."""
        if isinstance(value, (dict, list)):
            entries = value.items() if isinstance(value, dict) else enumerate(value)
            good = all([self.template_at((*path, key), entry, defined) is not None for key, entry in entries])
            return Template(value) if good else None
        try:
            template = Template(value)
        except ExpressionError as error:
            self._invalid(path, error)
            return None
        for expression in template.expressions:
            start = self.text.value_at(path)
            offset = value.find(expression.text) if isinstance(value, str) else 0
            self._use(expression, Position(start.line, start.column + max(offset, 0)), defined)
        return template

    def _use(self, expression: Expression, position: Position, defined: frozenset[str]) -> None:
        self.machine.expressions.append(ExpressionUse(expression, position))
        for name in expression.names:
            if name not in defined:
                known = ", ".join(variable for variable in VARIABLES if variable in defined)
                message = f"{name!r} is not defined here"
                self.text.report(position, "expression-variable", message, f"Defined here: {known}.")

    def _invalid(self, path: Path, error: ExpressionError) -> None:
        start = self.text.value_at(path)
        position = Position(start.line, start.column + error.column - 1)
        self.text.report(position, "expression-invalid", error.message, error.remedy)
