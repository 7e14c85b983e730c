"""`deploy/deploy.sh`: what it would run, that gcloud knows every flag of it, and what it does when gcloud refuses."""

from __future__ import annotations

import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent.parent
DEPLOY = ROOT / "deploy"
STEPS = ["apis", "accounts", "database", "indexes", "bucket", "secret", "roles", "event", "sweep", "schedule"]
INDEXES = {
    "indexes": [
        {
            "collectionGroup": "runs",
            "queryScope": "COLLECTION",
            "fields": [
                {"fieldPath": "is_root", "order": "ASCENDING"},
                {"fieldPath": "created_at_ms", "order": "DESCENDING"},
            ],
        }
    ],
    "fieldOverrides": [{"collectionGroup": "journal", "fieldPath": "entry", "indexes": []}],
}


class Deployment:
    """The script with settings, variables and indexes of its own, and a gcloud that only takes notes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.settings = {"PROJECT": "p1", "BUCKET": "p1-charts", "LOCATION": "europe-west4", "RETRY_WAIT_S": "0"}
        self.write("env.yaml", DEPLOY.joinpath("env.example.yaml").read_text().replace("my-project", "p1"))
        self.write("indexes.json", json.dumps(INDEXES))
        self.gcloud("")

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.write_text(text)
        return path

    def gcloud(self, answers: str) -> None:
        """`answers` is shell: what the stand-in does after it has noted its arguments in `calls`."""
        notes = f"printf '%s\\n' \"$*\" >> {shlex.quote(str(self.folder / 'calls'))}"
        self.write("gcloud", f"#!/usr/bin/env bash\n{notes}\n{answers}\n").chmod(0o755)

    def run(self, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
        files = {"ENV_FILE": f"{self.folder}/env.yaml", "INDEXES_FILE": f"{self.folder}/indexes.json"}
        given = self.settings | files | settings
        self.write("settings.sh", "".join(f"{name}={shlex.quote(value)}\n" for name, value in given.items()))
        command = ["bash", str(DEPLOY / "deploy.sh"), "--settings", f"{self.folder}/settings.sh", *arguments]
        environment = {"PATH": f"{self.folder}:{os.environ['PATH']}", "HOME": str(self.folder)}
        return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)

    @property
    def calls(self) -> list[list[str]]:
        notes = self.folder / "calls"
        return [line.split() for line in notes.read_text().splitlines()] if notes.exists() else []


@pytest.fixture
def deployment(tmp_path: Path) -> Deployment:
    return Deployment(tmp_path)


def commands(found: subprocess.CompletedProcess[str]) -> list[list[str]]:
    """The commands that were printed, as their words."""
    return [shlex.split(line) for line in found.stdout.splitlines() if line.startswith("gcloud ")]


def flags(command: list[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for word in command:
        if word.startswith("--"):
            name, _, value = word.partition("=")
            found.setdefault(name, []).append(value)
    return found


def command_of(found: subprocess.CompletedProcess[str], *words: str) -> list[str]:
    chosen = [command for command in commands(found) if command[: len(words)] == list(words)]
    assert len(chosen) == 1, words
    return chosen[0]


# What it would run


def test_a_dry_run_prints_every_step_and_calls_nothing(deployment):
    found = deployment.run("--dry-run")

    assert (0, "", []) == (found.returncode, found.stderr, deployment.calls)
    assert STEPS == [line.removeprefix("# ") for line in found.stdout.splitlines() if line[2:] in STEPS]
    assert 21 == len(commands(found))
    assert all("p1" in " ".join(command) for command in commands(found))


def test_what_a_dry_run_prints_is_what_is_run(deployment):
    deployment.gcloud(
        '[[ "$*" == *"scheduler jobs describe"* ]] && exit 1; [[ "$*" == *"functions describe"* ]] && echo https://sweep.example; exit 0'
    )
    printed = commands(deployment.run("--dry-run"))
    found = deployment.run()

    assert 0 == found.returncode, found.stderr
    asked = [call for call in deployment.calls if "describe" not in call]
    told = [
        " ".join(command[1:]).replace("https://URL-OF-THE-SWEEP", "https://sweep.example").split()
        for command in printed
    ]
    assert told == asked


def test_the_event_function_is_started_by_writes_of_flow_runs(deployment):
    found = deployment.run("--dry-run", "event", DATABASE="flows")  # the variables' file names another
    assert (2, True) == (found.returncode, "does not name firestore://p1/flows" in found.stderr)

    deployment.write("env.yaml", deployment.folder.joinpath("env.yaml").read_text().replace("(default)", "flows"))
    event = flags(command_of(deployment.run("--dry-run", "event", DATABASE="flows"), "gcloud", "functions", "deploy"))
    assert [
        "type=google.cloud.firestore.document.v1.written", "database=flows", "namespace=(default)",
    ] == event["--trigger-event-filters"]  # fmt: skip
    assert ["document=flow_runs/{runId}"] == event["--trigger-event-filters-path-pattern"]
    assert "--retry" in event, "a redelivery is safe here, and without it an error drops the event for good"
    assert ["chart_export_event"] == event["--entry-point"]
    assert (["540s"], ["1"]) == (event["--timeout"], event["--concurrency"])
    assert "--no-allow-unauthenticated" in event


def test_both_functions_have_the_same_code_variables_and_secret(deployment):
    found = deployment.run("--dry-run", "event", "sweep")
    event, sweep = (flags(command) for command in commands(found) if command[1:3] == ["functions", "deploy"])
    own = {"--entry-point", "--retry", "--trigger-http"} | {name for name in event if name.startswith("--trigger-")}
    assert {name: value for name, value in event.items() if name not in own} == {
        name: value for name, value in sweep.items() if name not in own
    }
    assert ["CHART_IMG_ACCOUNTS_JSON=chart-img-accounts:latest"] == sweep["--set-secrets"]
    assert "sweep" == sweep["--entry-point"][0]


@pytest.mark.parametrize(
    ("location", "region"),
    [("nam5", "us-central1"), ("eur3", "europe-west4"), ("europe-west3", "europe-west3")],
)
def test_functions_trigger_and_bucket_are_where_the_database_is(deployment, location, region):
    found = deployment.run("--dry-run", LOCATION=location)
    assert [location] == flags(command_of(found, "gcloud", "firestore", "databases"))["--location"]
    places = [
        value
        for command in commands(found)
        for name, values in flags(command).items()
        if name in ("--region", "--trigger-location", "--location") and "databases" not in command
        for value in values
    ]
    assert {region} == set(places)
    assert 7 == len(places)


def test_each_service_account_gets_what_it_needs_and_no_more(deployment):
    found = deployment.run("--dry-run")
    granted = {}
    for command in commands(found):
        named = flags(command)
        if "--role" in named:
            member = named["--member"][0].removeprefix("serviceAccount:").partition("@")[0]
            granted.setdefault(member, set()).add((command[3 if command[1] == "projects" else 4], named["--role"][0]))
    roles = {member: {role for _, role in pairs} for member, pairs in granted.items()}
    assert {
        "detent-build": {"roles/cloudbuild.builds.builder"},
        "detent-runtime": {"roles/datastore.user", "roles/storage.objectUser", "roles/secretmanager.secretAccessor"},
        "detent-trigger": {"roles/eventarc.eventReceiver", "roles/run.invoker"},
        "detent-sweep": {"roles/run.invoker"},
    } == roles


def test_the_scheduler_calls_the_sweep_with_an_identity(deployment):
    job = flags(command_of(deployment.run("--dry-run", "schedule"), "gcloud", "scheduler", "jobs", "create", "http"))
    assert job["--uri"] == job["--oidc-token-audience"]
    assert ["detent-sweep@p1.iam.gserviceaccount.com"] == job["--oidc-service-account-email"]
    assert ["*/2 * * * *"] == job["--schedule"]


def test_each_index_of_the_file_is_made(deployment):
    index = flags(command_of(deployment.run("--dry-run", "indexes"), "gcloud", "firestore", "indexes", "composite"))
    assert ["field-path=is_root,order=ascending", "field-path=created_at_ms,order=descending"] == index[
        "--field-config"
    ]
    assert (["runs"], ["(default)"]) == (index["--collection-group"], index["--database"])


def test_each_field_that_the_file_spares_loses_its_automatic_indexes(deployment):
    command = command_of(deployment.run("--dry-run", "indexes"), "gcloud", "firestore", "indexes", "fields", "update")
    assert "entry" == command[5]
    assert (["journal"], True) == (flags(command)["--collection-group"], "--disable-indexes" in command)


def test_no_key_is_printed(deployment):
    accounts = deployment.write("accounts.json", '[{"id": "main", "apiKey": "a-very-secret-key"}]')
    found = deployment.run("--dry-run", ACCOUNTS_FILE=str(accounts))
    assert [str(accounts)] == flags(command_of(found, "gcloud", "secrets", "versions"))["--data-file"]
    assert "a-very-secret-key" not in found.stdout + found.stderr


COMMANDS = Path(os.path.realpath(shutil.which("gcloud") or "gcloud")).parent.parent / "data/cli/gcloud_completions.py"
"""gcloud's own table of its commands and flags, from which it completes a command line."""


