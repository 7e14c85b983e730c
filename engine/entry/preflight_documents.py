"""The checks of the preflight on documents that are there: the ledger, runs that stand still, secrets out of place.

In: an open store and what is configured. Out: findings. Everything is read, nothing written; each look is bounded by a
number of documents, and a finding says so where the bound was reached.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from engine.artifacts.port import Artifacts
from engine.core import canonical
from engine.core.machine import Pool
from engine.core.secret import Secrets
from engine.core.write import Document, Key, id_problem
from engine.entry.configuration import Configuration
from engine.entry.preflight import Finding, Status
from engine.errors import (
    ArtifactError,
    ArtifactUnavailableError,
    ConfigurationError,
    DetentError,
    DocumentUnreadableError,
)
from engine.handlers.accounts import Account
from engine.handlers.flow_steps import FLOW_RUNS, STEP_TYPE
from engine.handlers.ledger import DAY_MS, rate_key, usage_key, usage_of
from engine.runs.listing import newest
from engine.runs.reading import flaw
from engine.runs.records import JOURNAL, RUNS, run_key_key
from engine.store.port import UNREADABLE, Found, Order, Store, Where

UNFINISHED: Final = ("pending", "running", "waiting")
RUNS_MAX: Final = 1000
"""Unfinished runs, and flow runs, that are looked at."""

RECENT_MAX: Final = 100
"""The newest documents of a collection that are searched for secrets."""

NAMED_MAX: Final = 5
"""How many of what is wrong a sentence names."""

OVERDUE_MS: Final = 5 * 60_000
"""A run that nobody took for this long after it could be taken: several sweeps should have come by."""

FLOW_MACHINE: Final = "chart_export"
"""The machine whose runs have the key `<flow run>/<step>`."""


_OBJECTS: Final = re.compile(r'gs://[^"\\\s]+\.json')


async def unfinished(store: Store) -> tuple[list[Mapping[str, Any]], list[str]]:
    """The heads of runs that have not ended, at most `RUNS_MAX` of each status; and the ids of those out of shape."""
    found: list[Found] = []
    for status in UNFINISHED:
        found += await store.query(RUNS, [Where("status", "==", status)], limit=RUNS_MAX)
    broken = [key.id for key, document in found if document is UNREADABLE or flaw(key, document)]
    return [document for key, document in found if key.id not in set(broken)], broken


# The ledger


async def ledger_finding(config: Configuration, store: Store, pools: Sequence[Pool], now_ms: int) -> Finding:
    """Each account's usage and rate: readable, well-formed, and with units left today."""
    accounts = [(pool, account) for pool in pools for account in _accounts(config, pool)]
    if not pools:
        return Finding(Status.SKIPPED, "no machine that is known here declares a pool")
    if not accounts and config.mode == "mock":
        return Finding(Status.SKIPPED, "no accounts are configured; mock mode needs none, and leaves the ledger alone")
    if not accounts:
        return Finding(Status.SKIPPED, "no accounts can be read: see secrets")
    keys = [key(pool.name, account.id) for pool, account in accounts for key in (usage_key, rate_key)]
    documents = await store.get_many(keys)
    now = datetime.fromtimestamp(now_ms / 1000, UTC)
    rows: list[dict[str, Any]] = []
    problems: list[str] = []
    spent: list[str] = []
    for pool, account in accounts:
        key = usage_key(pool.name, account.id)
        usage = usage_of(pool, account, documents, now)
        rows.append(
            {
                "pool": pool.name, "account": account.id, "used": usage.used, "limit": usage.limit,
                "left": max(usage.limit - usage.used, 0), "window": usage.day.isoformat(),
            }
        )  # fmt: skip
        if wrong := usage_problems(documents[key], now):
            problems.append(f"{key.collection}/{key.id}: {' and '.join(wrong)}")
        busy = (documents[rate_key(pool.name, account.id)] or {}).get("busyUntilMs", 0)
        if not isinstance(busy, (int, float)) or busy > now_ms + DAY_MS:
            problems.append(f"{pool.name}_accounts_rate/{account.id}: busyUntilMs is no instant of today")
        spent += [account.id] if usage.is_exhausted else []
    left, limit = sum(row["left"] for row in rows), sum(row["limit"] for row in rows)
    counted = f"{left} of {limit} units left today in {len(rows)} account{'' if len(rows) == 1 else 's'}"
    meta = {"accounts": rows, "problems": problems}
    if problems:
        remedy = "Correct these documents (detent documents get/put): what cannot be read counts as nothing used."
        return Finding(Status.DEGRADED, f"{_some(problems)}; {counted}", remedy, meta)
    if left == 0:
        remedy = "Charts fail with CHART_API_LIMIT_EXCEEDED until the next UTC day, or until there are more accounts."
        return Finding(Status.DEGRADED, counted, remedy, meta)
    return Finding(Status.OK, counted + (f"; {', '.join(spent)} exhausted" if spent else ""), meta=meta)


