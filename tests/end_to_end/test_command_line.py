"""The real command line in processes of its own, against the simulator: what a person types, and what comes back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from engine.testing.chart_img import ULTRA, Answer, Match, running_simulator

ROOT = Path(__file__).parent.parent.parent
RUN_ID = "20260105-080000_BTCUSDT_k3f7a"
STEP_ID = "charts:1d:short_set_v1"
KEY = "a-secret-key-of-the-test"


@pytest.fixture
def detent(tmp_path):
    """Runs `detent` in the project's folder with a store and artifacts of its own."""

    def run(*arguments, env=None, stdin=None, cwd=ROOT):
        environment = {
            **{name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "VIRTUAL_ENV", "LANG")},
            "PYTHONPATH": str(ROOT),
            "DETENT_STORE": f"sqlite:///{tmp_path}/detent.db",
            "DETENT_ARTIFACTS": f"folder:{tmp_path}/artifacts",
            **(env or {}),
        }
        command = [sys.executable, "-m", "engine.entry.cli", *map(str, arguments)]
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, cwd=cwd, input=stdin, timeout=60
        )

    run.folder = tmp_path
    return run


@pytest.fixture(scope="module")
def simulator():
    with running_simulator({KEY: ULTRA}) as running:
        yield running


def real(simulator, **more):
    accounts = json.dumps([{"id": "main", "apiKey": KEY, "perSecond": 1000, "burst": 100}])
    return {"CHART_IMG_BASE_URL": simulator.url, "CHART_IMG_ACCOUNTS_JSON": accounts, "CHARTS_API_MODE": "real", **more}


def export(detent, *more, step_id=STEP_ID, env=None):
    given = json.dumps({"run_id": RUN_ID, "step_id": step_id})
    return detent("run", "machines/chart_export.yaml", "--load", "fixtures/documents", "--input", given, *more, env=env)


def test_mock_mode_replays_picture_files_and_a_second_command_changes_nothing(detent):
    first = export(detent)
    second = export(detent)

    assert (first.returncode, second.returncode) == (0, 0)
    assert first.stdout.startswith("CHART_EXPORT SUCCEEDED: manifest=gs://local/runs/")
    assert "items=3, failures=0, minImages=3" in first.stdout
    assert "unchanged" in second.stdout


def test_mock_mode_replays_the_cassette(detent):
    found = export(detent, "--summary", "json", step_id="charts:1w:default_set_v1")
    summary = json.loads(found.stdout)

    assert (found.returncode, summary["status"], summary["output"]["itemsCount"]) == (0, "succeeded", 5)
    assert list(summary) == [
        "run_id", "machine", "version", "state", "status", "output", "error", "steps", "duration_s",
    ]  # fmt: skip
    assert set(summary["output"]) == {
        "status", "runId", "stepId", "outputsManifestGcsUri", "itemsCount", "failuresCount", "minImages", "errorCode",
    }  # fmt: skip


def test_an_error_twin_is_replayed(detent):
    given = json.dumps({"run_id": "20260105-080000_NOSUCH_e4r0r"})
    found = detent("run", "machines/chart_export.yaml", "--load", "fixtures/documents", "--input", given)

    assert found.returncode == 1
    assert "CHART_API_FAILED: Invalid Symbol" in found.stdout


def test_a_flow_run_document_is_taken_directly(detent):
    document = f"fixtures/documents/flow_runs/{RUN_ID}.json"
    detent("documents", "put", "chart_templates/x", stdin="{}")
    for name in sorted(Path(ROOT, "fixtures/documents/chart_templates").glob("*.json")):
        detent("documents", "put", f"chart_templates/{name.stem}", name)
    runs = [detent("run", "machines/chart_export.yaml", "--flow-run", document) for _ in range(3)]

    assert [found.returncode for found in runs] == [0, 0, 0]
    assert "charts:1d" in runs[0].stdout and "charts:1w" in runs[1].stdout
    assert "unchanged" in runs[2].stdout


