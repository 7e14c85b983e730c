"""The state of one simulated service: accounts, their allowances, the calls seen, the faults to come.

In: keys, request bodies and the results of calls. Out: verdicts, frozen call records and counters.
It may be read and scripted from any thread while the server runs: one lock guards everything.
What counts: every call with a valid key spends a token of the rate; a unit of the daily quota is spent by a
picture only, unless `count_failures` is set. It never keeps an API key in a record, only its fingerprint.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, TypedDict

from engine.testing.chart_img.allowance import Allowance
from engine.testing.chart_img.faults import Answer, Match, Script, key_fingerprint
from engine.testing.chart_img.plans import BASIC, Plan

CALLS_MAX = 100_000
"""Calls remembered; the oldest are forgotten beyond it."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call of the chart endpoint, as the simulator saw it."""

    number: int
    """Order of arrival, from 1."""
    time: float
    key_fingerprint: str | None
    plan: str | None
    symbol: str | None
    interval: str | None
    body: Any
    in_flight: int
    """How many calls were being answered when this one arrived, itself included."""
    status: int | None = None
    """Nothing while the call is being answered, or when it ended without an answer."""
    answer: str | None = None
    """`picture`, `refused`, or the kind of the fault."""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


class Options(TypedDict, total=False):
    """The keyword options of a `Simulator`, for the functions that pass them on."""

    clock: Callable[[], float]
    any_key: bool
    default_plan: Plan
    count_failures: bool


class Simulator:
    """One simulated Chart-IMG. `accounts` maps API keys to plans; `any_key` lets every other key in as well."""

    def __init__(
        self,
        accounts: Mapping[str, Plan] | None = None,
        *,
        clock: Callable[[], float] = time.time,
        any_key: bool = False,
        default_plan: Plan = BASIC,
        count_failures: bool = False,
    ) -> None:
        self.clock = clock
        self.count_failures = count_failures
        self._accounts = dict(accounts or {})
        self._any_key, self._default_plan = any_key, default_plan
        self._changed = threading.Condition()
        self._clear()

    def _clear(self) -> None:
        self._calls: dict[int, Call] = {}
        self._scripts: list[Script] = []
        self._allowances: dict[str, Allowance] = {}
        self._counts: Counter[str] = Counter()
        self._arrived, self._in_flight = 0, 0

    def reset(self) -> None:
        """Forget calls, scripts and what the accounts have used; calls in flight end unrecorded."""
        with self._changed:
            self._clear()
            self._changed.notify_all()

    @property
    def calls(self) -> tuple[Call, ...]:
        """All calls in the order of arrival, also those still being answered."""
        with self._changed:
            return tuple(self._calls.values())

    @property
    def counters(self) -> Mapping[str, int]:
        """`calls`, `pictures`, `in_flight`, `in_flight_max` and `status_<code>`."""
        with self._changed:
            return {"calls": self._arrived, "in_flight": self._in_flight, **self._counts}

    def used_today(self, key: str) -> int:
        """Units of the daily quota this account has spent."""
        with self._changed:
            allowance = self._allowances.get(key)
            return allowance.used_today if allowance else 0

    def script(self, match: Match, answers: Sequence[Answer], *, repeat: bool = False) -> None:
        """Answer the matching calls so, one answer a call; an earlier script wins over a later one."""
        if not answers:
            raise ValueError("a script needs at least one answer")
        self.add_script(Script(match, tuple(answers), repeat))

    def add_script(self, script: Script) -> None:
        with self._changed:
            self._scripts.append(script)

    def wait_for_calls(self, count: int, *, timeout_s: float = 10.0) -> bool:
        """Block until so many calls have arrived; for tests that act while a call is being answered."""
        with self._changed:
            return self._changed.wait_for(lambda: self._arrived >= count, timeout_s)

    def plan_of(self, key: str | None) -> Plan | None:
        """The plan of a key, or nothing when the key is not let in."""
        if not key:
            return None
        return self._accounts.get(key) or (self._default_plan if self._any_key else None)

    def scripted_answer(self, key: str, symbol: str, interval: str) -> Answer | None:
        """The answer scripted for this call; every script that covers the call counts it."""
        fingerprint = key_fingerprint(key)
        with self._changed:
            answers = [script.next_answer(symbol, interval, fingerprint) for script in self._scripts]
        return next((answer for answer in answers if answer is not None), None)

    def take_token(self, key: str) -> bool:
        with self._changed:
            return self._allowance(key).take_token(self.clock())

    def reserve_unit(self, key: str) -> float | None:
        """Reserve a unit of the daily quota: the instant of the reservation, or nothing when it is spent."""
        with self._changed:
            now = self.clock()
            return now if self._allowance(key).reserve(now) else None

    def give_back_unit(self, key: str, reserved_at: float) -> None:
        with self._changed:
            self._allowance(key).give_back(reserved_at)

    def _allowance(self, key: str) -> Allowance:
        if key not in self._allowances:
            self._allowances[key] = Allowance(self.plan_of(key) or self._default_plan, self.clock())
        return self._allowances[key]

    def call_arrived(self, key: str | None, body: Any) -> Call:
        named = body if isinstance(body, dict) else {}
        symbol, interval = named.get("symbol"), named.get("interval")
        plan = self.plan_of(key)
        with self._changed:
            self._arrived += 1
            self._in_flight += 1
            self._counts["in_flight_max"] = max(self._counts["in_flight_max"], self._in_flight)
            call = Call(
                self._arrived, self.clock(), key_fingerprint(key) if key else None, plan.name if plan else None,
                symbol if isinstance(symbol, str) else None, interval if isinstance(interval, str) else None,
                body, self._in_flight,
            )  # fmt: skip
            self._calls[call.number] = call
            if len(self._calls) > CALLS_MAX:
                del self._calls[next(iter(self._calls))]
            self._changed.notify_all()
        return call

    def call_ended(self, call: Call, status: int | None, answer: str) -> None:
        with self._changed:
            # After a reset the numbers start again: a call from before must not overwrite a new one.
            if self._calls.get(call.number) is not call:
                return
            self._in_flight -= 1
            self._calls[call.number] = replace(call, status=status, answer=answer)
            self._counts["pictures"] += answer == "picture"
            self._counts[f"status_{status}" if status else "unanswered"] += 1
            self._changed.notify_all()
