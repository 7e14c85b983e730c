"""Each scenario and rule of the contract, on the real core with the real handlers, kept in every store; see `scenarios.py`."""

from __future__ import annotations

import json

import pytest

from engine.core import canonical, event
from engine.core.snapshot import Snapshot, empty
from engine.core.step import step
from engine.handlers.flow_steps import CODES
from tests.end_to_end.chart_export_world import MACHINE, RUN_ID, STEP_ID, STORE, Scenario, export, flow_run, template
from tests.end_to_end.scenarios import FLOW_RUN, TABLE, check, usage, with_step


@pytest.fixture(autouse=True, params=["memory", "sqlite", "firestore"])
def kept_in(request, tmp_path):
    """The store of a test's one export; what is expected is the same text for all three."""
    match request.param:
        case "firestore":
            url = request.getfixturevalue("firestore")
        case "sqlite":
            url = f"sqlite:///{tmp_path}/detent.db"
        case _:
            url = "memory:"
    token = STORE.set(url)
    yield
    STORE.reset(token)


@pytest.mark.parametrize("name", TABLE)
def test_scenario(name):
    make, expected = TABLE[name]

    check(export(make()), expected, name)


@pytest.mark.parametrize("name", TABLE)
def test_the_journal_folds_to_the_stored_snapshots_and_only_contract_codes_are_seen(name):
    seen = export(TABLE[name][0]())
    heads = {key.removeprefix("runs/"): head for key, head in seen.documents.items() if key.startswith("runs/")}
    for run_id, head in heads.items():
        machine = MACHINE if head["is_root"] else MACHINE.children["chart_request"]
        entries = sorted(
            (one for key, one in seen.documents.items() if key.startswith("journal/") and one["run_id"] == run_id),
            key=lambda one: one["seq"],
        )
        stored = Snapshot.decode(head["snapshot"])
        folded = empty(run_id, machine.name, machine.version, machine.digest, stored.key)
        for entry in entries:
            folded = step(machine, folded, event.from_json(canonical.decode(entry["entry"]))).snapshot

        assert folded.encode() == head["snapshot"]
        assert [one["seq"] for one in entries] == list(range(1, len(entries) + 1))

    codes = [failure["error"]["code"] for failure in (seen.manifest or {}).get("failures", [])]
    codes += [seen.result.output["errorCode"], (seen.step.get("error") or {}).get("code")]
    assert set(codes) - {None} <= set(CODES)


# The request that is made


def test_symbol_interval_and_time_zone_of_the_template_are_overridden():
    seen = export(with_step("a"))

    assert seen.bodies == [
        {
            "width": 500,
            "height": 400,
            "format": "png",
            "symbol": "BINANCE:BTCUSDT",
            "interval": "1D",
            "timezone": "Etc/UTC",
        }
    ]


def test_names_and_manifest_follow_the_contract():
    seen = export(with_step("a"))

    picture = f"runs/{RUN_ID}/charts/1d/a/20260105-093000_BTCUSDT_1d_a.png"
    assert sorted(seen.objects) == [picture, f"runs/{RUN_ID}/steps/{STEP_ID}/charts/manifest.json"]
    assert seen.manifest == {
        "schemaVersion": 1,
        "runId": RUN_ID,
        "stepId": STEP_ID,
        "createdAt": "2026-01-05T09:30:00Z",
        "symbol": "BTCUSDT",
        "timeframe": "1d",
        "minImages": 1,
        "requested": [{"chartTemplateId": "a"}],
        "items": [
            {
                "chartTemplateId": "a",
                "kind": "kind of a",
                "generatedAt": "2026-01-05T09:30:00Z",
                "png_gcs_uri": f"gs://bucket/{picture}",
            }
        ],
    }


def test_only_fields_of_the_step_are_changed():
    before = flow_run("a")
    seen = export(Scenario({FLOW_RUN: before}))
    after = seen.documents[FLOW_RUN]

    manifest = f"gs://bucket/runs/{RUN_ID}/steps/{STEP_ID}/charts/manifest.json"
    expected = json.loads(json.dumps(before))
    expected["steps"][STEP_ID] |= {"status": "SUCCEEDED", "finishedAt": "2026-01-05T09:30:00Z"}
    expected["steps"][STEP_ID]["outputs"]["outputsManifestGcsUri"] = manifest
    assert after == expected


