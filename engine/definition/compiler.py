"""`MachineDeclaration` -> `Machine`: flatten the states, resolve every target, build the structure, lint.

The finite-state structure becomes a `transitions.Machine`, which would accept an unknown target in
silence; so every name is resolved here first. The branches of the compiled states then read their targets
back from that structure, so there is one table and not two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, TypeAlias

import transitions

from engine.core import canonical
from engine.core.action import ActionDeclaration
from engine.core.diagnostic import Diagnostic
from engine.core.machine import After, Branch, Machine, State, StateKind
from engine.core.snapshot import Status
from engine.definition import lint
from engine.definition.declaration import BranchDeclaration, MachineDeclaration, StateDeclaration
from engine.definition.fields import nearest
from engine.definition.reader import read
from engine.definition.yaml_text import Text, parse

Children: TypeAlias = Callable[[str], "Machine | None"]
"""Finds the machine that a map names; `None` when there is none."""


class Compiled(NamedTuple):
    """The machine, if nothing stands against it, and every diagnostic in the order of the text."""

    machine: Machine | None
    diagnostics: tuple[Diagnostic, ...]


def compile_text(text: str, file: str, actions: Mapping[str, ActionDeclaration], children: Children) -> Compiled:
    """Compile one YAML text."""
    return _compile(parse(text, file), actions, children)


def compile_source(
    source: Mapping[str, Any], file: str, actions: Mapping[str, ActionDeclaration], children: Children
) -> Compiled:
    """Compile a definition that was parsed before: the stored form of a machine that a run began with."""
    text = Text(file)
    text.data = source
    return _compile(text, actions, children)


def _compile(text: Text, actions: Mapping[str, ActionDeclaration], children: Children) -> Compiled:
    declaration = read(text)
    names = {
        state.map.machine: children(state.map.machine) for state in declaration.every_state() if state.map is not None
    }
    leaves = _Flattening(text, declaration).leaves()
    lint.check(text, declaration, leaves, actions, names)
    diagnostics = tuple(sorted(set(text.diagnostics), key=lambda found: (found.position, found.rule, found.message)))
    if diagnostics:
        return Compiled(None, diagnostics)
    found = {name: machine for name, machine in names.items() if machine is not None}
    return Compiled(_machine(text, declaration, leaves, found), ())


class _Flattening:
    """Resolves the names of a declaration and hands its leaves their inheritance."""

    def __init__(self, text: Text, declaration: MachineDeclaration) -> None:
        self.text = text
        self.declaration = declaration
        self.by_name = {state.name: state for state in declaration.every_state()}

    def leaves(self) -> list[State]:
        self._initial(self.declaration.initial, self.declaration.initial_position, None, self.declaration.states)
        for state in self.declaration.every_state():
            if state.is_compound:
                self._initial(state.initial, state.initial_position, state, state.children)
        return [self._leaf(state) for state in self.declaration.every_state() if not state.is_compound]

    def _initial(
        self, name: str | None, position: Any, parent: StateDeclaration | None, inner: Iterable[StateDeclaration]
    ) -> None:
        known = {state.name.rpartition(".")[2] for state in inner}
        if name is None and parent is not None and known:
            message = f"{parent.name} holds states and names no initial one"
            self.text.report(parent.position, "initial-missing", message, "Add initial:.")
        if name is not None and known and name not in known:
            self.text.report(position, "target-unknown", f"the initial state {name!r} does not exist", nearest(name, known))

    def resolve(self, name: str, source: StateDeclaration | None) -> StateDeclaration | None:
        """The leaf that a target names, looked up from where it stands outwards; `None` when there is none."""
        scope = source.name if source is not None else ""
        while True:
            found = self.by_name.get(f"{scope}.{name}" if scope else name)
            if found is not None:
                return self._entry(found)
            if not scope:
                return None
            scope = scope.rpartition(".")[0]

    def _entry(self, state: StateDeclaration) -> StateDeclaration | None:
        while state.is_compound:
            inner = self.by_name.get(f"{state.name}.{state.initial}")
            if inner is None:
                return None
            state = inner
        return state

    def _branches(
        self, leaf: StateDeclaration, event: str, written: Iterable[tuple[BranchDeclaration, StateDeclaration]]
    ) -> tuple[Branch, ...]:
        found = []
        for branch, owner in written:
            target = self.resolve(branch.target, owner)
            if target is None:
                # Reported once, where it is written, however many leaves inherit it.
                self.text.report(
                    branch.position, "target-unknown", f"the target {branch.target!r} does not exist",
                    nearest(branch.target, {state.rpartition(".")[2] for state in self.by_name} | set(self.by_name)),
                )  # fmt: skip
                continue
            found.append((branch, target.name))
        return tuple(
            Branch(
                leaf.name, event, index, target, branch.guard, branch.assign or None, branch.delay, branch.errors,
                branch.position,
            )
            for index, (branch, target) in enumerate(found)
        )  # fmt: skip

    def _inherited(self, leaf: StateDeclaration) -> dict[str, tuple[Branch, ...]]:
        """Catches from the inside out, and the nearest cancel; neither covers the state that it leads to."""
        chain = leaf.ancestors()
        caught = self._branches(leaf, "catch", [(branch, state) for state in chain for branch in state.catch])
        caught = tuple(branch for branch in caught if branch.target != leaf.name)
        found = {"catch": tuple(branch._replace(index=index) for index, branch in enumerate(caught))}
        owner = next((state for state in chain if state.cancel is not None), None)
        if owner is not None and owner.cancel is not None:
            cancel = self._branches(leaf, "cancel", [(owner.cancel, owner)])
            found["cancel"] = tuple(branch for branch in cancel if branch.target != leaf.name)
        return found

    def _leaf(self, leaf: StateDeclaration) -> State:
        chain = leaf.ancestors()
        branches = {event: () for event in ()} | {
            f"on:{event}": self._branches(leaf, f"on:{event}", [(branch, leaf) for branch in written])
            for event, written in leaf.on.items()
        }
        if leaf.always:
            branches["always"] = self._branches(leaf, "always", [(branch, leaf) for branch in leaf.always])
        timers = []
        for index, after in enumerate(leaf.after):
            event = f"after:{index}"
            branches[event] = self._branches(leaf, event, [(branch, leaf) for branch in after.branches])
            timers.append(After(event, after.delay))
        timeout_s = next((state.timeout_s for state in chain if state.timeout_s is not None), None)
        invoke = leaf.invoke
        if invoke is not None and invoke.timeout_s is None:
            invoke = invoke._replace(timeout_s=timeout_s)
        if not leaf.is_final:
            branches |= self._inherited(leaf)
        status = next((state.status for state in chain if state.status is not None), "SUCCEEDED")
        return State(
            leaf.name, _kind(leaf), leaf.position, leaf.description, invoke, leaf.map, tuple(timers),
            timeout_s, leaf.max_visits, Status(status.lower()), leaf.output, leaf.error, branches,
        )  # fmt: skip


def _kind(leaf: StateDeclaration) -> StateKind:
    if leaf.is_final:
        return StateKind.FINAL
    if leaf.invoke is not None:
        return StateKind.ACTION
    if leaf.map is not None:
        return StateKind.MAP
    return StateKind.CHOICE if leaf.always else StateKind.WAIT


def _machine(
    text: Text, declaration: MachineDeclaration, leaves: list[State], children: Mapping[str, Machine]
) -> Machine:
    by_name = {leaf.name: leaf for leaf in leaves}
    initial = _Flattening(text, declaration).resolve(declaration.initial or "", None)
    assert initial is not None, "lint has refused a machine without an initial state"
    structure = build_structure(leaves, initial.name)
    states = {name: _reading_targets_from(structure, leaf) for name, leaf in by_name.items()}
    digests = {name: child.digest for name, child in children.items()}
    return Machine(
        name=declaration.name,
        version=declaration.version,
        digest=canonical.digest({"definition": text.data, "children": digests}),
        description=declaration.description,
        file=text.file,
        source=text.data,
        initial=structure.initial,
        states=states,
        structure=structure,
        key=declaration.key,
        input_schema=declaration.input_schema,
        pools=declaration.pools,
        summary=declaration.summary,
        children=children,
    )


def build_structure(leaves: Iterable[State], initial: str) -> transitions.Machine:
    """The finite-state structure: one trigger for each event, transitions in the order of the text."""
    branches = [branch for leaf in leaves for group in leaf.branches.values() for branch in group]
    return transitions.Machine(
        model=None,
        states=[leaf.name for leaf in leaves],
        initial=initial,
        transitions=[{"trigger": b.event, "source": b.source, "dest": b.target} for b in branches],
        auto_transitions=False,
    )


def _reading_targets_from(structure: transitions.Machine, leaf: State) -> State:
    """The leaf with each branch's target as the structure has it."""
    branches = {}
    for event, group in leaf.branches.items():
        rows = structure.events[event].transitions[leaf.name] if group else []
        branches[event] = tuple(
            branch._replace(target=row.dest) for branch, row in zip(group, rows, strict=True)
        )
    return State(
        leaf.name, leaf.kind, leaf.position, leaf.description, leaf.invoke, leaf.map, leaf.after, leaf.timeout_s,
        leaf.max_visits, leaf.status, leaf.output, leaf.error, branches,
    )  # fmt: skip
