"""The functions as they are deployed: processes of functions-framework, told of by HTTP, over a real store.

A `Cloud` has a store, objects and the simulated API in common; `function()` is one more instance. Everything is looked
at from outside: documents and objects through their ports, logs as the lines that a process has written.
"""

from __future__ import annotations

import base64
import http.client
import itertools
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import anyio
from google.events.cloud.firestore_v1 import Document, DocumentEventData, Value
from google.events.cloud.firestore_v1.types.data import MapValue

from engine.artifacts import open_artifacts
from engine.core.write import Key, Set, Write
from engine.handlers.flow_backlog import INDEXES as FLOW_INDEXES
from engine.runs import INDEXES
from engine.store import open_store
from engine.testing.chart_img import RunningSimulator
from tests.entry.door_world import steps

ROOT = Path(__file__).parent.parent.parent
KEY = "a-secret-key-of-the-test"
BUCKET = "pictures"
STORAGE_HOST = "STORAGE_EMULATOR_HOST"
TEMPLATES = ("ctpl_price_ma1226_vol_v1", "ctpl_price_psar_adi_v1", "ctpl_price_rsi14_stochrsi_v1")
UPDATED = "google.cloud.firestore.document.v1.updated"
START_S_MAX = 30
TEMPLATE_FILES = ROOT / "fixtures/documents/chart_templates"
NUMBERS = itertools.count(1)


class Place(NamedTuple):
    """Where documents and objects are kept, and what a process needs to reach them."""

    store: str
    artifacts: str
    environ: dict[str, str]


class Answer(NamedTuple):
    """What a function answered; `status` 0 when it was gone before it could."""

    status: int
    text: str