def test_what_an_earlier_attempt_left_in_the_step_is_cleared():
    seen = export(
        with_step("a", error={"code": "CHART_API_FAILED", "message": "old"}, finishedAt="2026-01-01T00:00:00Z")
    )

    assert "error" not in seen.step
    assert seen.step["finishedAt"] == "2026-01-05T09:30:00Z"


# Picking the step


def steps(**by_id):
    document = flow_run("a")
    chart = document["steps"].pop(STEP_ID)
    document["steps"] |= {step_id.replace("__", ":"): {**chart, **fields} for step_id, fields in by_id.items()}
    return Scenario({FLOW_RUN: document}, input={"run_id": RUN_ID})


def test_the_first_ready_step_in_the_order_of_ids_is_taken():
    seen = export(steps(charts__b={}, charts__a={}, aaa={"stepType": "LLM_REPORT"}, charts__0={"status": "PENDING"}))

    assert seen.result.output["stepId"] == "charts:a"


def test_a_step_that_waits_for_others_is_passed_over():
    blocked = {"dependsOn": ["charts:b"]}
    seen = export(steps(charts__a=blocked, charts__b={}))

    assert seen.result.output["stepId"] == "charts:b"


@pytest.mark.parametrize("depends_on", [None, "ohlcv:1d", {}, ["", 5, "  "]], ids=repr)
def test_dependencies_that_are_no_list_of_names_count_as_none(depends_on):
    seen = export(steps(charts__a={"dependsOn": depends_on}))

    assert seen.result.state == "SUCCEEDED"


@pytest.mark.parametrize("status", ["SKIPPED", "FAILED", "RUNNING", None], ids=repr)
def test_only_a_succeeded_dependency_satisfies(status):
    scenario = steps(charts__a={"dependsOn": ["ohlcv:1d"]})
    scenario.documents[FLOW_RUN]["steps"]["ohlcv:1d"]["status"] = status
    seen = export(scenario)

    assert seen.result.state == "REFUSED"
    assert "ohlcv:1d" in json.dumps(seen.result.error["details"]["blockedSteps"])


# Refusals: nothing is written, nothing recorded


def mend(document, **fields):
    document.update(fields)
    return document