@pytest.mark.skipif(not COMMANDS.is_file(), reason="gcloud is not installed: its table of commands cannot be read")
def test_gcloud_knows_every_command_and_flag(deployment):
    tree = runpy.run_path(str(COMMANDS))["STATIC_COMPLETION_CLI_TREE"]
    wrong = []
    for command in commands(deployment.run("--dry-run", ACCOUNTS_FILE="accounts.json")):
        known = tree
        taken = dict(known["flags"])
        for word in command[1:]:
            if word not in known.get("commands", {}):
                break
            known = known["commands"][word]
            taken |= known["flags"]
        assert not known.get("commands"), f"{command} names no command"
        wrong += [
            f"{' '.join(command[:5])} {name}" for name in flags(command) if name.replace("--no-", "--") not in taken
        ]
    assert [] == wrong


# What it does when gcloud refuses


def test_what_is_there_already_stays(deployment):
    deployment.gcloud('echo "ERROR: (gcloud) Service account detent-build already exists within project." >&2; exit 1')
    found = deployment.run("accounts")
    assert (0, 4) == (found.returncode, found.stdout.count("# it is there already"))


def test_another_refusal_ends_it_where_it_stands(deployment):
    deployment.gcloud('[[ "$*" == *detent-runtime* ]] && { echo "PERMISSION_DENIED" >&2; exit 1; }; exit 0')
    found = deployment.run()
    assert (1, True) == (found.returncode, "PERMISSION_DENIED" in found.stderr)
    assert ["detent-build", "detent-runtime"] == [call[3] for call in deployment.calls if call[0] == "iam"]
    assert "# database" not in found.stdout


