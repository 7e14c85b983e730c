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
from engine.entry.application import DEFAULT_ARTIFACTS
from engine.entry.configuration import Configuration
from engine.errors import ConfigurationError, DetentError
from engine.runner.clock import Clock, SystemClock

logger: Final = logging.getLogger("detent.preflight")

TIMEOUT_S: Final = 10.0
"""How long one section may take. They run side by side but for the store and the machines, which others build on."""

NAMES: Final = ("configuration", "store", "artifacts", "ledger", "clock", "machines", "runs", "secrets")
"""The sections, in the order of the report."""


_STORE: Final = ("DETENT_STORE", "GOOGLE_CLOUD_PROJECT", "FIRESTORE_DB")
_OBJECTS: Final = ("DETENT_ARTIFACTS", "ARTIFACTS_BUCKET", "CHARTS_BUCKET")
_UNREAD: Final[Mapping[str, tuple[str, ...]]] = {
    **dict.fromkeys(_STORE, ("store", "ledger", "runs")),
    **dict.fromkeys(_OBJECTS, ("artifacts",)),
}
"""What cannot be looked at when a variable is wrong. Any other variable hides nothing."""


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


_SKIPPED: Final = Finding(Status.SKIPPED, "not looked at: the configuration does not say where it is")

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


def read_around(
    environ: Mapping[str, str], read: Callable[[Mapping[str, str]], Configuration]
) -> tuple[Configuration | None, list[ConfigurationError]]:
    """What a configuration says apart from what is wrong in it, and every error; `None` when nothing can be read.

    In place of a wrong variable its default is taken; which sections that leaves nothing to look at, `_UNREAD` says.
    """
    spared, errors = dict(environ), list[ConfigurationError]()
    while True:
        try:
            return read(spared), errors
        except ConfigurationError as error:
            if any(error.variable == known.variable for known in errors):
                return None, errors
            errors.append(error)
            if error.variable in _STORE:
                spared["DETENT_STORE"] = "memory:"
            elif error.variable in _OBJECTS:
                spared = {name: value for name, value in spared.items() if name not in _OBJECTS}
                spared["DETENT_ARTIFACTS"] = DEFAULT_ARTIFACTS
            else:
                spared.pop(error.variable, None)


async def preflight(
    config: Configuration,
    *,
    errors: Sequence[ConfigurationError] = (),
    machines: Sequence[str | Path] = (),
    accounts_file: str | Path | None = None,
    secrets: Secrets | None = None,
    clock: Clock | None = None,
    timeout_s: float = TIMEOUT_S,
) -> Report:
    """Look at everything once. Raises nothing but cancellation.

    `errors` are what was wrong in the configuration (see `read_around`); `machines` are the definitions that this
    process runs; `accounts_file` is the file that `--accounts` named, if any.
    """
    from engine.entry.preflight_checks import Checks

    began = perf_counter()
    known = secrets if secrets is not None else Secrets()
    found: dict[str, Section] = {}
    checks = Checks(config, [Path(path) for path in machines], accounts_file, known, clock or SystemClock(), timeout_s)

    unread = {name for error in errors for name in _UNREAD.get(error.variable, ())}

    async def look(name: str, check: Check) -> None:
        found[name] = Section(name, _SKIPPED, 0.0) if name in unread else await examined(name, check, timeout_s)

    try:
        await look("configuration", checks.configuration)
        if errors:
            found["configuration"] = found["configuration"]._replace(finding=_wrong(errors))
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
    first, *others = NAMES
    return Report((Section(first, _wrong([error]), 0.0), *(Section(name, _SKIPPED, 0.0) for name in others)), 0.0)


def _wrong(errors: Sequence[ConfigurationError]) -> Finding:
    first = errors[0]
    remedies = " ".join(dict.fromkeys(error.remedy for error in errors if error.remedy))
    meta = {"variable": first.variable, "variables": [error.variable for error in errors]}
    return Finding(Status.FAILED, "; ".join(error.message for error in errors), remedies, meta)


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
