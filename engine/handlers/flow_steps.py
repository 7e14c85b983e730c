"""Steps of a flow run: pick and claim one, finish it. Transactional; every patch is under `steps.<stepId>.`.

The contract is the flow system's: documents `flow_runs/{runId}` with a map of steps. A claim checks all that
decides whether a step may be worked on (the run's and the step's status, its type, its dependencies) in the
transaction that sets it RUNNING; what the step asks for is validated afterwards (`templates`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from engine.core import canonical
from engine.core.action import Decision, Outcome, Remark
from engine.core.handler import ActionRequest, Documents
from engine.core.write import DELETE, Document, FieldPath, FieldValue, Key, Update, id_problem
from engine.handlers.registry import action

FLOW_RUNS: Final = "flow_runs"
STEP_TYPE: Final = "CHART_EXPORT"
FINAL: Final = ("SUCCEEDED", "FAILED")
CODES: Final = (
    "VALIDATION_FAILED", "CHART_API_FAILED", "CHART_API_LIMIT_EXCEEDED", "CHART_API_MOCK_MISSING", "GCS_WRITE_FAILED",
    "MANIFEST_WRITE_FAILED",
)  # fmt: skip
"""The only codes that may stand in a document, a manifest or a summary."""

CONTENT_BYTES_MAX: Final = 64 * 1024
"""What a step asks for; with its answers it must fit a snapshot, and its manifest the reader of manifests."""

RUN_ID: Final = re.compile(r"[0-9]{8}-[0-9]{6}_[A-Z0-9]+(?:-[A-Z0-9]+)*_[a-z0-9]{3,6}")
"""YYYYMMDD-HHmmss_<SYMBOLSLUG>_<3 to 6 lower-case letters or digits>."""


def instant(now: datetime) -> str:
    """RFC 3339 in whole seconds, UTC: the contract's form of every time."""
    return now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _flow_run(request: ActionRequest) -> Sequence[Key]:
    run_id = request.params["run_id"]
    return [] if id_problem(run_id) else [Key.of(FLOW_RUNS, run_id)]


def _document(request: ActionRequest, documents: Documents) -> Document | None:
    return next((documents[key] for key in _flow_run(request)), None)


