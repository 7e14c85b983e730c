"""The preflight: each section judges its own part, none hides another, and no secret stands in the report."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import anyio
import pytest

from engine.artifacts.folder import FolderArtifacts
from engine.artifacts.port import ABSENT
from engine.core.secret import Secrets
from engine.core.write import Key, Set, Update
from engine.entry import preflight_checks, preflight_clock
from engine.entry.application import Engine
from engine.entry.configuration import read_configuration
from engine.entry.preflight import NAMES, Finding, Report, Section, Status, examined, misconfigured, preflight
from engine.entry.preflight_documents import _manifests, usage_problems
from engine.errors import ArtifactUnavailableError, ConfigurationError
from engine.runner.clock import SystemClock
from engine.store import open_store
from engine.store.memory import MemoryStore
from engine.store.port import Found
from engine.testing.clock import SimulatedClock

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parent.parent.parent
MACHINES = sorted(ROOT.glob("machines/*.yaml"))
KEY = "a-very-secret-key"
ACCOUNTS = json.dumps([{"id": "main", "apiKey": KEY}, {"id": "more", "apiKey": f"{KEY}-2", "dailyLimit": 10}])
NOW = datetime(2026, 3, 4, 12, tzinfo=UTC)

WAITING = """
machine: waiting
version: 1
initial: WAITING
states:
  WAITING: {after: {1h: DONE}}
  DONE: {type: final}
"""


class Place:
    """A store and a folder of their own, and the preflight over them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environ = {
            "DETENT_STORE": f"sqlite:///{folder}/detent.db",
            "DETENT_ARTIFACTS": f"folder:{folder}/artifacts",
            "CHART_IMG_ACCOUNTS_JSON": ACCOUNTS,
            "CHARTS_API_MODE": "real",
        }

    async def look(self, *, machines=MACHINES, clock=None, timeout_s=10.0, accounts_file=None, **environ) -> Report:
        config = read_configuration(self.environ | environ, default_mode="real")
        return await preflight(config, machines=machines, clock=clock, timeout_s=timeout_s, accounts_file=accounts_file)

    async def put(self, *documents: tuple[str, dict]) -> None:
        store = await open_store(self.environ["DETENT_STORE"])
        for name, document in documents:
            key = Key.of(*name.split("/", 1))
            await store.transact([key], lambda found, now_ms, key=key, document=document: ([Set(key, document)], None))
        await store.close()

    async def begin(self, text: str = WAITING, clock=None) -> str:
        """A run of a machine that waits; answers its id."""
        file = self.folder / "waiting.yaml"
        file.write_text(text)
        async with Engine(
            store=self.environ["DETENT_STORE"], artifacts=self.environ["DETENT_ARTIFACTS"], clock=clock
        ) as app:
            return (await app.run(app.load(file), {}, patience_s=0)).run_id


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def found(report: Report, name: str) -> Finding:
    return next(section.finding for section in report.sections if section.name == name)


def statuses(report: Report) -> dict[str, str]:
    return {section.name: section.finding.status.value for section in report.sections}


# The report


async def test_a_sound_place_is_ready_and_nothing_but_the_probe_object_stays(place: Place) -> None:
    report = await place.look()
    assert dict.fromkeys(NAMES, "OK") == statuses(report)
    assert ("READY", 200, []) == (report.result, report.http_status, report.how_to_fix)
    again = await place.look()
    assert "READY" == again.result
    store = await open_store(place.environ["DETENT_STORE"])
    assert [] == await store.query(preflight_checks.PROBES)
    await store.close()
    files = [str(path.relative_to(place.folder)) for path in place.folder.rglob("*.txt")]
    assert ["artifacts/local/detent-preflight/probe.txt"] == files


@pytest.mark.parametrize(
    ("worst", "result", "status"),
    [
        ((Status.OK, Status.OK), "READY", 200),
        ((Status.OK, Status.SKIPPED), "READY", 200),
        ((Status.SKIPPED, Status.DEGRADED), "DEGRADED", 200),
        ((Status.DEGRADED, Status.FAILED), "FAILED", 503),
        ((Status.FAILED, Status.OK), "FAILED", 503),
    ],
)
async def test_the_whole_is_what_its_worst_section_is(worst, result, status) -> None:
    report = Report(tuple(Section(str(n), Finding(one, "", f"do {n}"), 1.0) for n, one in enumerate(worst)), 2.0)
    assert (result, status) == (report.result, report.http_status)
    wrong = sorted(
        (n for n, one in enumerate(worst) if one in (Status.FAILED, Status.DEGRADED)),
        key=lambda n: worst[n],
        reverse=True,
    )
    assert [f"{n}: do {n}" for n in wrong] == report.how_to_fix


