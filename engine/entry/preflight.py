"""The preflight: whether everything that runs need is there, each part judged by itself. `detent doctor` shows it.

In: a process's configuration and the files of its machines. Out: a `Report` of sections, each with a status, what was
found, how long it took and what to do; as a value, for a terminal, for JSON and for HTTP alike. An error or a silence
in one section hides no other, and the whole is bounded in time. No secret stands in it: every text is redacted.

What is written is removed again (a probe document), or always the same (a probe object: artifacts delete nothing).
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from time import perf_counter
from types import MappingProxyType
from typing import Any, Final, NamedTuple, TypeAlias

import anyio

from engine.core.secret import Secrets
from engine.entry.configuration import Configuration
from engine.errors import ConfigurationError, DetentError
from engine.runner.clock import Clock, SystemClock

logger: Final = logging.getLogger("detent.preflight")

TIMEOUT_S: Final = 10.0
"""How long one section may take. They run side by side but for the store and the machines, which others build on."""

NAMES: Final = ("configuration", "store", "artifacts", "ledger", "clock", "machines", "runs", "secrets")
"""The sections, in the order of the report."""


class Status(StrEnum):
    """Of one section. Skipped: there was nothing to judge, or no way to."""

    OK = "OK"
    DEGRADED = "DEGRADED"
    FAILED = "FAILED"
    SKIPPED = "SKIPPED"


class Result(StrEnum):
    """Of the whole: what its worst section is. What was skipped counts for nothing."""

    READY = "READY"
    DEGRADED = "DEGRADED"
    FAILED = "FAILED"


class Finding(NamedTuple):
    """What a check answers: `details` in a sentence, `remedy` in another, `meta` for programs (JSON)."""

    status: Status
    details: str
    remedy: str = ""
    meta: Mapping[str, Any] = MappingProxyType({})


Check: TypeAlias = Callable[[], Awaitable[Finding]]


class Section(NamedTuple):
    """A finding with its name and how long it took, in milliseconds."""

    name: str
    finding: Finding
    latency_ms: float

    def to_json(self) -> dict[str, Any]:
        """`{status, details, latency_ms[, remedy][, meta]}`."""
        status, details, remedy, meta = self.finding
        found: dict[str, Any] = {"status": status.value, "details": details, "latency_ms": self.latency_ms}
        return found | ({"remedy": remedy} if remedy else {}) | ({"meta": dict(meta)} if meta else {})


class Report(NamedTuple):
    """Every section of `NAMES`, in that order."""

    sections: tuple[Section, ...]
    duration_ms: float

    @property
    def result(self) -> Result:
        """What the worst section is."""
        statuses = {section.finding.status for section in self.sections}
        if Status.FAILED in statuses:
            return Result.FAILED
        return Result.DEGRADED if Status.DEGRADED in statuses else Result.READY

    @property
    def http_status(self) -> int:
        """Of `GET /__diag/preflight`: 200, or 503 when something failed."""
        return 503 if self.result is Result.FAILED else 200

    @property
    def how_to_fix(self) -> list[str]:
        """The remedies of what is not in order, the worst first, each once."""
        found = (
            f"{section.name}: {section.finding.remedy}"
            for status in (Status.FAILED, Status.DEGRADED)
            for section in self.sections
            if section.finding.status is status and section.finding.remedy
        )
        return list(dict.fromkeys(found))

    def to_json(self) -> dict[str, Any]:
        """`{result, sections: {name: {status, details, latency_ms, remedy?, meta?}}, how_to_fix, duration_ms}`."""
        return {
            "result": self.result.value,
            "sections": {section.name: section.to_json() for section in self.sections},
            "how_to_fix": self.how_to_fix,
            "duration_ms": self.duration_ms,
        }


async def preflight(
    config: Configuration,
    *,
    machines: Sequence[str | Path] = (),
    accounts_file: str | Path | None = None,
    secrets: Secrets | None = None,
    clock: Clock | None = None,
    timeout_s: float = TIMEOUT_S,
) -> Report:
    """Look at everything once. Raises nothing but cancellation.

    `machines` are the definitions that this process runs; `accounts_file` is the file that `--accounts` named, if any.
    """
    from engine.entry.preflight_checks import Checks

    began = perf_counter()
    known = secrets if secrets is not None else Secrets()
    found: dict[str, Section] = {}
    checks = Checks(config, [Path(path) for path in machines], accounts_file, known, clock or SystemClock(), timeout_s)

    async def look(name: str, check: Check) -> None:
        found[name] = await examined(name, check, timeout_s)

    try:
        await look("configuration", checks.configuration)
        await look("store", checks.store)
        await look("machines", checks.machines)
        async with anyio.create_task_group() as tasks:
            for name in ("artifacts", "ledger", "clock", "runs", "secrets"):
                tasks.start_soon(look, name, getattr(checks, name))
    finally:
        await checks.close()
    sections = tuple(redacted(found[name], known) for name in NAMES)
    return Report(sections, _ms(began))


def misconfigured(error: ConfigurationError) -> Report:
    """The report of a process whose configuration cannot be read: nothing else can be looked at."""
    finding = Finding(Status.FAILED, error.message, error.remedy, {"variable": error.variable})
    skipped = Finding(Status.SKIPPED, "not looked at: the configuration cannot be read")
    first, *others = NAMES
    return Report((Section(first, finding, 0.0), *(Section(name, skipped, 0.0) for name in others)), 0.0)


async def examined(name: str, check: Check, timeout_s: float) -> Section:
    """One section, whatever its check does."""
    began = perf_counter()
    try:
        with anyio.fail_after(timeout_s):
            finding = await check()
    except TimeoutError:
        remedy = "See that what it talks to can be reached from here, and is not overloaded."
        finding = Finding(Status.FAILED, f"no answer within {timeout_s:g} s", remedy)
    except DetentError as error:
        finding = Finding(Status.FAILED, error.message, error.remedy, {"code": error.code})
    except Exception as error:
        # The traceback goes to the log alone, which redacts.
        logger.exception("preflight_check_raised", extra={"fields": {"section": name}})
        finding = Finding(Status.FAILED, f"the check raised {type(error).__name__}", "See the log for where.")
    return Section(name, finding, _ms(began))


def redacted(section: Section, secrets: Secrets) -> Section:
    """The section with every registered secret taken out of its texts."""
    status, details, remedy, meta = section.finding
    plain = {name: _redacted(value, secrets) for name, value in meta.items()}
    return section._replace(finding=Finding(status, secrets.redact(details), secrets.redact(remedy), plain))


def _redacted(value: Any, secrets: Secrets) -> Any:
    if isinstance(value, str):
        return secrets.redact(value)
    if isinstance(value, Mapping):
        return {secrets.redact(str(name)): _redacted(entry, secrets) for name, entry in value.items()}
    return [_redacted(entry, secrets) for entry in value] if isinstance(value, (list, tuple)) else value


def _ms(began: float) -> float:
    return round((perf_counter() - began) * 1000, 1)
