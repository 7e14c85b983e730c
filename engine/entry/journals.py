"""A journal in a file: everything that it takes to fold one run again, on any machine and by any later release.

One JSON object: `format` (1), `run_id`, `key`, `machine`, `version`, `digest`, `definitions` (by digest: `name`,
`file`, `source` as text, `children` by name), `journal` (one object for each entry: `seq`, `fence`, and the event), and
`snapshot`, the stored text. A definition is kept with it because a journal means nothing without the one it began with.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from engine.core import canonical, event
from engine.core.machine import Machine
from engine.core.snapshot import empty
from engine.definition import Catalogue
from engine.errors import DetentError, InvalidRequestError
from engine.runs import Entry, Head
from engine.runs.replay import Replayed, replayed

FORMAT: Final = 1


def exported(machine: Machine, head: Head, entries: list[Entry], stored: str) -> dict[str, Any]:
    """A run as an object that `replay_file` takes; `stored` is the text of its snapshot as the store has it."""
    snapshot = head.snapshot
    return {
        "format": FORMAT,
        "run_id": snapshot.run_id,
        "key": snapshot.key,
        "machine": snapshot.machine,
        "version": snapshot.version,
        "digest": snapshot.digest,
        "definitions": _definitions(machine),
        "journal": [{"seq": entry.seq, "fence": entry.fence, **event.to_json(entry.event)} for entry in entries],
        "snapshot": stored,
    }


def _definitions(machine: Machine) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for child in machine.children.values():
        found |= _definitions(child)
    found[machine.digest] = {
        "name": machine.name,
        "file": machine.file.replace("\\", "/").rpartition("/")[2],
        "source": json.dumps(machine.source, ensure_ascii=False, allow_nan=False),
        "children": {name: child.digest for name, child in machine.children.items()},
    }
    return found


def replay_file(text: str, name: str, catalogue: Catalogue) -> tuple[str, Replayed]:
    """The run's id, and its journal folded again with the definition that lies beside it.

    Raises `InvalidRequestError` for a text that is no exported journal, or whose definition gives another machine.
    """
    try:
        whole: Any = json.loads(text)
        if not isinstance(whole, dict) or whole.get("format") != FORMAT:
            raise InvalidRequestError(
                f"{name} is no exported journal of format {FORMAT}.",
                remedy="`detent replay RUN --export FILE` writes one.",
            )
        machine = _machine(whole["digest"], whole["definitions"], catalogue)
        begun = empty(whole["run_id"], whole["machine"], whole["version"], whole["digest"], whole["key"])
        entries = [
            Entry(whole["run_id"], row["seq"], row["fence"], "", event.from_json(_event(row)))
            for row in whole["journal"]
        ]
        return str(whole["run_id"]), replayed(machine, begun, entries, str(whole["snapshot"]))
    except DetentError:
        raise
    except RecursionError:  # lists in lists without end, or a definition that is its own child
        raise InvalidRequestError(
            f"{name} cannot be read as an exported journal: it is nested too deep.",
            remedy="`detent replay RUN --export FILE` writes one.",
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidRequestError(
            f"{name} cannot be read as an exported journal: {type(error).__name__}: {error}.",
            remedy="`detent replay RUN --export FILE` writes one.",
        ) from None


def _event(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in ("seq", "fence")}


def _machine(digest: str, definitions: Mapping[str, Any], catalogue: Catalogue) -> Machine:
    kept = definitions[digest]
    children = {name: _machine(inner, definitions, catalogue) for name, inner in kept["children"].items()}
    source: Any = canonical.decode(kept["source"])
    machine = catalogue.rebuild(source, children, kept["file"])
    if machine.digest != digest:
        raise InvalidRequestError(
            f"the definition {digest[:12]} beside the journal is not the one that its run began with.",
            remedy="Export the run again.",
        )
    return machine
