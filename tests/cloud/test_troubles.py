"""Every real component at once, each in trouble in its turn: Firestore, Cloud Storage, and who calls them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from engine.testing.chart_img import Answer, Match
from engine.testing.fault_proxy import Fault, running_proxy
from engine.testing.firestore_emulator import EMULATOR_HOST, fresh_project, running_firestore
from tests.cloud.function_world import BUCKET, ROOT, STORAGE_HOST, TEMPLATES, Cloud, Place, charts, new_run_id

pytestmark = pytest.mark.parametrize("cloud", ["firestore"], indirect=True, scope="module")


@pytest.fixture(autouse=True)
def _nothing_scripted(simulator):
    simulator.simulator.reset()


@pytest.fixture
def restarted(firestore_emulator, cloud, monkeypatch):
    """An emulator of this test alone, and the cloud that is kept in it. (`firestore_emulator`: skipped as others are.)"""
    with running_firestore() as emulator:
        monkeypatch.setenv(EMULATOR_HOST, emulator.host)
        environ = {**cloud.place.environ, EMULATOR_HOST: emulator.host}
        place = Place(f"firestore://{fresh_project()}/(default)", "gs:", environ)
        yield emulator, Cloud(cloud.folder, place, cloud.simulator)


def test_what_is_published_lies_in_the_bucket_whole_and_as_what_it_is(cloud, storage, simulator):
    run_id, used = new_run_id(), cloud.used()
    cloud.put(**{run_id: charts("charts:1d:main.set_v1")})
    with cloud.function() as function:
        assert 200 == function.event(run_id).status
        (line,) = function.lines("cloud_event_finished")
    cloud.expect_whole(run_id)

    objects = [name for name in storage.objects(BUCKET) if name.startswith(f"runs/{run_id}/")]
    types = sorted(storage.resource(BUCKET, name)["contentType"] for name in objects)
    assert ["application/json", *["image/png"] * 3] == types
    assert (
        f"gs://{BUCKET}/runs/{run_id}/steps/charts:1d:main.set_v1/charts/manifest.json" == line["outputsManifestGcsUri"]
    )
    assert (3, 3) == (simulator.simulator.counters["calls"], cloud.used() - used)


@pytest.mark.parametrize("trouble", ["late", "aborted", "lost"])
def test_a_firestore_in_trouble_costs_time_alone(trouble, cloud, simulator):
    run_id, used = new_run_id(), cloud.used()
    cloud.put(**{run_id: charts("a", "b")})
    with cloud.function(source="tests/cloud/troubled.py", DETENT_TEST_TROUBLE=trouble) as function:
        assert 200 == function.event(run_id).status
    cloud.expect_whole(run_id)

    assert (6, 6) == (simulator.simulator.counters["calls"], cloud.used() - used)


def test_a_storage_that_fails_and_loses_answers_ends_with_each_object_once_and_whole(cloud, storage, simulator):
    run_id = new_run_id()
    cloud.put(**{run_id: charts("a")})
    with running_proxy(storage.url) as proxy:
        for fault in (Fault.REFUSE, Fault.RESET_AFTER, Fault.RESET_BEFORE, Fault.TRUNCATE):
            for part in ("/upload/", "/rewriteTo/"):
                proxy.plan(fault, when=lambda method, target, part=part: part in target)
        with cloud.function(**{STORAGE_HOST: proxy.url}) as function:
            assert 200 == function.event(run_id).status
        assert 0 == proxy.faults_left
    cloud.expect_whole(run_id)

    assert 4 == len([name for name in storage.objects(BUCKET) if name.startswith(f"runs/{run_id}/")])
    assert 3 == simulator.simulator.counters["calls"]


def test_an_emulator_that_was_restarted_is_asked_for_another_delivery_while_it_is_away(restarted):
    emulator, cloud = restarted
    first, second = new_run_id(), new_run_id()
    cloud.put(**{first: charts("a", templates=TEMPLATES[:1])})
    with cloud.function() as function:
        assert 200 == function.event(first).status
        emulator.stop()
        assert 503 == function.event(second).status
        (line,) = function.lines("cloud_event_failed")
        assert (True, "STORE_UNAVAILABLE") == (line["retry"], line["error"]["code"])
        emulator.restart()
        cloud.put(**{second: charts("a", templates=TEMPLATES[:1])})

        assert 200 == function.event(second).status
    cloud.expect_whole(second)


def test_a_firestore_that_stands_still_in_the_middle_of_a_step_is_waited_for(restarted, simulator):
    emulator, cloud = restarted
    run_id = new_run_id()
    cloud.put(**{run_id: charts("a", templates=TEMPLATES[:1])})
    simulator.simulator.script(Match(), [Answer(stall_s=1.0)])
    with cloud.function() as function, ThreadPoolExecutor(1) as threads:
        answer = threads.submit(function.event, run_id)
        until = time.monotonic() + 30
        while not simulator.simulator.calls and time.monotonic() < until:
            time.sleep(0.02)
        os.kill(emulator.pid, signal.SIGSTOP)
        try:
            time.sleep(3)
        finally:
            os.kill(emulator.pid, signal.SIGCONT)

        assert 200 == answer.result().status
    cloud.expect_whole(run_id)
    assert (1, 1) == (simulator.simulator.counters["calls"], cloud.used())


def test_workers_in_several_processes_share_what_is_due(cloud, simulator):
    run_ids, used = [new_run_id() for _ in range(4)], cloud.used()
    cloud.put(**{run_id: charts("a", templates=TEMPLATES[:2]) for run_id in run_ids})
    detent = [sys.executable, "-m", "engine.entry.cli"]
    environ = cloud.environ(CHARTS_API_MODE="real")
    for run_id in run_ids:
        asked = json.dumps({"run_id": run_id, "step_id": "a"})
        start = [*detent, "run", "machines/chart_export.yaml", "--detach", "--input", asked]
        subprocess.run(start, env=environ, cwd=ROOT, capture_output=True, timeout=60, check=True)
    workers = [
        subprocess.Popen(
            [*detent, "worker", "--once", "--concurrency", "2"], env=environ, cwd=ROOT, stderr=subprocess.PIPE
        )
        for _ in "12"
    ]
    for worker in workers:
        _, said = worker.communicate(timeout=120)
        assert 0 == worker.returncode, said
    cloud.expect_whole(*run_ids)

    assert (8, 8) == (simulator.simulator.counters["calls"], cloud.used() - used)


def test_the_preflight_of_a_function_looks_at_the_real_components_and_names_the_one_that_is_away(cloud):
    cloud.put()
    with cloud.function("sweep") as function:
        ready = function.call("GET", "/__diag/preflight")
    with cloud.function("sweep", **{STORAGE_HOST: "http://127.0.0.1:9"}) as function:
        failed = function.call("GET", "/__diag/preflight")
    sections = json.loads(ready.text)["sections"]
    others = json.loads(failed.text)["sections"]

    assert 200 == ready.status, ready.text
    assert {"OK"} == {sections[name]["status"] for name in ("store", "artifacts", "ledger", "machines", "secrets")}
    assert all(isinstance(section["latency_ms"], float) for section in sections.values())
    assert 503 == failed.status, failed.text
    assert ("FAILED", "OK", "OK") == tuple(others[name]["status"] for name in ("artifacts", "store", "secrets"))
    assert others["artifacts"]["remedy"]