def test_real_mode_exports_pictures_that_are_whole(detent, simulator):
    found = export(detent, "--bucket", "pictures", env=real(simulator))
    pictures = sorted(Path(detent.folder, "artifacts/pictures").rglob("*.png"))

    assert found.returncode == 0, found.stderr
    assert len(pictures) == 3
    assert all(picture.read_bytes().endswith(b"IEND\xaeB`\x82") for picture in pictures)
    ledger = detent("ledger", "show", "--format", "json", env=real(simulator))
    assert [row["used"] for row in json.loads(ledger.stdout)] == [3]
    assert KEY not in found.stdout + found.stderr + ledger.stdout


def test_a_recorded_run_is_replayed_from_its_cassette_to_the_same_manifest(detent, simulator):
    recorded = {
        **real(simulator),
        "CHART_IMG_CASSETTE": f"{detent.folder}/cassette.yaml",
        "CHART_IMG_FIXTURES_DIR": f"{detent.folder}/fixtures",
    }
    simulator.simulator.script(Match(symbol="BINANCE:BTCUSDT", nth=1), [Answer.error(500)])
    first = export(detent, "--mode", "record", "--bucket", "one", env=recorded)
    for picture in Path(detent.folder, "fixtures").iterdir():
        picture.unlink()
    Path(detent.folder, "detent.db").unlink()
    second = export(detent, "--mode", "mock", "--bucket", "one2", env=recorded)

    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    one, two = (
        json.loads(next(Path(detent.folder, "artifacts", name).rglob("manifest.json")).read_text())
        for name in ("one", "one2")
    )
    for manifest in (one, two):
        manifest.pop("createdAt")
        for item in manifest["items"]:
            item.pop("generatedAt")
            item["png_gcs_uri"] = item["png_gcs_uri"].rpartition("_BTCUSDT_")[2]
    assert one == two
    assert KEY not in Path(detent.folder, "cassette.yaml").read_text()


def test_record_is_refused_in_production(detent):
    by_flag = export(detent, "--mode", "record", env={"TDA_ENV": "PROD"})
    by_variable = export(detent, env={"TDA_ENV": "PROD", "CHARTS_API_MODE": "record"})

    assert (by_flag.returncode, by_variable.returncode) == (2, 2)
    assert by_flag.stderr.startswith("CONFIG_ERROR: --mode: ")
    assert by_variable.stderr.startswith("CONFIG_ERROR: CHARTS_API_MODE: ")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DETENT_STORE", "postgres://secret-value"), ("DETENT_ARTIFACTS", "secret-value"), ("DETENT_LEASE_S", "secret"),
        ("DETENT_LEASE_S", "nan"), ("DETENT_LEASE_S", "0"), ("ARTIFACTS_BUCKET", "gs://secret/value"),
        ("ARTIFACTS_BUCKET", ".."), ("CHARTS_API_MODE", "secret-value"), ("CHARTS_DEFAULT_TIMEZONE", "Secret/Value"),
        ("CHARTS_DEFAULT_TIMEZONE", "../secret"), ("CHARTS_DEFAULT_TIMEZONE", "Europe"), ("LOG_LEVEL", "secret"),
        ("CHART_IMG_BASE_URL", "ftp://secret"), ("CHART_IMG_BASE_URL", "https://user:secret@host"),
        ("CHART_IMG_ACCOUNTS_JSON", "secret-value"), ("CHART_IMG_ACCOUNTS_JSON", "[]"),
        ("CHART_IMG_ACCOUNTS_JSON", '[{"id": "secret", "apiKey": 5}]'),
    ],
)  # fmt: skip
def test_a_wrong_variable_is_named_and_its_value_never_shown(detent, name, value):
    found = export(detent, env={name: value})

    assert found.returncode == 2
    assert found.stderr.startswith(f"CONFIG_ERROR: {name}: ")
    assert "secret" not in found.stderr.lower()
    assert not Path(detent.folder, "artifacts").exists()


