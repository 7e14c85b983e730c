"""The real command line on a bucket: the emulator of Cloud Storage, over a network that is good, bad, or gone."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.testing.fault_proxy import Fault, running_proxy
from engine.testing.storage_emulator import StorageEmulator, running_storage

ROOT = Path(__file__).parent.parent.parent
RUN_ID = "20260105-080000_BTCUSDT_k3f7a"
STEP_ID = "charts:1d:short_set_v1"
BUCKET = "pictures-of-charts"
MANIFEST = f"runs/{RUN_ID}/steps/{STEP_ID}/charts/manifest.json"


@pytest.fixture
def emulator() -> Iterator[StorageEmulator]:
    with running_storage(BUCKET) as running:
        yield running


def detent(folder: Path, url: str, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    environment = {
        **{name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "VIRTUAL_ENV", "LANG")},
        "PYTHONPATH": str(ROOT),
        "DETENT_STORE": f"sqlite:///{folder}/detent.db",
        "STORAGE_EMULATOR_HOST": url,
        **environ,
    }
    command = [sys.executable, "-m", "engine.entry.cli", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, cwd=ROOT, timeout=60)


def export(folder: Path, url: str, *more: str, **environ: str) -> subprocess.CompletedProcess[str]:
    given = json.dumps({"run_id": RUN_ID, "step_id": STEP_ID})
    command = ("run", "machines/chart_export.yaml", "--load", "fixtures/documents", "--mode", "mock", "--input", given)
    return detent(folder, url, *command, "--artifacts", "gs:", *(more or ("--bucket", BUCKET)), **environ)


def test_the_charts_lie_in_the_bucket_and_the_manifest_names_them(tmp_path, emulator):
    first = export(tmp_path, emulator.url)
    objects = emulator.objects(BUCKET)
    second = export(tmp_path, emulator.url)

    assert (0, 0) == (first.returncode, second.returncode), first.stderr
    assert f"manifest=gs://{BUCKET}/{MANIFEST}, items=3" in first.stdout
    assert "unchanged" in second.stdout
    assert objects == emulator.objects(BUCKET)
    items = json.loads(objects[MANIFEST])["items"]
    pictures = [item["png_gcs_uri"].removeprefix(f"gs://{BUCKET}/") for item in items]
    blobs = [name for name in objects if name.startswith(".blobs/")]
    assert sorted([MANIFEST, *pictures, *blobs]) == list(objects)
    assert [hashlib.sha256(objects[name]).hexdigest() for name in blobs] == [name[-64:] for name in blobs]
    assert {emulator.resource(BUCKET, name)["contentType"] for name in pictures} == {"image/png"}


def test_the_bucket_may_be_named_by_the_environment(tmp_path, emulator):
    variables = {"DETENT_ARTIFACTS": "gs:", "ARTIFACTS_BUCKET": f"gs://{BUCKET}"}
    found = export(tmp_path, emulator.url.removeprefix("http://"), "--summary", "json", **variables)

    assert 0 == found.returncode, found.stderr
    assert f"gs://{BUCKET}/{MANIFEST}" == json.loads(found.stdout)["output"]["outputsManifestGcsUri"]


def test_a_step_outlives_a_storage_that_fails_and_loses_answers(tmp_path, emulator):
    with running_proxy(emulator.url) as proxy:
        for fault in (Fault.REFUSE, Fault.RESET_AFTER, Fault.RESET_BEFORE, Fault.TRUNCATE):
            for part in ("/upload/", "/rewriteTo/"):
                proxy.plan(fault, when=lambda method, target, part=part: part in target)
        found = export(tmp_path, proxy.url)

    assert (0, 0) == (found.returncode, proxy.faults_left), found.stderr
    objects = emulator.objects(BUCKET)
    assert 7 == len(objects)
    for name, content in objects.items():
        assert emulator.resource(BUCKET, name)["metadata"] == {"sha256": hashlib.sha256(content).hexdigest()}


def test_a_bucket_that_is_missing_is_said_before_anything_is_claimed(tmp_path, emulator):
    found = export(tmp_path, emulator.url, "--bucket", "no-such-bucket")
    step = detent(tmp_path, emulator.url, "documents", "get", f"flow_runs/{RUN_ID}")

    assert (2, "") == (found.returncode, found.stdout)
    assert "CONFIG_ERROR: --bucket: there is no bucket gs://no-such-bucket." in found.stderr
    assert "gcloud storage buckets create" in found.stderr
    assert 1 == step.returncode, "nothing was even loaded"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--summary", "text"), "CONFIG_ERROR: ARTIFACTS_BUCKET: is not set, and gs: publishes in that bucket."),
        (("--bucket", "Not_A_Bucket"), "CONFIG_ERROR: --bucket: is no name that a bucket"),
        (("--bucket", "a", "--artifacts", "gs://a"), "CONFIG_ERROR: --artifacts: names no artifacts."),
    ],
)
def test_a_bucket_that_is_not_named_is_a_mistake_of_configuration(tmp_path, emulator, more, said):
    found = export(tmp_path, emulator.url, *more)

    assert (2, "") == (found.returncode, found.stdout)
    assert said in found.stderr


def test_reading_runs_asks_nothing_of_the_bucket(tmp_path, emulator):
    export(tmp_path, emulator.url)
    found = detent(tmp_path, "127.0.0.1:9", "runs", "list", DETENT_ARTIFACTS="gs:", ARTIFACTS_BUCKET=BUCKET)

    assert 0 == found.returncode, found.stderr
    assert "chart_export" in found.stdout
