"""Configuration: read once from the environment, flags winning; every mistake is a `ConfigurationError`.

Each error names the variable and what is wrong with it, and never shows a value: a value may be a secret
that was pasted into the wrong place.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from engine.core.bounds import DEFAULT_GRACE_S, DEFAULT_LEASE_S, GRACE_S_MAX, LEASE_S_MAX
from engine.core.machine import Pool
from engine.entry.application import DEFAULT_ARTIFACTS, DEFAULT_BUCKET, DEFAULT_STORE
from engine.entry.logs import SERVICE
from engine.errors import ConfigurationError
from engine.handlers.accounts import Account, parse_accounts

MODES: Final = ("real", "mock", "record")
PUBLIC_BASE_URL: Final = "https://api.chart-img.com"
LEASE_S_RANGE: Final = (1.0, float(LEASE_S_MAX))
GRACE_S_RANGE: Final = (0.0, float(GRACE_S_MAX))
_BUCKET: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,220}")
_PROJECT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9.:_-]{0,62}")
_DATABASE: Final = re.compile(r"\(default\)|[a-z][a-z0-9-]{2,61}[a-z0-9]")
_FIRESTORE: Final = re.compile(r"firestore://([^/]+)(/[^/]*)?")
BUCKET_ARTIFACTS: Final = "gs:"
"""`DETENT_ARTIFACTS` for the bucket of Cloud Storage that `ARTIFACTS_BUCKET` names."""

_FIRESTORE_FORM: Final = "Use firestore://PROJECT/DATABASE."
_DATABASE_FORM: Final = "(default), or 4 to 63 lower-case letters, digits and -"

_UTC: Final = ("UTC", "Etc/UCT", "Etc/Zulu", "Zulu", "UCT", "Etc/Universal", "Universal")
"""Names of UTC that the API does not list; `Etc/UTC` is its own default."""


@dataclass(frozen=True, slots=True)
class Configuration:
    """What one process is configured with; see `docs/configuration.md` for each variable."""

    store: str
    artifacts: str
    bucket: str
    mode: str
    lease_s: float
    grace_s: float
    timezone: str
    log_level: str
    base_url: str
    fixtures_dir: Path
    cassette: Path
    service: str
    environment: str | None
    variables: Mapping[str, str]

    def accounts_of(self, pool: Pool) -> tuple[Account, ...]:
        """The accounts of a pool, from the variable that it names; without any in mock mode none are needed."""
        text = self.variables.get(pool.accounts, "")
        if text:
            return parse_accounts(text, pool.accounts)
        if self.mode == "mock":
            return ()
        raise ConfigurationError(
            pool.accounts,
            f"is not set, and the mode {self.mode!r} calls the API.",
            remedy='Set it to a JSON array of {"id": …, "apiKey": …}, give --accounts FILE, or CHARTS_API_MODE=mock.',
        )


def read_configuration(environ: Mapping[str, str], *, default_mode: str) -> Configuration:
    """Check every variable that detent knows. Raises `ConfigurationError` for the first that is wrong."""
    environment = environ.get("TDA_ENV", "").strip() or environ.get("ENV", "").strip() or None
    mode = _one_of(environ, "CHARTS_API_MODE", MODES, default_mode)
    if mode == "record" and (environment or "").strip().lower() in ("prod", "production"):
        raise ConfigurationError(
            "CHARTS_API_MODE", "'record' is refused where TDA_ENV or ENV says production.", remedy="Use real, or mock."
        )
    artifacts = _artifacts(environ.get("DETENT_ARTIFACTS") or DEFAULT_ARTIFACTS)
    return Configuration(
        store=_store(environ),
        artifacts=artifacts,
        bucket=_bucket(environ, artifacts),
        mode=mode,
        lease_s=_seconds(environ, "DETENT_LEASE_S", DEFAULT_LEASE_S, LEASE_S_RANGE),
        grace_s=_seconds(environ, "DETENT_GRACE_S", DEFAULT_GRACE_S, GRACE_S_RANGE),
        timezone=_timezone(environ),
        log_level=_one_of(environ, "LOG_LEVEL", tuple(logging.getLevelNamesMapping()), "INFO", upper=True),
        base_url=_url(environ, "CHART_IMG_BASE_URL", PUBLIC_BASE_URL),
        fixtures_dir=Path(environ.get("CHART_IMG_FIXTURES_DIR") or "fixtures/chart_img"),
        cassette=Path(environ.get("CHART_IMG_CASSETTE") or "cassettes/chart_img.yaml"),
        service=environ.get("K_SERVICE") or SERVICE,
        environment=environment,
        variables=dict(environ),
    )


def _one_of(
    environ: Mapping[str, str], name: str, options: tuple[str, ...], default: str, *, upper: bool = False
) -> str:
    value = environ.get(name) or default
    value = value.upper() if upper else value
    if value not in options:
        raise ConfigurationError(name, "is none of the values it may have.", remedy=f"Use one of {', '.join(options)}.")
    return value


def _store(environ: Mapping[str, str]) -> str:
    url = environ.get("DETENT_STORE") or DEFAULT_STORE
    if url == "memory:" or (url.startswith("sqlite:///") and len(url) > len("sqlite:///")):
        return url
    if url in ("firestore:", "firestore://") or _FIRESTORE.fullmatch(url):
        return _firestore(environ, *url.removeprefix("firestore:").removeprefix("//").split("/"))
    raise ConfigurationError(
        "DETENT_STORE", "names no store.", remedy="Use sqlite:///PATH, memory:, or firestore://PROJECT/DATABASE."
    )


def _firestore(environ: Mapping[str, str], project: str, database: str = "") -> str:
    """The whole address: what a URL leaves open, the contract's own variables say."""
    if project and not _PROJECT.fullmatch(project):
        raise ConfigurationError("DETENT_STORE", "names no project's id.", remedy=_FIRESTORE_FORM)
    if database and not _DATABASE.fullmatch(database):
        raise ConfigurationError("DETENT_STORE", f"names no database's id: {_DATABASE_FORM}.", remedy=_FIRESTORE_FORM)
    project = project or environ.get("GOOGLE_CLOUD_PROJECT", "")
    database = database or environ.get("FIRESTORE_DB", "") or "(default)"
    if not _PROJECT.fullmatch(project):
        raise ConfigurationError(
            "GOOGLE_CLOUD_PROJECT",
            "is no project's id." if project else "is not set, and DETENT_STORE names no project.",
            remedy="Set it, or name the project in the store: firestore://PROJECT/DATABASE.",
        )
    if not _DATABASE.fullmatch(database):
        raise ConfigurationError("FIRESTORE_DB", "is no database's id.", remedy=f"Use {_DATABASE_FORM}.")
    return f"firestore://{project}/{database}"