async def test_the_json_is_what_a_program_reads(place: Place) -> None:
    shape = (await place.look()).to_json()
    assert json.loads(json.dumps(shape)) == shape
    assert ["result", "sections", "how_to_fix", "duration_ms"] == list(shape)
    assert list(NAMES) == list(shape["sections"])
    for section in shape["sections"].values():
        assert (
            {"status", "details", "latency_ms"} <= set(section) <= {"status", "details", "latency_ms", "remedy", "meta"}
        )


async def test_no_error_in_one_section_hides_another(place: Place) -> None:
    (place.folder / "file").write_text("no folder")
    report = await place.look(DETENT_STORE=f"sqlite:///{place.folder}/file/x.db", CHART_IMG_ACCOUNTS_JSON="[1]")
    assert {
        "configuration": "OK", "store": "FAILED", "artifacts": "OK", "ledger": "SKIPPED", "clock": "OK",
        "machines": "OK", "runs": "SKIPPED", "secrets": "FAILED",
    } == statuses(report)  # fmt: skip
    report = await place.look(DETENT_ARTIFACTS=f"folder:{place.folder}/file", machines=[place.folder / "none.yaml"])
    assert {"artifacts": "FAILED", "machines": "FAILED"} == {
        name: status for name, status in statuses(report).items() if status == "FAILED"
    }


async def test_a_configuration_that_cannot_be_read_is_a_report_too() -> None:
    report = misconfigured(ConfigurationError("ARTIFACTS_BUCKET", "is no bucket's name.", remedy="Use a bare name."))
    assert ("FAILED", 503) == (report.result, report.http_status)
    assert ["configuration: Use a bare name."] == report.how_to_fix
    assert {"FAILED", "SKIPPED"} == set(statuses(report).values())


async def test_a_check_that_never_answers_is_given_up() -> None:
    section = await examined("store", anyio.sleep_forever, 0.01)
    assert (Status.FAILED, "no answer within 0.01 s") == section.finding[:2]


async def test_a_check_that_raises_tells_its_class_and_no_more() -> None:
    async def check() -> Finding:
        raise ZeroDivisionError(KEY)

    finding = (await examined("store", check, 1)).finding
    assert (Status.FAILED, "the check raised ZeroDivisionError") == finding[:2]


async def test_no_secret_stands_in_the_report(place: Place) -> None:
    place.environ["DETENT_STORE"] = f"sqlite:///{place.folder}/{KEY}.db"
    (place.folder / f"{KEY}.yaml").write_text(f"machine: {KEY}\n")
    report = await place.look(machines=[*MACHINES, place.folder / f"{KEY}.yaml"], TDA_ENV=KEY)
    assert KEY not in json.dumps(report.to_json())
    assert "[redacted]" in json.dumps(report.to_json())


# Configuration


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"DETENT_STOR": "x"}, "DETENT_STOR is read by nothing"),
        ({"CHART_BUCKET": "x"}, "CHART_BUCKET is read by nothing"),
        ({"CHART_IMG_ACCOUNT_JSON": KEY}, "CHART_IMG_ACCOUNT_JSON is read by nothing"),
        ({"DETENT_STORE": "memory:"}, "nothing outlives this process"),
        ({"K_SERVICE": "f"}, "the store ends with this instance; the artifacts end with this instance"),
        ({"K_SERVICE": "f", "CHARTS_API_MODE": "record"}, "mode 'record' exports no new charts"),
    ],
)
async def test_what_is_unlikely_to_be_meant_is_said(place: Place, environ, said) -> None:
    report = await place.look(**environ)
    assert "DEGRADED" == report.result
    assert said in found(report, "configuration").details
    assert found(report, "configuration").remedy
    assert KEY not in json.dumps(report.to_json())


def test_every_variable_that_is_compared_with_is_documented() -> None:
    documented = set(re.findall(r"`([A-Z][A-Z_]+)`", (ROOT / "docs/configuration.md").read_text()))
    assert set() == set(preflight_checks.VARIABLES) - documented


