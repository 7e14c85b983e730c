"""Parsed text -> `MachineDeclaration`, reporting every wrong key, value and expression on the way.

The reader knows the shape of each object and nothing of what the names in it mean: that a target exists
or that an action declares an outcome is for `compiler` and `lint`.
"""

from __future__ import annotations

from typing import Any, Final

from engine.core.bounds import ATTEMPTS_MAX, MAP_CONCURRENCY_MAX, VISITS_MAX
from engine.core.machine import Invoke, MapCall, Pool
from engine.core.retry import RetryPolicy
from engine.definition import vocabulary
from engine.definition.declaration import (
    AfterDeclaration,
    BranchDeclaration,
    MachineDeclaration,
    StateDeclaration,
)
from engine.definition.fields import ALWAYS_DEFINED, MACHINE_NAME, STATE_NAME, Fields, kind_of, nearest, seconds
from engine.definition.yaml_text import Text

_WITH_RESULT: Final = ALWAYS_DEFINED | {"result"}
_WITH_ERROR: Final = ALWAYS_DEFINED | {"error"}
_WITH_ITEM: Final = ALWAYS_DEFINED | {"item"}
_COMPOUND: Final = ("description", "initial", "states", "catch", "cancel", "timeout", "status")
_FINAL: Final = ("type", "description", "status", "output", "error", "max_visits")


def read(text: Text) -> MachineDeclaration:
    """The declaration of a parsed text; what could not be read is left out and reported on `text`."""
    machine = MachineDeclaration()
    if not isinstance(text.data, dict):
        if not text.diagnostics:
            text.report(text.value_at(()), "value-invalid", f"a definition must be a map, not {kind_of(text.data)}")
        return machine
    fields = Fields(text, machine, text.data, ())
    fields.expect_keys(vocabulary.MACHINE, "a machine")
    fields.require(("machine", "initial", "states"), "the definition")
    machine.name = _named(fields, "machine")
    machine.version = fields.integer("version", 1, 2**31, 1) or 1
    machine.description = fields.string("description")
    machine.key = fields.template("key", frozenset(("input", "context")))
    machine.summary = fields.template("summary", frozenset(("input", "result")))
    machine.input_schema = _schema(fields)
    for name, data in fields.mapping("pools").items():
        pool = _pool(fields, name, data)
        if pool is not None:
            machine.pools[name] = pool
    machine.initial = fields.string("initial") or None
    machine.initial_position = fields.at("initial")
    machine.states = _states(fields, None)
    return machine


def _named(fields: Fields, name: str) -> str:
    value = fields.string(name)
    if value and not MACHINE_NAME.fullmatch(value):
        fields.text.report(
            fields.at(name), "name-invalid", f"{value!r} cannot name a machine",
            "Use letters, digits, _ and -, beginning with a letter, at most 100.",
        )  # fmt: skip
    return value


def _schema(fields: Fields) -> dict[str, Any] | None:
    if not fields.has("input"):
        return None
    schema = fields.mapping("input")
    from jsonschema_rs import ReferencingError, ValidationError, validator_for

    try:
        validator_for(schema)
    except (ValidationError, ReferencingError, ValueError) as error:
        problem = getattr(error, "message", str(error)).splitlines()[0]
        fields.report("input", "schema-invalid", f"'input' is no JSON Schema: {problem}", "Use draft 2020-12.")
        return None
    return schema


def _pool(fields: Fields, name: str, data: Any) -> Pool | None:
    if not isinstance(data, dict):
        position = fields.text.value_at(("pools", name))
        fields.text.report(position, "value-invalid", f"a pool must be a map, not {kind_of(data)}")
        return None
    pool = fields.inner("pools", {}).inner(name, data)
    pool.expect_keys(vocabulary.POOL, "a pool")
    pool.require(("accounts",), f"the pool {name!r}")
    per_day = pool.integer("per_day", 1, 10**9, 44) or 44
    burst = pool.integer("burst", 1, 10**6, 3) or 3
    return Pool(name, pool.string("accounts"), per_day, pool.number("per_second", 0.001, 10**6, 1.0), burst)


def _states(fields: Fields, parent: StateDeclaration | None) -> list[StateDeclaration]:
    states = []
    data = fields.mapping("states")
    if fields.has("states") and isinstance(fields.data["states"], dict) and not data:
        fields.report("states", "states-empty", "'states' holds no state", "Add at least one.")
    for name, entry in data.items():
        inner = fields.inner("states", {}).inner(name, entry if isinstance(entry, dict) else {})
        if not STATE_NAME.fullmatch(name):
            inner.report(None, "name-invalid", f"{name!r} cannot name a state", "Use letters, digits and _.")
            continue
        if not isinstance(entry, dict):
            inner.report(None, "value-invalid", f"the state {name} must be a map, not {kind_of(entry)}")
        states.append(_state(inner, name, parent))
    return states


