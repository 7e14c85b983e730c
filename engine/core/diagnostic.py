"""One finding of the definition compiler: where, what, which rule, and the remedy.

Printed as `file:line:column: message [rule] remedy`. Lines and columns are from 1.
"""

from typing import NamedTuple


class Position(NamedTuple):
    """A place in a text: `line` and `column` from 1."""

    line: int
    column: int


class Diagnostic(NamedTuple):
    """A finding. `rule` is a stable name of the form noun-problem; `remedy` says what to do."""

    file: str
    position: Position
    rule: str
    message: str
    remedy: str = ""

    def __str__(self) -> str:
        line, column = self.position
        tail = f" {self.remedy}" if self.remedy else ""
        return f"{self.file}:{line}:{column}: {self.message} [{self.rule}]{tail}"
