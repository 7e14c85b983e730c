"""No secret reaches a document, an object, a log line, an error or a result, whatever a handler does with it."""

from __future__ import annotations

import io
import json
import logging

import anyio
import pytest

import engine
from engine.artifacts.folder import FolderArtifacts
from engine.core.secret import Secrets
from engine.entry.logs import LogObserver, configure
from engine.handlers.registry import Registry
from engine.store.memory import MemoryStore

KEY = 'a-very-secret "key" value'
LEAKS = {
    "in an outcome": lambda: engine.Outcome("done", {"value": f"it is {KEY}"}),
    "in a key of an outcome": lambda: engine.Outcome("done", {KEY: 1}),
    "in a blob": lambda: engine.Outcome("done", {"value": engine.Blob(b"\x89PNG" + KEY.encode())}),
    "in a failure's message": lambda: engine.Failure("BROKEN", f"the key {KEY} was refused"),
    "in a failure's details": lambda: engine.Failure("BROKEN", "refused", {"request": {"headers": [KEY]}}),
}
MACHINE = """
machine: leaking
initial: CALLING
states:
  CALLING:
    invoke: {action: leak.call, assign: {value: "${result}"}}
    on: {done: DONE}
    catch: [{target: SORRY, assign: {error: "${error}"}}]
  DONE: {type: final, output: "${context.value}"}
  SORRY: {type: final, status: FAILED, output: "${context.error}", error: "${context.error}"}
"""


@pytest.fixture
def logs():
    stream = io.StringIO()
    before = logging.getLogger().handlers[:], logging.getLogger().level
    secrets = Secrets([KEY])
    configure("DEBUG", secrets, stream)
    yield stream, secrets
    logging.getLogger().handlers[:], _ = before[0], logging.getLogger().setLevel(before[1])


@pytest.mark.parametrize("case", LEAKS)
def test_a_handler_that_leaks_a_secret_fails_and_nothing_holds_it(case, tmp_path, logs):
    stream, secrets = logs
    registry = Registry(own=())

    @registry.action("leak.call", kind="repeatable")
    async def call(request):
        request.log("about_to_leak", header=KEY, nested={"headers": [KEY]})
        return LEAKS[case]()

    (tmp_path / "leaking.yaml").write_text(MACHINE)
    store = MemoryStore()

    async def run():
        artifacts = FolderArtifacts(str(tmp_path / "out"), "bucket", secrets=secrets)
        async with engine.Engine(
            store=store, artifacts=artifacts, actions=registry, secrets=secrets, observer=LogObserver("test")
        ) as app:
            result = await app.run(app.load(tmp_path / "leaking.yaml"), {}, run_id="r")
        found = [document for name in ("runs", "journal", "definitions") for _, document in await store.query(name)]
        return result, found

    result, documents = anyio.run(run)
    objects = b"".join(path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file())
    needle = json.dumps(KEY)[1:-1]

    assert (result.state, result.error["code"]) == ("SORRY", "SECRET_LEAKED")
    for text in (repr(result), repr(documents), json.dumps(documents), stream.getvalue()):
        assert KEY not in text
        assert needle not in text
    assert KEY.encode() not in objects
    assert "[redacted]" in stream.getvalue()


def test_an_exception_s_text_goes_to_the_log_alone_and_redacted(tmp_path, logs):
    stream, secrets = logs
    registry = Registry(own=())

    @registry.action("leak.call", kind="repeatable")
    async def call(request):
        raise ValueError(f"bad header {KEY}")

    (tmp_path / "leaking.yaml").write_text(MACHINE)

    async def run():
        async with engine.Engine(
            store=MemoryStore(), artifacts=f"folder:{tmp_path}/out", actions=registry, secrets=secrets
        ) as app:
            return await app.run(app.load(tmp_path / "leaking.yaml"), {}, run_id="r")

    result = anyio.run(run)

    assert (result.error["code"], result.error["message"]) == ("INTERNAL", "the handler of leak.call raised ValueError")
    assert "bad header [redacted]" in stream.getvalue()
    assert KEY not in stream.getvalue()
