"""Every key of a definition, in one place. The reader, machine.schema.json and docs/machine-format.md follow it.

A test holds the three equal, so a new key lands in all of them or in none.
"""

from __future__ import annotations

from typing import Final

MACHINE: Final = (
    "machine", "version", "description", "key", "input", "pools", "summary", "initial", "states",
)  # fmt: skip
POOL: Final = ("accounts", "per_day", "per_second", "burst")
STATE: Final = (
    "type", "description", "initial", "states", "invoke", "map", "on", "always", "after", "catch", "cancel",
    "timeout", "max_visits", "status", "output", "error",
)  # fmt: skip
INVOKE: Final = ("action", "with", "timeout", "assign", "retry")
RETRY: Final = ("errors", "attempts", "backoff", "factor", "backoff_max", "jitter")
MAP: Final = ("machine", "items", "key", "input", "concurrency", "min_success", "assign")
TRANSITION: Final = ("target", "guard", "assign", "after")
CATCH: Final = ("errors", "guard", "target", "assign", "after")
CANCEL: Final = ("target", "assign")

OBJECTS: Final = {
    "machine": MACHINE,
    "pool": POOL,
    "state": STATE,
    "invoke": INVOKE,
    "retry": RETRY,
    "map": MAP,
    "transition": TRANSITION,
    "catch": CATCH,
    "cancel": CANCEL,
}
"""Every object of the format with its keys."""

_COMMON: Final = ("description", "catch", "cancel", "timeout", "max_visits")
KINDS: Final = {
    "invoke": (*_COMMON, "invoke", "on"),
    "map": (*_COMMON, "map", "on"),
    "always": ("description", "catch", "cancel", "max_visits", "always"),
    "on": (*_COMMON, "on", "after"),
    "type": ("type", "description", "status", "output", "error", "max_visits"),
    "states": ("description", "initial", "states", "catch", "cancel", "timeout", "status"),
}
"""The keys of each kind of state, by the key that makes it one: action, map, choice, wait, final, compound."""

STATUSES: Final = ("SUCCEEDED", "FAILED", "CANCELLED")
