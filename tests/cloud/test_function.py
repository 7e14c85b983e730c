"""The functions under their real server: events in every encoding, at once and again; sweeps; quota that runs out."""

from __future__ import annotations

import json
import random
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest

from engine.testing.chart_img import Answer, Match
from tests.cloud.function_world import BUCKET, ENCODINGS, KEY, TEMPLATES, UPDATED, charts, new_run_id


@pytest.fixture(scope="module")
def function(cloud):
    with cloud.function() as running:
        yield running


@pytest.fixture(scope="module")
def sweeper(cloud):
    with cloud.function("sweep") as running:
        yield running


@pytest.fixture(autouse=True)
def _nothing_scripted(simulator):
    simulator.simulator.reset()


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_an_event_in_each_encoding_exports_the_charts_of_its_run(cloud, function, encoding):
    run_id, seen = new_run_id(), len(function.lines())
    cloud.put(**{run_id: charts("charts:1d:main.set_v1", "charts:1w:`odd` set")})

    assert 200 == function.event(run_id, encoding).status
    cloud.expect_whole(run_id)
    lines = function.lines()[seen:]
    events = [line["event"] for line in lines]
    assert (1, 2) == (events.count("cloud_event_parsed"), events.count("cloud_event_finished"))
    assert {run_id} == {line["runId"] for line in lines if "runId" in line}
    assert KEY not in function.log.read_text()


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_the_payload_alone_names_the_document_too(cloud, function, encoding):
    run_id = new_run_id()
    cloud.put(**{run_id: charts("a", templates=TEMPLATES[:1])})

    assert 200 == function.event(run_id, encoding, subject="", document="").status
    cloud.expect_whole(run_id)


@pytest.mark.parametrize("kind", ["written", "updated.withAuthContext", "written.withAuthContext"])
def test_every_kind_of_change_is_taken(cloud, function, kind):
    run_id = new_run_id()
    cloud.put(**{run_id: charts("a", templates=TEMPLATES[:1])})

    assert 200 == function.event(run_id, type=f"google.cloud.firestore.document.v1.{kind}").status
    cloud.expect_whole(run_id)


def test_two_deliveries_at_once_to_two_instances_do_the_work_once(cloud, function, simulator):
    run_id = new_run_id()
    cloud.put(**{run_id: charts("a", "b")})
    with cloud.function() as other, ThreadPoolExecutor(2) as threads:
        answers = list(threads.map(lambda one: one.event(run_id), (function, other)))
        # One of them may have come too late for either step, and acknowledged what the other works on.
        assert [200, 200] == [answer.status for answer in answers]
        cloud.expect_whole(run_id)

    assert 6 == simulator.simulator.counters["calls"]


def test_twenty_shuffled_deliveries_do_the_work_once(cloud, function, simulator):
    used = cloud.used()
    run_ids = [new_run_id() for _ in range(4)]
    cloud.put(**{run_id: charts("a", templates=TEMPLATES[:2]) for run_id in run_ids})
    deliveries = [(run_id, encoding) for run_id in run_ids for encoding in ENCODINGS]
    random.Random(7).shuffle(deliveries)
    with ThreadPoolExecutor(5) as threads:
        answers = list(threads.map(lambda delivery: function.event(*delivery), deliveries))

    assert {200} == {answer.status for answer in answers} and 20 == len(answers)
    cloud.expect_whole(*run_ids)
    assert (8, 8) == (simulator.simulator.counters["calls"], cloud.used() - used)


def test_what_is_not_an_event_is_refused_and_what_is_not_ours_acknowledged(function):
    assert 400 == function.call("POST", "/", b"{}", {"content-type": "application/json"}).status
    assert 405 == function.call("GET", "/").status
    for more in ({"type": "google.cloud.firestore.document.v1.deleted"}, {"subject": "documents/other/x"}):
        assert 200 == function.event(new_run_id(), **more).status
    reasons = [line["reason"] for line in function.lines("cloud_event_ignored")]
    assert ["event_type_filtered", "event_filtered"] == reasons[-2:]


def test_a_sweep_begins_what_lost_its_event_and_reports_it(cloud, sweeper):
    run_ids = [new_run_id() for _ in range(3)]
    cloud.put(**{run_id: charts("a", templates=TEMPLATES[:1]) for run_id in run_ids})
    found = sweeper.sweep()
    again = sweeper.sweep()

    assert (3, 0) == (found["started"], found["left"])
    assert (0, 0, 0) == (again["driven"], again["started"], again["left"])
    cloud.expect_whole(*run_ids)


def test_quota_that_runs_out_in_the_middle_ends_the_step_with_what_there_is(cloud, sweeper):
    day = datetime.now(UTC).strftime("%Y-%m-%dT00:00:00Z")
    run_id = new_run_id()
    cloud.put(**{run_id: charts("a", "b")})
    account = json.dumps([{"id": day[:10], "apiKey": KEY, "dailyLimit": 2, "perSecond": 1000, "burst": 1000}])
    with cloud.function(CHART_IMG_ACCOUNTS_JSON=account) as function:
        assert 200 == function.event(run_id).status

        finished = {line["stepId"]: line for line in function.lines("cloud_event_finished")}
        assert ("SUCCEEDED", 2, 1) == tuple(finished["a"][name] for name in ("status", "itemsCount", "failuresCount"))
        assert ("FAILED", "CHART_API_LIMIT_EXCEEDED") == (finished["b"]["status"], finished["b"]["errorCode"])
    assert ["SUCCEEDED", "FAILED"] == cloud.statuses(run_id)
    assert 2 == cloud.document("chart_img_accounts_usage", day[:10])["usageToday"]
    assert 0 == sweeper.sweep()["left"]


def test_a_budget_that_ends_in_the_middle_leaves_a_run_that_a_sweep_finishes(cloud, sweeper, simulator):
    """Publishing may take 300 s: with less than that it is not begun, and nothing is paid for twice."""
    run_id = new_run_id()
    cloud.put(**{run_id: charts("a", templates=TEMPLATES[:1])})
    simulator.simulator.script(Match(), [Answer(stall_s=1.5)])
    with cloud.function(DETENT_BUDGET_S="301") as function:
        assert 200 == function.event(run_id).status
        (line,) = function.lines("cloud_event_finished")

    assert ("RUNNING", "RUNNING.PUBLISHING") == (line["status"], line["state"])
    assert ["RUNNING"] == cloud.statuses(run_id)
    assert 1 <= sweeper.sweep()["driven"]
    cloud.expect_whole(run_id)
    assert 1 == simulator.simulator.counters["calls"]


def test_an_instance_without_its_configuration_answers_500_and_says_why(cloud):
    with cloud.function(CHART_IMG_ACCOUNTS_JSON='[{"id": "main", "apiKey": ""}]') as function:
        assert 500 == function.event(new_run_id()).status
        (line,) = function.lines("config_error")

    assert "CHART_IMG_ACCOUNTS_JSON" in line["error"]["message"]


def test_objects_lie_where_the_contract_says(cloud, function):
    run_id = new_run_id()
    cloud.put(**{run_id: charts("charts:1d:x", templates=TEMPLATES[:1])})
    function.event(run_id, type=UPDATED)
    step = cloud.flow_run(run_id)["steps"]["charts:1d:x"]
    uri = step["outputs"]["outputsManifestGcsUri"]

    assert f"gs://{BUCKET}/runs/{run_id}/steps/charts:1d:x/charts/manifest.json" == uri
    assert step["outputs"]["kept"] == "as it was"