def usage_problems(document: Document | None, now: datetime) -> list[str]:
    """What is wrong with a usage document as the contract has it: `{windowStart, usageToday[, dailyLimit]}`."""
    if document is None:
        return []
    fields: Mapping[str, Any] = document
    problems: list[str] = []
    start = _instant(fields.get("windowStart"))
    if start is None:
        problems.append("windowStart is no RFC 3339 time")
    elif (start - now).total_seconds() * 1000 > DAY_MS:
        problems.append("windowStart lies more than a day ahead")
    if not _is_count(fields.get("usageToday")):
        problems.append("usageToday is no number of units")
    if "dailyLimit" in fields and (fields["dailyLimit"] == 0 or not _is_count(fields["dailyLimit"])):
        problems.append("dailyLimit is no positive number")
    return problems


def _accounts(config: Configuration, pool: Pool) -> tuple[Account, ...]:
    try:
        return config.accounts_of(pool)
    except ConfigurationError:
        return ()  # the section `secrets` tells


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _instant(value: object) -> datetime | None:
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return None
    if not isinstance(value, datetime):
        return None
    return value if value.tzinfo else value.replace(tzinfo=UTC)


# Runs


async def runs_finding(store: Store, now_ms: int, lease_ms: int) -> Finding:
    """Runs that nobody goes on with, and steps of flow runs that stay RUNNING without a run."""
    heads, broken = await unfinished(store)
    listed = [one.document for one in await newest(store, RECENT_MAX) if isinstance(one, DocumentUnreadableError)]
    broken += [name for name in (named.partition("/")[2] for named in listed) if name not in broken]
    overdue: list[str] = []
    held = 0
    for head in heads:
        claimable_at, run_id = head["claimable_at_ms"], str(head["run_id"])
        if head["worker"] is not None and isinstance(claimable_at, int) and claimable_at > now_ms:
            held += 1
        elif isinstance(claimable_at, int) and claimable_at < now_ms - max(OVERDUE_MS, lease_ms):
            overdue.append(run_id)
    steps, steps_looked_at = await _steps_without_a_run(store)
    bounded = len(heads) >= RUNS_MAX or steps_looked_at >= RUNS_MAX
    meta = {
        "unfinished": len(heads), "held": held, "overdue": overdue[:RECENT_MAX], "unreadable": broken[:RECENT_MAX],
        "steps_without_a_run": steps,
    }  # fmt: skip
    counted = f"{len(heads)} unfinished, {held} held by a worker" + (" (not all were looked at)" if bounded else "")
    problems, remedies = [], []
    if overdue:
        problems.append(f"{len(overdue)} run{'' if len(overdue) == 1 else 's'} overdue: {_some(overdue)}")
        remedies.append("Start `detent worker --once`, or see that the sweep is scheduled and succeeds.")
    if broken:
        problems.append(f"{len(broken)} run{'' if len(broken) == 1 else 's'} cannot be read: {_some(broken)}")
        remedies.append("`detent runs show RUN` says what is wrong with one; restore its document from a copy.")
    if steps:
        problems.append(f"RUNNING without a run: {_some(steps)}")
        remedies.append("Nothing here will finish these steps: set them READY, or FAILED, by hand.")
    if problems:
        return Finding(Status.DEGRADED, f"{'; '.join(problems)}; {counted}", " ".join(remedies), meta)
    return Finding(Status.OK, counted, meta=meta)


async def _steps_without_a_run(store: Store) -> tuple[list[str], int]:
    """Steps of our type that a flow run has as RUNNING while no unfinished run has their key."""
    flow_runs = await store.query(FLOW_RUNS, [Where("status", "==", "RUNNING")], limit=RUNS_MAX)
    running = [
        (key.id, step_id)
        for key, document in flow_runs
        for step_id, step in _map(document.get("steps")).items()
        if isinstance(step, Mapping) and (step.get("stepType"), step.get("status")) == (STEP_TYPE, "RUNNING")
    ]
    names = {run_key_key(FLOW_MACHINE, f"{run_id}/{step_id}"): f"{run_id}/{step_id}" for run_id, step_id in running}
    newest: Mapping[Key, Any] = await store.get_many(list(names))
    run_ids = {key: str(_map(one).get("run_id")) for key, one in newest.items()}
    wanted = [Key(RUNS, run_id) for run_id in run_ids.values() if not id_problem(run_id)]
    heads: Mapping[Key, Any] = await store.get_many(wanted)
    alive = {
        key for key, run_id in run_ids.items() if _map(heads.get(Key(RUNS, run_id))).get("status") in UNFINISHED
    }  # fmt: skip
    return [name for key, name in names.items() if key not in alive][:RECENT_MAX], len(flow_runs)