# Store and artifacts


class Forgetful(MemoryStore):
    async def get_many(self, keys):
        return dict.fromkeys(keys)


class Clinging(MemoryStore):
    async def transact(self, keys, decide):
        return await super().transact(
            keys, lambda documents, now_ms: ([], None) if documents[keys[0]] else decide(documents, now_ms)
        )


@pytest.mark.parametrize(
    ("store", "said"), [(Forgetful, "is not what was written"), (Clinging, "is still there after its removal")]
)
async def test_a_store_that_does_not_do_what_it_says_fails(place: Place, monkeypatch, store, said) -> None:
    async def opened(url, **options):
        return store()

    monkeypatch.setattr(preflight_checks, "open_store", opened)
    finding = found(await place.look(), "store")
    assert (Status.FAILED, f"the probe document {said}") == finding[:2]


async def test_a_slow_store_is_degraded(place: Place, monkeypatch) -> None:
    monkeypatch.setattr(preflight_checks, "SLOW_MS", 0.0)
    finding = found(await place.look(), "store")
    assert (Status.DEGRADED, True) == (finding.status, finding.details.startswith("slow: write "))
    assert {"write_ms", "read_ms", "delete_ms"} == set(finding.meta)


async def test_a_store_that_stalls_is_given_up_and_the_others_are_looked_at(place: Place, monkeypatch) -> None:
    class Stalling(MemoryStore):
        async def transact(self, keys, decide):
            await anyio.sleep_forever()

    async def opened(url, **options):
        return Stalling()

    monkeypatch.setattr(preflight_checks, "open_store", opened)
    report = await place.look(timeout_s=0.5)
    assert "no answer within 0.5 s" == found(report, "store").details
    assert "OK" == found(report, "artifacts").status


async def test_other_bytes_under_the_probes_name_fail(place: Place) -> None:
    artifacts = FolderArtifacts(place.folder / "artifacts", "local")
    await artifacts.write(preflight_checks.PROBE_OBJECT, b"other", content_type="text/plain", expected=ABSENT)
    finding = found(await place.look(), "artifacts")
    assert (Status.FAILED, "ARTIFACT_CONFLICT") == (finding.status, finding.meta["code"])


# Ledger


@pytest.mark.parametrize(
    ("document", "problems"),
    [
        (None, []),
        ({"windowStart": "2026-03-04T00:00:00Z", "usageToday": 0}, []),
        ({"windowStart": "2026-03-05T00:00:00Z", "usageToday": 3, "dailyLimit": 1}, []),
        ({"windowStart": "yesterday", "usageToday": 1}, ["windowStart is no RFC 3339 time"]),
        ({"usageToday": 1}, ["windowStart is no RFC 3339 time"]),
        ({"windowStart": "2026-03-06T00:00:00Z", "usageToday": 1}, ["windowStart lies more than a day ahead"]),
        ({"windowStart": "2026-03-04T00:00:00Z", "usageToday": "1"}, ["usageToday is no number of units"]),
        ({"windowStart": "2026-03-04T00:00:00Z", "usageToday": -1}, ["usageToday is no number of units"]),
        ({"windowStart": "2026-03-04T00:00:00Z", "usageToday": True}, ["usageToday is no number of units"]),
        (
            {"windowStart": 1, "usageToday": 1, "dailyLimit": 0},
            ["windowStart is no RFC 3339 time", "dailyLimit is no positive number"],
        ),
    ],
)
def test_a_usage_document_is_judged_by_the_contract(document, problems) -> None:
    assert problems == usage_problems(document, NOW)


async def test_units_left_are_counted_over_the_accounts(place: Place) -> None:
    today = datetime.now(UTC).strftime("%Y-%m-%dT00:00:00Z")
    await place.put(("chart_img_accounts_usage/main", {"windowStart": today, "usageToday": 40}))
    finding = found(await place.look(), "ledger")
    assert (Status.OK, "14 of 54 units left today in 2 accounts") == finding[:2]
    await place.put(("chart_img_accounts_usage/more", {"windowStart": today, "usageToday": 10}))
    assert "4 of 54 units left today in 2 accounts; more exhausted" == found(await place.look(), "ledger").details
    await place.put(("chart_img_accounts_usage/main", {"windowStart": today, "usageToday": 44}))
    finding = found(await place.look(), "ledger")
    assert (Status.DEGRADED, "0 of 54 units left today in 2 accounts") == finding[:2]


