"""The rules that look at what states ask for: actions, their parameters, outcomes and errors, and the data flow.

Each rule is a function that reports; none stops another. The input is the flattened machine. A name that
is wrong but near to a known one has been read as that one already, so one slip is one diagnostic.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple

from engine.core.action import ENGINE_CODES, INTERRUPTED, ActionDeclaration, ActionKind
from engine.core.diagnostic import Position
from engine.core.machine import Invoke, State, StateKind
from engine.definition import graph
from engine.definition.declaration import MachineDeclaration, StateDeclaration
from engine.definition.fields import LITERAL, bound_names, near, nearest
from engine.definition.yaml_text import Path, Text

# The name behind a dot, unless it is a method that is called: `context.map(…)` reads no key "map".
_CONTEXT_KEY: Final = r"(?<![.\w])context\.\??([A-Za-z_]\w*)(?!\w|\s*\()"
_INPUT_KEY: Final = r"(?<![.\w])input\.\??([A-Za-z_]\w*)(?!\w|\s*\()"
_VISITS: Final = r"(?<![.\w])visits((?:\.[A-Za-z_]\w*(?!\w|\s*\())+)"


class Subject(NamedTuple):
    """What every rule sees. `written` are the leaves' declarations, by name."""

    text: Text
    machine: MachineDeclaration
    leaves: Mapping[str, State]
    written: Mapping[str, StateDeclaration]
    actions: Mapping[str, ActionDeclaration]

    def action(self, leaf: State) -> ActionDeclaration | None:
        """The declaration of a leaf's action, if it has one that is known."""
        return self.actions.get(leaf.invoke.action) if leaf.kind is StateKind.ACTION and leaf.invoke else None

    def path(self, leaf: State, *inner: str) -> Path:
        """A place inside a leaf."""
        return (*self.written[leaf.name].path, *inner)


def check(
    text: Text,
    machine: MachineDeclaration,
    leaves: Iterable[State],
    start: str | None,
    actions: Mapping[str, ActionDeclaration],
) -> None:
    """Run every rule, reporting on `text`. `start` is the leaf in which a run begins, if it is known."""
    written = {state.name: state for state in machine.every_state() if not state.is_compound}
    subject = Subject(text, machine, {leaf.name: leaf for leaf in leaves}, written, actions)
    for rule in _RULES:
        rule(subject)
    graph.check(text, machine, subject.leaves, start)


def _actions(subject: Subject) -> None:
    """action-unknown, retry-unrepeatable."""
    report = subject.text.report
    for leaf in subject.leaves.values():
        invoke = leaf.invoke
        if invoke is None or not invoke.action:
            continue
        action = subject.actions.get(invoke.action)
        if action is None:
            message = f"there is no action {invoke.action!r}"
            remedy = f"{nearest(invoke.action, subject.actions)} Name the module of your own actions with --actions."
            report(invoke.position, "action-unknown", message, remedy.strip())
            continue
        if action.kind is ActionKind.UNREPEATABLE and invoke.retry:
            report(
                subject.text.key_at(subject.path(leaf, "invoke", "retry")), "retry-unrepeatable",
                f"{action.name} costs something each time, so it cannot be retried behind the definition's back",
                "Catch its errors and lead back to the state that reserves what the next attempt costs.",
            )  # fmt: skip
        _parameters(subject, leaf, invoke, action)


def _parameters(subject: Subject, leaf: State, invoke: Invoke, action: ActionDeclaration) -> None:
    """parameter-unknown, parameter-missing."""
    if action.parameters is None:
        return
    given = _given(subject, leaf)
    known = (*action.parameters, *action.optional)
    missing = [name for name in action.parameters if name not in given]
    for name in given:
        if name not in known:
            position = subject.text.key_at(subject.path(leaf, "invoke", "with", name))
            message = f"{action.name} has no parameter {name!r}"
            subject.text.report(position, "parameter-unknown", message, nearest(name, known))
    meant = {near(name, missing) for name in given if name not in known}
    for name in missing:
        if name not in meant:  # else the name that was meant for it is reported
            message = f"{action.name} needs the parameter {name!r}"
            subject.text.report(invoke.position, "parameter-missing", message, "Add it to with:.")


def _given(subject: Subject, leaf: State) -> list[str]:
    """The names under `with` as they are written; what did not compile is not missing."""
    data = subject.text.data_at(subject.path(leaf, "invoke", "with"))
    return list(data) if isinstance(data, dict) else []


def _outcomes(subject: Subject) -> None:
    """outcome-unhandled, outcome-unknown, interrupted-unhandled: `on` answers what can come."""
    report, written = subject.text.report, subject.written
    for leaf in subject.leaves.values():
        action = subject.action(leaf)
        if leaf.kind is StateKind.MAP:
            expected: tuple[str, ...] = ("done",)
            what = "the map"
        elif action is not None:
            expected, what = action.outcomes_to_handle, action.name
        else:
            continue
        missing = [name for name in expected if name not in written[leaf.name].on]
        wrong = {name: near(name, missing) for name in written[leaf.name].on if name not in expected}
        for name in missing:
            written[leaf.name].is_partial = True
            if name in wrong.values():
                continue  # the name that was meant for it is reported
            if name == INTERRUPTED:
                report(
                    leaf.position, "interrupted-unhandled",
                    f"{leaf.name} does not say what happens when a crash hides the outcome of {what}",
                    "Add on: {interrupted: …}; it will not be performed again by itself, because it costs something.",
                )  # fmt: skip
            else:
                message = f"{leaf.name} does not handle the outcome {name!r} of {what}"
                report(leaf.position, "outcome-unhandled", message, f"Add on: {{{name}: …}}.")
        for name in wrong:
            remedy = nearest(name, expected)
            report(
                written[leaf.name].on_positions[name], "outcome-unknown", f"{what} never answers with {name!r}", remedy
            )


