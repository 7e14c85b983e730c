"""The checks of the preflight on what a process is given: configuration, store, artifacts, machines.

In: a configuration and files. Out: one `Finding` for each check; those on documents that are there already are in
`preflight_documents.py`, that on time in `preflight_clock.py`. What one check opens or learns (the store, the pools of
the machines) the later ones use; without it they are skipped.
"""

from __future__ import annotations

import difflib
import secrets as randomness
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from time import perf_counter
from typing import Any, Final

from engine.artifacts import open_artifacts
from engine.artifacts.port import Artifacts
from engine.core.machine import Machine, Pool
from engine.core.secret import Secrets
from engine.core.write import Check, Delete, Key, Set
from engine.definition import Catalogue
from engine.entry.assembly import expect_artifacts
from engine.entry.configuration import BUCKET_ARTIFACTS, Configuration
from engine.entry.preflight import Finding, Status
from engine.entry.preflight_clock import clock_skew
from engine.entry.preflight_documents import ledger_finding, runs_finding, secrets_finding, unfinished
from engine.errors import (
    ArtifactError,
    ConfigurationError,
    DefinitionError,
    DocumentUnreadableError,
    InvalidRequestError,
)
from engine.handlers.registry import ACTIONS
from engine.runner.clock import Clock
from engine.runs import INDEXES, Definitions
from engine.store import open_store
from engine.store.port import Store

PROBES: Final = "detent_probes"
"""The collection of the probe document, which is removed again."""

PROBE_OBJECT: Final = "detent-preflight/probe.txt"
"""The probe object: always the same, since artifacts have no verb that deletes."""

PROBE_CONTENT: Final = b"Written by the preflight of detent, to see that it can. It may be removed.\n"

SLOW_MS: Final = 1000.0
"""A document's round trip that is longer makes each step of a run longer than a second."""

VARIABLES: Final = (
    "DETENT_STORE", "DETENT_ARTIFACTS", "DETENT_LEASE_S", "ARTIFACTS_BUCKET", "CHARTS_BUCKET", "CHARTS_API_MODE",
    "CHARTS_DEFAULT_TIMEZONE", "CHART_IMG_ACCOUNTS_JSON", "CHART_IMG_BASE_URL", "CHART_IMG_FIXTURES_DIR",
    "CHART_IMG_CASSETTE", "LOG_LEVEL", "TDA_ENV",
)  # fmt: skip
"""Names that a misspelt variable is compared with."""

_SIMILAR: Final = 0.88
_SHARE: Final = 0.4
"""Of a section's time, for one verb of Cloud Storage: its last request may begin just before its end."""

_NO_STORE: Final = Finding(Status.SKIPPED, "not looked at: the store cannot be used")


