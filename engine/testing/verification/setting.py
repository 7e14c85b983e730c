"""`Setting`: what all schedules of an exploration have in common."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

from engine.core.handler import Handler
from engine.core.machine import Machine
from engine.core.write import Key
from engine.definition import Catalogue

if TYPE_CHECKING:
    from engine.testing.verification.ending import Ending
    from engine.testing.verification.world import World

EFFECTS_MAX: Final = 50_000
"""Effects of the crash-free run. The other schedules are bound by that one: see `bounded`."""

LOCKING: Final = "locking"
PRECONDITIONS: Final = "preconditions"
SEMANTICS: Final = (LOCKING, PRECONDITIONS)
"""How a store commits: while nobody else does (SQLite), or if what it writes or checks is unchanged (Firestore)."""


Address: TypeAlias = tuple[str, ...]
"""Which run a signal is for, the same in every schedule: its key or id, or the items that lead to it."""


class Given(NamedTuple):
    """A signal that is sent to a run when it waits for it."""

    name: str
    value: Any = None


@dataclass(frozen=True)
class Setting:
    """See the module. `addresses` says by its number, from 1, to whom each signal went without a crash."""

    machine: Machine
    catalogue: Catalogue
    handlers: Mapping[str, Handler]
    world: World
    inputs: tuple[Any, ...]
    texts: Mapping[Key, str]
    semantics: str = LOCKING
    run_id: str | None = None
    effects_max: int = EFFECTS_MAX
    signals: tuple[Given, ...] = ()
    addresses: Mapping[int, Address] = field(default_factory=dict)

    def bounded(self, effects: int) -> Setting:
        """For schedules of a run that has so many effects without a crash: many more is a run in circles."""
        return replace(self, effects_max=300 + 10 * effects)

    def knowing(self, crash_free: Ending) -> Setting:
        """For the schedules that are held against a crash-free ending: bounded, and each signal for the same run."""
        return replace(self.bounded(len(crash_free.effects)), addresses=dict(crash_free.sent))