def _errors(subject: Subject) -> None:
    """error-unhandled: each error that an action declares has a catch that holds for it whatever the guards say."""
    for leaf in subject.leaves.values():
        action = subject.action(leaf)
        if action is None:
            continue
        catches = leaf.branches.get("catch", ())
        for code in action.errors:
            if not any(branch.guard is None and (not branch.errors or code in branch.errors) for branch in catches):
                subject.text.report(
                    leaf.position, "error-unhandled", f"{leaf.name} does not catch {code}, an error of {action.name}",
                    "Add a catch for it without a guard, here or in a state around it.",
                )  # fmt: skip


def _codes(subject: Subject) -> None:
    """error-unknown: each code that a catch or a retry names can occur, as far as the actions declare theirs."""
    report = subject.text.report
    for state in subject.machine.every_state():
        if not state.catch and (state.invoke is None or not state.invoke.retry):
            continue
        known = _possible(subject, state)
        if known is None:
            continue
        for branch in state.catch:
            for code in sorted((branch.errors or frozenset()) - known):
                report(
                    branch.position,
                    "error-unknown",
                    f"no action in {state.name} fails with {code!r}",
                    nearest(code, known),
                )
        invoke = state.invoke
        if invoke is None:
            continue
        for policy in invoke.retry:
            for code in sorted((policy.errors or frozenset()) - known):
                position = subject.text.key_at((*state.path, "invoke", "retry"))
                report(position, "error-unknown", f"{invoke.action} never fails with {code!r}", nearest(code, known))


def _possible(subject: Subject, state: StateDeclaration) -> frozenset[str] | None:
    """The codes that can occur in a state; `None` where an action is unknown or declares none, and so may have any."""
    inner = [leaf for name, leaf in subject.leaves.items() if name == state.name or name.startswith(f"{state.name}.")]
    acting = [leaf for leaf in inner if leaf.kind is StateKind.ACTION]
    found = [action for leaf in acting if (action := subject.action(leaf)) is not None and action.errors]
    if len(found) < len(acting) or not acting:
        return None
    return ENGINE_CODES.union(*(action.errors for action in found))


def _data_flow(subject: Subject) -> None:
    """context-unassigned, input-undeclared, visits-unknown: what an expression reads is written somewhere."""
    report = subject.text.report
    assigned = subject.machine.assigned
    names = {state.name: state for state in subject.machine.every_state()}
    declared = _input_names(subject.machine.input_schema)
    for expression, position in subject.machine.expressions:
        text = re.sub(LITERAL, '""', expression.text)
        named = set(expression.names) - bound_names(expression.text)
        for name in re.findall(_CONTEXT_KEY, text) if "context" in named else ():
            if name not in assigned:
                remedy = nearest(name, assigned) or "Assign it before it is read."
                report(position, "context-unassigned", f"nothing in the definition assigns context.{name}", remedy)
        for name in re.findall(_INPUT_KEY, text) if declared is not None and "input" in named else ():
            if declared is not None and name not in declared:
                message = f"the input's schema has no property {name!r}"
                report(position, "input-undeclared", message, nearest(name, declared) or "Declare it.")
        if "visits" in expression.names:
            _visits(subject, names, text, position)


def _visits(subject: Subject, names: Mapping[str, StateDeclaration], text: str, position: Position) -> None:
    for path in re.findall(_VISITS, text):
        state = names.get(path[1:])
        if state is None:
            remedy = nearest(path[1:], subject.leaves)
            subject.text.report(position, "visits-unknown", f"there is no state {path[1:]}", remedy)
        elif state.is_compound and not re.search(rf"visits{re.escape(path)}\s*\.", text):
            remedy = f"Name one of them, as in visits.{_first_leaf(subject, state)}."
            message = f"{state.name} holds states, and visits are counted for each of them"
            subject.text.report(position, "visits-unknown", message, remedy)


def _first_leaf(subject: Subject, state: StateDeclaration) -> str:
    """The first leaf inside a compound state."""
    return next((name for name in subject.leaves if name.startswith(f"{state.name}.")), state.name)


def _input_names(schema: Mapping[str, Any] | None) -> frozenset[str] | None:
    """The properties of the input; `None` where the schema leaves room for others."""
    if schema is None or schema.get("additionalProperties") is not False or "patternProperties" in schema:
        return None
    properties = schema.get("properties", {})
    return frozenset(properties) if isinstance(properties, dict) else None


_RULES: Final[tuple[Callable[[Subject], None], ...]] = (_actions, _outcomes, _errors, _codes, _data_flow)
