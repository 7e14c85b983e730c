"""Chart requests: validate what a claimed step asks for, and build one request body for each template.

Everything that can be known to be wrong is found here, before a unit is reserved or a call made. A mistake in
the step fails the step; a mistake in one template fails that request, and the others go on.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from engine.artifacts.port import Artifacts
from engine.core import canonical
from engine.core.action import Failure, Outcome
from engine.core.handler import ActionRequest
from engine.core.write import Document, Key, id_problem
from engine.errors import ArtifactError
from engine.handlers.registry import action
from engine.store.port import Store

TEMPLATES: Final = "chart_templates"

INTERVALS: Final = frozenset("1m 3m 5m 15m 30m 45m 1h 2h 3h 4h 6h 8h 12h 1D 2D 3D 1W 1M 3M 6M 1Y".split())
"""Chart-IMG's spelling of every interval; a timeframe `1d` or `1w` is mapped to it, `1m` and `1M` differ."""


@dataclass(frozen=True, slots=True)
class ChartDefaults:
    """What the configuration says of every chart: `timezone` is an IANA name, always sent."""

    timezone: str = "Etc/UTC"


REQUEST_BYTES_MAX: Final = 16 * 1024
DESCRIPTION_CHARS_MAX: Final = 1000
"""A template's body and texts: they are kept in the context of the run for each of its requests."""