def test_two_variables_for_one_bucket_must_agree(detent):
    found = export(detent, env={"ARTIFACTS_BUCKET": "one", "CHARTS_BUCKET": "gs://two"})

    assert found.returncode == 2
    assert "CHARTS_BUCKET" in found.stderr


def test_real_mode_needs_accounts(detent):
    found = export(detent, "--mode", "real")

    assert found.returncode == 2
    assert found.stderr.startswith("CONFIG_ERROR: CHART_IMG_ACCOUNTS_JSON: is not set")


def test_an_unreachable_host_fails_the_step(detent):
    accounts = json.dumps([{"id": "main", "apiKey": KEY, "perSecond": 1000, "burst": 100}])
    env = {"CHART_IMG_BASE_URL": "http://127.0.0.1:9", "CHART_IMG_ACCOUNTS_JSON": accounts, "CHARTS_API_MODE": "real"}
    found = export(detent, env=env)
    document = json.loads(detent("documents", "get", f"flow_runs/{RUN_ID}").stdout)

    assert found.returncode == 1
    assert document["steps"][STEP_ID]["error"]["code"] == "CHART_API_FAILED"
    assert document["steps"][STEP_ID]["status"] == "FAILED"


def test_an_artifacts_folder_that_cannot_be_written_is_found_before_anything_is_claimed(detent, simulator):
    Path(detent.folder, "artifacts").write_text("a file where the folder should be")
    calls = len(simulator.simulator.calls)
    found = export(detent, env=real(simulator))

    assert found.returncode == 2
    assert found.stderr.startswith("CONFIG_ERROR: DETENT_ARTIFACTS: ")
    assert len(simulator.simulator.calls) == calls


@pytest.mark.parametrize(("name", "place"), [("CHART_IMG_CASSETTE", "."), ("CHART_IMG_FIXTURES_DIR", "pyproject.toml")])
def test_fixtures_that_are_something_else_are_a_configuration_error(detent, name, place):
    found = export(detent, env={name: place})

    assert found.returncode == 2
    assert found.stderr.startswith(f"CONFIG_ERROR: {name}: ")


@pytest.mark.parametrize(
    "text", ['{"a": 1, "a": 2}', '{"a": {"b": [18446744073709551616]}}', '{"a": NaN}', '{"a": "\\ud800"}', "[1]", "{"]
)
def test_a_document_that_no_store_can_hold_is_refused_without_a_traceback(detent, text):
    found = detent("documents", "put", "odd/a", stdin=text)

    assert (found.returncode, "Traceback" in found.stderr) == (2, False)


def test_reading_from_a_store_that_is_not_there_makes_none(detent):
    found = detent("runs", "list")

    assert found.returncode == 2
    assert not list(Path(detent.folder).iterdir())


