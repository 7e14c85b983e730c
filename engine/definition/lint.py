"""The rules that look at a whole definition: actions and their outcomes, reachability, cycles, data flow.

Each rule is a function that reports; none stops another. The input is the flattened machine with its
unresolved targets left out, so the graph rules speak of what could be resolved.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple

from engine.core.action import ENGINE_CODES, INTERRUPTED, ActionDeclaration, ActionKind
from engine.core.machine import Machine, State, StateKind
from engine.definition.declaration import MachineDeclaration
from engine.definition.fields import nearest
from engine.definition.yaml_text import Text

_LITERAL: Final = re.compile(r"\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*'")
_CONTEXT_KEY: Final = re.compile(r"(?<![.\w])context\.\??([A-Za-z_]\w*)")
_INPUT_KEY: Final = re.compile(r"(?<![.\w])input\.\??([A-Za-z_]\w*)")
_VISITS: Final = re.compile(r"(?<![.\w])visits((?:\.[A-Za-z_]\w*)+)")


class Subject(NamedTuple):
    """What every rule sees."""

    text: Text
    machine: MachineDeclaration
    leaves: Mapping[str, State]
    actions: Mapping[str, ActionDeclaration]
    children: Mapping[str, Machine | None]

    def action(self, leaf: State) -> ActionDeclaration | None:
        """The declaration of a leaf's action, if it has one that is known."""
        return self.actions.get(leaf.invoke.action) if leaf.invoke else None


def check(
    text: Text,
    machine: MachineDeclaration,
    leaves: Iterable[State],
    actions: Mapping[str, ActionDeclaration],
    children: Mapping[str, Machine | None],
) -> None:
    """Run every rule, reporting on `text`."""
    subject = Subject(text, machine, {leaf.name: leaf for leaf in leaves}, actions, children)
    for rule in _RULES:
        rule(subject)


def _actions(subject: Subject) -> None:
    """action-unknown, parameter-unknown, parameter-missing, retry-unrepeatable."""
    report = subject.text.report
    for leaf in subject.leaves.values():
        invoke = leaf.invoke
        if invoke is None or not invoke.action:
            continue
        action = subject.actions.get(invoke.action)
        if action is None:
            remedy = nearest(invoke.action, subject.actions) or "Name its module with --actions."
            report(invoke.position, "action-unknown", f"there is no action {invoke.action!r}", remedy)
            continue
        if action.kind is ActionKind.UNREPEATABLE and invoke.retry:
            report(
                invoke.position, "retry-unrepeatable",
                f"{action.name} costs something each time, so it cannot be retried behind the definition's back",
                "Catch its errors and lead back to the state that reserves what the next attempt costs.",
            )  # fmt: skip
        if action.parameters is not None:
            known = (*action.parameters, *action.optional)
            for name in invoke.params:
                if name not in known:
                    report(invoke.position, "parameter-unknown", f"{action.name} has no parameter {name!r}", nearest(name, known))
            for name in action.parameters:
                if name not in invoke.params:
                    report(invoke.position, "parameter-missing", f"{action.name} needs the parameter {name!r}", f"Add it to with:.")


def _outcomes(subject: Subject) -> None:
    """outcome-unhandled, outcome-unknown, interrupted-unhandled: `on` answers what can come."""
    report = subject.text.report
    written = {state.name: state for state in subject.machine.every_state()}
    for leaf in subject.leaves.values():
        action = subject.action(leaf)
        if leaf.kind is StateKind.MAP:
            expected: tuple[str, ...] = ("done",)
            what = "the map"
        elif action is not None:
            expected, what = action.outcomes_to_handle, action.name
        else:
            continue
        for name in expected:
            if name in written[leaf.name].on:
                continue
            if name == INTERRUPTED:
                report(
                    leaf.position, "interrupted-unhandled",
                    f"{leaf.name} does not say what happens when a crash hides the outcome of {what}",
                    "Add on: {interrupted: …}; it will not be performed again by itself, because it costs something.",
                )  # fmt: skip
            else:
                message = f"{leaf.name} does not handle the outcome {name!r} of {what}"
                report(leaf.position, "outcome-unhandled", message, f"Add on: {{{name}: …}}.")
        for name, position in written[leaf.name].on_positions.items():
            if name not in expected:
                report(position, "outcome-unknown", f"{what} never answers with {name!r}", nearest(name, expected))