class _Refusal(Exception):
    """Why a step cannot be claimed; nothing is written."""

    def __init__(self, message: str, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.details = details


@action(
    "flow_steps.claim",
    kind="transactional",
    outcomes=("claimed", "already_final", "not_ready"),
    parameters=("run_id",),
    optional=("step_id",),
    documents=_flow_run,
)
def claim(request: ActionRequest, documents: Documents, now: datetime) -> Decision:
    """READY -> RUNNING for the step that is named, or else for the first one that is eligible.

    Each outcome carries `step` (null where none was found) and `error` (null when claimed): `claimed` the
    step as it stood, `already_final` how it ended, `not_ready` why it cannot be worked on.
    """
    run_id, step_id = request.params["run_id"], request.params.get("step_id")
    try:
        document = _checked_run(_document(request, documents), run_id)
        steps = _steps(document)
        step_id = _picked(steps) if step_id is None else _named(steps, step_id)
        step = steps[step_id]
        if step.get("status") in FINAL:
            return _already_final(run_id, step_id, step)
        _expect_eligible(steps, step_id)
    except _Refusal as refusal:
        return _not_ready(run_id, step_id, refusal)
    path: FieldPath = ("steps", step_id)
    fields: dict[FieldPath, FieldValue] = {(*path, "status"): "RUNNING"}
    # What an earlier attempt left behind would otherwise stand beside this one's end.
    fields |= {(*path, name): DELETE for name in ("error", "finishedAt") if name in step}
    claimed = {"run_id": run_id, "step_id": step_id, "claimed_at": instant(now), "content": _content(document, step)}
    named = {"runId": run_id, "stepId": step_id}
    remarks = (
        Remark("ready_step_selected", {**named, "flowKey": str(document.get("flowKey"))[:200]}),
        Remark("claim_attempt", {**named, "claimed": True, "status": "READY"}),
        Remark("core_start", named),
    )
    value = {"step": claimed, "error": None}
    return Decision(Outcome("claimed", value), (Update(Key.of(FLOW_RUNS, run_id), fields),), remarks)


def _content(document: Document, step: Mapping[str, Any]) -> dict[str, Any]:
    """What the step asks for, as `templates` will judge it; only `problem` when no context could hold it."""
    scope, inputs = document.get("scope"), step.get("inputs")
    found: dict[str, Any] = {"timeframe": step.get("timeframe"), "symbol": None, "inputs": inputs}
    if isinstance(scope, Mapping):
        found["symbol"] = scope.get("symbol")
    if isinstance(inputs, Mapping):
        found["inputs"] = {name: inputs[name] for name in ("minImages", "requests") if name in inputs}
    try:
        text = canonical.encode(canonical.plain(found, "the step"))
        text.encode()
    except (ValueError, RecursionError) as error:
        return {"problem": str(error)[:300] if isinstance(error, ValueError) else "the step is nested too deep"}
    if "\\u0000" in text:
        return {"problem": "the step holds a NUL character"}
    if len(text.encode()) > CONTENT_BYTES_MAX:
        return {"problem": f"the step's timeframe, symbol and inputs are larger than {CONTENT_BYTES_MAX} bytes"}
    return found


class Charts(NamedTuple):
    """The steps of a flow run that are ours, by what may be done with them; ids in the order in which they are taken.

    `blocked` says for each READY step that must wait what it waits for, as the log event does. `problem` says why no
    step of the run may be worked on at all; it is empty when some may.
    """

    eligible: tuple[str, ...] = ()
    running: tuple[str, ...] = ()
    ended: tuple[str, ...] = ()
    blocked: tuple[Mapping[str, Any], ...] = ()
    problem: str = ""


def charts_of(run_id: str, document: Document | None) -> Charts:
    """Judge a flow run as a claim would. Never raises."""
    try:
        steps = _steps(_checked_run(document, run_id))
    except _Refusal as refusal:
        return Charts(problem=refusal.message)
    charts = _charts(steps)
    ready = [step_id for step_id in charts if steps[step_id].get("status") == "READY"]
    blocked = {step_id: unmet for step_id in ready if (unmet := _unmet(steps, step_id))}
    return Charts(
        tuple(step_id for step_id in ready if step_id not in blocked),
        tuple(step_id for step_id in charts if steps[step_id].get("status") == "RUNNING"),
        tuple(step_id for step_id in charts if steps[step_id].get("status") in FINAL),
        tuple(_listed(blocked)),
    )


def _charts(steps: Mapping[str, Mapping[str, Any]]) -> list[str]:
    return sorted(
        step_id
        for step_id, step in steps.items()
        if step.get("stepType") == STEP_TYPE and "/" not in step_id and step_id not in ("", ".", "..")
    )


def _checked_run(document: Document | None, run_id: str) -> Document:
    if problem := id_problem(run_id):
        raise _Refusal(f"the run id {run_id!r} cannot be used: it {problem}")
    if not RUN_ID.fullmatch(run_id):
        raise _Refusal(f"the run id {run_id!r} is not of the form YYYYMMDD-HHmmss_SYMBOL_suffix (3 to 6 of a-z, 0-9)")
    if document is None:
        raise _Refusal(f"there is no flow run {run_id!r}")
    if document.get("runId") != run_id:
        raise _Refusal(f"the flow run {run_id!r} holds another runId, or none: {str(document.get('runId'))[:100]!r}")
    if document.get("status") in ("CANCELLED", "FAILED"):
        raise _Refusal(f"the flow run {run_id!r} is {document['status']}, so no step of it is worked on")
    return document


def _steps(document: Document) -> Mapping[str, Mapping[str, Any]]:
    steps = document.get("steps")
    if not isinstance(steps, Mapping):
        raise _Refusal("the flow run's steps are no map from step ids to steps")
    return {key: step for key, step in steps.items() if isinstance(step, Mapping)}


def _named(steps: Mapping[str, Mapping[str, Any]], step_id: str) -> str:
    if not isinstance(step_id, str):
        raise _Refusal(f"a step id must be a string, not {type(step_id).__name__}")
    if not step_id or "/" in step_id or step_id in (".", ".."):
        raise _Refusal(f"the step id {step_id!r} cannot be used: it must not be empty, hold '/', or be '.' or '..'")
    if step_id not in steps:
        raise _Refusal(f"the flow run has no step {step_id!r}", steps=sorted(steps)[:20])
    if steps[step_id].get("stepType") != STEP_TYPE:
        raise _Refusal(f"the step {step_id!r} is no {STEP_TYPE} but {steps[step_id].get('stepType')!r}")
    return step_id


def _picked(steps: Mapping[str, Mapping[str, Any]]) -> str:
    """The step to work on: the first READY one whose dependencies are met, else one that another run holds, else
    one that has ended, so that a command given twice finds what the first one did."""
    charts = _charts(steps)
    ready = [step_id for step_id in charts if steps[step_id].get("status") == "READY"]
    blocked = {step_id: unmet for step_id in ready if (unmet := _unmet(steps, step_id))}
    for step_id in ready:
        if step_id not in blocked:
            return step_id
    for step_id in charts:
        if steps[step_id].get("status") == "RUNNING":
            return step_id
    if blocked:
        raise _Refusal("every READY step waits for others", blockedSteps=_listed(blocked))
    if charts and all(steps[step_id].get("status") in FINAL for step_id in charts):
        return charts[0]
    raise _Refusal(f"the flow run has no {STEP_TYPE} step that is READY")


def _unmet(steps: Mapping[str, Mapping[str, Any]], step_id: str) -> list[dict[str, str]]:
    """Dependencies that have not SUCCEEDED; SKIPPED does not satisfy one."""
    depends_on = steps[step_id].get("dependsOn")
    unmet = []
    for name in depends_on if isinstance(depends_on, Sequence) and not isinstance(depends_on, str) else ():
        if isinstance(name, str) and name.strip():
            status = steps[name].get("status") if name in steps else "MISSING"
            if status != "SUCCEEDED":
                unmet.append({"stepId": name, "status": status if isinstance(status, str) else "UNKNOWN"})
    return unmet


def _listed(blocked: Mapping[str, list[dict[str, str]]]) -> list[dict[str, Any]]:
    return [{"stepId": step_id, "unmet": unmet} for step_id, unmet in blocked.items()]


def _expect_eligible(steps: Mapping[str, Mapping[str, Any]], step_id: str) -> None:
    status = steps[step_id].get("status")
    if status == "RUNNING":
        raise _Refusal(
            f"the step {step_id!r} is RUNNING, and no run of this store holds it; "
            "if its worker is gone, set it to READY"
        )
    if status != "READY":
        raise _Refusal(f"the step {step_id!r} is not READY but {status!r}", status=str(status))
    if unmet := _unmet(steps, step_id):
        names = ", ".join(f"{one['stepId']} ({one['status']})" for one in unmet)
        raise _Refusal(f"the step {step_id!r} waits for {names}", blockedSteps=_listed({step_id: unmet}))


def _text(value: Any) -> str | None:
    """A field that should be text, as far as it is."""
    return value[:2000] if isinstance(value, str) else None


def _already_final(run_id: str, step_id: str, step: Mapping[str, Any]) -> Decision:
    outputs, error = step.get("outputs"), step.get("error")
    ended = {
        "run_id": run_id,
        "step_id": step_id,
        "status": step["status"],
        "manifest_uri": _text(outputs.get("outputsManifestGcsUri")) if isinstance(outputs, Mapping) else None,
        "error_code": _text(error.get("code")) if isinstance(error, Mapping) else None,
    }
    remark = Remark("core_noop_already_final", {"runId": run_id, "stepId": step_id, "status": step["status"]})
    return Decision(Outcome("already_final", {"step": ended, "error": None}), (), (remark,))


def _not_ready(run_id: Any, step_id: Any, refusal: _Refusal) -> Decision:
    step = {"run_id": run_id, "step_id": step_id} if isinstance(step_id, str) else None
    error: dict[str, Any] = {"code": "VALIDATION_FAILED", "message": refusal.message}
    if refusal.details:
        error["details"] = refusal.details
    blocked = "blockedSteps" in refusal.details
    fields = {"runId": run_id, "stepId": step_id, "reason": refusal.message, **refusal.details}
    remark = Remark("depends_on_blocked" if blocked else "claim_attempt", {"claimed": False, **fields}, "WARNING")
    return Decision(Outcome("not_ready", {"step": step, "error": error}), (), (remark,))


# Finishing


@action(
    "flow_steps.succeed",
    kind="transactional",
    outcomes=("done", "already_final", "not_running"),
    parameters=("run_id", "step_id", "manifest_uri"),
    optional=("report",),
    documents=_flow_run,
)
def succeed(request: ActionRequest, documents: Documents, now: datetime) -> Decision:
    """RUNNING -> SUCCEEDED with the manifest's address; other outputs of the step stay."""
    params = request.params
    return _finish(request, documents, now, "SUCCEEDED", {("outputs", "outputsManifestGcsUri"): params["manifest_uri"]})


@action(
    "flow_steps.fail",
    kind="transactional",
    outcomes=("done", "already_final", "not_running"),
    parameters=("run_id", "step_id", "error"),
    optional=("manifest_uri", "report"),
    documents=_flow_run,
)
def fail(request: ActionRequest, documents: Documents, now: datetime) -> Decision:
    """RUNNING -> FAILED with the error, and with the manifest's address when one was written."""
    params = request.params
    fields: dict[FieldPath, FieldValue] = {("error",): contract_error(params["error"], "VALIDATION_FAILED")}
    if params.get("manifest_uri"):
        fields[("outputs", "outputsManifestGcsUri")] = params["manifest_uri"]
    return _finish(request, documents, now, "FAILED", fields)


def contract_error(error: Any, code: str) -> dict[str, Any]:
    """`{code, message[, details]}` with one of `CODES`; `code` stands for any that is not of the contract."""
    given: Mapping[str, Any] = error if isinstance(error, Mapping) else {}
    message = given.get("message")
    text = message if isinstance(message, str) and message else "The reason was not recorded"
    found: dict[str, Any] = {"code": given.get("code") if given.get("code") in CODES else code, "message": text}
    if isinstance(given.get("details"), Mapping):
        found["details"] = given["details"]
    return found


def _finish(
    request: ActionRequest, documents: Documents, now: datetime, status: str, fields: Mapping[FieldPath, FieldValue]
) -> Decision:
    run_id, step_id = request.params["run_id"], request.params["step_id"]
    document = _document(request, documents)
    steps = document.get("steps") if document is not None else None
    step = steps.get(step_id) if isinstance(steps, Mapping) else None
    found = step.get("status") if isinstance(step, Mapping) else None
    if found in FINAL:
        return Decision(Outcome("already_final", {"status": found}))
    if found != "RUNNING" or not isinstance(step, Mapping):
        remark = Remark(
            "finalize_failed", {"runId": run_id, "stepId": step_id, "error": f"status is {found!r}"}, "ERROR"
        )
        return Decision(Outcome("not_running", {"status": found}), (), (remark,))
    path: FieldPath = ("steps", step_id)
    patch: dict[FieldPath, FieldValue] = {(*path, "status"): status, (*path, "finishedAt"): instant(now)}
    patch |= {(*path, *segments): value for segments, value in fields.items()}
    if status == "SUCCEEDED" and "error" in step:
        patch[(*path, "error")] = DELETE
    report = request.params.get("report") or {}
    remark = Remark("step_completed", {"runId": run_id, "stepId": step_id, "status": status, **report})
    return Decision(Outcome("done", {"status": status}), (Update(Key.of(FLOW_RUNS, run_id), patch),), (remark,))