REFUSALS = {
    "a step that does not exist": (lambda: flow_run("a"), {"step_id": "nope"}),
    "a step of another type": (lambda: flow_run("a"), {"step_id": "ohlcv:1d"}),
    "a step id with a slash": (lambda: flow_run("a"), {"step_id": "a/b"}),
    "a step id of dots": (lambda: flow_run("a"), {"step_id": ".."}),
    "an empty step id": (lambda: flow_run("a"), {"step_id": ""}),
    "a run that does not exist": (lambda: flow_run("a"), {"run_id": "20260105-080000_ETHUSDT_k3f7a"}),
    "a run id of another form": (lambda: flow_run("a"), {"run_id": "run-1"}),
    "a run id with a slash": (lambda: flow_run("a"), {"run_id": "a/b"}),
    "a run id with a line break": (lambda: flow_run("a"), {"run_id": f"{RUN_ID}\n"}),
    "another runId in the document": (lambda: mend(flow_run("a"), runId="20260105-080000_BTCUSDT_zzzz"), {}),
    "no runId in the document": (lambda: mend(flow_run("a"), runId=None), {}),
    "a cancelled run": (lambda: mend(flow_run("a"), status="CANCELLED"), {}),
    "a failed run": (lambda: mend(flow_run("a"), status="FAILED"), {}),
    "a list of steps": (lambda: mend(flow_run("a"), steps=[{"stepType": "CHART_EXPORT"}]), {}),
    "no steps": (lambda: mend(flow_run("a"), steps=None), {}),
    "a step that is no object": (lambda: mend(flow_run("a"), steps={STEP_ID: "READY"}), {}),
    "a step that another system runs": (lambda: flow_run("a", status="RUNNING"), {}),
    "a cancelled step": (lambda: flow_run("a", status="CANCELLED"), {}),
    "a step without a status": (lambda: flow_run("a", status=None), {}),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_refused_and_nothing_is_written(case):
    make, changes = REFUSALS[case]
    document = make()
    seen = export(Scenario({FLOW_RUN: document}, input={"run_id": RUN_ID, "step_id": STEP_ID, **changes}))

    assert (seen.result.state, seen.result.status) == ("REFUSED", "failed")
    assert seen.result.output["errorCode"] == "VALIDATION_FAILED"
    assert seen.result.error["message"]
    assert seen.documents == {FLOW_RUN: document}
    assert (seen.calls, seen.objects) == ([], {})


# Bad step content: the step is failed before anything is spent


def inputs(**changes):
    return lambda document: document["steps"][STEP_ID]["inputs"].update(changes)


def step_fields(**changes):
    return lambda document: document["steps"][STEP_ID].update(changes)


def without(*path):
    def remove(document):
        for name in path[:-1]:
            document = document[name]
        del document[path[-1]]

    return remove


REQUESTS = "a list of objects with a chartTemplateId"
MISTAKES = {
    "a NUL in a template id": (inputs(requests=[{"chartTemplateId": "a\0b"}]), "NUL"),
    "inputs of 900 kB": (inputs(requests=[{"chartTemplateId": "x" * 900_000}]), "larger than"),
    "thousands of requests": (inputs(requests=[{"chartTemplateId": f"t{n}"} for n in range(3000)]), "larger than"),
    "minImages 0": (inputs(minImages=0), "positive integer"),
    "minImages negative": (inputs(minImages=-1), "positive integer"),
    "minImages a string": (inputs(minImages="1"), "positive integer"),
    "minImages a bool": (inputs(minImages=True), "positive integer"),
    "minImages a float": (inputs(minImages=1.0), "positive integer"),
    "minImages null": (inputs(minImages=None), "positive integer"),
    "minImages over the requests": (inputs(minImages=9), "cannot exceed number of requests"),
    "no requests": (without("steps", STEP_ID, "inputs", "requests"), REQUESTS),
    "requests empty": (inputs(requests=[], minImages=1), "cannot exceed number of requests"),
    "requests a map": (inputs(requests={"chartTemplateId": "a"}), REQUESTS),
    "requests of strings": (inputs(requests=["a"]), REQUESTS),
    "a request without an id": (inputs(requests=[{}]), "chartTemplateId is required"),
    "a request with a blank id": (inputs(requests=[{"chartTemplateId": "  "}]), "chartTemplateId is required"),
    "a request with a number": (inputs(requests=[{"chartTemplateId": 7}]), "chartTemplateId is required"),
    "a request with more": (inputs(requests=[{"chartTemplateId": "a", "x": 1}]), "nothing else"),
    "duplicate templates": (inputs(requests=[{"chartTemplateId": "a"}] * 2), "Duplicate chartTemplateId"),
    "inputs a list": (step_fields(inputs=[]), "inputs must be an object"),
    "no inputs": (without("steps", STEP_ID, "inputs"), "inputs must be an object"),
    "no timeframe": (without("steps", STEP_ID, "timeframe"), "timeframe is required"),
    "blank timeframe": (step_fields(timeframe=" "), "timeframe is required"),
    "timeframe a number": (step_fields(timeframe=1), "timeframe is required"),
    "unknown timeframe": (step_fields(timeframe="7h"), "no interval"),
    "timeframe with a slash": (step_fields(timeframe="../1d"), "no interval"),
    "no scope": (without("scope"), "scope.symbol"),
    "scope a string": (lambda document: document.update(scope="BTCUSDT"), "scope.symbol"),
    "no symbol": (lambda document: document.update(scope={}), "scope.symbol"),
    "symbol with a slash": (lambda document: document.update(scope={"symbol": "BTC/USDT"}), "scope.symbol"),
    "symbol with a space": (lambda document: document.update(scope={"symbol": "BTC USDT"}), "scope.symbol"),
    "symbol empty": (lambda document: document.update(scope={"symbol": ""}), "scope.symbol"),
    "symbol a number": (lambda document: document.update(scope={"symbol": 5}), "scope.symbol"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_in_the_step_fails_it_before_anything_is_spent(case):
    spoil, message = MISTAKES[case]
    document = flow_run("a")
    spoil(document)
    seen = export(Scenario({FLOW_RUN: document}))

    assert (seen.step["status"], seen.step["error"]["code"]) == ("FAILED", "VALIDATION_FAILED")
    assert message in seen.step["error"]["message"]
    assert (seen.calls, seen.objects, seen.used("acc1")) == ([], {}, 0)
    assert seen.result.output["errorCode"] == "VALIDATION_FAILED"


TEMPLATE_MISTAKES = {
    "a body of 100 kB": ({"request": {"studies": ["x" * 100_000]}}, "larger than"),
    "no description": ({"description": None}, "description must be"),
    "blank description": ({"description": " "}, "description must be"),
    "no symbol template": ({"chartImgSymbolTemplate": None}, "chartImgSymbolTemplate is required"),
    "symbol template without symbol": ({"chartImgSymbolTemplate": "BINANCE:BTC"}, "must include {symbol}"),
    "request a list": ({"request": []}, "Template request must be an object"),
    "no request": ({"request": None}, "Template request must be an object"),
    "request for jpeg": ({"request": {"format": "jpeg"}}, "must ask for png"),
}


@pytest.mark.parametrize("case", TEMPLATE_MISTAKES)
def test_a_mistake_in_a_template_fails_its_request_alone(case):
    changes, message = TEMPLATE_MISTAKES[case]
    bad = {**template("b", 1), **changes}
    seen = export(Scenario({FLOW_RUN: flow_run("a", "b"), "chart_templates/b": bad}))

    failure = seen.manifest["failures"][0]
    assert (seen.step["status"], failure["request"]) == ("SUCCEEDED", {"chartTemplateId": "b"})
    assert message in failure["error"]["message"]
    assert failure["error"]["details"]["chartTemplateId"] == "b"
    assert [name for name, _ in seen.calls] == ["a"]


@pytest.mark.parametrize("name", ["a/b", "..", "x" * 300, "__x__"], ids=["slash", "dots", "long", "reserved"])
def test_a_template_id_that_no_store_can_hold_fails_its_request_alone(name):
    seen = export(with_step("a", name))

    assert seen.step["status"] == "SUCCEEDED"
    assert seen.manifest["failures"][0]["error"]["code"] == "VALIDATION_FAILED"


def test_missing_min_images_means_all_of_them():
    document = flow_run("a", "zz")
    del document["steps"][STEP_ID]["inputs"]["minImages"]
    seen = export(Scenario({FLOW_RUN: document}))

    assert (seen.step["status"], seen.result.output["minImages"]) == ("FAILED", 2)


@pytest.mark.parametrize(
    "step_id", ["charts.1d.v1", "charts:1d", "a b", "a`b", "ä ☃", "steps.x.status", '"quoted"', "a\\b"]
)
def test_any_other_step_id_works(step_id):
    document = flow_run("a")
    document["steps"][step_id] = document["steps"].pop(STEP_ID)
    seen = export(Scenario({FLOW_RUN: document}, input={"run_id": RUN_ID, "step_id": step_id}))
    after = seen.documents[FLOW_RUN]["steps"]

    assert set(after) == {step_id, "ohlcv:1d"}
    assert after[step_id]["status"] == "SUCCEEDED"


def test_a_second_start_finds_the_step_ended_and_records_nothing():
    async def prepare(app, folder):
        first = await app.run(MACHINE, {"run_id": RUN_ID, "step_id": STEP_ID})
        assert first.status == "succeeded"

    seen = export(Scenario({FLOW_RUN: flow_run("a")}, prepare=prepare))

    assert (seen.result.state, seen.result.is_unchanged, len(seen.calls)) == ("UNCHANGED", True, 1)
    assert sum(1 for name, run in seen.documents.items() if name.startswith("runs/") and run["is_root"]) == 1


def test_a_step_set_ready_again_is_exported_again():
    async def prepare(app, folder):
        from engine.core.write import Key, Update

        await app.run(MACHINE, {"run_id": RUN_ID, "step_id": STEP_ID})
        key = Key("flow_runs", RUN_ID)
        ready = {("steps", STEP_ID, "status"): "READY"}
        await app.store.transact([key], lambda found, now_ms: ([Update(key, ready)], None))
        app.clock.advance(5)

    seen = export(Scenario({FLOW_RUN: flow_run("a")}, prepare=prepare))

    assert (seen.result.state, len(seen.calls)) == ("SUCCEEDED", 2)
    assert seen.result.run_id.endswith("~2")
    assert seen.manifest["createdAt"] == "2026-01-05T09:30:05Z"


def test_mock_mode_touches_neither_ledger_nor_network():
    scenario = with_step("a")
    scenario.mode = "mock"
    seen = export(scenario)

    assert (seen.calls, seen.step["error"]["code"]) == ([], "CHART_API_MOCK_MISSING")
    assert not [name for name in seen.documents if name.startswith("chart_img_accounts")]


def test_exhaustion_of_yesterday_is_over_today():
    seen = export(Scenario({FLOW_RUN: flow_run("a"), **usage("acc1", 44, "2026-01-04")}))

    assert seen.documents["chart_img_accounts_usage/acc1"] == {"windowStart": "2026-01-05T00:00:00Z", "usageToday": 1}