class Checks:
    """See the module. `close` lets go of what the checks opened."""

    def __init__(
        self,
        config: Configuration,
        machines: Sequence[Path],
        accounts_file: str | Path | None,
        secrets: Secrets,
        clock: Clock,
        timeout_s: float,
    ) -> None:
        self._config = config
        self._machines = machines
        self._accounts_file = None if accounts_file is None else Path(accounts_file)
        self._secrets = secrets
        self._clock = clock
        self._catalogue = Catalogue(ACTIONS.declarations())
        self._pools: dict[str, Pool] = {}
        self._store: Store | None = None
        self._artifacts: Artifacts | None = None
        self._timeout_s = timeout_s

    async def close(self) -> None:
        """Let go."""
        if self._artifacts is not None:
            await self._artifacts.close()
        if self._store is not None:
            await self._store.close()

    async def configuration(self) -> Finding:
        """What the configuration says, and what in it is unlikely to be meant."""
        config = self._config
        meta = {
            "store": config.store, "artifacts": config.artifacts, "bucket": config.bucket, "mode": config.mode,
            "lease_s": config.lease_s, "timezone": config.timezone, "environment": config.environment,
        }  # fmt: skip
        doubts = [*_not_for_a_function(config), *_misspelt(config.variables)]
        if config.store == "memory:":
            doubts.append(("the store is memory:, and nothing outlives this process", "Set DETENT_STORE."))
        details = f"mode {config.mode}, store {config.store}, artifacts {config.artifacts} in {config.bucket}"
        if not doubts:
            return Finding(Status.OK, details, meta=meta)
        problems, remedies = zip(*doubts, strict=True)
        return Finding(Status.DEGRADED, "; ".join(problems), " ".join(dict.fromkeys(remedies)), meta)

    async def store(self) -> Finding:
        """Write a document, read it, remove it."""
        store = await open_store(self._config.store, indexes=INDEXES, now_ms=self._clock.now_ms)
        self._store = store
        key, token = Key.of(PROBES, f"preflight-{randomness.token_hex(8)}"), randomness.token_hex(8)
        began = perf_counter()
        await store.transact([key], lambda found, now_ms: ([Set(key, {"token": token, "at_ms": now_ms})], None))
        written = perf_counter()
        document = (await store.get_many([key]))[key]
        read = perf_counter()
        await store.transact([key], lambda found, now_ms: ([Delete(key)] if found[key] else [Check(key)], None))
        removed = perf_counter()
        left = (await store.get_many([key]))[key]
        trips = zip(("write_ms", "read_ms", "delete_ms"), _lengths(began, written, read, removed), strict=True)
        meta: dict[str, Any] = dict(trips)
        if document is None or document.get("token") != token or left is not None:
            what = "is still there after its removal" if left is not None else "is not what was written"
            return Finding(Status.FAILED, f"the probe document {what}", "Do not run anything on this store.", meta)
        took = ", ".join(f"{name.removesuffix('_ms')} {length:g} ms" for name, length in meta.items())
        if max(meta.values()) > SLOW_MS:
            remedy = "Put the store where the workers are: the region of the database and of the function must agree."
            return Finding(Status.DEGRADED, f"slow: {took}", remedy, meta)
        return Finding(Status.OK, took, meta=meta)

    async def artifacts(self) -> Finding:
        """Store a blob, give it a name, read both."""
        config = self._config
        artifacts = self._opened_artifacts()
        await expect_artifacts(config.artifacts, artifacts)
        began = perf_counter()
        sha256 = await artifacts.put_blob(PROBE_CONTENT, content_type="text/plain; charset=utf-8")
        put = perf_counter()
        stored = await artifacts.publish(sha256, PROBE_OBJECT, content_type="text/plain; charset=utf-8")
        published = perf_counter()
        content, blob = await artifacts.read(PROBE_OBJECT), await artifacts.get_blob(sha256)
        read = perf_counter()
        names = ("put_ms", "publish_ms", "read_ms")
        meta: dict[str, Any] = dict(zip(names, _lengths(began, put, published, read), strict=True))
        if (content, blob, stored.sha256) != (PROBE_CONTENT, PROBE_CONTENT, sha256):
            raise ArtifactError("the probe object does not hold what was written.", remedy="Do not publish here.")
        place = "in the bucket" if config.artifacts == BUCKET_ARTIFACTS else "in the folder"
        took = ", ".join(f"{name.removesuffix('_ms')} {length:g} ms" for name, length in meta.items())
        meta["uri"] = artifacts.uri(PROBE_OBJECT)
        return Finding(Status.OK, f"{took}; {PROBE_OBJECT} stays {place}", meta=meta)

    def _opened_artifacts(self) -> Artifacts:
        if self._artifacts is None:
            config = self._config
            self._artifacts = open_artifacts(config.artifacts, config.bucket, self._secrets)
            if config.artifacts == BUCKET_ARTIFACTS:
                from engine.artifacts.gcs import DEADLINE_S, GcsArtifacts

                # It gives up before the section does, and says why.
                deadline_s = min(DEADLINE_S, self._timeout_s * _SHARE)
                self._artifacts = GcsArtifacts(config.bucket, self._secrets, deadline_s=deadline_s, read_s=deadline_s)
        return self._artifacts

    async def machines(self) -> Finding:
        """Compile the definitions given, and those that unfinished runs began with."""
        problems, compiled = [], []
        for path in self._machines:
            machine, diagnostics = self._catalogue.check(path)
            if machine is None:
                problems += [str(diagnostic) for diagnostic in diagnostics]
            else:
                compiled.append(machine)
                self._learn(machine)
        stored, stranded = await self._stored()
        meta = {
            "given": [f"{one.name} version {one.version}, {one.digest[:12]}" for one in compiled],
            "stored": stored, "problems": [*problems, *stranded],
        }  # fmt: skip
        if problems:
            more = f" and {len(problems) - 1} more" if len(problems) > 1 else ""
            return Finding(Status.FAILED, f"{problems[0]}{more}", "See `detent validate` for all of them.", meta)
        if stranded:
            remedy = "Run a worker of the release, and with the --actions, that began these runs; or cancel them."
            return Finding(Status.FAILED, f"unfinished runs cannot go on here: {'; '.join(stranded)}", remedy, meta)
        if not compiled and not stored:
            return Finding(Status.SKIPPED, "no definition was given, and no run is unfinished", meta=meta)
        unfinished_runs = f", {stored} of unfinished runs" if stored else ""
        return Finding(Status.OK, f"{len(compiled)} compiled{unfinished_runs}", meta=meta)

    async def _stored(self) -> tuple[int, list[str]]:
        """How many definitions unfinished runs began with, and what keeps this process from going on with them."""
        if self._store is None:
            return 0, []
        definitions = Definitions(self._store, self._catalogue)
        heads, _ = await unfinished(self._store)
        stranded = []
        digests = {str(head["digest"]): f"{head['machine']} version {head['version']}" for head in heads}
        for digest, name in digests.items():
            try:
                machine = await definitions.machine(digest)
            except DefinitionError as error:
                stranded.append(f"{name} ({digest[:12]}) does not compile: {error.diagnostics[0].message}")
            except (DocumentUnreadableError, InvalidRequestError) as error:
                stranded.append(f"{name}: {error.message}")
            else:
                self._learn(machine)
                unknown = sorted(_actions_of(machine) - set(ACTIONS))
                if unknown:
                    stranded.append(f"{name} ({digest[:12]}) asks for {', '.join(unknown)}, which is not known here")
        return len(digests), stranded

    def _learn(self, machine: Machine) -> None:
        self._pools |= {pool.name: pool for pool in machine.pools.values()}
        for child in machine.children.values():
            self._learn(child)

    async def ledger(self) -> Finding:
        """See `ledger_finding`."""
        if self._store is None:
            return _NO_STORE
        return await ledger_finding(self._config, self._store, list(self._pools.values()), self._clock.now_ms())

    async def clock(self) -> Finding:
        """See `clock_skew`."""
        return await clock_skew(self._config, self._clock)

    async def runs(self) -> Finding:
        """See `runs_finding`."""
        if self._store is None:
            return _NO_STORE
        return await runs_finding(self._store, self._clock.now_ms(), round(self._config.lease_s * 1000))

    async def secrets(self) -> Finding:
        """See `secrets_finding`."""
        pools = list(self._pools.values())
        artifacts: Artifacts | None = None
        with suppress(ConfigurationError):  # which is the artifacts' own finding
            artifacts = self._opened_artifacts()
        return await secrets_finding(self._config, pools, self._accounts_file, self._secrets, self._store, artifacts)


