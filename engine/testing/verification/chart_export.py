"""The world of `chart_export`: a scripted Chart-IMG behind the real client, made-up accounts, and what may differ.

The script depends on the place of a template in the step and on how often it was asked for: answers that are slow (so
that leases are renewed), refusals of both kinds of 429, a 503, a time-out, and whole small pictures. It asks for the
documents of a real flow run: `--load` gives flow run and templates.
"""

from __future__ import annotations

import copy
import fnmatch
import json
import struct
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from engine.core.secret import Secrets
from engine.core.write import Key, Update, Write
from engine.errors import InvalidRequestError
from engine.handlers.accounts import Account, AccountPools
from engine.handlers.chart_img import ChartImg, ChartImgSettings
from engine.handlers.flow_steps import FLOW_RUNS, STEP_TYPE
from engine.handlers.ledger import Ledger
from engine.handlers.templates import ChartDefaults
from engine.runs.records import RUNS
from engine.testing.verification.ending import Ending
from engine.testing.verification.trace import ENDED
from engine.testing.verification.world import Difference, Problem, World

if TYPE_CHECKING:
    import httpx

    from engine.core.machine import Machine
    from engine.testing.verification.process import Process

POOL: Final = "chart_img"
TEMPLATES: Final = "chart_templates"
ATTEMPTS_MAX: Final = 3
"""Calls for one chart: `max_visits` of CAPTURING in machines/chart_request.yaml."""

SCRIPT: Final[tuple[tuple[str, ...], ...]] = (
    ("slow",),
    ("no units left",),
    ("unavailable",),
    ("silent",),
    ("too fast",),
)
"""What the first calls for the template at each place meet, before it gets its picture."""

SLOW_S: Final = 25.0
SILENT_S: Final = 40.0


