"""What one event asks for: work on every step of its flow run that may be worked on, and go on with what was abandoned.

In: an open engine and a flow run's id. The document is read, and read again after each step, since steps become READY
meanwhile. Out: log events, by the contract's names. It decides which runs to start or resume; what these do is the
machine's. Raises `StoreError` when the store is away: the event should come again.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Final

from engine.core.write import Document, Key
from engine.entry.application import Engine, RunResult
from engine.entry.logs import telling
from engine.entry.resident import Opened
from engine.errors import DetentError, DocumentUnreadableError, InvalidKeyError, InvalidRequestError, SecretLeakError
from engine.handlers.flow_steps import FLOW_RUNS, Charts, charts_of
from engine.runs import Head

REFUSALS: Final = (InvalidKeyError, InvalidRequestError, SecretLeakError, DocumentUnreadableError)
"""What is wrong with one step alone: the others of its flow run are worked on all the same."""


class EventWork:
    """See the module. One for each event; `app` is bounded by the event's budget."""

    def __init__(self, opened: Opened, app: Engine, run_id: str) -> None:
        self._opened = opened
        self._app = app
        self._run_id = run_id
        self._log = logging.getLogger(opened.config.service)
        self._tried: set[str] = set()

    async def do(self) -> None:
        """Everything; see the module."""
        document = await self._read()
        if document is None:
            self._say("cloud_event_ignored", reason="flow_run_not_found")
            return
        if not isinstance(document.get("steps"), Mapping):
            self._say("cloud_event_ignored", reason="invalid_steps")
            return
        with telling(runId=self._run_id, flowKey=str(document.get("flowKey"))[:200]):
            self._say("cloud_event_parsed")
            charts = charts_of(self._run_id, document)
            if charts.problem:
                self._say("cloud_event_ignored", reason="flow_run_refused", problem=charts.problem)
                return
            has_begun = await self._begin_eligible(charts)
            has_resumed = await self._resume_abandoned(charts, document)
            if not has_begun and not has_resumed:
                self._say_idle(charts)

    async def _read(self) -> Document | None:
        try:
            key = Key.of(FLOW_RUNS, self._run_id)
        except InvalidKeyError:
            return None
        return (await self._app.store.get_many([key]))[key]

    async def _begin_eligible(self, charts: Charts) -> bool:
        """Work on one eligible step after another; answers whether there was any."""
        while (step_id := next((one for one in charts.eligible if one not in self._tried), None)) is not None:
            if self._tried and self._app.time_left_s < self._opened.longest_s:
                # The write that ended the last step is an event of its own, and its function has a whole budget.
                self._say("cloud_event_left", reason="budget", steps=list(charts.eligible))
                break
            self._tried.add(step_id)
            value = {"run_id": self._run_id, "step_id": step_id}
            self._opened.under_way.add((self._run_id, step_id))
            try:
                self._say_result(step_id, await self._app.run(self._opened.machine, value))
            except REFUSALS as error:
                self._say_refused(step_id, error)
            finally:
                self._opened.under_way.discard((self._run_id, step_id))
            charts = charts_of(self._run_id, await self._read())
        return bool(self._tried)

    async def _resume_abandoned(self, charts: Charts, document: Document) -> bool:
        """Go on with steps whose worker is gone; answers whether there was any."""
        has_resumed = False
        for step_id in charts.running:
            if (self._run_id, step_id) in self._opened.under_way:
                continue
            try:
                head = await self._abandoned(step_id, document)
                if head is not None and self._app.time_left_s > 0:
                    has_resumed = True
                    self._say_result(step_id, await self._app.resume(head.run_id))
            except REFUSALS as error:  # RUNNING, and never by a run of ours, or by one that cannot be gone on with
                self._say_refused(step_id, error)
        return has_resumed

    async def _abandoned(self, step_id: str, document: Document) -> Head | None:
        """The unfinished run of a step, if it is due or its lease is over, or that of an item of its maps is."""
        value = {"run_id": self._run_id, "step_id": step_id}
        known = {Key.of(FLOW_RUNS, self._run_id): document}
        head = await self._app.standing(self._opened.machine, value, known)
        if head is None:
            return None
        now_ms = self._app.clock.now_ms()
        if head.claimable_at_ms is not None and head.claimable_at_ms <= now_ms:
            return head
        if head.worker is None and await self._app.runs.claimable_of(head.root, now_ms, 1):
            return head
        return None

    # Telling

    def _say(self, event: str, **fields: Any) -> None:
        self._log.info(event, extra={"fields": fields})

    def _say_refused(self, step_id: str, error: DetentError) -> None:
        self._log.warning("start_refused", extra={"fields": {"stepId": step_id, "error": error.message}})

    def _say_idle(self, charts: Charts) -> None:
        if charts.blocked:
            self._say("depends_on_blocked", blockedSteps=list(charts.blocked))
        else:
            self._say("cloud_event_noop", reason="no_ready_step", runningSteps=list(charts.running))

    def _say_result(self, step_id: str, result: RunResult) -> None:
        if result.held_by is not None:
            self._say("cloud_event_noop", reason="step_held", stepId=step_id, heldBy=result.held_by)
            return
        if not result.was_recorded:
            status = result.output.get("status") if isinstance(result.output, Mapping) else None
            self._say("cloud_event_noop", reason="step_taken", stepId=step_id, status=status)
            return
        output = result.output if result.is_final and isinstance(result.output, Mapping) else {}
        names = ("outputsManifestGcsUri", "itemsCount", "failuresCount", "errorCode")
        fields = {"stepId": step_id, "status": output.get("status", "RUNNING")}
        fields |= {name: output.get(name) for name in names}
        if not result.is_final:  # it waits, or the budget is over: `sweep` or a later event goes on with it
            fields |= {"state": result.state, "waitsUntilMs": result.waits_until_ms}
        self._say("cloud_event_finished", **fields, durationMs=round(result.duration_s * 1000))