class Function:
    """One instance, and the lines that it has written."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
        self.process = process
        self.port = port
        self.log = log

    def call(self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return Answer(answer.status, answer.read().decode())
        except (ConnectionError, http.client.HTTPException):
            return Answer(0, "")
        finally:
            connection.close()

    def event(self, run_id: str, encoding: str = "protobuf", **more: str) -> Answer:
        headers, body = ENCODINGS[encoding](run_id, more)
        return self.call("POST", "/", body, headers)

    def sweep(self) -> dict[str, Any]:
        answer = self.call("POST", "/")
        assert answer.status == 200, answer
        return json.loads(answer.text)

    def lines(self, *names: str) -> list[dict[str, Any]]:
        found = [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]
        return [line for line in found if not names or line["event"] in names]

    def wait_until_gone(self) -> None:
        self.process.wait(START_S_MAX)


# Events, as Eventarc and the emulator make them


def _data(run_id: str) -> DocumentEventData:
    name = f"projects/demo/databases/(default)/documents/flow_runs/{run_id}"
    step = Value(map_value=MapValue(fields={"status": Value(string_value="READY")}))
    document = Document(name=name, fields={"steps": Value(map_value=MapValue(fields={"charts:1d": step}))})
    return DocumentEventData(value=document, old_value=Document(name=name))


def _attributes(run_id: str, more: dict[str, str]) -> dict[str, str]:
    path = "//firestore.googleapis.com/projects/demo/databases/(default)"
    named = {"subject": f"documents/flow_runs/{run_id}", "document": f"flow_runs/{run_id}"}
    named |= {"database": "(default)", "namespace": "(default)", "project": "demo", "location": "europe-west4"}
    said = {"id": f"event-{next(NUMBERS)}", "source": path, "specversion": "1.0", "type": UPDATED}
    return {**said, "time": "2026-01-05T08:00:02Z", **named, **more}


def _binary(run_id: str, more: dict[str, str], content_type: str, body: bytes) -> tuple[dict[str, str], bytes]:
    headers = {f"ce-{name}": value for name, value in _attributes(run_id, more).items() if value}
    return {**headers, "content-type": content_type}, body


def _structured(run_id: str, more: dict[str, str], **data: Any) -> tuple[dict[str, str], bytes]:
    attributes = {name: value for name, value in _attributes(run_id, more).items() if value}
    return {"content-type": "application/cloudevents+json"}, json.dumps({**attributes, **data}).encode()


def _json(run_id: str) -> Any:
    return json.loads(DocumentEventData.to_json(_data(run_id)))


def _protobuf(run_id: str) -> bytes:
    return DocumentEventData.serialize(_data(run_id))


ENCODINGS: dict[str, Callable[[str, dict[str, str]], tuple[dict[str, str], bytes]]] = {
    "protobuf": lambda run_id, more: _binary(run_id, more, "application/protobuf", _protobuf(run_id)),
    "json": lambda run_id, more: _binary(run_id, more, "application/json", json.dumps(_json(run_id)).encode()),
    "structured json": lambda run_id, more: _structured(
        run_id, more, datacontenttype="application/json", data=_json(run_id)
    ),
    "structured protobuf": lambda run_id, more: _structured(
        run_id,
        more,
        datacontenttype="application/protobuf",
        data_base64=base64.b64encode(_protobuf(run_id)).decode(),
    ),
    "the emulator's base64": lambda run_id, more: _binary(
        run_id, more, "application/protobuf", base64.b64encode(_protobuf(run_id))
    ),
}


class Cloud:
    """See the module."""

    def __init__(self, folder: Path, place: Place, simulator: RunningSimulator) -> None:
        self.folder = folder
        self.place = place
        self.simulator = simulator

    def environ(self, **more: str) -> dict[str, str]:
        own = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG")}
        account = {"id": "main", "apiKey": KEY, "perSecond": 1000, "burst": 1000, "dailyLimit": 100_000}
        return {
            **own,
            **self.place.environ,
            "PYTHONPATH": str(ROOT),
            "DETENT_STORE": self.place.store,
            "DETENT_ARTIFACTS": self.place.artifacts,
            "ARTIFACTS_BUCKET": BUCKET,
            "CHART_IMG_BASE_URL": self.simulator.url,
            "CHART_IMG_ACCOUNTS_JSON": json.dumps([account]),
            **more,
        }

    @contextmanager
    def function(
        self, target: str = "chart_export_event", source: str = "main.py", port: int = 0, **more: str
    ) -> Iterator[Function]:
        """One instance of a function, ready to be called; gone, with all that it has started, at the end."""
        with socket.create_server(("127.0.0.1", port)) as free:
            port = free.getsockname()[1]
        log = self.folder / f"function-{next(NUMBERS)}.log"
        command = [sys.executable, "-m", "functions_framework", "--target", target, "--source", source]
        command += ["--host", "127.0.0.1", "--port", str(port)]
        with log.open("wb") as written:
            process = subprocess.Popen(
                command, env=self.environ(**more), cwd=ROOT, stdout=written, stderr=written, start_new_session=True
            )
        try:
            eventually(lambda: listens(process, port, log))
            yield Function(process, port, log)
        finally:
            process.terminate()
            process.wait(START_S_MAX)

    # Documents and objects

    def put(self, **documents: Any) -> None:
        """Flow runs by id, beside the templates of the fixtures."""

        templates = {path.stem: json.loads(path.read_text()) for path in TEMPLATE_FILES.glob("*.json")}
        given = {Key("chart_templates", name): template for name, template in templates.items()}
        given |= {Key("flow_runs", run_id): {**found, "runId": run_id} for run_id, found in documents.items()}

        async def write(store: Any) -> None:
            writes = [Set(key, document) for key, document in given.items()]
            await store.transact(list(given), lambda found, now_ms: (writes, None))

        self._with_store(write)

    def change(self, key: Key, write: Write) -> None:
        """One write, as another program makes it."""
        self._with_store(lambda store: store.transact([key], lambda found, now_ms: ([write], None)))

    def flow_run(self, run_id: str) -> Any:
        return self.document("flow_runs", run_id)

    def document(self, collection: str, document_id: str) -> Any:
        key = Key(collection, document_id)
        return self._with_store(lambda store: store.get_many([key]))[key]

    def documents(self, collection: str) -> list[Any]:
        return [document for _, document in self._with_store(lambda store: store.query(collection))]

    def statuses(self, *run_ids: str) -> list[str]:
        return [step["status"] for run_id in run_ids for _, step in sorted(self.flow_run(run_id)["steps"].items())]

    def used(self) -> int:
        document = self.document("chart_img_accounts_usage", "main")
        return 0 if document is None else document["usageToday"]

    def _with_store(self, work: Callable[[Any], Any]) -> Any:
        async def run() -> Any:
            store = await open_store(self.place.store, indexes=(*INDEXES, *FLOW_INDEXES))
            try:
                return await work(store)
            finally:
                await store.close()

        return anyio.run(run)

    def expect_whole(self, *run_ids: str) -> None:
        """Every step has SUCCEEDED, and each manifest names whole pictures only, one for each request."""
        for run_id in run_ids:
            for step in self.flow_run(run_id)["steps"].values():
                assert step["status"] == "SUCCEEDED", step
                manifest = json.loads(self.object(step["outputs"]["outputsManifestGcsUri"]))
                assert len(step["inputs"]["requests"]) == len(manifest["items"])
                for item in manifest["items"]:
                    picture = self.object(item["png_gcs_uri"])
                    assert picture.startswith(b"\x89PNG") and picture.endswith(b"IEND\xaeB`\x82")
        assert all(run["status"] in ("succeeded", "failed") for run in self.documents("runs"))

    def object(self, uri: str) -> bytes:
        prefix = f"gs://{BUCKET}/"
        assert uri.startswith(prefix)

        async def read() -> bytes:
            artifacts = open_artifacts(self.place.artifacts, BUCKET)
            try:
                return await artifacts.read(uri.removeprefix(prefix))
            finally:
                await artifacts.close()

        return anyio.run(read)


def listens(process: subprocess.Popen[bytes], port: int, log: Path) -> bool:
    assert process.poll() is None, log.read_text()
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def eventually(is_so: Callable[[], bool], timeout_s: float = START_S_MAX) -> None:
    """Look until it is so: other processes tell nobody when they are."""
    until = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < until, "it did not come to that in time"
        time.sleep(0.05)


def charts(*names: str, templates: tuple[str, ...] = TEMPLATES) -> dict[str, Any]:
    """A flow run with one READY step for each name, which asks for a picture of each template."""
    document = steps(**dict.fromkeys(names, "READY"))
    inputs = {"minImages": 1, "requests": [{"chartTemplateId": template} for template in templates]}
    document["steps"] = {name: {**step, "inputs": inputs} for name, step in document["steps"].items()}
    return document


def new_run_id() -> str:
    """An id that no other test has used."""
    return f"20260105-{next(NUMBERS):06d}_BTCUSDT_k3f7a"
