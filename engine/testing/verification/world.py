"""`World`: what a machine meets outside of the engine while it is verified. Derive from it for your own machine.

A world gives the documents that are there before, the services that handlers ask for (fake ones, over the `Process`
that they are made for), and says by how much a schedule's end may differ from the crash-free one. The one here serves
any machine whose actions need no services but the ledger. A world must be the same each time: no randomness, no clock
of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from engine.core.write import Key, Write
from engine.handlers.accounts import Account, AccountPools
from engine.handlers.ledger import Ledger

if TYPE_CHECKING:
    from engine.core.machine import Machine
    from engine.core.secret import Secrets
    from engine.testing.verification.ending import Ending
    from engine.testing.verification.process import Process


class Difference(NamedTuple):
    """A part of the ending that may differ from the crash-free one.

    `name` is a glob over `documents/COLLECTION/ID`, `artifacts/NAME`, `outputs/MACHINE`; `path` names a field in
    it, segments parted by dots, `*` for any; an empty path leaves the whole out. `reason` is shown to people.
    """

    name: str
    path: str
    reason: str


class Problem(NamedTuple):
    """A rule that does not hold: its name, and what was found where."""

    rule: str
    message: str


class World:
    """See the module. One instance serves one exploration; what a schedule changes lives in what `services` makes."""

    differences: Sequence[Difference] = ()
    """What may differ, each with its reason; instants of the schedule's own time never count as differences."""

    lease_s: float = 60.0

    redrive_completes: bool = False
    """Whether a run that failed or was cancelled ends, once it is redriven, as it does without either."""

    def prepare(self, machine: Machine, documents: dict[Key, Any], inputs: Sequence[Any], items: int | None) -> None:
        """Complete the documents that `--load` gave, in place; `items` is `--items`, where it was given."""

    def inputs(self, given: Sequence[Any], documents: Mapping[Key, Any]) -> Sequence[Any]:
        """The start events: each is delivered at least once, and the first of them first."""
        return given

    def begin(self) -> Any:
        """What the outside services remember in one schedule; passed to `services`, and kept over crashes."""
        return None

    def services(self, process: Process, secrets: Secrets, memory: Any) -> Sequence[object]:
        """The services of one process image, as `Engine(services=[…])` takes them.

        Here the ledger, for a machine that has pools: each with the accounts that `accounts_of` makes up.
        """
        pools = {name: self.accounts_of(name) for name in _pools(process.universe.setting.machine)}
        return [Ledger(AccountPools(pools, secrets), is_live=True)] if pools else ()

    def accounts_of(self, pool: str) -> Sequence[Account]:
        """The accounts of a pool."""
        return [Account(f"acc{number}", f"made-up-key-of-acc{number}") for number in (1, 2, 3)]

    def expected(self, crash_free: Ending, found: Ending) -> Ending:
        """The crash-free ending, less what the crashes of this schedule have cost by right."""
        return crash_free

    def comparable(self, name: str, value: Any) -> Any:
        """A document, artifact or output in the form in which it is compared, after `differences` were taken out."""
        return value

    def before_redrive(self, documents: Mapping[Key, Any], run_id: str) -> Iterable[Write]:
        """What somebody puts right before an ended run is redriven: the work that its first action takes, say."""
        return ()

    def watch(self, documents: Mapping[Key, Any], artifacts: Mapping[str, bytes]) -> Iterable[Problem]:
        """What must hold at every instant; asked after each commit that takes a step or changes a document of yours."""
        return ()

    def judge(self, ending: Ending) -> Iterable[Problem]:
        """What must hold of an ending beside the engine's own rules."""
        return ()


def _pools(machine: Machine) -> set[str]:
    return {*machine.pools}.union(*(_pools(child) for child in machine.children.values()))
