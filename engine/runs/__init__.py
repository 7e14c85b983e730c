"""The life of a run over a `Store`: start, claim, renew, commit, release, find.

What is committed together is decided here, by pure functions over documents; who commits it and when is for
`engine/runner` (see LEASES.md there). This package sees the core and the store port, and nothing else.
"""

from engine.runs.claim import Claim, Committed, Held
from engine.runs.collect import collect
from engine.runs.commit import Tenure
from engine.runs.definitions import Definitions
from engine.runs.deliver import Delivered, cancel, signal
from engine.runs.leaving import leave_map
from engine.runs.records import INDEXES, Entry, Head, Place
from engine.runs.redrive import redrive
from engine.runs.replay import Replayed, replayed
from engine.runs.runs import RELEASE_S_MAX, Runs
from engine.runs.start import FirstAction, Started, standing, start

__all__ = [
    "INDEXES", "RELEASE_S_MAX", "Claim", "Committed", "Definitions", "Delivered", "Entry", "FirstAction", "Head",
    "Held", "Place", "Replayed", "Runs", "Started", "Tenure", "cancel", "collect", "leave_map", "redrive", "replayed",
    "signal", "standing", "start",
]  # fmt: skip
