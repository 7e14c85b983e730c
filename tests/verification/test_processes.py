"""Schedules that are shared out to processes: what becomes of these when they are ended, and when nobody wants them."""

from __future__ import annotations

import multiprocessing
import os
import threading

import pytest

from engine.errors import InvalidRequestError
from engine.testing.verification import exploration
from engine.testing.verification.exploration import ALONE_MAX, CHUNK, Exploration
from engine.testing.verification.schedule import Schedule
from tests.verification.settings import chart_export

MANY = [("crash", Schedule())] * (ALONE_MAX + 4 * CHUNK)


def test_a_process_that_is_ended_from_outside_is_no_violation(monkeypatch):
    found = Exploration(chart_export(1), jobs=2)
    monkeypatch.setattr(exploration, "play", lambda setting, schedule: os._exit(9))

    with pytest.raises(InvalidRequestError, match="was ended from outside"):
        list(found._in_parallel(MANY))


def test_processes_end_at_once_when_nobody_wants_their_answers_any_more(monkeypatch):
    here = os.getpid()
    found = Exploration(chart_export(1), jobs=2)
    begun = multiprocessing.get_context("fork").Event()

    def blocks(kind, schedule):
        begun.set()
        assert os.getpid() != here
        threading.Event().wait()

    children = []

    def interrupted(future, timeout=None):
        begun.wait()
        children.extend(multiprocessing.active_children())
        raise KeyboardInterrupt

    monkeypatch.setattr(found, "judged", blocks)
    monkeypatch.setattr("concurrent.futures._base.Future.result", interrupted)
    with pytest.raises(KeyboardInterrupt):
        next(found._in_parallel(MANY))

    for child in children:
        child.join(60)
    assert children
    assert not any(child.is_alive() for child in children)
