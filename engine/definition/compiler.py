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
from engine.definition.fields import near, nearest, short
from engine.definition.reader import read
from engine.definition.yaml_text import Text, parse


class Absent(NamedTuple):
    """Why a map's machine cannot be had. `is_reported`: its own diagnostics say so already."""

    problem: str
    remedy: str = ""
    is_reported: bool = False


Children: TypeAlias = Callable[[str], "Machine | Absent | None"]
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
    """Compile a definition that was parsed before: the stored form of a machine that a run began with.

    It was judged when it was loaded first. It is not judged again: an action that has one more outcome today, or a
    rule that is new, must not strand a run in flight. What the definition does not handle is a failure at run time.
    """
    text = Text(file)
    text.data = source
    return _compile(text, actions, children, is_judged=True)


def _compile(
    text: Text, actions: Mapping[str, ActionDeclaration], children: Children, *, is_judged: bool = False
) -> Compiled:
    declaration = read(text)
    named = dict.fromkeys(state.map.machine for state in declaration.every_state() if state.map is not None)
    found = {name: children(name) for name in named if name}
    flattening = _Flattening(text, declaration)
    leaves = flattening.leaves()
    if not is_judged:
        lint.check(text, declaration, leaves, flattening.start(), actions)
    _expect_children(text, leaves, found)
    diagnostics = tuple(sorted(set(text.diagnostics), key=lambda found: (found.position, found.rule, found.message)))
    if diagnostics:
        return Compiled(None, diagnostics)
    machines = {name: machine for name, machine in found.items() if isinstance(machine, Machine)}
    return Compiled(_machine(text, declaration, leaves, machines), ())


def _expect_children(text: Text, leaves: Iterable[State], found: Mapping[str, Machine | Absent | None]) -> None:
    """Report each map whose machine cannot be had, unless that machine's own diagnostics say why."""
    for leaf in leaves:
        name = leaf.map.machine if leaf.map is not None else ""
        child = found.get(name) if name else None
        if leaf.map is None or not name or isinstance(child, Machine):
            continue
        absent = child or Absent(f"there is no machine {name!r} for this map", f"Put {name}.yaml beside this file.")
        if not absent.is_reported:
            text.report(leaf.map.position, "machine-unknown", absent.problem, absent.remedy)


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
        known = [state.name.rpartition(".")[2] for state in inner]
        if name is None and parent is not None and known:
            message = f"{parent.name} holds states and names no initial one"
            self.text.report(
                parent.position, "initial-missing", message, f"Add initial: {next(iter(known))}, or another of them."
            )
        if name is not None and known and name not in known:
            self.text.report(
                position, "target-unknown", f"the initial state {short(name)!r} does not exist", nearest(name, known)
            )

    def start(self) -> str | None:
        """The leaf in which a run begins; `None` when the text does not say."""
        name = self.declaration.initial
        if name is None:
            return None
        state = self.resolve(name, None) or self._meant(name)
        return None if state is None or state.is_compound else state.name

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

    def _entry(self, state: StateDeclaration) -> StateDeclaration:
        """The leaf in which a state is entered. An initial state that does not exist is reported elsewhere."""
        while state.is_compound and state.children:
            inner = self.by_name.get(f"{state.name}.{state.initial}")
            state = inner if inner is not None else state.children[0]
        return state

    def _meant(self, name: str) -> StateDeclaration | None:
        """The state that a wrong target seems to mean: the rest of the check goes on as if it were written right."""
        known = {name.rpartition(".")[2]: name for name in self.by_name} | {name: name for name in self.by_name}
        close = near(name, known, cutoff=0.75)
        return None if close is None else self._entry(self.by_name[known[close]])

    def _branches(
        self, leaf: StateDeclaration, event: str, written: Iterable[tuple[BranchDeclaration, StateDeclaration]]
    ) -> tuple[Branch, ...]:
        found = []
        for branch, owner in written:
            target = self.resolve(branch.target, owner)
            if target is None:
                # One report for each place, however many leaves inherit it.
                self.text.report(
                    branch.position, "target-unknown", f"the target {short(branch.target)!r} does not exist",
                    nearest(branch.target, {name.rpartition(".")[2] for name in self.by_name} | set(self.by_name)),
                )  # fmt: skip
                target = self._meant(branch.target)
            if target is None:
                leaf.is_partial = True
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
        found = {"catch": tuple(branch._replace(number=number) for number, branch in enumerate(caught))}
        owner = next((state for state in chain if state.cancel is not None), None)
        if owner is not None and owner.cancel is not None:
            cancel = self._branches(leaf, "cancel", [(owner.cancel, owner)])
            found["cancel"] = tuple(branch for branch in cancel if branch.target != leaf.name)
        return found

    def _leaf(self, leaf: StateDeclaration) -> State:
        chain = leaf.ancestors()
        branches = {
            f"on:{event}": self._branches(leaf, f"on:{event}", [(branch, leaf) for branch in written])
            for event, written in leaf.on.items()
        }
        if leaf.always:
            branches["always"] = self._branches(leaf, "always", [(branch, leaf) for branch in leaf.always])
        timers = []
        for after in leaf.after:
            event = f"after:{after.written}"
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
        initial=initial.name,
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
        branches[event] = tuple(branch._replace(target=str(row.dest)) for branch, row in zip(group, rows, strict=True))
    return leaf._replace(branches=branches)