async def test_a_document_that_the_ledger_cannot_read_is_named(place: Place) -> None:
    await place.put(
        ("chart_img_accounts_usage/main", {"windowStart": "?", "usageToday": None}),
        ("chart_img_accounts_rate/more", {"busyUntilMs": "soon"}),
    )
    finding = found(await place.look(), "ledger")
    assert Status.DEGRADED is finding.status
    assert "chart_img_accounts_usage/main: windowStart is no RFC 3339 time and usageToday" in finding.details
    assert "chart_img_accounts_rate/more: busyUntilMs is no instant of today" in finding.details


async def test_mock_mode_without_accounts_has_no_ledger(place: Place) -> None:
    report = await place.look(CHARTS_API_MODE="mock", CHART_IMG_ACCOUNTS_JSON="")
    assert (Status.SKIPPED, Status.OK) == (found(report, "ledger").status, found(report, "secrets").status)
    assert Status.SKIPPED is found(await place.look(machines=[]), "ledger").status


# Clock


@pytest.fixture
def dated() -> Iterator[ThreadingHTTPServer]:
    """A service whose `Date` is what `date` says; none when that is None."""

    class Dated(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response_only(404)
            if self.server.date is not None:
                self.send_header("Date", self.server.date)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Dated)
    server.date = format_datetime(NOW, usegmt=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def skewed(place: Place, **environ):
    config = read_configuration(place.environ | environ, default_mode="real")
    return lambda ahead_s: preflight_clock.clock_skew(
        config, SimulatedClock(now_ms=round((NOW.timestamp() + ahead_s) * 1000))
    )


@pytest.mark.parametrize(
    ("ahead_s", "status", "said"),
    [
        (0.5, Status.OK, "agrees with Cloud Storage (known to 0.5 s)"),
        (5.9, Status.OK, "5.4 s ahead of Cloud Storage (known to 0.5 s)"),
        (6.1, Status.DEGRADED, "5.6 s ahead of Cloud Storage (known to 0.5 s); the margin is 5 s"),
        (-59.5, Status.DEGRADED, "60 s behind Cloud Storage (known to 0.5 s); the margin is 5 s"),
    ],
)
async def test_the_clock_is_compared_with_the_date_of_an_answer(
    place: Place, dated, monkeypatch, ahead_s, status, said
):
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"127.0.0.1:{dated.server_address[1]}")
    look = skewed(place, DETENT_STORE="memory:", DETENT_ARTIFACTS="gs:", ARTIFACTS_BUCKET="bucket")
    assert (status, said) == (await look(ahead_s))[:2]


@pytest.mark.parametrize("date", [None, "yesterday"])
async def test_a_service_that_does_not_say_the_time_leaves_the_skew_unknown(place: Place, dated, monkeypatch, date):
    dated.date = date
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"127.0.0.1:{dated.server_address[1]}")
    look = skewed(place, DETENT_STORE="memory:", DETENT_ARTIFACTS="gs:", ARTIFACTS_BUCKET="bucket")
    assert (Status.SKIPPED, "unknown: Cloud Storage did not say the time") == (await look(0))[:2]


async def test_the_disks_of_store_and_folder_say_the_time(place: Place):
    (place.folder / "artifacts").mkdir()
    config = read_configuration(place.environ, default_mode="real")
    agrees = await preflight_clock.clock_skew(config, SystemClock())
    assert (Status.OK, ["the store's disk", "the artifacts' disk"]) == (agrees.status, list(agrees.meta["ahead_ms"]))
    behind = await skewed(place)(0)
    assert (Status.DEGRADED, True) == (behind.status, "behind the " in behind.details)
    assert [] == list(place.folder.glob(".detent-clock-*"))


def test_each_place_has_a_clock_that_can_be_asked(place: Place):
    config = read_configuration(
        place.environ | {"DETENT_ARTIFACTS": "gs:", "ARTIFACTS_BUCKET": "b"}, default_mode="real"
    )
    found = preflight_clock.references(config, {})
    assert ["the store's disk", "Cloud Storage"] == list(found)
    assert ("https://storage.googleapis.com/",) == found["Cloud Storage"].args


