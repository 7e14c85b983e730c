"""The machine: a definition compiled to one immutable value, shared by every run of it.

States are flattened to leaves (`RUNNING.CAPTURING`). The finite-state structure, which state follows
which on what event, lives in a `transitions.Machine`, and every target in a `Branch` here was read back
from it. Nothing in this file decides anything: the interpreter is `step.py`.

None is a dataclass: to make a frozen one takes as long at a start as to make ten of these. `State` and `Machine` have
slots, which are read in half the time of a named tuple's fields, at every step.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple

from engine.core.diagnostic import Position
from engine.core.expression import Expression, Template
from engine.core.retry import RetryPolicy
from engine.core.snapshot import Status

if TYPE_CHECKING:
    import transitions


class StateKind(StrEnum):
    """What a leaf does while a run stands in it."""

    ACTION = "action"
    MAP = "map"
    CHOICE = "choice"
    WAIT = "wait"
    FINAL = "final"


class Branch(NamedTuple):
    """One transition: taken when `event` arrives, `guard` holds and (for a catch) the code is in `errors`."""

    source: str
    event: str
    number: int
    target: str
    guard: Expression | None = None
    assign: Mapping[str, Template] | None = None
    delay: Template | None = None
    errors: frozenset[str] | None = None
    position: Position = Position(1, 1)


class Invoke(NamedTuple):
    """The action of a state: `params` is a map template, `assign` follows every outcome but `interrupted`."""

    action: str
    params: Mapping[str, Template]
    timeout_s: float | None
    assign: Mapping[str, Template]
    retry: tuple[RetryPolicy, ...]
    position: Position


class MapCall(NamedTuple):
    """The map of a state: a child run of `machine` for each element of `items`."""

    machine: str
    items: Template
    key: Template
    input: Template | None
    concurrency: int
    min_success: Template | None
    assign: Mapping[str, Template]
    position: Position


class After(NamedTuple):
    """A timer of a waiting state: `delay` after entry, the branches of the event `after:<delay as written>`."""

    event: str
    delay: Template


class State(NamedTuple):
    """A leaf. `branches` maps an event's name to its transitions in order.

    The events are `on:<outcome or signal>`, `always`, `after:<delay>`, `catch` and `cancel`; what a parent
    declares is in its leaves' branches already. An empty `cancel` means that this leaf is where a cancelled
    run goes, none at all that a cancelled run ends here.
    """

    name: str
    kind: StateKind
    position: Position
    description: str
    invoke: Invoke | None
    map: MapCall | None
    after: tuple[After, ...]
    timeout_s: float | None
    max_visits: int | None
    status: Status
    output: Template | None
    error: Template | None
    branches: Mapping[str, tuple[Branch, ...]]


class Pool(NamedTuple):
    """Quota of a paid API: `accounts` names the variable that lists them; the rest is what an entry leaves open.

    `per_day` units in a UTC day, `per_second` calls with `burst` at once, all for each account.
    """

    name: str
    accounts: str
    per_day: int
    per_second: float
    burst: int


class Machine(NamedTuple):
    """An immutable program. `digest` names its whole text with its children's; `children` are the maps' machines."""

    name: str
    version: int
    digest: str
    description: str
    file: str
    source: Mapping[str, Any]
    initial: str
    states: Mapping[str, State]
    structure: "transitions.Machine"
    key: Template | None
    input_schema: Mapping[str, Any] | None
    pools: Mapping[str, Pool]
    summary: Template | None
    children: "Mapping[str, Machine]"

    def branches(self) -> tuple[Branch, ...]:
        """Every transition, in the order of the text."""
        return tuple(branch for state in self.states.values() for group in state.branches.values() for branch in group)

    def __repr__(self) -> str:
        return f"Machine({self.name} version {self.version}, {self.digest[:12]})"
