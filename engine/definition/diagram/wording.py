"""The words of a picture: guards, delays, durations and notes, short enough to stand beside a line.

In go the values of a compiled machine, out come texts on one line each. What was shortened is whole in
the tooltip. Nothing here escapes: each format does that for itself.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, TypeAlias

from engine.core.expression import Template
from engine.core.machine import Branch, State, StateKind

GUARD_LENGTH_MAX: Final = 48
NAME_LENGTH_MAX: Final = 36
LINE_LENGTH_MAX: Final = 34
ELLIPSIS: Final = "…"
ANY_ERROR: Final = "any error"
CANCEL: Final = "cancel"

Placed: TypeAlias = tuple[int, Branch]
"""A branch with its place, from 0, among those that are declared together and tried in turn."""

# Not allowed in XML, or turning the text around it: drawn as the replacement character. Listed, because
# what `str.isprintable` says depends on the Unicode tables of the Python that runs.
_UNDRAWABLE: Final = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\u200b-\u200f\u202a-\u202e\u2060-\u2069\ud800-\udfff\ufdd0-\ufdef"
    "\ufeff\ufff9-\ufffb\ufffe\uffff]"
)
_ALONE: Final = re.compile(r"\$\{([^{}]*)\}")
_TAKES_TIME: Final = (StateKind.ACTION, StateKind.MAP, StateKind.WAIT)
_UNITS: Final = (("d", 86400), ("h", 3600), ("m", 60))


def drawable(text: str) -> str:
    """The text on one line, without characters that cannot be drawn."""
    return _UNDRAWABLE.sub("\ufffd", " ".join(text.split()))


def shortened(text: str, length_max: int) -> str:
    """The drawable text, cut off with an ellipsis when it is longer than `length_max`."""
    text = drawable(text)
    return text if len(text) <= length_max else text[: length_max - 1].rstrip() + ELLIPSIS


def duration(seconds: float) -> str:
    """`250ms`, `30s`, `90s`, `5m`, `2h`, `1d`: the largest unit that needs no fraction."""
    if 0 < seconds < 1:
        return f"{seconds * 1000:g}ms"
    for unit, size in _UNITS:
        if seconds >= size and seconds % size == 0:
            return f"{int(seconds // size)}{unit}"
    return f"{seconds:.10g}s"


def delay(template: Template) -> str:
    """A delay as it was written: a duration, or the expression that gives it."""
    value = template.value
    if isinstance(value, (int, float)):
        return f"after {duration(value)}"
    return f"after {drawable(str(value))}"


def bare(template: Template) -> str:
    """A template without its `${ }` when it is one expression."""
    text = drawable(str(template.value))
    alone = _ALONE.fullmatch(text)
    return alone.group(1).strip() if alone else text


def wrapped(pieces: Iterable[str]) -> tuple[str, ...]:
    """The pieces of a label on as few lines as fit; a piece is only broken when it is too long for a line."""
    lines: list[str] = []
    for piece in pieces:
        if lines and len(lines[-1]) + 1 + len(piece) <= LINE_LENGTH_MAX:
            lines[-1] += f" {piece}"
        else:
            lines += textwrap.wrap(piece, LINE_LENGTH_MAX, break_long_words=False, break_on_hyphens=False)
    return tuple(lines)


def event_words(branch: Branch, state: State) -> str:
    """What has to happen: the outcome, the signal, the timer, the errors; nothing for a choice."""
    word, _, name = branch.event.partition(":")
    if word == "on":
        return drawable(name)
    if word == "after":
        return delay(next(timer.delay for timer in state.after if timer.event == branch.event))
    if word == "catch":
        return ", ".join(sorted(branch.errors)) if branch.errors else ""
    return CANCEL if word == CANCEL else ""


def labels(group: Sequence[Placed], state: State) -> Iterator[tuple[str, ...]]:
    """The lines beside each branch of a group.

    When the last takes all that is left, those just before it that lead to the same state make no
    difference on paper: they are labelled like it, and the tooltip keeps what sets them apart.
    """
    last = group[-1][1]
    first_alike, unbroken = len(group) - 1, last.guard is None and not last.errors
    while unbroken and first_alike > 0:
        (place_before, before), (place, _) = group[first_alike - 1], group[first_alike]
        unbroken = place_before == place - 1 and before.target == last.target and _pause(before) == _pause(last)
        first_alike -= unbroken
    for index, (place, branch) in enumerate(group):
        if index < first_alike:
            yield _label(branch, state, place)
        else:
            yield _label(last, state, group[first_alike][0])


def _label(branch: Branch, state: State, place: int) -> tuple[str, ...]:
    guard = f"[{shortened(branch.guard.text, GUARD_LENGTH_MAX)}]" if branch.guard else ""
    event = shortened(event_words(branch, state), GUARD_LENGTH_MAX)
    rest = _rest(branch, place)
    return (*wrapped(piece for piece in (event, guard, rest) if piece), *wrapped([_pause(branch)]))


def _pause(branch: Branch) -> str:
    return shortened(delay(branch.delay), GUARD_LENGTH_MAX + len("after ")) if branch.delay else ""


def _rest(branch: Branch, place: int) -> str:
    """What a transition without a condition is for: everything, or what those before it left over."""
    if branch.guard is not None or branch.errors:
        return ""
    if branch.event == "catch":
        return "any other error" if place else ANY_ERROR
    return "[else]" if place else ""


def sentence(branch: Branch, state: State, source: str) -> str:
    """The whole transition, nothing shortened."""
    lead = {"on": "on", "catch": "on error", "cancel": "on"}.get(branch.event.partition(":")[0], "")
    text = f"{source} {lead} {event_words(branch, state)} → {branch.target}"
    if branch.guard is not None:
        text += f" if {branch.guard.text}"
    if branch.delay is not None:
        text += f", {delay(branch.delay)}"
    if branch.assign:
        text += f"; assigns {', '.join(branch.assign)}"
    return drawable(text)


def notes(state: State) -> tuple[str, ...]:
    """The small lines under a state's name."""
    lines = [*_work(state)]
    if state.invoke is not None:
        attempts = max((policy.attempts for policy in state.invoke.retry), default=1)
        if attempts > 1:
            lines.append(f"up to {attempts} attempts")
    timeout_s = state.invoke.timeout_s if state.invoke is not None else state.timeout_s
    if timeout_s is not None and state.kind in _TAKES_TIME:
        lines.append(f"timeout {duration(timeout_s)}")
    if state.max_visits is not None:
        lines.append(f"≤ {state.max_visits} visit{'s' if state.max_visits != 1 else ''}")
    return tuple(lines)


def _work(state: State) -> Iterable[str]:
    if state.invoke is not None:
        yield shortened(state.invoke.action, NAME_LENGTH_MAX)
    if state.map is not None:
        yield f"map {shortened(state.map.machine, NAME_LENGTH_MAX)} ×{state.map.concurrency}"
        yield f"each of {shortened(bare(state.map.items), NAME_LENGTH_MAX)}"
        if state.map.min_success is not None:
            yield f"until {shortened(bare(state.map.min_success), NAME_LENGTH_MAX)} succeed"
    if state.kind is StateKind.WAIT:
        yield "waits"
    local = state.name.rpartition(".")[2]
    if state.kind is StateKind.FINAL and state.status.value not in local.lower():
        yield state.status.value
