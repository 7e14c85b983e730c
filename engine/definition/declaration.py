"""What the reader makes of a text: declarations, as written, before any name in them is resolved.

Those that the reader fills in are plain classes: a dataclass of twenty fields takes a millisecond of every start.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from engine.core.diagnostic import Position
from engine.core.expression import Expression, Template
from engine.core.machine import Invoke, MapCall, Pool
from engine.definition.yaml_text import Path

START: Final = Position(1, 1)


class BranchDeclaration(NamedTuple):
    """A transition as written: `target` is a name to be resolved from where it stands."""

    target: str
    position: Position
    guard: Expression | None = None
    assign: Mapping[str, Template] | None = None
    delay: Template | None = None
    errors: frozenset[str] | None = None
    is_guarded: bool = False


class AfterDeclaration(NamedTuple):
    """A timer of a waiting state; `written` is its delay as the text has it, which names it."""

    written: str
    delay: Template
    branches: tuple[BranchDeclaration, ...]


class StateDeclaration:
    """A state as written, with the states inside it. `name` is its full dotted name.

    `is_partial`: a transition or more of it could not be read, so where it leads is not wholly known.
    """

    def __init__(
        self,
        name: str,
        position: Position,
        path: Path,
        parent: StateDeclaration | None = None,
        *,
        is_partial: bool = False,
    ) -> None:
        self.name = name
        self.position = position
        self.path = path
        self.parent = parent
        self.children: list[StateDeclaration] = []
        self.description = ""
        self.initial: str | None = None
        self.initial_position = START
        self.is_compound = False
        self.is_final = False
        self.invoke: Invoke | None = None
        self.map: MapCall | None = None
        self.on: dict[str, tuple[BranchDeclaration, ...]] = {}
        self.on_positions: dict[str, Position] = {}
        self.always: tuple[BranchDeclaration, ...] = ()
        self.after: tuple[AfterDeclaration, ...] = ()
        self.catch: tuple[BranchDeclaration, ...] = ()
        self.cancel: BranchDeclaration | None = None
        self.timeout_s: float | None = None
        self.max_visits: int | None = None
        self.status: str | None = None
        self.output: Template | None = None
        self.error: Template | None = None
        self.is_partial = is_partial

    def ancestors(self) -> list[StateDeclaration]:
        """This state, its parent, and so on to the outermost."""
        chain = [self]
        while (parent := chain[-1].parent) is not None:
            chain.append(parent)
        return chain


class ExpressionUse(NamedTuple):
    """An expression of the text and where it begins, for the rules that look at all of them."""

    expression: Expression
    position: Position


class MachineDeclaration:
    """A machine as written."""

    def __init__(self) -> None:
        self.name = ""
        self.version = 1
        self.description = ""
        self.key: Template | None = None
        self.input_schema: Mapping[str, Any] | None = None
        self.pools: dict[str, Pool] = {}
        self.summary: Template | None = None
        self.initial: str | None = None
        self.initial_position = START
        self.states_position = START
        self.states: list[StateDeclaration] = []
        self.expressions: list[ExpressionUse] = []
        self.assigned: set[str] = set()

    def every_state(self) -> list[StateDeclaration]:
        """Every state, outer before inner, in the order of the text."""
        found: list[StateDeclaration] = []
        waiting = list(reversed(self.states))
        while waiting:
            state = waiting.pop()
            found.append(state)
            waiting.extend(reversed(state.children))
        return found