# Machines


async def test_a_definition_that_does_not_compile_fails_with_its_place(place: Place) -> None:
    (place.folder / "bad.yaml").write_text("machine: bad\nversion: 1\ninitial: NOWHERE\nstates: {}\n")
    finding = found(await place.look(machines=[*MACHINES, place.folder / "bad.yaml"]), "machines")
    assert Status.FAILED is finding.status
    assert f"{place.folder}/bad.yaml:" in finding.details
    assert len(finding.meta["given"]) == len(MACHINES)


async def test_the_definitions_of_unfinished_runs_are_compiled_too(place: Place) -> None:
    await place.begin()
    finding = found(await place.look(), "machines")
    assert (Status.OK, "2 compiled, 1 of unfinished runs") == finding[:2]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({("source",): '{"machine": "waiting"}'}, "waiting version 1 .* does not compile: "),
        (None, "waiting version 1: the definition .* is not in the store"),
    ],
)
async def test_a_run_whose_definition_cannot_be_had_is_stranded(place: Place, change, said) -> None:
    await place.begin()
    store = await open_store(place.environ["DETENT_STORE"])
    ((key, document),) = await store.query("definitions")
    if change is None:
        ((head, _),) = await store.query("runs")
        await store.transact([head], lambda found, now_ms: ([Update(head, {("digest",): "0" * 64})], None))
    else:
        await store.transact([key], lambda found, now_ms: ([Update(key, change)], None))
    await store.close()
    finding = found(await place.look(), "machines")
    assert Status.FAILED is finding.status
    assert re.search(said, finding.details)


async def test_a_run_that_asks_for_an_action_that_is_not_known_here_is_stranded(place: Place, monkeypatch) -> None:
    await place.begin()
    monkeypatch.setattr(preflight_checks, "_actions_of", lambda machine: {"shop.order", "publish.manifest"})
    finding = found(await place.look(), "machines")
    assert Status.FAILED is finding.status
    assert "asks for shop.order, which is not known here" in finding.details


# Runs


async def test_a_run_that_nobody_took_is_overdue(place: Place) -> None:
    now = datetime.now(UTC)
    run_id = await place.begin(clock=SimulatedClock(now_ms=round((now - timedelta(hours=3)).timestamp() * 1000)))
    finding = found(await place.look(), "runs")
    assert (Status.DEGRADED, f"1 run overdue: {run_id}; 1 unfinished, 0 held by a worker") == finding[:2]
    assert "detent worker --once" in finding.remedy


async def test_a_run_that_waits_or_is_held_is_in_order(place: Place) -> None:
    run_id = await place.begin()
    assert (Status.OK, "1 unfinished, 0 held by a worker") == found(await place.look(), "runs")[:2]
    later = round((datetime.now(UTC) + timedelta(minutes=1)).timestamp() * 1000)
    store = await open_store(place.environ["DETENT_STORE"])
    key = Key.of("runs", run_id)
    held = Update(key, {("worker",): "another", ("claimable_at_ms",): later})
    await store.transact([key], lambda found, now_ms: ([held], None))
    await store.close()
    assert "1 unfinished, 1 held by a worker" == found(await place.look(), "runs").details


def flow_run(status: str, step: str, kind: str = "CHART_EXPORT") -> dict:
    return {"runId": "r", "status": status, "steps": {"charts:1d": {"stepType": kind, "status": step}, "odd": None}}


@pytest.mark.parametrize(
    ("document", "is_stuck"),
    [
        (flow_run("RUNNING", "RUNNING"), True),
        (flow_run("RUNNING", "READY"), False),
        (flow_run("CANCELLED", "RUNNING"), False),
        (flow_run("RUNNING", "RUNNING", "LLM_REPORT"), False),
        ({"runId": "r", "status": "RUNNING", "steps": ["a list"]}, False),
    ],
)
async def test_a_step_that_runs_without_a_run_is_named(place: Place, document, is_stuck) -> None:
    await place.put(("flow_runs/r", document))
    finding = found(await place.look(), "runs")
    assert (Status.DEGRADED if is_stuck else Status.OK) is finding.status
    assert (["r/charts:1d"] if is_stuck else []) == finding.meta["steps_without_a_run"]


