"""The rules that look at the ways through a machine: every state is reached, can end, and loops within a bound.

One mistake is one diagnostic: of states that are cut off together only the first on the way is reported,
and of states that cannot end only those that the others are led to.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from engine.core.machine import State, StateKind
from engine.definition.declaration import MachineDeclaration
from engine.definition.yaml_text import Text

Ways = Mapping[str, set[str]]
"""For each state those to which a transition leads from it."""


def check(text: Text, machine: MachineDeclaration, leaves: Mapping[str, State], start: str | None) -> None:
    """Run every rule, reporting on `text`. Without a known start only cycles can be judged."""
    ways = {
        name: {branch.target for group in leaf.branches.values() for branch in group if branch.target in leaves}
        for name, leaf in leaves.items()
    }
    partial = {state.name for state in machine.every_state() if state.is_partial}
    if start is not None:
        seen = _closure([start], ways)
        _unreachable(text, leaves, ways, seen)
        _endless(text, machine, leaves, ways, seen, partial)
    _cycles(text, leaves, ways)


def _unreachable(text: Text, leaves: Mapping[str, State], ways: Ways, seen: set[str]) -> None:
    """state-unreachable."""
    order = {name: at for at, name in enumerate(leaves)}
    lost = {name: targets - seen for name, targets in ways.items() if name not in seen}
    entered = {target for name, targets in lost.items() for target in targets if target != name}
    for group in components(lost):
        if len(group) == 1 and group[0] in entered:
            continue  # it is cut off together with a state before it
        if len(group) > 1 and any(group[0] in targets for name, targets in lost.items() if name not in group):
            continue
        first = min(group, key=order.__getitem__)
        behind = sorted(_closure([first], lost) - {first})
        message = f"no transition leads from the initial state to {first}"
        if behind:
            message += f" (nor, but through it, to {_listed(behind)})"
        text.report(leaves[first].position, "state-unreachable", message, "Lead a transition there, or remove it.")


def _endless(
    text: Text, machine: MachineDeclaration, leaves: Mapping[str, State], ways: Ways, seen: set[str], partial: set[str]
) -> None:
    """final-unreachable. A state whose transitions could not all be read may lead anywhere."""
    finals = [name for name, leaf in leaves.items() if leaf.kind is StateKind.FINAL]
    if not finals and not partial:
        message, remedy = "no state of the machine is final", "Add one with type: final, and a transition to it."
        text.report(machine.states_position, "final-unreachable", message, remedy)
        return
    leading: dict[str, set[str]] = {name: set() for name in leaves}
    for name, targets in ways.items():
        for target in targets:
            leading[target].add(name)
    ending = _closure([*finals, *(name for name in partial if name in leaves)], leading)
    order = {name: at for at, name in enumerate(leaves)}
    endless = {name: targets for name, targets in ways.items() if name in seen and name not in ending}
    for group in components(endless):
        if set().union(*(endless[name] for name in group)) - set(group):
            continue  # what it leads to is reported
        names = sorted(group, key=order.__getitem__)
        message = f"from {_listed(names)} no way leads to a final state"
        text.report(leaves[names[0]].position, "final-unreachable", message, "Add a transition that leads to one.")


def _cycles(text: Text, leaves: Mapping[str, State], ways: Ways) -> None:
    """cycle-unbounded: every cycle passes a state with max_visits."""
    order = {name: at for at, name in enumerate(leaves)}
    unbounded = {name for name, leaf in leaves.items() if leaf.max_visits is None}
    inner = {name: ways[name] & unbounded for name in leaves if name in unbounded}
    for group in components(inner):
        if len(group) == 1 and group[0] not in inner[group[0]]:
            continue
        names = sorted(group, key=order.__getitem__)
        what = f"the cycle through {_listed(names)}" if len(names) > 1 else f"the transition from {names[0]} to itself"
        text.report(
            leaves[names[0]].position, "cycle-unbounded", f"{what} has no bound",
            "Give one of its states max_visits; what exceeds it is caught as VISITS_EXCEEDED.",
        )  # fmt: skip


def _listed(names: list[str]) -> str:
    return ", ".join(names) if len(names) <= 6 else f"{', '.join(names[:5])} and {len(names) - 5} more"


def _closure(start: Iterable[str], ways: Ways) -> set[str]:
    seen: set[str] = set()
    waiting = list(start)
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            waiting.extend(ways.get(name, ()))
    return seen


def components(ways: Ways) -> list[list[str]]:
    """The strongly connected components (Tarjan's algorithm, without recursion): states that reach each other."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []
    done: set[str] = set()
    for root in ways:
        work = [] if root in index else [(root, iter(sorted(ways[root])))]
        while work:
            name, following = work[-1]
            if name not in index:
                index[name] = low[name] = len(index)
                stack.append(name)
            for target in following:
                if target not in index:
                    work.append((target, iter(sorted(ways[target]))))
                    break
                if target not in done:
                    low[name] = min(low[name], index[target])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[name])
                if low[name] == index[name]:
                    group = [stack.pop()]
                    while group[-1] != name:
                        group.append(stack.pop())
                    done.update(group)
                    found.append(group)
    return found