def _state(fields: Fields, name: str, parent: StateDeclaration | None) -> StateDeclaration:
    full = name if parent is None else f"{parent.name}.{name}"
    state = StateDeclaration(full, fields.position, parent)
    fields.expect_keys(vocabulary.STATE, "a state")
    state.description = fields.string("description")
    state.is_compound = fields.has("states")
    state.is_final = fields.has("type")
    if state.is_final and fields.data["type"] != "final":
        fields.text.report(fields.at("type"), "value-invalid", "'type' can only be 'final'", "Leave it out otherwise.")
    _expect_kind(fields, state)
    state.initial = fields.string("initial") or None
    state.initial_position = fields.at("initial")
    state.timeout_s = fields.duration_s("timeout")
    state.max_visits = fields.integer("max_visits", 1, VISITS_MAX)
    state.status = _status(fields)
    state.output = fields.template("output")
    state.error = fields.template("error")
    state.invoke = _invoke(fields)
    state.map = _map(fields)
    for event, data in fields.mapping("on").items():
        on = fields.inner("on", {})
        state.on_positions[event] = on.text.key_at((*on.path, event))
        state.on[event] = _branches(on, event, data, _WITH_RESULT)
    if fields.has("always"):
        state.always = _branches(fields, "always", fields.data["always"], ALWAYS_DEFINED)
    state.after = _after(fields)
    state.catch = _catches(fields)
    state.cancel = _cancel(fields)
    state.children = _states(fields, state) if state.is_compound else []
    return state


def _expect_kind(fields: Fields, state: StateDeclaration) -> None:
    """A state is of exactly one kind, and keys of another kind in it are mistakes."""
    kinds = [name for name in ("states", "type", "invoke", "map", "always") if fields.has(name)]
    if len(kinds) > 1:
        fields.report(
            kinds[1], "state-kind", f"{state.name} has both {kinds[0]!r} and {kinds[1]!r}",
            "A state performs an action, maps, chooses, waits, ends or holds states: one of these. Make it two states.",
        )  # fmt: skip
        return
    kind = kinds[0] if kinds else "on"
    if not kinds and not fields.has("on") and not fields.has("after"):
        fields.report(
            None, "state-empty", f"{state.name} does nothing and waits for nothing",
            "Give it invoke, map, always, on, after, states, or type: final.",
        )  # fmt: skip
        return
    common = ("description", "catch", "cancel", "timeout", "max_visits")
    allowed = {
        "states": _COMPOUND,
        "type": _FINAL,
        "invoke": (*common, "invoke", "on"),
        "map": (*common, "map", "on"),
        "always": ("description", "catch", "cancel", "max_visits", "always"),
        "on": (*common, "on", "after"),
    }[kind]
    for name in fields.data:
        if name in vocabulary.STATE and name not in allowed:
            fields.report(
                name, "key-misplaced", f"{name!r} means nothing in {state.name}, a state with {kind!r}",
                f"Remove it. Such a state may have {', '.join(allowed)}.",
            )  # fmt: skip


def _status(fields: Fields) -> str | None:
    if not fields.has("status"):
        return None
    value = fields.data["status"]
    if value in vocabulary.STATUSES:
        return str(value)
    remedy = nearest(value, vocabulary.STATUSES) if isinstance(value, str) else ""
    fields.text.report(fields.at("status"), "value-invalid", f"{value!r} is no status that a run can end with", remedy)
    return None


def _invoke(fields: Fields) -> Invoke | None:
    if not fields.has("invoke"):
        return None
    invoke = fields.inner("invoke", fields.mapping("invoke"))
    invoke.expect_keys(vocabulary.INVOKE, "an invoke")
    invoke.require(("action",), "the invoke")
    return Invoke(
        invoke.string("action"),
        invoke.templates("with"),
        invoke.duration_s("timeout"),
        invoke.assign(_WITH_RESULT),
        tuple(_retries(invoke)),
        invoke.at("action"),
    )


def _retries(invoke: Fields) -> list[RetryPolicy]:
    if not invoke.has("retry"):
        return []
    data = invoke.data["retry"]
    if not isinstance(data, (dict, list)) or not data:
        invoke.wrong("retry", "a map, or a list of maps")
        return []
    policies = []
    for index, entry in enumerate(data if isinstance(data, list) else [data]):
        retry = invoke.inner("retry", entry if isinstance(entry, dict) else {})
        if isinstance(data, list):
            retry = invoke.inner("retry", {}).inner(index, entry if isinstance(entry, dict) else {})
        if not isinstance(entry, dict):
            retry.report(None, "value-invalid", f"a retry must be a map, not {kind_of(entry)}")
            continue
        retry.expect_keys(vocabulary.RETRY, "a retry")
        errors = retry.names("errors")
        policies.append(
            RetryPolicy(
                retry.integer("attempts", 1, ATTEMPTS_MAX, 3) or 3,
                None if errors is None else frozenset(errors),
                retry.duration_s("backoff", 1.0) or 1.0,
                retry.number("factor", 1, 100, 2.0),
                retry.duration_s("backoff_max", 60.0) or 60.0,
                retry.number("jitter", 0, 1, 0.0),
            )
        )
    return policies