def test_a_deployment_is_tried_once_more(deployment):
    once = deployment.folder / "once"
    refusal = f'[[ "$*" == "functions deploy"* && ! -e {once} ]] && {{ touch {once}; echo unable to queue the operation >&2; exit 1; }}; exit 0'
    deployment.gcloud(refusal)
    found = deployment.run("sweep")
    assert (0, True) == (found.returncode, "# once more in 0 s" in found.stderr)
    assert ["functions", "functions", "run"] == [call[0] for call in deployment.calls]


def test_a_job_that_is_there_is_updated(deployment):
    deployment.gcloud('[[ "$*" == "functions describe"* ]] && echo https://sweep-xyz.a.run.app; exit 0')
    found = deployment.run("schedule")
    assert 0 == found.returncode, found.stderr
    assert ["scheduler", "jobs", "update", "http", "detent-sweep"] == deployment.calls[-1][:5]
    assert "--uri=https://sweep-xyz.a.run.app" in deployment.calls[-1]


def test_a_sweep_that_is_not_deployed_is_not_scheduled(deployment):
    found = deployment.run("schedule")
    assert (2, True) == (found.returncode, "Deploy it first: deploy/deploy.sh sweep" in found.stderr)


@pytest.mark.parametrize(
    ("arguments", "settings", "said"),
    [
        (("--dry-rum",), {}, "there is no option --dry-rum"),
        (("everything",), {}, "there is no step everything. Steps: apis accounts"),
        ((), {"PROJECT": ""}, "PROJECT is not set. Copy deploy/settings.example.sh"),
        (("event",), {"ENV_FILE": "/nowhere.yaml"}, "there is no /nowhere.yaml. Copy deploy/env.example.yaml"),
        (("sweep",), {"BUCKET": "another"}, "does not name another, which the settings do"),
        (("indexes",), {"INDEXES_FILE": "/nowhere.json"}, "there is no /nowhere.json"),
    ],
)
def test_a_mistake_is_said_before_anything_is_run(deployment, arguments, settings, said):
    found = deployment.run(*arguments, **settings)
    assert (2, []) == (found.returncode, deployment.calls)
    assert said in found.stderr


def test_the_examples_fit_each_other(deployment):
    settings = DEPLOY.joinpath("settings.example.sh").read_text()
    deployment.write(
        "example.sh", f"{settings}ENV_FILE={DEPLOY}/env.example.yaml\nINDEXES_FILE={deployment.folder}/indexes.json\n"
    )
    command = ["bash", str(DEPLOY / "deploy.sh"), "--dry-run", "--settings", f"{deployment.folder}/example.sh"]
    found = subprocess.run(command, capture_output=True, text=True)
    assert (0, "") == (found.returncode, found.stderr)
    for name in re.findall(r"^# ([A-Z_]+)=", settings, re.MULTILINE):
        assert f"{name}:=" in DEPLOY.joinpath("deploy.sh").read_text(), name


def test_the_example_of_the_variables_is_a_configuration():
    documented = set(re.findall(r"`([A-Z][A-Z_]+)`", (ROOT / "docs/configuration.md").read_text()))
    variables = yaml.safe_load(DEPLOY.joinpath("env.example.yaml").read_text())
    assert all(isinstance(value, str) for value in variables.values()), "gcloud takes strings alone"
    assert set() == set(variables) - documented
    assert "CHART_IMG_ACCOUNTS_JSON" not in variables, "keys are a secret's, not a file's"


def test_blobs_alone_are_deleted_by_age():
    (rule,) = json.loads(DEPLOY.joinpath("lifecycle.json").read_text())["lifecycle"]["rule"]
    assert ({"type": "Delete"}, [".blobs/"]) == (rule["action"], rule["condition"]["matchesPrefix"])
    assert rule["condition"]["age"] >= 7


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed (apt install shellcheck)")
def test_the_scripts_are_clean():
    found = subprocess.run(["shellcheck", *map(str, DEPLOY.glob("*.sh"))], capture_output=True, text=True)
    assert (0, "") == (found.returncode, found.stdout)