def _errors(subject: Subject) -> None:
    """error-unhandled, error-unknown: each declared error has a catch, and each caught code can occur."""
    report = subject.text.report
    for leaf in subject.leaves.values():
        action = subject.action(leaf)
        if action is None:
            continue
        catches = leaf.branches.get("catch", ())
        for code in action.errors:
            if not any(branch.guard is None and (not branch.errors or code in branch.errors) for branch in catches):
                report(
                    leaf.position, "error-unhandled", f"{leaf.name} does not catch {code}, an error of {action.name}",
                    "Add a catch for it without a guard, here or in a state around it.",
                )  # fmt: skip
    declared = {leaf.name: action for leaf in subject.leaves.values() if (action := subject.action(leaf))}
    for state in subject.machine.every_state():
        covered = [a for name, a in declared.items() if name == state.name or name.startswith(f"{state.name}.")]
        if not covered or not all(action.errors for action in covered):
            continue
        known = {code for action in covered for code in action.errors} | ENGINE_CODES
        for branch in state.catch:
            for code in sorted((branch.errors or frozenset()) - known):
                message = f"no action in {state.name} fails with {code!r}"
                report(branch.position, "error-unknown", message, nearest(code, known))


def _maps(subject: Subject) -> None:
    """machine-unknown: a map's machine must exist."""
    for leaf in subject.leaves.values():
        if leaf.map is not None and leaf.map.machine and subject.children.get(leaf.map.machine) is None:
            subject.text.report(
                leaf.map.position, "machine-unknown", f"there is no valid machine {leaf.map.machine!r} for this map",
                f"Put {leaf.map.machine}.yaml beside this file and see what `detent validate` says of it.",
            )  # fmt: skip


def _reachable(subject: Subject) -> None:
    """state-unreachable, final-unreachable."""
    leaves, report = subject.leaves, subject.text.report
    following = {name: _targets(leaf) for name, leaf in leaves.items()}
    start = _initial(subject)
    if start is None:
        return
    seen = _closure([start], following)
    for name, leaf in leaves.items():
        if name not in seen:
            message = f"no transition leads from the initial state to {name}"
            report(leaf.position, "state-unreachable", message, "Lead a transition there, or remove it.")
    leading = {name: {source for source, targets in following.items() if name in targets} for name in leaves}
    ending = _closure([name for name, leaf in leaves.items() if leaf.kind is StateKind.FINAL], leading)
    for name in leaves:
        if name in seen and name not in ending:
            message = f"from {name} no way leads to a final state"
            report(leaves[name].position, "final-unreachable", message, "Add a transition to a state of type: final.")


def _cycles(subject: Subject) -> None:
    """cycle-unbounded: every cycle passes a state with max_visits."""
    following = {
        name: {target for target in _targets(leaf) if subject.leaves[target].max_visits is None}
        for name, leaf in subject.leaves.items()
        if leaf.max_visits is None
    }
    reported: set[str] = set()
    for name in following:
        if name in reported or name not in _closure(following[name], following):
            continue
        cycle = {name} | {
            other for other in _closure(following[name], following) if name in _closure(following[other], following)
        }
        reported |= cycle
        subject.text.report(
            subject.leaves[name].position, "cycle-unbounded",
            f"the cycle through {', '.join(sorted(cycle))} has no bound",
            "Give one of its states max_visits; what exceeds it is caught as VISITS_EXCEEDED.",
        )  # fmt: skip


def _data_flow(subject: Subject) -> None:
    """context-unassigned, input-undeclared, visits-unknown: what an expression reads is written somewhere."""
    report = subject.text.report
    schema = subject.machine.input_schema or {}
    closed = schema.get("additionalProperties") is False
    names = {state.name for state in subject.machine.every_state()}
    for expression, position in subject.machine.expressions:
        text = _LITERAL.sub('""', expression.text)
        for name in _CONTEXT_KEY.findall(text):
            if name not in subject.machine.assigned:
                message = f"nothing in the definition assigns context.{name}"
                report(position, "context-unassigned", message, nearest(name, subject.machine.assigned))
        for name in _INPUT_KEY.findall(text) if closed else ():
            if name not in schema.get("properties", {}):
                message = f"the input's schema has no property {name!r}"
                report(position, "input-undeclared", message, nearest(name, schema.get("properties", {})))
        for path in _VISITS.findall(text):
            if path[1:] not in names:
                report(position, "visits-unknown", f"there is no state {path[1:]}", nearest(path[1:], names))


_RULES: Final[tuple[Callable[[Subject], None], ...]] = (
    _actions, _outcomes, _errors, _maps, _reachable, _cycles, _data_flow,
)  # fmt: skip


def _targets(leaf: State) -> set[str]:
    return {branch.target for group in leaf.branches.values() for branch in group}


def _initial(subject: Subject) -> str | None:
    """The leaf in which a run begins, if the names on the way to it exist."""
    name = subject.machine.initial
    states = {state.name: state for state in subject.machine.every_state()}
    while name in states and states[name].is_compound:
        name = f"{name}.{states[name].initial}"
    return name if name in subject.leaves else None


def _closure(start: Iterable[str], following: Mapping[str, Any]) -> set[str]:
    seen: set[str] = set()
    waiting = list(start)
    while waiting:
        name = waiting.pop()
        if name not in seen and name in following:
            seen.add(name)
            waiting.extend(following[name])
    return seen