def _map(fields: Fields) -> MapCall | None:
    if not fields.has("map"):
        return None
    call = fields.inner("map", fields.mapping("map"))
    call.expect_keys(vocabulary.MAP, "a map")
    call.require(("machine", "items", "key"), "the map")
    items, key = call.template("items"), call.template("key", _WITH_ITEM)
    inner_input = call.template("input", _WITH_ITEM)
    concurrency = call.integer("concurrency", 1, MAP_CONCURRENCY_MAX, 4) or 4
    min_success, assign = call.template("min_success"), call.assign(_WITH_RESULT)
    machine = call.string("machine")
    if items is None or key is None:
        return None
    return MapCall(machine, items, key, inner_input, concurrency, min_success, assign, call.at("machine"))


def _branches(fields: Fields, name: str, data: Any, defined: frozenset[str]) -> tuple[BranchDeclaration, ...]:
    """The transitions under one key: a target, a map, or a list of these."""
    place = fields.inner(name, {})
    if isinstance(data, list):
        if not data:
            place.report(None, "value-invalid", f"{name!r} has an empty list of transitions")
        found = [_branch(place.inner(index, {}), entry, defined) for index, entry in enumerate(data)]
    else:
        found = [_branch(place, data, defined)]
    _expect_reachable(place, [branch for branch in found if branch], isinstance(data, list))
    return tuple(branch for branch in found if branch)


def _expect_reachable(place: Fields, branches: list[BranchDeclaration], is_list: bool) -> None:
    for index, branch in enumerate(branches[:-1]):
        if is_list and branch.guard is None and branch.errors is None:
            place.text.report(
                branches[index + 1].position, "transition-unreachable",
                "this transition can never be taken: one before it has no guard",
                "Give the earlier one a guard, or remove this one.",
            )  # fmt: skip
            return


def _branch(place: Fields, data: Any, defined: frozenset[str]) -> BranchDeclaration | None:
    text = place.text
    if isinstance(data, str) and data:
        return BranchDeclaration(data, text.value_at(place.path))
    if not isinstance(data, dict):
        place.report(None, "value-invalid", f"a transition must name a target or be a map, not {kind_of(data)}")
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
    return BranchDeclaration(target, position, guard, assign, delay, errors) if target else None


def _catches(fields: Fields) -> tuple[BranchDeclaration, ...]:
    if not fields.has("catch"):
        return ()
    data = fields.data["catch"]
    place = fields.inner("catch", {})
    if isinstance(data, str) and data:
        return (BranchDeclaration(data, place.text.value_at(place.path)),)
    if isinstance(data, dict):
        data, places = [data], [place]
    elif isinstance(data, list) and data:
        places = [place.inner(index, {}) for index in range(len(data))]
    else:
        fields.wrong("catch", "a target, a map, or a list of maps")
        return ()
    found = []
    for entry, where in zip(data, places, strict=True):
        if not isinstance(entry, dict):
            where.report(None, "value-invalid", f"a catch must be a map, not {kind_of(entry)}")
            continue
        catch = Fields(where.text, where.machine, entry, where.path)
        catch.expect_keys(vocabulary.CATCH, "a catch")
        errors = catch.names("errors")
        branch = _branch_fields(catch, _WITH_ERROR, None if errors is None else frozenset(errors))
        if branch is not None:
            found.append(branch)
    _expect_reachable(place, found, is_list=True)
    return tuple(found)


def _cancel(fields: Fields) -> BranchDeclaration | None:
    if not fields.has("cancel"):
        return None
    data = fields.data["cancel"]
    place = fields.inner("cancel", {})
    if isinstance(data, dict):
        cancel = Fields(place.text, place.machine, data, place.path)
        cancel.expect_keys(vocabulary.CANCEL, "a cancel")
        return _branch_fields(cancel, _WITH_ERROR, None)
    return _branch(place, data, _WITH_ERROR)


def _after(fields: Fields) -> tuple[AfterDeclaration, ...]:
    found = []
    after = fields.inner("after", {})
    for delay, data in fields.mapping("after").items():
        holder = Fields(fields.text, fields.machine, {delay: delay}, after.path)
        template = holder.delay(delay, ALWAYS_DEFINED) if "${" in delay or seconds(delay) else _bare_seconds(holder, delay)
        branches = _branches(after, delay, data, ALWAYS_DEFINED)
        if template is not None and branches:
            found.append(AfterDeclaration(template, branches))
    return tuple(found)


def _bare_seconds(holder: Fields, delay: str) -> Any:
    """A key of `after` that is a bare number means seconds, as everywhere in a definition."""
    try:
        value = float(delay)
    except ValueError:
        value = -1.0
    return Fields(holder.text, holder.machine, {delay: value}, holder.path).delay(delay, ALWAYS_DEFINED)
