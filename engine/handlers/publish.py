"""Publication: give the stored pictures their names, and write the manifest that lists them. Repeatable.

Both are safe to perform again: a picture is created once under a name that holds the claim's instant, and the
manifest is computed from committed context alone and replaces only the generation that was read before.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any, Final

from engine.artifacts.port import ABSENT, Artifacts
from engine.core import canonical
from engine.core.action import Failure, Outcome
from engine.core.handler import ActionRequest
from engine.errors import ArtifactError, ArtifactUnavailableError
from engine.handlers.flow_steps import contract_error
from engine.handlers.registry import action

SCHEMA: Final = "charts_outputs_manifest.schema.json"
CONSUMER_BYTES_MAX: Final = 64 * 1024
"""What the report worker reads of a manifest; a larger one is written, and warned of."""


@action(
    "publish.pictures",
    kind="repeatable",
    outcomes=("published",),
    errors=("MANIFEST_WRITE_FAILED",),
    parameters=("charts", "requests", "generated_at", "manifest_object"),
)
async def pictures(request: ActionRequest) -> Outcome | Failure:
    """Answers `{items, failures, manifest_generation}`.

    `charts` are the map's items in the order of `requests`. Each request ends in exactly one of `items` and
    `failures`: those that have no picture first, then those whose picture could not be published.
    """
    artifacts = request.service(Artifacts)  # type: ignore[type-abstract]  # a port is asked for by its protocol
    by_key = {chart["key"]: chart for chart in request.params["charts"]}
    items: list[dict[str, Any]] = []
    not_captured, not_published = [], []
    for wanted in request.params["requests"]:
        chart = by_key[wanted["template_id"]]
        if chart["status"] != "succeeded":
            not_captured.append(_failure(wanted, _capture_error(chart)))
            continue
        picture = chart["output"]["picture"]
        try:
            await artifacts.publish(picture["sha256"], wanted["object"], content_type=picture["content_type"])
        except ArtifactError as error:
            not_published.append(_failure(wanted, _publish_error(wanted["object"], error)))
            continue
        items.append(
            {
                "chartTemplateId": wanted["template_id"],
                "kind": wanted["kind"],
                "generatedAt": request.params["generated_at"],
                "png_gcs_uri": artifacts.uri(wanted["object"]),
            }
        )
    try:
        found = await artifacts.stat(request.params["manifest_object"])
    except ArtifactError as error:
        return _manifest_failure(request.params["manifest_object"], error)
    generation = ABSENT if found is None else found.generation
    failures = not_captured + not_published
    return Outcome("published", {"items": items, "failures": failures, "manifest_generation": generation})


def _failure(wanted: Mapping[str, Any], error: Mapping[str, Any]) -> dict[str, Any]:
    return {"request": {"chartTemplateId": wanted["template_id"]}, "error": error}


def _capture_error(chart: Mapping[str, Any]) -> dict[str, Any]:
    output = chart["output"]
    error = output.get("error") if isinstance(output, Mapping) else None
    return contract_error(error or chart["error"], "CHART_API_FAILED")


def _publish_error(name: str, error: ArtifactError) -> dict[str, Any]:
    details = {"objectPath": name, "error": type(error).__name__}
    return {
        "code": "GCS_WRITE_FAILED",
        "message": f"The picture could not be stored: {error.message}",
        "details": details,
    }


@action(
    "publish.manifest",
    kind="repeatable",
    outcomes=("written",),
    errors=("VALIDATION_FAILED", "MANIFEST_WRITE_FAILED"),
    parameters=("object", "generation", "step", "plan", "items", "failures"),
)
async def manifest(request: ActionRequest) -> Outcome | Failure:
    """Write the manifest; answers `{uri}`."""
    params = request.params
    document = build_manifest(params["step"], params["plan"], params["items"], params["failures"])
    if (problem := _schema_problem(document)) is not None:
        return problem
    content = json.dumps(document, ensure_ascii=False, indent=2).encode() + b"\n"
    artifacts = request.service(Artifacts)  # type: ignore[type-abstract]  # a port is asked for by its protocol
    name = params["object"]
    try:
        await artifacts.write(name, content, content_type="application/json", expected=params["generation"])
    except ArtifactError as error:
        return _manifest_failure(name, error)
    uri = artifacts.uri(name)
    counts: dict[str, Any] = {"itemsCount": len(params["items"]), "failuresCount": len(params["failures"])}
    request.log("manifest_written", outputsManifestGcsUri=uri, bytes=len(content), **counts)
    if len(content) > CONSUMER_BYTES_MAX:
        request.log("manifest_large", severity="WARNING", bytes=len(content), limit=CONSUMER_BYTES_MAX)
    return Outcome("written", {"uri": uri})


def build_manifest(
    step: Mapping[str, Any], plan: Mapping[str, Any], items: list[Any], failures: list[Any]
) -> dict[str, Any]:
    """The manifest as a value: `ChartsOutputsManifest` of the contract.

    Its bytes depend on the committed values alone: a context that was read back from the store has the same ones in
    another order than the one that was in memory, and the manifest written again must be the same object.
    """
    document = {
        "schemaVersion": 1,
        "runId": step["run_id"],
        "stepId": step["step_id"],
        "createdAt": step["claimed_at"],
        "symbol": plan["symbol"],
        "timeframe": plan["timeframe"],
        "minImages": plan["min_images"],
        "requested": plan["requested"],
        "items": items,
    }
    if failures:
        document["failures"] = failures
    return {name: canonical.decode(canonical.encode(value)) for name, value in document.items()}


def _schema_problem(document: Mapping[str, Any]) -> Failure | None:
    error = next(iter(_validator().iter_errors(document)), None)
    if error is None:
        return None
    return Failure("VALIDATION_FAILED", error.message[:500], {"path": [str(part) for part in error.instance_path]})


@cache
def _validator() -> Any:
    from jsonschema_rs import Draft202012Validator

    schema = json.loads(resources.files("engine.handlers").joinpath(SCHEMA).read_text(encoding="utf-8"))
    return Draft202012Validator(schema, validate_formats=True)


def _manifest_failure(name: str, error: ArtifactError) -> Failure:
    details = {"objectPath": name, "error": type(error).__name__}
    message = f"The manifest could not be written: {error.message}"
    retriable = isinstance(error, ArtifactUnavailableError)
    return Failure("MANIFEST_WRITE_FAILED", message, details, retriable=retriable)