class _Invalid(Exception):
    """A mistake in the step (`per_request` false) or in one template."""

    def __init__(self, message: str, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.details = details


@action(
    "templates.build_requests",
    kind="repeatable",
    outcomes=("built",),
    errors=("VALIDATION_FAILED",),
    parameters=("step", "picture_object", "manifest_object"),
)
async def build_requests(request: ActionRequest) -> Outcome | Failure:
    """Answers `{symbol, timeframe, min_images, requested, requests, failures, manifest_object, generated_at}`.

    `requests` are what can be asked for, in order: `{template_id, kind, symbol, timeframe, payload, object}`;
    `failures` are those that cannot, in the manifest's form. Fails with VALIDATION_FAILED for the whole step.
    """
    step = request.params["step"]
    try:
        plan = _plan(step)
        names = {
            "runId": step["run_id"],
            "stepId": step["step_id"],
            "timeframe": plan["timeframe"],
            "symbolSlug": plan["symbol"],
            "generatedAt": compact(step["claimed_at"]),
        }
        artifacts = request.service(Artifacts)  # type: ignore[type-abstract]  # a port is asked for by its protocol
        plan["generated_at"] = step["claimed_at"]  # the pictures' names hold it, whenever they are published
        plan["manifest_object"] = _object(artifacts, request.params["manifest_object"], names)
    except _Invalid as invalid:
        return Failure("VALIDATION_FAILED", invalid.message, invalid.details or None)
    templates = await _templates(request, plan["requested"])
    timezone = request.service(ChartDefaults).timezone
    for entry in plan["requested"]:
        template_id = entry["chartTemplateId"]
        try:
            body = _body(templates.get(template_id), template_id, plan, timezone)
            named = {**names, "chartTemplateId": template_id}
            body["object"] = _object(artifacts, request.params["picture_object"], named)
            plan["requests"].append(body)
        except _Invalid as invalid:
            details = {"chartTemplateId": template_id, **invalid.details}
            error = {"code": "VALIDATION_FAILED", "message": invalid.message, "details": details}
            plan["failures"].append({"request": {"chartTemplateId": template_id}, "error": error})
    return Outcome("built", plan)


def compact(at: str) -> str:
    """`2026-01-05T08:00:00Z` as file names have it: `20260105-080000`."""
    return at.replace("-", "").replace(":", "").replace("T", "-").removesuffix("Z")


# The step


def _plan(step: Mapping[str, Any]) -> dict[str, Any]:
    """The validated inputs of a step, in the order of the contract's checks."""
    content = step["content"]
    if "problem" in content:
        raise _Invalid(content["problem"])
    inputs = content["inputs"]
    if not isinstance(inputs, Mapping):
        raise _Invalid("inputs must be an object")
    min_images = _min_images(inputs)
    requests = _expected_requests(inputs.get("requests"))
    return {
        "symbol": _symbol(content["symbol"]),
        "timeframe": _timeframe(content["timeframe"]),
        "min_images": min_images,
        "requested": requests,
        "requests": [],
        "failures": [],
    }


def _min_images(inputs: Mapping[str, Any]) -> int:
    requests = inputs.get("requests")
    if not isinstance(requests, list):
        raise _Invalid("requests must be a list of objects with a chartTemplateId")
    count = len(requests)
    value = inputs["minImages"] if "minImages" in inputs else max(count, 1)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise _Invalid("minImages must be a positive integer")
    if "minImages" in inputs and value > count:
        raise _Invalid("minImages cannot exceed number of requests", minImages=value, requestsCount=count)
    return value


def _expected_requests(requests: Any) -> list[Mapping[str, Any]]:
    if not requests:
        raise _Invalid("requests must not be empty")
    ids = []
    for index, entry in enumerate(requests):
        if not isinstance(entry, Mapping):
            raise _Invalid("requests must be a list of objects with a chartTemplateId", index=index)
        template_id = entry.get("chartTemplateId")
        if not isinstance(template_id, str) or not template_id.strip():
            raise _Invalid("chartTemplateId is required", index=index)
        if unknown := sorted(set(entry) - {"chartTemplateId"}):
            raise _Invalid("a request holds chartTemplateId and nothing else", index=index, unknown=unknown)
        ids.append(template_id)
    if doubled := sorted({template_id for template_id in ids if ids.count(template_id) > 1}):
        raise _Invalid("Duplicate chartTemplateId values in requests", chartTemplateIds=doubled)
    found: list[Mapping[str, Any]] = requests
    return found


def _symbol(symbol: Any) -> str:
    if not isinstance(symbol, str) or not symbol or "/" in symbol or any(char.isspace() for char in symbol):
        raise _Invalid("scope.symbol must be a non-empty base symbol without '/'")
    return symbol


def _timeframe(timeframe: Any) -> str:
    if not isinstance(timeframe, str) or not timeframe.strip():
        raise _Invalid("timeframe is required")
    if interval(timeframe) not in INTERVALS:
        raise _Invalid(f"timeframe {timeframe[:20]!r} is no interval that Chart-IMG has", intervals=sorted(INTERVALS))
    return timeframe


def interval(timeframe: str) -> str:
    """The API's spelling of a timeframe: days, weeks and years are upper-case there (`1d` -> `1D`)."""
    return timeframe[:-1] + timeframe[-1].upper() if timeframe[-1:] in ("d", "w", "y") else timeframe


# Templates


async def _templates(request: ActionRequest, requested: list[Mapping[str, Any]]) -> dict[str, Document | None]:
    keys = {
        entry["chartTemplateId"]: Key.of(TEMPLATES, entry["chartTemplateId"])
        for entry in requested
        if not id_problem(entry["chartTemplateId"])
    }
    store = request.service(Store)  # type: ignore[type-abstract]  # a port is asked for by its protocol
    found = await store.get_many(list(keys.values()))
    return {template_id: found[key] for template_id, key in keys.items()}


def _body(template: Document | None, template_id: str, plan: Mapping[str, Any], timezone: str) -> dict[str, Any]:
    if problem := id_problem(template_id):
        raise _Invalid(f"chartTemplateId cannot be used: it {problem}")
    if template is None:
        raise _Invalid("Chart template not found")
    description = template.get("description")
    if not isinstance(description, str) or not description.strip():
        raise _Invalid("description must be a non-empty string")
    symbol = template.get("chartImgSymbolTemplate")
    if not isinstance(symbol, str) or not symbol.strip():
        raise _Invalid("chartImgSymbolTemplate is required")
    if "{symbol}" not in symbol:
        raise _Invalid("chartImgSymbolTemplate must include {symbol}")
    fragment = template.get("request")
    if not isinstance(fragment, Mapping):
        raise _Invalid("Template request must be an object")
    if fragment.get("format", "png") != "png":
        raise _Invalid("Template request must ask for png: pictures are published as .png")
    try:
        canonical.plain(fragment, "Template request")
        size = len(canonical.encode(fragment).encode())
    except (ValueError, RecursionError) as error:
        raise _Invalid(f"Template request cannot be sent: {str(error)[:200]}") from None
    if size > REQUEST_BYTES_MAX or len(description) > DESCRIPTION_CHARS_MAX or len(symbol) > DESCRIPTION_CHARS_MAX:
        raise _Invalid(
            f"The template is larger than {REQUEST_BYTES_MAX} bytes, or its texts than {DESCRIPTION_CHARS_MAX}"
        )
    chart_symbol = symbol.replace("{symbol}", plan["symbol"])
    payload = copy.deepcopy(dict(fragment))
    payload |= {"symbol": chart_symbol, "interval": interval(plan["timeframe"]), "timezone": timezone}
    return {
        "template_id": template_id,
        "kind": description,
        "symbol": chart_symbol,
        "timeframe": plan["timeframe"],
        "payload": payload,
    }


def _object(artifacts: Artifacts, pattern: str, names: Mapping[str, str]) -> str:
    """An object's name from its pattern, known to be one that the artifact store can hold."""
    name = pattern
    for placeholder, value in names.items():
        if "/" in value and "{" + placeholder + "}" in pattern:
            raise _Invalid(f"{placeholder} must not contain '/'")
        name = name.replace("{" + placeholder + "}", value)
    try:
        artifacts.uri(name)
    except ArtifactError as error:
        raise _Invalid(f"the object's name cannot be used: {error.message}") from error
    return name
