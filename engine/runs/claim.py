"""What the verbs of `Runs` take and answer: the right of a worker to a run, a step of it, what came of a verb."""

from collections.abc import Sequence
from typing import NamedTuple

from engine.core.action import Remark
from engine.core.effect import Effect
from engine.core.event import Event
from engine.core.machine import Branch, Machine
from engine.core.write import Write
from engine.runs.records import Head


class Claim(NamedTuple):
    """The right of this worker to a run: its head as this worker last committed it, and what it asks for."""

    head: Head
    machine: Machine
    effect: Effect


class Committed(NamedTuple):
    """What a commit did.

    `claim` is what this worker goes on with: the run itself, the next item of its lane, or nothing.
    `woken` are runs that this commit made claimable, each with its instant; `taken` the transitions.
    """

    head: Head
    claim: Claim | None
    woken: tuple[tuple[str, int], ...] = ()
    taken: tuple[Branch, ...] = ()
    event: Event | None = None
    remarks: tuple[Remark, ...] = ()


class Held(NamedTuple):
    """A claim was not possible: the run's head says who holds it and until when, or that it waits or has ended.

    `declined`: the run could be claimed, but this worker would not begin what it asks for.
    """

    head: Head
    declined: bool = False


class Answer(NamedTuple):
    """An event, with what is written and said together with it."""

    event: Event
    writes: Sequence[Write] = ()
    remarks: tuple[Remark, ...] = ()
