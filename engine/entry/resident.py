"""The one engine of a function's process: opened for the first event, kept for all that follow.

The framework calls a function in threads, several at once. The engine lives on an event loop of its own, in one thread,
and each call is work that is handed to that loop and waited for. The environment, and with it every secret, is read
once. What cannot be opened is tried again by the next call: a store that was away may be back.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import threading
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

import anyio
from anyio.from_thread import BlockingPortal, start_blocking_portal

import engine
from engine.core.action import ActionKind
from engine.core.machine import Machine
from engine.core.secret import Secrets
from engine.definition import Catalogue
from engine.entry.application import Engine
from engine.entry.assembly import Assembly
from engine.entry.budget import expect_budget, read_budget_s
from engine.entry.configuration import Configuration, read_configuration
from engine.entry.logs import SERVICE, LogObserver, configure
from engine.errors import ConfigurationError, DefinitionError
from engine.handlers.registry import ACTIONS

if TYPE_CHECKING:
    from engine.entry.preflight import Report

Result = TypeVar("Result")

MACHINE: Final = Path(engine.__file__).resolve().parent.parent / "machines" / "chart_export.yaml"
"""Deployed beside the package, as it lies in the repository."""


class Opened(NamedTuple):
    """What a call works with. `longest_s` is the longest time that an action of the machine may take."""

    app: Engine
    machine: Machine
    config: Configuration
    budget_s: float
    longest_s: float
    under_way: set[tuple[str, str]]


class Resident:
    """See the module. `environ` is asked once, when the engine is opened."""

    def __init__(self, environ: Callable[[], Mapping[str, str]] = lambda: os.environ) -> None:
        self._environ = environ
        self._secrets = Secrets()
        self._lock = threading.Lock()
        self._closing = contextlib.ExitStack()
        self._portal: BlockingPortal | None = None
        self._opened: Opened | None = None
        self._writes_logs = False

    def log(self) -> logging.Logger:
        """Where the door writes: JSON lines on stderr, also while the function is configured wrongly."""
        environ = self._environ()
        with self._lock:
            if not self._writes_logs:
                level = (environ.get("LOG_LEVEL") or "INFO").upper()
                configure(
                    level if level in logging.getLevelNamesMapping() else "INFO",
                    self._secrets,
                    service=environ.get("K_SERVICE") or SERVICE,
                    environment=environ.get("TDA_ENV") or environ.get("ENV") or None,
                )
                self._writes_logs = True
        return logging.getLogger(environ.get("K_SERVICE") or SERVICE)

    def call(self, work: Callable[[Opened], Awaitable[Result]]) -> Result:
        """Do `work` on the engine's loop, and wait for it. Raises what it raises, and what opening does."""
        with self._lock:
            portal, opened = self._open()
        return portal.call(work, opened)

    def preflight(self) -> Report:
        """Look at everything that the function needs, also when its engine cannot be opened."""
        from engine.entry.preflight import misconfigured, preflight, read_around

        environ = self._environ()
        config, errors = read_around(
            environ, lambda spared: read_configuration(function_environment(spared), default_mode="real")
        )
        try:
            budget_s = read_budget_s(environ)
            with contextlib.suppress(DefinitionError):  # the section of machines says it
                machine = Catalogue(ACTIONS.declarations()).load(MACHINE)
                expect_budget(machine, budget_s, lambda name: ACTIONS[name].declaration.kind)
        except ConfigurationError as error:
            errors.append(error)
        if config is None:
            return misconfigured(errors[0])
        return anyio.run(partial(preflight, config, errors=errors, machines=[MACHINE], secrets=self._secrets))

    def close(self) -> None:
        """Close the engine and end its thread; a later call opens another. Best effort when the process ends."""
        with self._lock, contextlib.suppress(Exception):
            self._closing.close()
            self._portal = self._opened = None

    def _open(self) -> tuple[BlockingPortal, Opened]:
        if self._portal is None or self._opened is None:
            with contextlib.ExitStack() as opening:
                portal = opening.enter_context(start_blocking_portal(name="detent-engine"))
                self._opened = self._assembled(portal, opening)
                self._portal = portal
                self._closing = opening.pop_all()
            atexit.register(self.close)
        return self._portal, self._opened

    def _assembled(self, portal: BlockingPortal, opening: contextlib.ExitStack) -> Opened:
        environ = function_environment(self._environ())
        config = read_configuration(environ, default_mode="real")
        budget_s = read_budget_s(environ)
        assembly = Assembly(config, self._secrets, LogObserver(config.service))
        machine = assembly.load(str(MACHINE))
        longest_s = expect_budget(machine, budget_s, kind_of)
        app = opening.enter_context(portal.wrap_async_context_manager(assembly.engine()))
        return Opened(app, machine, config, budget_s, longest_s, set())


def kind_of(action: str) -> ActionKind | None:
    """The kind of an action of this process."""
    return ACTIONS[action].declaration.kind if action in ACTIONS else None


def function_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment with what a function takes for granted: Firestore and Cloud Storage of its own project.

    Raises `ConfigurationError`.
    """
    found = dict(environ)
    if not found.get("DETENT_STORE"):
        if not found.get("GOOGLE_CLOUD_PROJECT"):
            raise ConfigurationError(
                "GOOGLE_CLOUD_PROJECT",
                "is not set, and neither is DETENT_STORE.",
                remedy="Set it to the project's id in the function's environment.",
            )
        database = found.get("FIRESTORE_DB") or "(default)"
        found["DETENT_STORE"] = f"firestore://{found['GOOGLE_CLOUD_PROJECT']}/{database}"
    if not found.get("DETENT_ARTIFACTS"):
        found["DETENT_ARTIFACTS"] = "gs:"
    if found["DETENT_ARTIFACTS"] == "gs:" and not (found.get("ARTIFACTS_BUCKET") or found.get("CHARTS_BUCKET")):
        raise ConfigurationError(
            "ARTIFACTS_BUCKET", "is not set.", remedy="Set it to the name of the bucket for pictures and manifests."
        )
    return found