def _artifacts(url: str) -> str:
    if url == BUCKET_ARTIFACTS or (url.startswith("folder:") and len(url) > len("folder:")):
        return url
    raise ConfigurationError("DETENT_ARTIFACTS", "names no artifacts.", remedy="Use folder:PATH or gs:.")


def _bucket(environ: Mapping[str, str], artifacts: str) -> str:
    found = {}
    for name in ("ARTIFACTS_BUCKET", "CHARTS_BUCKET"):
        value = environ.get(name, "")
        if not value:
            continue
        bucket = value.removeprefix("gs://")
        if not _BUCKET.fullmatch(bucket) or ".." in bucket:
            raise ConfigurationError(
                name, "is no bucket's name.", remedy="Use a bare name, or gs://name without a path."
            )
        found[name] = bucket
    if len(set(found.values())) > 1:
        raise ConfigurationError(
            "ARTIFACTS_BUCKET", "and CHARTS_BUCKET name different buckets.", remedy="Set one of them, or both alike."
        )
    if not found and artifacts == BUCKET_ARTIFACTS:
        raise ConfigurationError(
            "ARTIFACTS_BUCKET", "is not set, and gs: publishes in that bucket.", remedy="Set it, or give --bucket NAME."
        )
    return next(iter(found.values()), DEFAULT_BUCKET)


def _seconds(environ: Mapping[str, str], name: str, default: float, bounds: tuple[float, float]) -> float:
    low, high = bounds
    try:
        value = float(environ.get(name) or default)
    except ValueError:
        value = -1.0
    if not low <= value <= high:
        raise ConfigurationError(name, "is no number of seconds that it may be.", remedy=f"Use {low:g} to {high:g}.")
    return value


def _timezone(environ: Mapping[str, str]) -> str:
    name = environ.get("CHARTS_DEFAULT_TIMEZONE") or "Etc/UTC"
    try:
        ZoneInfo(name)
    except (LookupError, ValueError, OSError):
        raise ConfigurationError(
            "CHARTS_DEFAULT_TIMEZONE", "is no IANA time zone.", remedy="Use a name like Etc/UTC or Europe/Berlin."
        ) from None
    return "Etc/UTC" if name in _UTC else name


def _url(environ: Mapping[str, str], name: str, default: str) -> str:
    value = environ.get(name) or default
    try:
        parts = urlsplit(value)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        good = False
    else:
        good = good and not (parts.username or parts.password or parts.query or parts.fragment) and value.isprintable()
    if not good:
        raise ConfigurationError(
            name, "is no address that can be called.", remedy="Use https://HOST[:PORT], nothing else."
        )
    return value.rstrip("/")
