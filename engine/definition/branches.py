"""The transitions of a state as written: `on`, `always`, `after`, `catch` and `cancel`.

A transition that cannot be read is left out and marks its state as partial, so that no rule takes a
missing way for a mistake of its own.
"""

from __future__ import annotations

from typing import Any, Final

from engine.core.expression import Template
from engine.definition import vocabulary
from engine.definition.declaration import AfterDeclaration, BranchDeclaration, StateDeclaration
from engine.definition.fields import ALWAYS_DEFINED, Fields, kind_of

WITH_RESULT: Final = ALWAYS_DEFINED | {"result"}
TRANSITION_REMEDY: Final = "Write a state's name, or {target: NAME} with more keys."
WITH_ERROR: Final = ALWAYS_DEFINED | {"error"}


def read_branches(fields: Fields, state: StateDeclaration) -> None:
    """Read every transition of a state into its declaration."""
    before = len(fields.text.diagnostics)
    for event, data in fields.mapping("on").items():
        on = fields.inner("on", {})
        state.on_positions[event] = on.text.key_at((*on.path, event))
        state.on[event] = _branches(on, event, data, WITH_RESULT)
    if fields.has("always"):
        state.always = _branches(fields, "always", fields.data["always"], ALWAYS_DEFINED)
    state.after = _after(fields)
    state.catch = _catches(fields)
    state.cancel = _cancel(fields)
    if any(found.rule in _LOSING for found in fields.text.diagnostics[before:]):
        state.is_partial = True


_LOSING: Final = ("target-missing", "value-invalid", "duration-invalid", "expression-invalid")


def _branches(fields: Fields, name: str, data: Any, defined: frozenset[str]) -> tuple[BranchDeclaration, ...]:
    """The transitions under one key: a target, a map, or a list of these."""
    place = fields.inner(name, {})
    if not isinstance(data, list):
        branch = _branch(place, data, defined)
        return (branch,) if branch else ()
    if not data:
        place.report(None, "value-invalid", f"{name!r} has an empty list of transitions", TRANSITION_REMEDY)
    found = [_branch(place.inner(index, {}), entry, defined) for index, entry in enumerate(data)]
    branches = tuple(branch for branch in found if branch)
    _expect_reachable(place, branches)
    return branches


def _expect_reachable(place: Fields, branches: tuple[BranchDeclaration, ...]) -> None:
    """Report each transition behind one that is always taken, for all errors or for all of its own."""
    covered: set[str] = set()
    is_covered = False
    for branch in branches:
        if is_covered or (branch.errors and branch.errors <= covered):
            place.text.report(
                branch.position, "transition-unreachable",
                "this transition can never be taken: one before it has no guard",
                "Give the earlier one a guard, or remove this one.",
            )  # fmt: skip
        elif not branch.is_guarded:
            is_covered = branch.errors is None
            covered |= branch.errors or set()


def _branch(place: Fields, data: Any, defined: frozenset[str]) -> BranchDeclaration | None:
    text = place.text
    if isinstance(data, str) and data:
        return BranchDeclaration(data, text.value_at(place.path))
    if not isinstance(data, dict):
        place.report(
            None,
            "value-invalid",
            f"a transition must name a target or be a map, not {kind_of(data)}",
            TRANSITION_REMEDY,
        )
        return None
    fields = Fields(text, place.machine, data, place.path)
    fields.expect_keys(vocabulary.TRANSITION, "a transition")
    return _branch_fields(fields, defined, None)


def _branch_fields(fields: Fields, defined: frozenset[str], errors: frozenset[str] | None) -> BranchDeclaration | None:
    guard, assign = fields.guard(defined), fields.assign(defined)
    delay = fields.delay("after", defined) if fields.has("after") else None
    if not fields.has("target"):
        fields.report(None, "target-missing", "a transition without a target", "Add target: and a state's name.")
        return None
    target = fields.string("target")
    position = fields.at("target")
    is_guarded = fields.has("guard")
    return BranchDeclaration(target, position, guard, assign, delay, errors, is_guarded) if target else None


def _catches(fields: Fields) -> tuple[BranchDeclaration, ...]:
    if not fields.has("catch"):
        return ()
    data = fields.data["catch"]
    place = fields.inner("catch", {})
    if isinstance(data, list) and data:
        found = [_catch(place.inner(index, {}), entry) for index, entry in enumerate(data)]
    elif data and isinstance(data, (str, dict)):
        found = [_catch(place, data)]
    else:
        fields.wrong("catch", "a target, a map, or a list of these")
        return ()
    branches = tuple(branch for branch in found if branch)
    _expect_reachable(place, branches)
    return branches


def _catch(place: Fields, data: Any) -> BranchDeclaration | None:
    if not isinstance(data, dict):
        return _branch(place, data, WITH_ERROR)
    catch = Fields(place.text, place.machine, data, place.path)
    catch.expect_keys(vocabulary.CATCH, "a catch")
    errors = catch.names("errors")
    return _branch_fields(catch, WITH_ERROR, frozenset(errors or ()) if catch.has("errors") else None)


def _cancel(fields: Fields) -> BranchDeclaration | None:
    if not fields.has("cancel"):
        return None
    data = fields.data["cancel"]
    place = fields.inner("cancel", {})
    if isinstance(data, dict):
        cancel = Fields(place.text, place.machine, data, place.path)
        cancel.expect_keys(vocabulary.CANCEL, "a cancel")
        return _branch_fields(cancel, WITH_ERROR, None)
    return _branch(place, data, WITH_ERROR)


def _after(fields: Fields) -> tuple[AfterDeclaration, ...]:
    """The timers, in the order of their texts: a stored definition has lost the order in which they were written."""
    found = []
    after = fields.inner("after", {})
    for delay, data in sorted(fields.mapping("after").items()):
        holder = Fields(fields.text, fields.machine, {delay: delay}, after.path)
        template = holder.delay(delay, ALWAYS_DEFINED, in_key=True)
        branches = _branches(after, delay, data, ALWAYS_DEFINED)
        if branches:
            # A delay that is wrong is reported; where it leads is known all the same.
            found.append(AfterDeclaration(delay, template or Template(1.0), branches))
    return tuple(found)
