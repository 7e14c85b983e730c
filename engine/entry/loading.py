"""Documents from files: `DIR/<collection>/<id>.json`, and one flow-run document by itself.

A document that is in the store is never overwritten unless that is asked for: loading twice is loading once.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from engine.core import canonical
from engine.core.write import Check, Create, Key, Set, Write
from engine.errors import InvalidRequestError
from engine.handlers.flow_steps import FLOW_RUNS
from engine.store.port import Store

ID_FIELD: Final = "__id__"
"""Holds the id of a document whose id cannot be a file's name; it is not stored."""


async def load_folder(store: Store, folder: str, *, replace: bool) -> int:
    """Load every document below a folder; answers how many were written. Raises `InvalidRequestError`."""
    root = Path(folder)
    if not root.is_dir():
        raise InvalidRequestError(
            f"--load {folder}: there is no such folder.", remedy="Name one with <collection>/<id>.json."
        )
    written = 0
    for collection in sorted(path for path in root.iterdir() if path.is_dir()):
        for file in sorted(collection.glob("*.json")):
            document = _read(file)
            name = document.pop(ID_FIELD, file.name.removesuffix(".json"))
            written += await put(store, Key.of(collection.name, name), document, replace=replace)
    return written


async def load_flow_run(store: Store, file: str, *, replace: bool) -> str:
    """Load one flow-run document; answers its id. Raises `InvalidRequestError`."""
    document = _read(Path(file))
    run_id = document.get("runId")
    if not isinstance(run_id, str) or not run_id:
        found = "none" if run_id is None else f"a {type(run_id).__name__}"
        raise InvalidRequestError(f"{file}: runId must be a non-empty string, found {found}.", remedy="Add runId.")
    await put(store, Key.of(FLOW_RUNS, run_id), document, replace=replace)
    return run_id


async def put(store: Store, key: Key, document: dict[str, Any], *, replace: bool) -> bool:
    """Write one document, unless one is there and `replace` is false; answers whether it was written."""

    def decide(found: Any, now_ms: int) -> tuple[list[Write], bool]:
        if replace:
            return [Set(key, document)], True
        return ([Create(key, document)], True) if found[key] is None else ([Check(key)], False)

    try:
        return await store.transact([key], decide)
    except (ValueError, RecursionError) as error:  # what no store can hold, such as maps in maps without end
        raise InvalidRequestError(f"{key.collection}/{key.id} cannot be stored: {error}.") from None


def read_document(text: str, name: str) -> dict[str, Any]:
    """The document of a JSON text; `name` says where it came from. Raises `InvalidRequestError`."""
    document = _read_json(text, name)
    if not isinstance(document, dict):
        raise InvalidRequestError(f"{name}: must be a JSON object, not {type(document).__name__}.")
    return document


def read_value(text: str, name: str) -> Any:
    """The value of a JSON text, or of the file in `@FILE`, that the flag `name` gave. Raises `InvalidRequestError`."""
    return _read_json(*read_flag(text, name))


def read_flag(text: str, name: str) -> tuple[str, str]:
    """The text that a flag gave, itself or as `@FILE`, and where it came from. Raises `InvalidRequestError`."""
    if not text.startswith("@"):
        return text, name
    name = f"{name} {text}"
    try:
        return Path(text[1:]).read_text(encoding="utf-8-sig"), name
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequestError(f"{name}: the file cannot be read: {error}.") from None


def _read_json(text: str, name: str) -> Any:
    try:
        document = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_number)
        canonical.plain(document, "the document")
        canonical.encode(document).encode()
    except json.JSONDecodeError as error:
        raise InvalidRequestError(
            f"{name}:{error.lineno}:{error.colno}: not JSON: {error.msg}.", remedy="Correct it; nothing was run."
        ) from None
    except UnicodeEncodeError:
        raise InvalidRequestError(f"{name}: holds half of a surrogate pair, which is no text.") from None
    except (ValueError, RecursionError) as error:
        problem = "it is nested too deep" if isinstance(error, RecursionError) else error
        raise InvalidRequestError(f"{name}: cannot be read as JSON: {problem}.") from None
    return document


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        doubled = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {doubled!r} stands there twice")
    return found


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def _read(file: Path) -> dict[str, Any]:
    try:
        return read_document(file.read_text(encoding="utf-8-sig"), str(file))
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequestError(f"{file}: cannot be read: {error}.") from None
