"""The concrete parts of the command line: one engine with the services that the project's own actions ask for."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from engine.artifacts import open_artifacts
from engine.artifacts.port import Artifacts
from engine.core import canonical
from engine.core.bounds import DEFAULT_CONCURRENCY
from engine.core.machine import Machine, Pool
from engine.core.secret import Secrets
from engine.core.write import Document, Key, id_problem
from engine.definition import Catalogue
from engine.entry.application import DEFAULT_STORE, Engine
from engine.entry.configuration import BUCKET_ARTIFACTS, Configuration
from engine.errors import ConfigurationError, DocumentUnreadableError, InvalidRequestError
from engine.handlers.accounts import AccountPools
from engine.handlers.chart_img import ChartImg, ChartImgSettings
from engine.handlers.flow_backlog import INDEXES as FLOW_INDEXES
from engine.handlers.ledger import Ledger
from engine.handlers.registry import ACTIONS
from engine.handlers.templates import ChartDefaults
from engine.runner.clock import SystemClock
from engine.runner.observer import Observer, Silent
from engine.runs import INDEXES
from engine.runs.reading import MALFORMED
from engine.runs.records import DEFINITIONS, RUNS
from engine.store import open_store
from engine.store.port import Order, Store, Where

LEARNT_MAX: Final = 1000
"""Unfinished runs whose definitions are looked into before an engine opens."""


class _Learning(Catalogue):
    """A catalogue that learns the accounts of a definition before it lets anybody run it.

    Without them the run is not taken: it is left to a worker that has them, and nothing of it fails.
    """

    def __init__(self, assembly: Assembly) -> None:
        super().__init__(ACTIONS.declarations())
        self._assembly = assembly

    def rebuild(self, source: Mapping[str, Any], children: Mapping[str, Machine], file: str) -> Machine:
        """See `Catalogue`. Raises `ConfigurationError` where the accounts of a pool are missing."""
        self._assembly.learn(pools_in(source))
        return super().rebuild(source, children, file)


def pools_in(source: Mapping[str, Any]) -> list[Pool]:
    """The pools that a stored definition declares itself."""
    declared: Mapping[str, Any] = source.get("pools") or {}
    return [
        Pool(name, one["accounts"], one.get("per_day", 44), one.get("per_second", 1.0), one.get("burst", 3))
        for name, one in declared.items()
    ]


async def _readable(store: Store, key: Key) -> Document | None:
    try:
        return (await store.get_many([key]))[key]
    except DocumentUnreadableError:
        return None


def _declared_in(document: Document | None) -> list[Pool]:
    """The pools of a stored definition; none of one that cannot be read, of which whoever takes its runs will tell."""
    try:
        source: Any = {} if document is None else canonical.decode(str(document["source"]))
        return pools_in(source)
    except MALFORMED:
        return []


class Assembly:
    """Puts an engine together for one command: load the machines first, so that their pools are known."""

    def __init__(self, config: Configuration, secrets: Secrets, observer: Observer) -> None:
        self.config = config
        self.secrets = secrets
        self.observer = observer
        self.catalogue: Catalogue = _Learning(self)
        self.concurrency = DEFAULT_CONCURRENCY
        self._pools: dict[str, Pool] = {}
        self._accounts: AccountPools | None = None
        self._reads_only = False

    @classmethod
    def for_reading(cls, config: Configuration) -> Assembly:
        """For a command that runs nothing: its store must exist, and no account is needed."""
        assembly = cls(config, Secrets(), Silent())
        assembly._reads_only = True
        return assembly

    def load(self, path: str) -> Machine:
        """Compile a definition. Raises `DefinitionError`."""
        machine = self.catalogue.load(path)
        self._pools |= {pool.name: pool for pool in self.pools_of(machine)}
        return machine

    def learn(self, pools: Sequence[Pool]) -> None:
        """Make the accounts of some pools known. Raises `ConfigurationError` where they are missing."""
        for pool in pools:
            self._pools.setdefault(pool.name, pool)
            if self._accounts is not None and pool.name not in self._accounts:
                self._accounts.add(pool.name, self.config.accounts_of(pool))

    def pools_of(self, machine: Machine) -> list[Pool]:
        """The pools that a machine and its children declare."""
        return [
            *machine.pools.values(),
            *(pool for child in machine.children.values() for pool in self.pools_of(child)),
        ]

    @asynccontextmanager
    async def engine(self) -> AsyncIterator[Engine]:
        """An open engine, closed with everything that it was given."""
        config = self.config
        clock = SystemClock()
        if self._reads_only:
            expect_store(config.store)
        artifacts = open_artifacts(config.artifacts, config.bucket, self.secrets)  # connects to nothing yet
        store = await open_store(config.store, indexes=(*INDEXES, *FLOW_INDEXES), now_ms=clock.now_ms)
        services: list[object] = []
        try:
            if not self._reads_only:
                await self._learn(store)
                services = self._services()
                await expect_artifacts(config.artifacts, artifacts)
            async with Engine(
                store=store,
                artifacts=artifacts,
                services=services,
                secrets=self.secrets,
                clock=clock,
                observer=self.observer,
                lease_s=config.lease_s,
                concurrency=self.concurrency,
                catalogue=self.catalogue,
            ) as app:
                yield app
        finally:
            for service in services:
                if isinstance(service, ChartImg):
                    await service.aclose()
            await artifacts.close()
            await store.close()

    async def _learn(self, store: Store) -> None:
        """Learn the pools of the definitions that unfinished runs began with: any of them may be gone on with."""
        found = await store.query(RUNS, [Where("claimable_at_ms", ">=", 0)], [Order("claimable_at_ms")], LEARNT_MAX)
        # One that is damaged fails where its run is taken, and keeps nobody else from theirs.
        digests = {digest for _, document in found if isinstance(digest := document.get("digest"), str)}
        keys = [Key(DEFINITIONS, digest) for digest in digests if not id_problem(digest)]
        try:
            documents = await store.get_many(keys)
        except DocumentUnreadableError:
            documents = {key: document for key in keys for document in [await _readable(store, key)]}
        for document in documents.values():
            self.learn(_declared_in(document))

    def _services(self) -> list[object]:
        config = self.config
        pools = AccountPools({name: config.accounts_of(pool) for name, pool in self._pools.items()}, self.secrets)
        self._accounts = pools
        settings = ChartImgSettings(config.mode, config.base_url, config.fixtures_dir, config.cassette)
        chart_img = ChartImg(settings, pools, self.secrets)
        chart_img.check()
        chart_img.warm()
        return [Ledger(pools, is_live=config.mode != "mock"), chart_img, ChartDefaults(config.timezone)]


def expect_store(url: str) -> None:
    """Refuse to read from a store that is not there: opening it would make one. Raises `InvalidRequestError`."""
    path = url.removeprefix("sqlite:///")
    if path != url and not Path(path).exists():
        raise InvalidRequestError(
            f"there is no store at {path}.", remedy="Name one with --store, or run a machine first."
        )


def expect_place(url: str) -> None:
    """Refuse to make a store in a folder that is not there: its path is mistyped. Raises `InvalidRequestError`.

    A worker is often started before the first run, so that the file need not be there; and detent makes its own folder.
    """
    path = url.removeprefix("sqlite:///")
    if path != url and url != DEFAULT_STORE and not Path(path).absolute().parent.is_dir():
        raise InvalidRequestError(
            f"there is no folder {Path(path).parent} for a store.",
            remedy="Make it, or name another store with --store.",
        )


async def expect_artifacts(url: str, artifacts: Artifacts) -> None:
    """Refuse to run anything whose objects could not be published. Raises `ConfigurationError`.

    Cloud Storage may also be away just now: `ArtifactUnavailableError`.
    """
    if url == BUCKET_ARTIFACTS:
        from engine.artifacts.gcs import GcsArtifacts

        assert isinstance(artifacts, GcsArtifacts)
        await artifacts.check()
    else:
        expect_folder(url)


def expect_folder(url: str) -> None:
    """Refuse to run anything whose objects could not be published. Raises `ConfigurationError`."""
    path = Path(url.removeprefix("folder:"))
    try:
        path.mkdir(parents=True, exist_ok=True)
        is_usable = os.access(path, os.W_OK | os.X_OK)
    except OSError:
        is_usable = False
    if not is_usable:
        raise ConfigurationError(
            "DETENT_ARTIFACTS", "is no folder that can be written.", remedy="Name one with --artifacts folder:PATH."
        )