def test_a_store_that_cannot_be_opened_is_a_configuration_error(detent):
    Path(detent.folder, "file").write_text("x")
    found = export(detent, env={"DETENT_STORE": f"sqlite:///{detent.folder}/file/detent.db"})

    assert found.returncode == 2
    assert found.stderr.startswith("CONFIG_ERROR: DETENT_STORE: ")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--input", "{"], ["--input", "[]"], ["--input", "@missing.json"], ["--input", '{"run_id": 5}'], ["--input", "{}"],
        ["--input", '{"run_id": "x", "more": 1}'], ["--load", "missing"], ["--flow-run", "missing.json"],
        ["--actions", "no.such.module"], ["--mode", "sometimes"], ["--run-id", "x", "--input", '{"run_id": "x"}'],
        ["--nonsense"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_a_wrong_use_is_explained_without_a_traceback(detent, arguments):
    found = detent("run", "machines/chart_export.yaml", *arguments)

    assert found.returncode == 2
    assert found.stderr.strip()
    assert "Traceback" not in found.stderr


@pytest.mark.parametrize("content", ["{", "[1]", '{"runId": 5}', '{"runId": "a/b"}', "{}", '{"a": NaN}'])
def test_a_flow_run_file_that_is_none_is_refused_before_anything_is_claimed(detent, content):
    file = Path(detent.folder, "flow.json")
    file.write_text(content)
    found = detent("run", "machines/chart_export.yaml", "--flow-run", file)

    assert found.returncode in (1, 2)
    assert "Traceback" not in found.stderr


def test_a_broken_definition_exits_with_its_own_status(detent):
    file = Path(detent.folder, "broken.yaml")
    file.write_text("machine: broken\ninitial: A\nstates:\n  A: {tpye: final}\n")
    validated, run = detent("validate", file), detent("run", file)

    assert (validated.returncode, run.returncode) == (3, 3)
    assert f"{file}:4:7: unknown key 'tpye' in a state [key-unknown] Did you mean 'type'?" in validated.stdout
    assert "[key-unknown]" in run.stderr


def test_documents_are_loaded_once_and_reloaded_when_asked(detent):
    detent("documents", "put", f"flow_runs/{RUN_ID}", stdin='{"mine": true}')
    export(detent)
    kept = detent("documents", "get", f"flow_runs/{RUN_ID}")
    export(detent, "--reload")
    replaced = detent("documents", "get", f"flow_runs/{RUN_ID}")

    assert json.loads(kept.stdout) == {"mine": True}
    assert json.loads(replaced.stdout)["runId"] == RUN_ID


def test_a_document_whose_id_is_no_file_name_names_itself(detent):
    folder = Path(detent.folder, "documents/odd")
    folder.mkdir(parents=True)
    Path(folder, "any.json").write_text('{"__id__": "a:b c\\n", "x": 1}')
    detent("run", "machines/chart_export.yaml", "--load", folder.parent, "--input", '{"run_id": "x"}')

    assert json.loads(detent("documents", "get", "odd/a:b c\n").stdout) == {"x": 1}
    assert json.loads(detent("documents", "list", "odd").stdout) == {"id": "a:b c\n", "document": {"x": 1}}


def test_logs_are_json_lines_with_the_run_in_them(detent):
    lines = [json.loads(line) for line in export(detent).stderr.splitlines()]
    events = {line["event"] for line in lines}

    assert {
        "claim_attempt",
        "chart_api_call_start",
        "chart_api_call_finished",
        "manifest_written",
        "step_completed",
    } <= events
    for line in lines:
        assert {"event", "message", "severity", "logger", "time", "timestamp_ms", "correlation_id"} <= set(line)
        assert line["message"] == line["event"]
    assert len({line["correlation_id"] for line in lines}) == 1
    assert {line["item"] for line in lines if line["event"] == "chart_api_call_start"} == {
        "ctpl_price_ma1226_vol_v1", "ctpl_price_ma1226_bb_macd1226_v1", "ctpl_price_psar_adi_v1",
    }  # fmt: skip


def test_runs_are_listed_and_shown(detent):
    export(detent)
    listed = json.loads(detent("runs", "list", "--format", "json").stdout)
    shown = json.loads(detent("runs", "show", listed[0]["run_id"], "--format", "json").stdout)

    assert [run["machine"] for run in listed] == ["chart_export"]
    assert [entry["event"] for entry in shown["journal"]][:2] == ["run_started", "action_returned"]
    assert listed[0]["run_id"] in detent("runs", "list").stdout
    assert "succeeded in SUCCEEDED" in detent("runs", "show", listed[0]["run_id"]).stdout
    assert detent("runs", "show", "nope").returncode == 2


def test_a_ledger_without_accounts_says_what_to_set(detent):
    export(detent)
    bare, strict = detent("ledger", "show"), detent("ledger", "show", "--mode", "real")

    assert (0, True) == (bare.returncode, bare.stdout.startswith("No accounts are configured; set CHART_IMG_ACCOUNTS"))
    assert (2, True) == (strict.returncode, "CHART_IMG_ACCOUNTS_JSON: is not set" in strict.stderr)


def test_what_others_wrote_is_shown_as_it_is(detent):
    """Ids, inputs and signals may hold what is markup elsewhere; shown as markup it vanishes, or ends the command."""
    machine = detent.folder / "asking.yaml"
    machine.write_text("machine: asking\nversion: 1\ninitial: ASKING\nstates:\n"
                       "  ASKING: {on: {go: DONE}}\n  DONE: {type: final}\n", encoding="utf-8")  # fmt: skip
    detent("run", machine, "--run-id", "a[red]b", "--input", '{"text": "[/closed] :smile:"}')
    detent("runs", "signal", "a[red]b", "go", "--id", "[/id]")

    listed, shown = detent("runs", "list"), detent("runs", "show", "a[red]b")
    detent("worker", "--once")
    ended = detent("runs", "show", "a[red]b")

    assert (0, 0, 0) == (listed.returncode, shown.returncode, ended.returncode), shown.stderr
    assert "a[red]b" in listed.stdout
    assert "[/closed] :smile:" in shown.stdout
    assert "go ([/id])" in shown.stdout
    assert "go ([/id])" in ended.stdout


def test_an_id_that_is_empty_is_no_id_of_its_own(detent):
    """`--id "$ID"` with an ID that nobody set would deliver the signal each time."""
    machine = detent.folder / "asking.yaml"
    machine.write_text("machine: asking\nversion: 1\ninitial: ASKING\nstates:\n"
                       "  ASKING: {on: {go: DONE}}\n  DONE: {type: final}\n", encoding="utf-8")  # fmt: skip
    detent("run", machine, "--run-id", "a")

    refused = detent("runs", "signal", "a", "go", "--id", "")

    assert 2 == refused.returncode
    assert refused.stderr.startswith("REQUEST_INVALID: a signal's id must have 1 to ")


def test_a_journal_that_cannot_be_exported_is_explained_without_a_traceback(detent):
    machine = detent.folder / "resting.yaml"
    machine.write_text("machine: resting\nversion: 1\ninitial: DONE\nstates: {DONE: {type: final}}\n", encoding="utf-8")
    detent("run", machine, "--run-id", "a")

    refused = detent("replay", "a", "--export", detent.folder)

    assert 2 == refused.returncode
    assert refused.stderr.startswith("REQUEST_INVALID: --export ")


def test_a_ledger_is_shown_of_a_machine_with_actions_of_its_own(detent):
    export(detent)
    shop = ("--machine", "tests/verification/shop.yaml", "--actions", "tests.verification.shop")
    accounts = {"SHOP_ACCOUNTS_JSON": '[{"id": "till", "apiKey": "a-key-of-the-till"}]'}
    found = detent("ledger", "show", *shop, env=accounts)

    assert (0, True) == (found.returncode, "card  till" in found.stdout), found.stderr


def test_a_damaged_record_keeps_no_worker_from_the_others(detent):
    machine = detent.folder / "resting.yaml"
    machine.write_text("machine: resting\nversion: 1\ninitial: A\nstates:\n"
                       "  A: {after: {0.1: DONE}}\n  DONE: {type: final}\n", encoding="utf-8")  # fmt: skip
    detent("run", machine, "--run-id", "a", "--detach")
    detent("documents", "put", "runs/damaged", stdin='{"claimable_at_ms": 1}')

    worked = detent("worker", "--once")

    assert 0 == worked.returncode, worked.stderr
    assert '"run_id": "damaged"' in worked.stderr
    assert '"status": "succeeded"' in detent("runs", "show", "a", "--format", "json").stdout


def test_a_worker_finds_nothing_to_do_in_a_finished_store(detent):
    export(detent)
    found = detent("worker", "--once")

    assert (found.returncode, found.stdout) == (0, "0 runs driven; nothing is due.\n")


@pytest.mark.parametrize("format_", ["mermaid", "dot", "svg"])
def test_a_machine_is_drawn(detent, format_):
    found = detent("visualize", "machines/chart_export.yaml", "--format", format_)

    assert found.returncode == 0
    assert "CAPTURING" in found.stdout


def test_help_names_every_command(detent):
    found = detent("--help")

    assert found.returncode == 0
    for name in ("run", "validate", "visualize", "runs", "worker", "documents", "ledger", "simulate"):
        assert f"  {name} " in found.stdout