def _map(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


# Secrets


async def secrets_finding(
    config: Configuration, pools: Sequence[Pool], accounts_file: Path | None, secrets: Secrets, store: Store | None,
    artifacts: Artifacts | None,
) -> Finding:  # fmt: skip
    """Accounts that parse, files that only their owner reads, and no key in the newest documents and manifests."""
    accounts = []
    for pool in pools:
        found = config.accounts_of(pool)  # a mistake in them is this section's finding
        accounts += [account.id for account in found]
        for account in found:
            secrets.add(account.api_key)
    open_files = [path for path in _secret_files(config, accounts_file) if _is_read_by_others(path)]
    none: tuple[list[str], int] = [], 0
    leaks, looked_at = none if store is None else await _leaks(store, artifacts, secrets, pools)
    meta = {"accounts": accounts, "searched": looked_at, "found_in": leaks, "open_files": open_files}
    if leaks:
        remedy = "Give that account a new key, then remove the documents: whoever could read them knows the old one."
        return Finding(Status.FAILED, f"a key stands in {_some(leaks)}", remedy, meta)
    if open_files:
        remedy = f"chmod 600 {' '.join(open_files)}"
        return Finding(Status.DEGRADED, f"others may read {_some(open_files)}", remedy, meta)
    counted = f"{len(accounts)} account{'' if len(accounts) == 1 else 's'}"
    if not accounts:
        return Finding(Status.OK, "no account is configured, and none is needed", meta=meta)
    return Finding(Status.OK, f"{counted}; no key in the newest {looked_at} documents and objects", meta=meta)


def _secret_files(config: Configuration, accounts_file: Path | None) -> Iterable[str]:
    named = (str(accounts_file or ""), config.variables.get("GOOGLE_APPLICATION_CREDENTIALS", ""))
    return [path for path in named if path]


def _is_read_by_others(path: str) -> bool:
    try:
        return bool(stat.S_IMODE(Path(path).stat().st_mode) & (stat.S_IRGRP | stat.S_IROTH))
    except OSError:
        return False  # whoever reads it says so


async def _leaks(
    store: Store, artifacts: Artifacts | None, secrets: Secrets, pools: Sequence[Pool]
) -> tuple[list[str], int]:
    """Where a registered secret stands, as COLLECTION/ID or an object's address, and how many were searched."""
    newest = await store.query(
        RUNS, [Where("is_root", "==", True)], [Order("created_at_ms", descending=True)], RECENT_MAX
    )
    found = list(newest)
    for key, _ in newest[:NAMED_MAX]:
        found += await store.query(JOURNAL, [Where("run_id", "==", key.id)], [Order("seq")], RECENT_MAX)
    for collection in (FLOW_RUNS, *(f"{pool.name}_accounts_{kind}" for pool in pools for kind in ("usage", "rate"))):
        found += await store.query(collection, limit=RECENT_MAX)
    leaks = [f"{key.collection}/{key.id}" for key, document in found if _holds_secret(document, secrets)]
    objects = {} if artifacts is None else await _manifests(newest, artifacts)
    leaks += [uri for uri, content in objects.items() if secrets.found_in_bytes(content)]
    return [_told(name, secrets) for name in leaks], len(found) + len(objects)


async def _manifests(newest: Sequence[Found], artifacts: Artifacts) -> dict[str, bytes]:
    """The JSON objects that the newest runs name, by address; what cannot be read is the artifacts' own finding."""
    bucket = artifacts.uri("x").removesuffix("x")
    named = (uri for _, document in newest for uri in _OBJECTS.findall(str(document.get("snapshot"))))
    found: dict[str, bytes] = {}
    for uri in list(dict.fromkeys(uri for uri in named if uri.startswith(bucket)))[:NAMED_MAX]:
        try:
            found[uri] = await artifacts.read(uri.removeprefix(bucket))
        except ArtifactUnavailableError:
            break  # each of the others would wait as long
        except ArtifactError:
            continue
    return found


def _holds_secret(document: Document, secrets: Secrets) -> bool:
    try:
        text = canonical.encode(canonical.plain(document, "a document"))
    except (ValueError, DetentError):
        text = repr(document)
    return secrets.found_in(text)


def _told(name: str, secrets: Secrets) -> str:
    return re.sub(r"\s+", " ", secrets.redact(name))


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED_MAX} more" if len(names) > NAMED_MAX else ""
    return ", ".join(names[:NAMED_MAX]) + more
