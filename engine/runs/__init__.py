"""The life of a run over a `Store`: start, claim, renew, commit, release, find.

What is committed together is decided here, by pure functions over documents; who commits it and when is for
`engine/runner` (see LEASES.md there). This package sees the core and the store port, and nothing else.

The names below are those that every run needs. What only some meet is imported from its module by who meets it, so
that a start does not pay for it: `collect` and `leaving` (maps), `deliver` (signals, cancels), `redrive`, `replay`.
"""

from engine.runs.claim import Claim, Committed, Held
from engine.runs.commit import Tenure
from engine.runs.definitions import Definitions
from engine.runs.records import INDEXES, Entry, Head, Place
from engine.runs.runs import RELEASE_S_MAX, Runs
from engine.runs.start import FirstAction, Started, standing, start

__all__ = [
    "INDEXES", "RELEASE_S_MAX", "Claim", "Committed", "Definitions", "Entry", "FirstAction", "Head", "Held", "Place",
    "Runs", "Started", "Tenure", "standing", "start",
]  # fmt: skip
