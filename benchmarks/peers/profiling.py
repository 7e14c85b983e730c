"""Profiles a measured program from the inside when the harness asks for it: cProfile on each of its threads.

In: the file for the profile, from `BENCH_PROFILE`. Out: that file, for `pstats`. From Python 3.12 on cProfile admits
one thread at a time, so there the main thread alone is seen.
"""

from __future__ import annotations

import cProfile
import pstats
import sys
import threading
from typing import Any


class Profiles:
    """One profile for each thread, added up in the end."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._main = cProfile.Profile()
        self._others: list[cProfile.Profile] = []
        if sys.version_info < (3, 12):  # later, one profile at a time is all that a process can have
            threading.setprofile(self._in_new_thread)

    def begin(self) -> None:
        """Start with the thread that calls; threads that exist already are profiled since their start."""
        self._main.enable()

    def end(self) -> None:
        """Stop, and write what there is."""
        self._main.disable()
        stats = pstats.Stats(self._main)
        for profile in self._others:
            profile.create_stats()
            if profile.stats:  # type: ignore[attr-defined]  # made by create_stats
                stats.add(profile)
        stats.dump_stats(self._path)

    def _in_new_thread(self, *_: Any) -> None:
        sys.setprofile(None)
        profile = cProfile.Profile()
        profile.enable()
        self._others.append(profile)
