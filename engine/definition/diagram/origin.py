"""Where a catch or a cancel was written: at its leaf, or at a state around it that the leaf inherits it from.

A compiled leaf holds what it inherits as if it were its own, and says of no branch whose it is. The text
of the definition is part of the machine, so the answer is read there, by the compiler's own order: catches
from the inside out, the nearest cancel, and none that leads to the leaf itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from engine.core.machine import Branch, Machine, State


class Origin(NamedTuple):
    """The full name of the state that declares a branch, and the branch's place in that declaration, from 0."""

    owner: str
    event: str
    place: int


def origins(machine: Machine, leaf: State) -> Iterator[tuple[Origin, Branch]]:
    """The catches and the cancel of a leaf, each with its origin."""
    branches = iter(leaf.branches.get("catch", ()))
    for owner in _chain(leaf.name):
        for place, target in enumerate(_catch_targets(_declared(machine, owner))):
            if _resolved(machine, target, owner) != leaf.name:
                yield Origin(owner, "catch", place), next(branches)
    for branch in leaf.branches.get("cancel", ()):
        owner = next(owner for owner in _chain(leaf.name) if "cancel" in _declared(machine, owner))
        yield Origin(owner, "cancel", 0), branch


def _chain(name: str) -> Iterator[str]:
    """A state, the state around it, and so on to the outermost."""
    while name:
        yield name
        name = name.rpartition(".")[0]


def _declared(machine: Machine, name: str) -> Mapping[str, Any]:
    node: Mapping[str, Any] = machine.source
    for part in name.split("."):
        node = node["states"][part]
    return node


def _catch_targets(node: Mapping[str, Any]) -> list[str]:
    written = node.get("catch", [])
    entries = written if isinstance(written, list) else [written]
    return [entry if isinstance(entry, str) else entry["target"] for entry in entries]


def _resolved(machine: Machine, target: str, owner: str) -> str:
    """The leaf that a target means, looked up from its owner outwards; a compiled machine has one."""
    scope = owner
    while True:
        name = f"{scope}.{target}" if scope else target
        if name in machine.states or any(leaf.startswith(f"{name}.") for leaf in machine.states):
            break
        scope = scope.rpartition(".")[0]
    while name not in machine.states:
        name = f"{name}.{_declared(machine, name)['initial']}"
    return name
