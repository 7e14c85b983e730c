"""Parsed text -> `MachineDeclaration`, reporting every wrong key, value and expression on the way.

The reader knows the shape of each object and nothing of what the names in it mean: that a target exists
or that an action declares an outcome is for `compiler` and `lint`.
"""

from __future__ import annotations

import re
from typing import Any, Final

from engine.core.bounds import ATTEMPTS_MAX, MAP_CONCURRENCY_MAX, VISITS_MAX
from engine.core.expression import Template
from engine.core.machine import Invoke, MapCall, Pool
from engine.core.retry import RetryPolicy
from engine.definition import vocabulary
from engine.definition.branches import WITH_RESULT, read_branches
from engine.definition.declaration import MachineDeclaration, StateDeclaration
from engine.definition.fields import ALWAYS_DEFINED, MACHINE_NAME, STATE_NAME, Fields, kind_of, nearest, short
from engine.definition.yaml_text import Path, Text

REMEDY: Final = "Write its keys: machine, initial, states and more."
NAME_REMEDY: Final = "Use letters, digits, _ and -, beginning with a letter, at most 100."
_STATE_REMEDY: Final = "Give it invoke, map, always, on, after, states, or type: final."
_WITH_ITEM: Final = ALWAYS_DEFINED | {"item"}


def read(text: Text) -> MachineDeclaration:
    """The declaration of a parsed text; what could not be read is left out and reported on `text`."""
    machine = MachineDeclaration()
    if not isinstance(text.data, dict):
        if not text.diagnostics:
            text.report(
                text.value_at(()), "value-invalid", f"a definition must be a map, not {kind_of(text.data)}", REMEDY
            )
        return machine
    fields = Fields(text, machine, text.data, ())
    fields.expect_keys(vocabulary.MACHINE, "a machine")
    fields.require(("machine", "initial", "states"), "the definition")
    machine.name = _named(fields, "machine")
    machine.version = fields.integer("version", 1, 2**31, 1) or 1
    machine.description = fields.string("description")
    machine.key = fields.string_template("key", frozenset(("input", "context")))
    machine.summary = fields.string_template("summary", frozenset(("input", "result")))
    machine.input_schema = _schema(fields)
    for name, data in fields.mapping("pools").items():
        pool = _pool(fields, name, data)
        if pool is not None:
            machine.pools[name] = pool
    machine.initial = fields.string("initial") or None
    machine.initial_position = fields.at("initial")
    machine.states_position = fields.text.key_at(("states",))
    machine.states = _states(fields, None)
    return machine


def _named(fields: Fields, name: str) -> str:
    value = fields.string(name)
    if value and not re.fullmatch(MACHINE_NAME, value):
        message = f"{short(value)!r} cannot name a machine"
        fields.text.report(fields.at(name), "name-invalid", message, NAME_REMEDY)
        return ""
    return value


def _schema(fields: Fields) -> dict[str, Any] | None:
    schema = fields.mapping("input")
    if not schema:
        return schema if fields.has("input") else None
    from jsonschema_rs import Draft202012Validator, ReferencingError, ValidationError

    try:
        Draft202012Validator(schema, validate_formats=True, retriever=_refuse_to_fetch)
    except (ValidationError, ReferencingError, ValueError) as error:
        problem = str(getattr(error, "message", error)).partition("\n")[0].partition(" is not present in a registry")[0]
        problem = problem.replace(" in the 'anyOf' keyword", "")[:120]
        path: Path = tuple(getattr(error, "instance_path", None) or ())
        position = fields.text.value_at(("input", *path))
        remedy = "Use JSON Schema draft 2020-12, with $ref to its own #/$defs only."
        fields.text.report(position, "schema-invalid", f"'input' is no JSON Schema: {problem}", remedy)
        return None
    return schema


def _refuse_to_fetch(address: str) -> Any:
    """A definition is whole in itself: checking one reads no other file and asks no server."""
    raise ValueError(f"{address} is outside of the definition")


def _pool(fields: Fields, name: str, data: Any) -> Pool | None:
    if not isinstance(data, dict):
        position = fields.text.value_at(("pools", name))
        fields.text.report(
            position,
            "value-invalid",
            f"a pool must be a map, not {kind_of(data)}",
            "Name its accounts: {accounts: VARIABLE}.",
        )
        return None
    pool = fields.inner("pools", {}).inner(name, data)
    if not re.fullmatch(MACHINE_NAME, name):
        pool.report(None, "name-invalid", f"{short(name)!r} cannot name a pool", NAME_REMEDY)
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
        if not re.fullmatch(STATE_NAME, name):
            remedy = "Use letters, digits and _, beginning with no digit."
            inner.report(None, "name-invalid", f"{short(name)!r} cannot name a state", remedy)
        if not isinstance(entry, dict):
            inner.report(
                None, "value-invalid", f"the state {short(name)} must be a map, not {kind_of(entry)}", _STATE_REMEDY
            )
            full = name if parent is None else f"{parent.name}.{name}"
            states.append(StateDeclaration(full, inner.position, inner.path, parent, is_partial=True))
            continue
        states.append(_state(inner, name, parent))
    return states