class ChartExportWorld(World):
    """See the module."""

    differences = (
        Difference(f"documents/{POOL}_accounts_usage/*", "", "judged by the ledger's rules"),
        Difference(f"documents/{POOL}_accounts_rate/*", "", "the next free instant of an account is an instant"),
        Difference("outputs/*chart_request*", "output.attempts", "a crash costs attempts"),
        Difference("outputs/*", "error.details", "a failure's details name the account that was asked"),
    )  # fmt: skip

    def prepare(self, machine: Machine, documents: dict[Key, Any], inputs: Sequence[Any], items: int | None) -> None:
        """Leave the steps that the inputs name, or the one that would be picked, asking for `items` charts."""
        by_run: dict[str, set[str | None]] = {}
        for given in inputs:
            if "run_id" not in given:
                raise InvalidRequestError(
                    f"{machine.name} cannot take this input: it names no flow run.",
                    remedy="""Give one, as in --input '{"run_id": "…"}'.""",
                )
            by_run.setdefault(str(given.get("run_id")), set()).add(given.get("step_id"))
        for run_id, named in by_run.items():
            flow_run = documents.get(Key(FLOW_RUNS, run_id))
            if flow_run is None:
                raise InvalidRequestError(
                    f"there is no flow run {run_id!r} among the documents.", remedy="Give its folder with --load."
                )
            steps = flow_run["steps"]
            charts = sorted(name for name, step in steps.items() if step.get("stepType") == STEP_TYPE)
            ready = [name for name in charts if steps[name].get("status") == "READY"]
            kept = {name for name in named if name} | (set(ready[:1]) if None in named else set())
            # A start without a step takes the next one that is READY: with one left, given twice it means the same.
            for name in charts:
                if name not in kept:
                    del steps[name]
            if items is not None:
                for name in kept & steps.keys():
                    self._ask_for(documents, steps[name], items)

    def _ask_for(self, documents: dict[Key, Any], step: dict[str, Any], items: int) -> None:
        requests = step["inputs"]["requests"]
        known = [copy.deepcopy(document) for key, document in documents.items() if key.collection == TEMPLATES]
        for number in range(len(requests), items):
            made_up = {**known[number % len(known)], "id": f"made_up_{number + 1}"}
            documents[Key(TEMPLATES, made_up["id"])] = made_up
            requests.append({"chartTemplateId": made_up["id"]})
        del requests[items:]
        step["inputs"]["minImages"] = min(step["inputs"].get("minImages", 1), items)

    def inputs(self, given: Sequence[Any], documents: Mapping[Key, Any]) -> Sequence[Any]:
        """The same work named in both ways: without and with the step's id."""
        found = list(given)
        for one in given:
            steps = documents[Key(FLOW_RUNS, one["run_id"])]["steps"]
            charts = [name for name, step in steps.items() if step.get("stepType") == STEP_TYPE]
            if one.get("step_id") is None and len(charts) == 1:
                found.append({**one, "step_id": charts[0]})
        return found

    def begin(self) -> Any:
        """How often each template was asked for."""
        return Counter()

    def services(self, process: Process, secrets: Secrets, memory: Any) -> Sequence[object]:
        """The real client over a scripted transport, the ledger, and the defaults of charts."""
        import httpx

        accounts = self.accounts_of(POOL)
        pools = AccountPools({POOL: accounts}, secrets)
        settings = ChartImgSettings("real", "https://chart-img.invalid", Path("fixtures"), Path("cassettes"))
        api = ScriptedChartImg(process, accounts, memory)
        chart_img = ChartImg(settings, pools, secrets, transport=httpx.MockTransport(api.answer))
        return [Ledger(pools, is_live=True), chart_img, ChartDefaults("Etc/UTC")]

    redrive_completes = True

    def before_redrive(self, documents: Mapping[Key, Any], run_id: str) -> Iterable[Write]:
        """The step is made READY once more, as LEASES.md has it: one that has ended is not claimed."""
        flow_run, _, step_id = str(documents[Key(RUNS, run_id)]["key"]).partition("/")
        yield Update(Key(FLOW_RUNS, flow_run), {("steps", step_id, "status"): "READY"})

    # What may be lost by right

    def expected(self, crash_free: Ending, found: Ending) -> Ending:
        """Without the charts whose three calls were used up, one of them by a crash: these are failures by right."""
        lost = {
            head["place"]["key"]: head
            for run_id, head in found.heads.items()
            if head["place"] and head["status"] == "failed" and _used_up(found, run_id, head)
        }
        for head in found.heads.values():  # of a map that was redriven its last visit counts
            before = lost.get(_item(head) or "")
            if before is not None and before["place"]["visit"] < head["place"]["visit"]:
                del lost[head["place"]["key"]]
        if not lost:
            return crash_free
        heads = {
            run_id: found.heads.get(run_id, head) if _item(head) in lost else head
            for run_id, head in crash_free.heads.items()
        }
        documents = copy.deepcopy(crash_free.documents)
        artifacts = {
            name: content
            for name, content in crash_free.artifacts.items()
            if not any(fnmatch.fnmatchcase(name, f"*/{template}/*.png") for template in lost)
        }
        for name, content in artifacts.items():
            if name.endswith("manifest.json"):
                artifacts[name] = json.dumps(_less(json.loads(content), lost)).encode()
        for run_id, head in found.heads.items():
            if head["is_root"] and run_id in heads:
                heads[run_id] = _ended_less(heads[run_id], head, artifacts)
                _finish_less(documents, heads[run_id]["snapshot"])
        return crash_free.with_parts(documents, artifacts, heads)

    def comparable(self, name: str, value: Any) -> Any:
        """A manifest's failures by their template alone: the last error of several attempts is any of theirs."""
        if name.endswith("manifest.json") and isinstance(value, dict) and "failures" in value:
            return {**value, "failures": sorted(one["request"]["chartTemplateId"] for one in value["failures"])}
        return value

    # What must hold

    def watch(self, documents: Mapping[Key, Any], artifacts: Mapping[str, bytes]) -> Iterable[Problem]:
        """A step is RUNNING while a run holds it and final when that has ended; a manifest names what exists."""
        unfinished = {
            str(head["key"])
            for head in (documents[key] for key in documents if key.collection == "runs")
            if head["is_root"] and head["status"] not in ENDED
        }
        for key in documents:
            if key.collection == FLOW_RUNS:
                for step_id, step in documents[key]["steps"].items():
                    is_held = f"{key.id}/{step_id}" in unfinished
                    if step.get("stepType") == STEP_TYPE and is_held != (step["status"] == "RUNNING"):
                        held = "a run holds it" if is_held else "no run holds it"
                        message = f"the step {step_id} of {key.id} is {step['status']}, and {held}"
                        yield Problem("step-and-run-disagree", message)
        yield from _missing(artifacts)

    def judge(self, ending: Ending) -> Iterable[Problem]:
        """No step is left RUNNING."""
        for key, document in ending.documents.items():
            if key.collection == FLOW_RUNS:
                for step_id, step in document["steps"].items():
                    if step.get("stepType") == STEP_TYPE and step["status"] == "RUNNING":
                        yield Problem("step-left-running", f"the step {step_id} of {key.id} is RUNNING still")


