"""The preflight's check of time: how far this process's clock is from that of the services it works with.

In: a configuration. Out: a finding. Leases are judged by the clock of whoever claims, and units belong to a UTC day, so
a clock that is off costs takeovers and misdated units (engine/runner/LEASES.md, "Clocks"). A service over HTTP says
its time in the `Date` of any answer, to the second; a folder says its host's by the time of a file that is written.
Where nothing says the time the skew is unknown, and the report says that.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias

from engine.entry.configuration import BUCKET_ARTIFACTS, Configuration
from engine.entry.preflight import Finding, Status
from engine.runner.clock import Clock

ANSWER_S: Final = 5.0
"""How long a service is waited for."""

MARGIN_S_MAX: Final = 5.0
"""As in LEASES.md: the skew margin is a sixth of the lease, and at most this."""

DATE_STEP_MS: Final = 1000
"""The resolution of `Date`."""


class Skew(NamedTuple):
    """How far this process's clock is ahead of another's (negative: behind), and how exactly that is known."""

    ahead_ms: float
    within_ms: float


Measure: TypeAlias = Callable[[Clock], Awaitable[Skew | None]]


async def clock_skew(config: Configuration, clock: Clock) -> Finding:
    """Compare with every clock that can be asked; the furthest counts."""
    margin_ms = min(config.lease_s / 6, MARGIN_S_MAX) * 1000
    skews: dict[str, Skew] = {}
    silent: list[str] = []
    for name, measure in references(config).items():
        skew = await measure(clock)
        if skew is None:
            silent.append(name)
        else:
            skews[name] = skew
    meta: dict[str, Any] = {
        "margin_ms": margin_ms,
        "ahead_ms": {name: round(skew.ahead_ms, 1) for name, skew in skews.items()},
        "within_ms": {name: round(skew.within_ms, 1) for name, skew in skews.items()},
    }
    if not skews:
        whom = f"{' and '.join(silent)} did not say the time" if silent else "nothing here says the time"
        return Finding(Status.SKIPPED, f"unknown: {whom}", meta=meta)
    name, skew = max(skews.items(), key=lambda entry: abs(entry[1].ahead_ms) - entry[1].within_ms)
    told = f"{abs(skew.ahead_ms) / 1000:.3g} s {'ahead of' if skew.ahead_ms > 0 else 'behind'} {name}"
    exact = f" (known to {skew.within_ms / 1000:.2g} s)"
    if abs(skew.ahead_ms) - skew.within_ms > margin_ms:
        remedy = "Let a time service (NTP) set this machine's clock: living runs are taken over, and units misdated."
        return Finding(Status.DEGRADED, f"{told}{exact}; the margin is {margin_ms / 1000:g} s", remedy, meta)
    if abs(skew.ahead_ms) <= skew.within_ms:
        return Finding(Status.OK, f"agrees with {' and '.join(skews)}{exact}", meta=meta)
    return Finding(Status.OK, f"{told}{exact}", meta=meta)


def references(config: Configuration, environ: Mapping[str, str] | None = None) -> dict[str, Measure]:
    """The clocks that can be asked, by name."""
    environ = os.environ if environ is None else environ
    found: dict[str, Measure] = {}
    if config.store.startswith("firestore:"):
        emulator = environ.get("FIRESTORE_EMULATOR_HOST")
        found["Firestore"] = partial(
            by_http, f"http://{emulator}/" if emulator else "https://firestore.googleapis.com/"
        )
    elif config.store.startswith("sqlite:///"):
        found["the store's disk"] = partial(by_file, Path(config.store.removeprefix("sqlite:///")).absolute().parent)
    if config.artifacts == BUCKET_ARTIFACTS:
        from engine.artifacts.gcs import emulator_of

        emulator = emulator_of(environ.get("STORAGE_EMULATOR_HOST"))
        found["Cloud Storage"] = partial(by_http, f"{emulator or 'https://storage.googleapis.com'}/")
    elif config.artifacts.startswith("folder:"):
        found["the artifacts' disk"] = partial(by_file, Path(config.artifacts.removeprefix("folder:")).absolute())
    return found


async def by_http(url: str, clock: Clock) -> Skew | None:
    """Compare with the `Date` of an answer; `None` when there is none."""
    import httpx

    before_ms = clock.now_ms()
    try:
        async with httpx.AsyncClient(timeout=ANSWER_S) as client:
            answer = await client.get(url)
        there = parsedate_to_datetime(answer.headers["date"])
    except (httpx.HTTPError, KeyError, ValueError):
        return None
    after_ms = clock.now_ms()
    # The instant lies within the second that `Date` names, and within the round trip.
    there_ms = there.astimezone(UTC).timestamp() * 1000 + DATE_STEP_MS / 2
    return Skew((before_ms + after_ms) / 2 - there_ms, (after_ms - before_ms + DATE_STEP_MS) / 2)


async def by_file(folder: Path, clock: Clock) -> Skew | None:
    """Compare with the time that the folder's host gives a new file; `None` when none can be written there."""
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".detent-clock-") as file:
            before_ms = clock.now_ms()
            file.write(datetime.now(UTC).isoformat().encode())
            file.flush()
            there_ms = os.fstat(file.fileno()).st_mtime * 1000
            after_ms = clock.now_ms()
    except OSError:
        return None
    # A file's time is that of the kernel's last tick, up to 10 ms ago.
    return Skew((before_ms + after_ms) / 2 - there_ms, (after_ms - before_ms) / 2 + 10)
