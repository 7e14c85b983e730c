"""Transactional documents behind one port of four verbs; see `engine/store/port.py`.

`open_store(url)` picks the concrete store: `memory:`, `sqlite:///PATH`, `firestore://PROJECT/DATABASE`. Each is
imported only when its URL asks for it, so that a process pays for what it uses.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from engine.errors import ConfigurationError
from engine.store.port import Index, Store

_REMEDY = "Use memory:, sqlite:///PATH, or firestore://PROJECT/DATABASE."


async def open_store(url: str, *, indexes: Sequence[Index] = (), now_ms: Callable[[], int] | None = None) -> Store:
    """Open the store that `url` names; `indexes` are made where the store needs them, `now_ms` is the
    time that its decides are given. Firestore's indexes are deployed, not made: `deploy/firestore.indexes.json`.

    Raises `ConfigurationError` for a URL that names none.
    """
    scheme, _, rest = url.partition(":")
    if scheme == "memory" and not rest:
        from engine.store.memory import MemoryStore

        return MemoryStore(now_ms)
    if scheme == "sqlite":
        path = rest.removeprefix("//").removeprefix("/") if not rest.startswith("////") else rest[3:]
        if not rest.startswith("///") or not path:
            raise ConfigurationError("DETENT_STORE", "sqlite needs a path: sqlite:///PATH.", remedy=_REMEDY)
        from engine.store.sqlite import SqliteStore

        return await SqliteStore.open(path, indexes=indexes, now_ms=now_ms)
    if scheme == "firestore":
        return await _open_firestore(rest, now_ms)
    raise ConfigurationError("DETENT_STORE", f"there is no store of the kind {scheme!r}.", remedy=_REMEDY)


async def _open_firestore(rest: str, now_ms: Callable[[], int] | None) -> Store:
    project, _, database = rest.removeprefix("//").partition("/")
    if not rest.startswith("//") or not project or "/" in database:
        raise ConfigurationError("DETENT_STORE", "firestore needs a project and a database.", remedy=_REMEDY)
    try:
        from engine.store.firestore import DEFAULT_DATABASE, FirestoreStore
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            "DETENT_STORE", f"firestore needs a package that is not installed ({error.name}).",
            remedy="pip install 'detent[google]'",
        ) from None  # fmt: skip
    return await FirestoreStore.open(project, database or DEFAULT_DATABASE, now_ms=now_ms)