class ScriptedChartImg:
    """Chart-IMG behind `httpx.MockTransport`: the real client and the real classification, no socket."""

    def __init__(self, process: Process, accounts: Sequence[Account], memory: Counter[str]) -> None:
        self._process = process
        self._accounts = {account.api_key: account.id for account in accounts}
        self._asked = memory

    async def answer(self, request: httpx.Request) -> httpx.Response:
        """Answer one POST, as the script has it."""
        run = self._process.performing
        template = str(run.params["template_id"])
        place = _place(run.run_id, self._process)
        account = self._accounts[request.headers["x-api-key"]]

        async def said() -> httpx.Response:
            number = self._asked[template]
            self._asked[template] += 1
            script = SCRIPT[place] if place < len(SCRIPT) else ()
            return await self._said(script[number] if number < len(script) else "picture", template)

        return await self._process.call(f"Chart-IMG with {account}", said, pool=POOL, account=account)

    async def _said(self, what: str, template: str) -> httpx.Response:
        import httpx

        match what:
            case "no units left":
                return httpx.Response(429, json={"message": "Limit Exceeded"})
            case "too fast":
                return httpx.Response(429, json={"message": "Too Many Requests"}, headers={"retry-after": "1"})
            case "unavailable":
                return httpx.Response(503, json={"message": "Service Unavailable"})
            case "silent":
                await self._process.clock.sleep(SILENT_S)
                raise httpx.ReadTimeout("the script does not answer")
            case "slow":
                await self._process.clock.sleep(SLOW_S)
        return httpx.Response(200, content=picture(template), headers={"content-type": "image/png"})


def picture(marker: str) -> bytes:
    """The smallest PNG that is whole; `marker` makes it differ from others."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)
    text = b"Comment\0" + marker.encode("latin-1", "replace")
    parts = (chunk(b"IHDR", header), chunk(b"tEXt", text), chunk(b"IDAT", zlib.compress(b"\0\0")), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def _place(run_id: str, process: Process) -> int:
    """The place of an item in its map, from 0."""
    head = process.universe.head(run_id)
    return int(head["place"]["number"]) if head.get("place") else 0


def _item(head: Mapping[str, Any]) -> str | None:
    return head["place"]["key"] if head["place"] else None


def _used_up(found: Ending, run_id: str, head: Mapping[str, Any]) -> bool:
    return found.interruptions(run_id) > 0 and head["snapshot"]["visits"].get("CAPTURING", 0) >= ATTEMPTS_MAX


def _less(manifest: dict[str, Any], lost: Mapping[str, Any]) -> dict[str, Any]:
    failures = [*manifest.get("failures", ()), *({"request": {"chartTemplateId": name}} for name in lost)]
    items = [one for one in manifest["items"] if one["chartTemplateId"] not in lost]
    return {**manifest, "items": items, "failures": failures}


def _ended_less(usual: Mapping[str, Any], found: Mapping[str, Any], artifacts: Mapping[str, bytes]) -> dict[str, Any]:
    """How a run ends whose manifest lists less: by its own count, with the error of a chart that it has not."""
    snapshot = dict(usual["snapshot"])
    manifest = next(json.loads(content) for name, content in artifacts.items() if name.endswith("manifest.json"))
    items, failures = len(manifest["items"]), len(manifest.get("failures", ()))
    is_enough = items >= manifest["minImages"]
    output = {**snapshot["output"], "itemsCount": items, "failuresCount": failures}
    if not is_enough:
        # Of the charts that are missing the first one's error, and each may have met any refusal last.
        error = found["snapshot"]["error"] or {}
        output |= {"status": "FAILED", "errorCode": error.get("code")}
        snapshot |= {"status": "failed", "state": "FAILED", "error": error}
    return {**usual, "snapshot": {**snapshot, "output": output}}


def _finish_less(documents: dict[Key, Any], snapshot: Mapping[str, Any]) -> None:
    output = snapshot["output"]
    step = documents[Key(FLOW_RUNS, output["runId"])]["steps"][output["stepId"]]
    step["status"] = output["status"]
    if snapshot["error"]:
        step["error"] = {name: value for name, value in snapshot["error"].items() if name != "retriable"}


def _missing(artifacts: Mapping[str, bytes]) -> Iterable[Problem]:
    for name, content in artifacts.items():
        if name.endswith("/manifest.json"):
            for one in json.loads(content)["items"]:
                picture_name = one["png_gcs_uri"].removeprefix("gs://").partition("/")[2]
                if picture_name not in artifacts:
                    yield Problem("manifest-names-missing", f"{name} names {picture_name}, which does not exist")
