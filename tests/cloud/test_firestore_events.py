"""Firestore's own events: the emulator tells the function of a change, and the function's writes are events again."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import urllib.request

import pytest

from engine.core.write import Key, Update
from engine.testing import firestore_emulator as emulator_module
from tests.cloud.function_world import Cloud, Place, charts, eventually, new_run_id
from tests.conftest import do_without

KINDS = ("updated", "written", "updated.withAuthContext")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


@pytest.fixture(scope="module")
def emulator():
    """An emulator of its own, which tells of changes: `(host, port of the function)`."""
    try:
        jar = emulator_module.find_jar()
    except emulator_module.EmulatorMissingError as error:
        do_without(error)
    port, function_port = free_port(), free_port()
    command = [str(shutil.which("java")), "-Duser.language=en", "-Xmx512m", "-cp", str(jar)]
    command += ["com.google.cloud.datastore.emulator.firestore.CloudFirestore", "--host", "127.0.0.1"]
    command += ["--port", str(port), "--websocket_port", str(free_port())]
    command += ["--functions_emulator", f"127.0.0.1:{function_port}"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        eventually(lambda: answers(port))
        yield f"127.0.0.1:{port}", function_port
    finally:
        process.kill()
        process.wait()


def answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=1) as answer:
            return answer.status == 200
    except OSError:
        return False


def tell(host: str, project: str, kind: str) -> None:
    """Have the emulator tell the function of changes of flow runs, as an Eventarc trigger does."""
    trigger = {
        "eventType": f"google.cloud.firestore.document.v1.{kind}",
        "database": "(default)",
        "namespace": "(default)",
        "document": {"value": "flow_runs/{runId}", "matchType": "PATH_PATTERN"},
    }
    url = f"http://{host}/emulator/v1/projects/{project}/eventarcTrigger?eventarcTriggerId=flow-runs"
    headers = {"content-type": "application/json"}
    request = urllib.request.Request(url, json.dumps(trigger).encode(), headers, method="POST")
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert answer.status == 200


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_that_the_flow_sets_ready_is_exported_and_our_own_writes_come_to_nothing(
    kind, emulator, simulator, tmp_path, monkeypatch
):
    host, function_port = emulator
    project, run_id = emulator_module.fresh_project(), new_run_id()
    monkeypatch.setenv(emulator_module.EMULATOR_HOST, host)
    place = Place(f"firestore://{project}/(default)", f"folder:{tmp_path}/out", {emulator_module.EMULATOR_HOST: host})
    cloud = Cloud(tmp_path, place, simulator)
    document = charts("charts:1d:main.set_v1")
    document["steps"]["charts:1d:main.set_v1"]["status"] = "PENDING"
    simulator.simulator.reset()
    with cloud.function(port=function_port) as function:
        tell(host, project, kind)
        cloud.put(**{run_id: document})
        key = Key("flow_runs", run_id)
        ready = Update(key, {("steps", "charts:1d:main.set_v1", "status"): "READY"})
        cloud.change(key, ready)

        eventually(lambda: cloud.statuses(run_id) == ["SUCCEEDED"])
        # The claim and the finish are events too; so is the document's making where writes are told of.
        eventually(lambda: len(function.lines("cloud_event_noop")) >= (3 if kind == "written" else 2))
        assert 1 == len(function.lines("cloud_event_finished"))
        assert not function.lines("cloud_event_failed", "config_error")
    cloud.expect_whole(run_id)
    assert 3 == simulator.simulator.counters["calls"]