def _lengths(*instants: float) -> list[float]:
    """Milliseconds between one instant and the next."""
    return [round((after - before) * 1000, 1) for before, after in pairwise(instants)]


def _actions_of(machine: Machine) -> set[str]:
    own = {state.invoke.action for state in machine.states.values() if state.invoke is not None}
    return own.union(*(_actions_of(child) for child in machine.children.values()))


def _not_for_a_function(config: Configuration) -> list[tuple[str, str]]:
    """What is right on a laptop and wrong in a function, whose disk and memory end with its instance."""
    if not config.variables.get("K_SERVICE"):
        return []
    doubts = []
    if not config.store.startswith("firestore:"):
        doubts.append(("the store ends with this instance", "Set DETENT_STORE to firestore://PROJECT/DATABASE."))
    if config.artifacts != BUCKET_ARTIFACTS:
        doubts.append(("the artifacts end with this instance", "Set DETENT_ARTIFACTS to gs:, and ARTIFACTS_BUCKET."))
    if config.mode != "real":
        doubts.append((f"a function in mode {config.mode!r} exports no new charts", "Set CHARTS_API_MODE to real."))
    return doubts


def _misspelt(variables: Mapping[str, str]) -> list[tuple[str, str]]:
    """Variables that nothing reads, and that look like one that is read."""
    doubts = []
    for name in sorted(set(variables) - set(VARIABLES)):
        if name.startswith(("DETENT_", "CHART", "ARTIFACT")):
            meant = difflib.get_close_matches(name, VARIABLES, 1, _SIMILAR)
            doubts += [(f"{name} is read by nothing", f"Did you mean {one}?") for one in meant]
    return doubts
