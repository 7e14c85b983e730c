"""What the tests of verification explore: a chart export with few charts, compiled once."""

from __future__ import annotations

import functools
import itertools
import shutil
from pathlib import Path

from engine.definition import Catalogue
from engine.handlers.registry import ACTIONS
from engine.testing.verification import Exploration, judge, kinds, play, setting_of
from engine.testing.verification.schedule import Schedule

ROOT = Path(__file__).parent.parent.parent
INPUT = {"run_id": "20260105-080000_BTCUSDT_k3f7a"}


@functools.cache
def compiled(path):
    catalogue = Catalogue(ACTIONS.declarations())
    return catalogue.load(path), catalogue


def chart_export(items=2, path=ROOT / "machines/chart_export.yaml", **more):
    machine, catalogue = compiled(path)
    return setting_of(machine, catalogue, [INPUT], folder=str(ROOT / "fixtures/documents"), items=items, **more)


def variant(folder, **changes):
    """The machines of a chart export with texts replaced: `{machine: [(old, new), …]}`."""
    for name in ("chart_export", "chart_request"):
        shutil.copy(ROOT / f"machines/{name}.yaml", folder)
        path = Path(folder, f"{name}.yaml")
        text = path.read_text(encoding="utf-8")
        for old, new in changes.get(name, ()):
            assert old in text, old
            text = text.replace(old, new, 1)
        path.write_text(text, encoding="utf-8")
    return Path(folder, "chart_export.yaml")


def known(setting):
    """The crash-free ending, and the setting for the schedules that are held against it."""
    crash_free = play(setting, Schedule())
    return crash_free, setting.knowing(crash_free)


def schedules(setting, *only, every=1):
    """The schedules of some kinds for a setting, every n-th of them."""
    crash_free = play(setting, Schedule())
    found = kinds.singles(crash_free.effects, 20, len(setting.inputs), 7, crash_free.signals)
    chosen = [schedule for kind, schedule in found if not only or kind in only]
    return crash_free, list(itertools.islice(chosen, 0, None, every))


def broken_rules(setting, *only, enough=1):
    """The rules that do not hold, by the first schedule that shows each; ends when `enough` were found."""
    crash_free, wanted = schedules(setting, *only)
    found = {}
    bounded = setting.knowing(crash_free)
    for schedule in (Schedule(), *wanted):
        for problem in judge(crash_free, play(bounded, schedule)):
            found.setdefault(problem.rule, schedule)
        if len(found) >= enough:
            break
    return found


__all__ = ["Exploration", "broken_rules", "chart_export", "known", "schedules", "variant"]
