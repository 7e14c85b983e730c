"""Prove a machine by crashing it everywhere: `detent verify`, and the same for a program or a test.

See docs/verification.md. `setting_of(…)` puts together what is verified, `Exploration(…).run()` explores it, `play`
plays one schedule. A world of your own derives from `World`. The production runner is driven; only the ports, the
clock and the scheduling are others.
"""

from __future__ import annotations

from engine.testing.verification.ending import Ending
from engine.testing.verification.exploration import PAIRS, SAMPLES, Exploration, Report, Violation, play, told
from engine.testing.verification.kinds import KINDS
from engine.testing.verification.preparation import setting_of, world_for, world_named
from engine.testing.verification.process import Process
from engine.testing.verification.rules import RULES, judge
from engine.testing.verification.schedule import Schedule
from engine.testing.verification.setting import SEMANTICS, Given, Setting
from engine.testing.verification.world import Difference, Problem, World

__all__ = [
    "KINDS", "PAIRS", "RULES", "SAMPLES", "SEMANTICS", "Difference", "Ending", "Exploration", "Given", "Problem",
    "Process", "Report", "Schedule", "Setting", "Violation", "World", "judge", "play", "setting_of", "told",
    "world_for", "world_named",
]  # fmt: skip
