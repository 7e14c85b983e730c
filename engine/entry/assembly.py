"""The concrete parts of the command line: one engine with the services that the project's own actions ask for."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from engine.core import canonical
from engine.core.machine import Machine, Pool
from engine.core.secret import Secrets
from engine.definition import Library
from engine.entry.application import Engine
from engine.entry.configuration import Configuration
from engine.handlers.accounts import AccountPools
from engine.handlers.chart_img import ChartImg, ChartImgSettings
from engine.handlers.ledger import Ledger
from engine.handlers.registry import ACTIONS
from engine.handlers.templates import ChartDefaults
from engine.runner.observer import Observer, Silent
from engine.runs.records import DEFINITIONS
from engine.store.port import Store


class Assembly:
    """Puts an engine together for one command: load the machines first, so that their pools are known."""

    def __init__(self, config: Configuration, secrets: Secrets, observer: Observer) -> None:
        self.config = config
        self.secrets = secrets
        self.observer = observer
        self.library = Library(ACTIONS.declarations())
        self._pools: dict[str, Pool] = {}
        self._services: list[object] = []

    @classmethod
    def for_reading(cls, config: Configuration) -> Assembly:
        """For a command that runs nothing."""
        return cls(config, Secrets(), Silent())

    def load(self, path: str) -> Machine:
        """Compile a definition. Raises `DefinitionError`."""
        machine = self.library.load(path)
        self._pools |= {pool.name: pool for pool in self.pools_of(machine)}
        return machine

    async def load_stored(self, store: Store) -> None:
        """Learn the pools of every definition that a run of this store may go on with."""
        for _, document in await store.query(DEFINITIONS):
            source: Any = canonical.decode(str(document["source"]))
            for name, entry in (source.get("pools") or {}).items():
                pool = Pool(name, entry["accounts"], entry.get("per_day", 44), entry.get("per_second", 1.0), entry.get("burst", 3))
                self._pools.setdefault(name, pool)
        self._provide()

    def pools_of(self, machine: Machine) -> list[Pool]:
        """The pools that a machine and its children declare."""
        return [*machine.pools.values(), *(pool for child in machine.children.values() for pool in self.pools_of(child))]

    @asynccontextmanager
    async def engine(self) -> AsyncIterator[Engine]:
        """An open engine; closed with everything that it was given."""
        config = self.config
        self._provide()
        app = Engine(
            store=config.store,
            artifacts=config.artifacts,
            bucket=config.bucket,
            services=self._services,
            secrets=self.secrets,
            observer=self.observer,
            lease_s=config.lease_s,
        )
        app.library = self.library
        try:
            async with app:
                yield app
        finally:
            for service in self._services:
                if isinstance(service, ChartImg):
                    await service.aclose()

    def _provide(self) -> None:
        """The services, made anew in place: an open engine holds the list's objects by their types."""
        config = self.config
        pools = AccountPools({name: config.accounts_of(pool) for name, pool in self._pools.items()}, self.secrets)
        settings = ChartImgSettings(config.mode, config.base_url, config.fixtures_dir, config.cassette)
        self._services[:] = [
            Ledger(pools, is_live=config.mode != "mock"),
            ChartImg(settings, pools, self.secrets),
            ChartDefaults(config.timezone),
        ]