@pytest.mark.parametrize(("status", "is_stuck"), [("waiting", False), ("failed", True)])
async def test_a_step_whose_run_lives_is_in_order(place: Place, status, is_stuck) -> None:
    run_id = await place.begin()
    await place.put(
        ("flow_runs/r", flow_run("RUNNING", "RUNNING")), ("run_keys/chart_export~r%2Fcharts:1d", {"run_id": run_id})
    )
    store = await open_store(place.environ["DETENT_STORE"])
    key = Key.of("runs", run_id)
    await store.transact([key], lambda found, now_ms: ([Update(key, {("status",): status})], None))
    await store.close()
    assert is_stuck == bool(found(await place.look(), "runs").meta["steps_without_a_run"])


# Secrets


@pytest.mark.parametrize("collection", ["flow_runs", "chart_img_accounts_usage", "chart_img_accounts_rate"])
async def test_a_key_in_a_document_is_found_and_not_repeated(place: Place, collection) -> None:
    await place.put((f"{collection}/leaky", {"note": [f"the key is {KEY}"]}))
    report = await place.look()
    finding = found(report, "secrets")
    assert (Status.FAILED, f"a key stands in {collection}/leaky") == finding[:2]
    assert KEY not in json.dumps(report.to_json())


async def test_a_key_in_a_published_manifest_is_found(place: Place) -> None:
    text = WAITING.replace("DONE: {type: final}", "DONE: {type: final, output: {uri: 'gs://local/a/manifest.json'}}")
    await place.begin(text.replace("{after: {1h: DONE}}", "{always: [{target: DONE}]}"))
    artifacts = FolderArtifacts(place.folder / "artifacts", "local")
    await artifacts.write("a/manifest.json", KEY.encode(), content_type="application/json", expected=ABSENT)
    finding = found(await place.look(), "secrets")
    assert (Status.FAILED, "a key stands in gs://local/a/manifest.json") == finding[:2]


@pytest.mark.parametrize(("mode", "status"), [(0o600, Status.OK), (0o640, Status.DEGRADED), (0o604, Status.DEGRADED)])
async def test_a_file_of_keys_is_for_its_owner_alone(place: Place, mode, status) -> None:
    file = place.folder / "accounts.json"
    file.write_text(ACCOUNTS)
    file.chmod(mode)
    finding = found(await place.look(accounts_file=file), "secrets")
    assert status is finding.status
    assert finding.remedy == ("" if status is Status.OK else f"chmod 600 {file}")
    assert status is found(await place.look(GOOGLE_APPLICATION_CREDENTIALS=str(file)), "secrets").status


@pytest.mark.parametrize(
    ("accounts", "said"),
    [
        ("", "CHART_IMG_ACCOUNTS_JSON: is not set, and the mode 'real' calls the API."),
        ("[", "CHART_IMG_ACCOUNTS_JSON: is not valid JSON at line 1"),
        (json.dumps([{"id": "a", "apiKey": ""}]), "CHART_IMG_ACCOUNTS_JSON: [0].apiKey must not be empty."),
    ],
)
async def test_accounts_that_cannot_be_used_fail(place: Place, accounts, said) -> None:
    finding = found(await place.look(CHART_IMG_ACCOUNTS_JSON=accounts), "secrets")
    assert Status.FAILED is finding.status
    assert said in finding.details
    ledger = found(await place.look(CHART_IMG_ACCOUNTS_JSON=accounts), "ledger")
    assert (Status.SKIPPED, "no accounts can be read: see secrets") == ledger[:2]


async def test_the_keys_are_registered_with_the_registry_that_is_given(place: Place) -> None:
    secrets = Secrets()
    await preflight(read_configuration(place.environ, default_mode="real"), machines=MACHINES, secrets=secrets)
    assert secrets.found_in(f"x{KEY}x")


class Away(FolderArtifacts):
    """Artifacts that are away, and count who asks."""

    asked = 0

    async def read(self, name: str) -> bytes:
        self.asked += 1
        raise ArtifactUnavailableError("no answer.", remedy="Try again.")


async def test_a_bucket_that_is_away_is_asked_for_one_manifest_not_for_each(tmp_path):
    away = Away(tmp_path, "charts")
    named = json.dumps([away.uri(f"a/manifest-{number}.json") for number in range(3)])

    assert {} == await _manifests([Found(Key("detent_runs", "r"), {"snapshot": named})], away)
    assert 1 == away.asked