def _state(fields: Fields, name: str, parent: StateDeclaration | None) -> StateDeclaration:
    full = name if parent is None else f"{parent.name}.{name}"
    state = StateDeclaration(full, fields.position, fields.path, parent)
    fields.expect_keys(vocabulary.STATE, "a state")
    state.description = fields.string("description")
    state.is_compound = fields.has("states")
    # A type that is wrong is no kind of its own beside another one.
    others = any(fields.has(name) for name in vocabulary.KINDS if name != "type")
    state.is_final = fields.has("type") and (fields.data["type"] == "final" or not others)
    if fields.has("type") and fields.data["type"] != "final":
        remedy = "Leave it out otherwise: the other keys say of what kind a state is."
        fields.text.report(fields.at("type"), "value-invalid", "'type' can only be 'final'", remedy)
    _expect_kind(fields, state)
    state.initial = fields.string("initial") or None
    state.initial_position = fields.at("initial")
    state.timeout_s = fields.duration_s("timeout")
    # One that is wrong is reported, and bounds its cycles all the same.
    state.max_visits = fields.integer("max_visits", 1, VISITS_MAX, VISITS_MAX if fields.has("max_visits") else None)
    state.status = _status(fields)
    state.output = fields.template("output")
    state.error = fields.template("error")
    state.invoke = _invoke(fields)
    state.map = _map(fields)
    read_branches(fields, state)
    state.children = _states(fields, state) if state.is_compound else []
    return state


def _expect_kind(fields: Fields, state: StateDeclaration) -> None:
    """A state is of exactly one kind, and keys of another kind in it are mistakes."""
    kinds = [name for name in ("states", "type", "invoke", "map", "always") if fields.has(name)]
    if not state.is_final and "type" in kinds:
        kinds.remove("type")
    if len(kinds) > 1:
        fields.report(
            kinds[1], "state-kind", f"{state.name} has both {kinds[0]!r} and {kinds[1]!r}",
            "A state performs an action, maps, chooses, waits, ends or holds states: one of these. Make it two states.",
        )  # fmt: skip
        state.is_partial = True
        return
    kind = kinds[0] if kinds else "on"
    if not kinds and not fields.has("on") and not fields.has("after"):
        fields.report(
            None, "state-empty", f"{state.name} does nothing and waits for nothing",
            _STATE_REMEDY,
        )  # fmt: skip
        state.is_partial = True
        return
    allowed = vocabulary.KINDS[kind]
    for name in fields.data:
        if name in vocabulary.STATE and name not in (*allowed, "type"):
            state.is_partial = True
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
    remedy = nearest(str(value), vocabulary.STATUSES)
    fields.text.report(fields.at("status"), "value-invalid", f"{value!r} is no status that a run can end with", remedy)
    return None


def _invoke(fields: Fields) -> Invoke | None:
    if not fields.has("invoke"):
        return None
    data = fields.mapping("invoke")
    if not isinstance(fields.data["invoke"], dict):
        return None
    invoke = fields.inner("invoke", data)
    invoke.expect_keys(vocabulary.INVOKE, "an invoke")
    invoke.require(("action",), "the invoke")
    return Invoke(
        invoke.string("action"),
        invoke.templates("with"),
        invoke.duration_s("timeout"),
        invoke.assign(WITH_RESULT),
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
            retry.report(
                None, "value-invalid", f"a retry must be a map, not {kind_of(entry)}", "For example {attempts: 3}."
            )
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
    data = fields.mapping("map")
    if not isinstance(fields.data["map"], dict):
        return None
    call = fields.inner("map", data)
    call.expect_keys(vocabulary.MAP, "a map")
    call.require(("machine", "items", "key"), "the map")
    items, key = call.template("items"), call.template("key", _WITH_ITEM)
    inner_input = call.template("input", _WITH_ITEM)
    concurrency = call.integer("concurrency", 1, MAP_CONCURRENCY_MAX, 4) or 4
    min_success, assign = call.template("min_success"), call.assign(WITH_RESULT)
    machine = _named(call, "machine")
    _expect_constant(call, "items", items, list, "a list, or ${…} that gives one")
    _expect_constant(call, "key", key, str, "a string, as a rule ${…} of the item")
    _expect_constant(call, "min_success", min_success, int, "an integer from 0, or ${…} that gives one")
    if items is None or key is None:
        return None
    return MapCall(machine, items, key, inner_input, concurrency, min_success, assign, call.at("machine"))


def _expect_constant(call: Fields, name: str, template: Template | None, kind: type, expected: str) -> None:
    """A value that no expression can change any more must be right as it stands."""
    if template is None or not template.is_constant:
        return
    value = template.value
    is_bad = isinstance(value, bool) or value == "" or (isinstance(value, int) and value < 0)
    if is_bad or not isinstance(value, kind):
        call.wrong(name, expected)
