"""What the reader makes of a text: declarations, as written, before any name in them is resolved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
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


@dataclass
class StateDeclaration:
    """A state as written, with the states inside it. `name` is its full dotted name.

    `is_partial`: a transition or more of it could not be read, so where it leads is not wholly known.
    """

    name: str
    position: Position
    path: Path
    parent: StateDeclaration | None = None
    children: list[StateDeclaration] = field(default_factory=list)
    description: str = ""
    initial: str | None = None
    initial_position: Position = START
    is_compound: bool = False
    is_final: bool = False
    invoke: Invoke | None = None
    map: MapCall | None = None
    on: dict[str, tuple[BranchDeclaration, ...]] = field(default_factory=dict)
    on_positions: dict[str, Position] = field(default_factory=dict)
    always: tuple[BranchDeclaration, ...] = ()
    after: tuple[AfterDeclaration, ...] = ()
    catch: tuple[BranchDeclaration, ...] = ()
    cancel: BranchDeclaration | None = None
    timeout_s: float | None = None
    max_visits: int | None = None
    status: str | None = None
    output: Template | None = None
    error: Template | None = None
    is_partial: bool = False

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


@dataclass
class MachineDeclaration:
    """A machine as written."""

    name: str = ""
    version: int = 1
    description: str = ""
    key: Template | None = None
    input_schema: Mapping[str, Any] | None = None
    pools: dict[str, Pool] = field(default_factory=dict)
    summary: Template | None = None
    initial: str | None = None
    initial_position: Position = START
    states_position: Position = START
    states: list[StateDeclaration] = field(default_factory=list)
    expressions: list[ExpressionUse] = field(default_factory=list)
    assigned: set[str] = field(default_factory=set)

    def every_state(self) -> list[StateDeclaration]:
        """Every state, outer before inner, in the order of the text."""
        found: list[StateDeclaration] = []
        waiting = list(reversed(self.states))
        while waiting:
            state = waiting.pop()
            found.append(state)
            waiting.extend(reversed(state.children))
        return found
