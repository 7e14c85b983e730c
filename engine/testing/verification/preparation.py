"""Puts together what is verified: the machine, its world, the documents that are there before, and the start events.

In: a compiled machine, documents from a folder, inputs. Out: a `Setting` that every schedule shares. Nothing is played.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

import anyio

from engine.core.handler import Handler
from engine.core.machine import Machine
from engine.core.write import Key
from engine.definition import Catalogue
from engine.entry.loading import load_folder
from engine.errors import InvalidRequestError
from engine.handlers.registry import ACTIONS
from engine.runs.deliver import signals_of
from engine.runs.inputs import input_problem
from engine.store.memory import MemoryStore
from engine.store.port import document_text
from engine.testing.verification.ending import family
from engine.testing.verification.setting import LOCKING, Given, Setting
from engine.testing.verification.world import World

RUN_ID: Final = "verify-1"
"""The id of the run, for a machine without a key, when none is given."""

_CHART_EXPORT: Final = ("flow_steps.", "chart_img.", "publish.", "templates.")


def setting_of(
    machine: Machine,
    catalogue: Catalogue,
    inputs: Sequence[Any],
    *,
    world: World | None = None,
    folder: str | None = None,
    handlers: Mapping[str, Handler] = ACTIONS,
    items: int | None = None,
    semantics: str = LOCKING,
    run_id: str | None = None,
    signals: Sequence[Given] = (),
) -> Setting:
    """What an exploration of `machine` is about.

    `folder` holds documents as `--load` takes them; `items` is for the world; each of `signals` is sent once to a run
    that waits for its name, the first of those given first. Raises `InvalidRequestError`.
    """
    chosen = world if world is not None else world_for(machine)
    documents = _documents(folder)
    given = [dict(one) if isinstance(one, Mapping) else one for one in inputs] or [{}]
    chosen.prepare(machine, documents, given, items)
    texts = {key: document_text(key, document) for key, document in documents.items()}
    every = tuple(chosen.inputs(given, documents))
    for value in every:
        if problem := input_problem(machine, value):
            raise InvalidRequestError(f"{machine.name} cannot take this input: {problem}.", remedy="Correct --input.")
    if machine.key is not None and run_id is not None:
        raise InvalidRequestError(
            f"{machine.name} has a key, so its runs are named by it.", remedy="Leave --run-id out."
        )
    name = None if machine.key is not None else run_id or RUN_ID
    given_signals = tuple(_expected(machine, signal) for signal in signals)
    return Setting(machine, catalogue, handlers, chosen, every, texts, semantics, name, signals=given_signals)


def _expected(machine: Machine, given: Given) -> Given:
    names = list(dict.fromkeys(name for one in family(machine) for name in signals_of(one)))
    if given.name not in names:
        known = f"It waits for {', '.join(names)}." if names else "It waits for no signal at all."
        raise InvalidRequestError(
            f"no state of {machine.name}, or of its maps, waits for a signal {given.name!r}.", remedy=known
        )
    return given


def world_for(machine: Machine) -> World:
    """The bundled world of a machine: `chart_export`'s when it uses that machine's actions, else the general one."""
    if any(action.startswith(_CHART_EXPORT) for action in _actions(machine)):
        from engine.testing.verification.chart_export import ChartExportWorld

        return ChartExportWorld()
    return World()


def world_named(name: str) -> World:
    """The world `MODULE:NAME`: a class derived from `World`, or an instance. Raises `InvalidRequestError`."""
    module, _, attribute = name.partition(":")
    try:
        found: Any = getattr(importlib.import_module(module), attribute)
        world = found() if isinstance(found, type) else found
    except Exception as error:
        raise InvalidRequestError(
            f"--world {name}: it cannot be had: {type(error).__name__}: {error}.",
            remedy="Give MODULE:NAME, a class derived from engine.testing.verification.World.",
        ) from error
    if not isinstance(world, World):
        raise InvalidRequestError(
            f"--world {name} is a {type(world).__name__}, and no World.",
            remedy="Derive it from engine.testing.verification.World.",
        )
    return world


def _documents(folder: str | None) -> dict[Key, Any]:
    store = MemoryStore()
    if folder is not None:
        anyio.run(lambda: load_folder(store, folder, replace=False))
    return {key: json.loads(text) for key, text in store.texts().items()}


def _actions(machine: Machine) -> set[str]:
    own = {state.invoke.action for state in machine.states.values() if state.invoke is not None}
    return own.union(*(_actions(child) for child in machine.children.values()))
