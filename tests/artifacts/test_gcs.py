"""Artifacts in a bucket: the contract, what they ask of Cloud Storage, and what they say when it refuses."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import anyio
import pytest
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage

import engine
from engine.artifacts import open_artifacts
from engine.artifacts.gcs import BLOBS, CHUNK_BYTES, RESUMABLE_BYTES_MIN, GcsArtifacts, emulator_of
from engine.artifacts.port import ABSENT, Artifacts
from engine.core.secret import Secrets
from engine.errors import (
    ArtifactConflictError,
    ArtifactError,
    ArtifactUnavailableError,
    ConfigurationError,
    DetentError,
    SecretLeakError,
)
from engine.testing import artifacts_contract
from engine.testing.artifacts_contract import BUCKET, OTHER, PICTURE, PNG, ArtifactsCheck
from engine.testing.fault_proxy import Fault, FaultProxy, running_proxy
from engine.testing.storage_emulator import StorageEmulator, running_storage

pytestmark = pytest.mark.anyio

JSON = "application/json"


@pytest.fixture
def emulator() -> Iterator[StorageEmulator]:
    with running_storage(BUCKET) as running:
        yield running


@pytest.fixture
def proxy(emulator: StorageEmulator) -> Iterator[FaultProxy]:
    with running_proxy(emulator.url) as running:
        yield running


@pytest.fixture
def artifacts(proxy: FaultProxy) -> GcsArtifacts:
    """Artifacts behind a proxy that counts what they ask."""
    return GcsArtifacts(BUCKET, endpoint=proxy.url)


def asked(proxy: FaultProxy) -> list[str]:
    return [one.method for one in proxy.seen]


def another_program(emulator: StorageEmulator) -> storage.Bucket:
    """The bucket as a program sees it that knows nothing of detent."""
    options = {"api_endpoint": emulator.url}
    return storage.Client(project="p", credentials=AnonymousCredentials(), client_options=options).bucket(BUCKET)


@pytest.mark.parametrize("check", artifacts_contract.CHECKS, ids=artifacts_contract.name)
async def test_the_bucket_keeps_the_contract(
    check: ArtifactsCheck, emulator: StorageEmulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", emulator.url)

    async def open_one() -> Artifacts:
        return open_artifacts("gs:", BUCKET)

    await check(open_one)


# What is asked of Cloud Storage


async def test_each_verb_costs_as_few_requests_as_it_can(artifacts: GcsArtifacts, proxy: FaultProxy) -> None:
    sha256 = await artifacts.put_blob(PICTURE, content_type=PNG)
    assert asked(proxy) == ["POST"]
    await artifacts.publish(sha256, "a", content_type=PNG)
    assert asked(proxy) == ["POST", "GET", "POST"]
    stored = await artifacts.stat("a")
    assert asked(proxy)[3:] == ["GET"]
    assert stored is not None
    await artifacts.write("a", OTHER, content_type=JSON, expected=stored.generation)
    await artifacts.read("a")
    await artifacts.get_blob(sha256)
    assert asked(proxy)[4:] == ["POST", "GET", "GET"]


async def test_publishing_is_a_copy_that_the_server_makes(
    artifacts: GcsArtifacts, proxy: FaultProxy, emulator: StorageEmulator
) -> None:
    sha256 = await artifacts.put_blob(PICTURE, content_type="application/octet-stream")
    await artifacts.publish(sha256, "run/BTC:USD 1h.png", content_type=PNG)
    assert proxy.calls("POST", "/upload/") == 1
    assert proxy.calls("POST", "/rewriteTo/") == 1
    resource = emulator.resource(BUCKET, "run/BTC:USD 1h.png")
    assert (resource["contentType"], resource["metadata"]) == (PNG, {"sha256": sha256})


async def test_blobs_lie_under_a_prefix_of_their_own(artifacts: GcsArtifacts, emulator: StorageEmulator) -> None:
    sha256 = await artifacts.put_blob(PICTURE, content_type=PNG)
    assert emulator.objects(BUCKET) == {f"{BLOBS}/{sha256[:2]}/{sha256}": PICTURE}
    assert emulator.resource(BUCKET, f"{BLOBS}/{sha256[:2]}/{sha256}")["contentType"] == PNG
    for name in (f"{BLOBS}/a", f"{BLOBS}/{sha256[:2]}/{sha256}", ".well-known/acme-challenge/a"):
        with pytest.raises(ArtifactError, match="prefix is reserved"):
            await artifacts.write(name, OTHER, content_type=PNG, expected=ABSENT)
    assert artifacts.uri(f"{BLOBS}") == f"gs://{BUCKET}/{BLOBS}"


async def test_what_may_be_replaced_is_not_cached(artifacts: GcsArtifacts, emulator: StorageEmulator) -> None:
    await artifacts.write("manifest.json", b"{}", content_type=JSON, expected=ABSENT)
    sha256 = await artifacts.put_blob(PICTURE, content_type=PNG)
    await artifacts.publish(sha256, "a.png", content_type=PNG)
    manifest = emulator.resource(BUCKET, "manifest.json")
    assert (manifest["contentType"], manifest["cacheControl"]) == (JSON, "no-cache")
    assert "cacheControl" not in emulator.resource(BUCKET, "a.png")


async def test_an_object_that_others_wrote_is_read_for_its_sha256(
    artifacts: GcsArtifacts, emulator: StorageEmulator
) -> None:
    another_program(emulator).blob("a").upload_from_string(OTHER)
    stored = await artifacts.stat("a")
    assert stored is not None
    assert (stored.sha256, stored.size) == (artifacts_contract._sha256(OTHER), len(OTHER))
    assert await artifacts.write("a", OTHER, content_type=PNG, expected=ABSENT) == stored
    await artifacts.write("a", PICTURE, content_type=PNG, expected=stored.generation)
    assert await artifacts.read("a") == PICTURE


async def test_a_generation_of_other_artifacts_is_a_conflict_or_the_same_bytes(artifacts: GcsArtifacts) -> None:
    stored = await artifacts.write("a", PICTURE, content_type=PNG, expected=ABSENT)
    assert await artifacts.write("a", PICTURE, content_type=PNG, expected=f"sha256:{stored.sha256}") == stored
    with pytest.raises(ArtifactConflictError, match="not at the generation sha256:"):
        await artifacts.write("a", OTHER, content_type=PNG, expected=f"sha256:{stored.sha256}")


@pytest.mark.parametrize("damage", [PICTURE[:-1], OTHER], ids=["cut", "other bytes"])
async def test_a_damaged_blob_is_not_published_and_can_be_stored_again(
    artifacts: GcsArtifacts, emulator: StorageEmulator, damage: bytes
) -> None:
    sha256 = await artifacts.put_blob(PICTURE, content_type=PNG)
    another_program(emulator).blob(f"{BLOBS}/{sha256[:2]}/{sha256}").upload_from_string(damage)
    with pytest.raises(ArtifactError, match="damaged.*Remove gs://bucket/.blobs/"):
        await artifacts.get_blob(sha256)
    with pytest.raises(ArtifactError, match="damaged"):
        await artifacts.publish(sha256, "a", content_type=PNG)
    assert await artifacts.stat("a") is None
    assert await artifacts.put_blob(PICTURE, content_type=PNG) == sha256
    assert await artifacts.get_blob(sha256) == PICTURE
    await artifacts.publish(sha256, "a", content_type=PNG)


async def test_sixteen_workers_store_one_blob_and_publish_one_object(emulator: StorageEmulator) -> None:
    async def work() -> None:
        artifacts = GcsArtifacts(BUCKET, endpoint=emulator.url)
        sha256 = await artifacts.put_blob(PICTURE, content_type=PNG)
        seen.add((await artifacts.publish(sha256, "a", content_type=PNG)).generation)
        await artifacts.close()

    seen: set[str] = set()
    async with anyio.create_task_group() as tasks:
        for _ in range(16):
            tasks.start_soon(work)
    assert seen == {emulator.resource(BUCKET, "a")["generation"]}
    assert len(emulator.objects(BUCKET)) == 2


@pytest.mark.parametrize("size", [RESUMABLE_BYTES_MIN - 1, RESUMABLE_BYTES_MIN])
async def test_an_upload_is_resumable_only_where_its_size_asks_for_it(
    artifacts: GcsArtifacts, proxy: FaultProxy, emulator: StorageEmulator, size: int
) -> None:
    content = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    stored = await artifacts.write("a", content, content_type=PNG, expected=ABSENT)
    assert (stored.size, emulator.objects(BUCKET)["a"] == content) == (size, True)
    assert proxy.calls("POST", "uploadType=resumable") == (1 if size >= RESUMABLE_BYTES_MIN else 0)
    with pytest.raises(ArtifactConflictError):
        await artifacts.write("a", content[1:], content_type=PNG, expected=ABSENT)


async def test_a_resumable_upload_goes_on_where_it_broke(
    artifacts: GcsArtifacts, proxy: FaultProxy, emulator: StorageEmulator
) -> None:
    content = b"0123456789abcdef" * (CHUNK_BYTES // 8)  # two chunks
    proxy.plan(Fault.RESET_BEFORE, when=lambda method, target: method == "PUT" and len(proxy.seen) == 2)
    stored = await artifacts.write("a", content, content_type=PNG, expected=ABSENT)
    assert emulator.objects(BUCKET) == {"a": content}
    assert stored.generation == emulator.resource(BUCKET, "a")["generation"]
    assert proxy.calls("POST", "uploadType=resumable") == 1
    assert proxy.faults_left == 0


# What is refused


async def test_no_secret_is_written_or_said(artifacts: GcsArtifacts, proxy: FaultProxy) -> None:
    artifacts._secrets.add("a-very-secret-key")
    leaks = [
        artifacts.write("a", b"key=a-very-secret-key", content_type=PNG, expected=ABSENT),
        artifacts.write("a-very-secret-key", PICTURE, content_type=PNG, expected=ABSENT),
        artifacts.put_blob(b"a-very-secret-key", content_type=PNG),
        artifacts.publish("0" * 64, "x/a-very-secret-key", content_type=PNG),
        artifacts.stat("a-very-secret-key"),
    ]
    for leak in leaks:
        with pytest.raises(SecretLeakError) as caught:
            await leak
        assert "very" not in str(caught.value)
    assert proxy.seen == []
    proxy.plan(Fault.REFUSE, status=403, message="go away, a-very-secret-key")
    with pytest.raises(ArtifactUnavailableError, match="go away, .redacted."):
        await artifacts.stat("a")


@pytest.mark.parametrize("name", ["Upper", "ab", "-a-", "a..b", "under_", "a/b", "x" * 223, "ünï"])
def test_what_is_no_buckets_name_is_refused_at_once(name: str) -> None:
    with pytest.raises(ConfigurationError, match="ARTIFACTS_BUCKET: is no name that a bucket"):
        GcsArtifacts(name)


async def test_a_missing_bucket_is_told_from_a_missing_object(emulator: StorageEmulator) -> None:
    artifacts = GcsArtifacts("elsewhere", endpoint=emulator.url)
    verbs = [
        artifacts.stat("a"),
        artifacts.read("a"),
        artifacts.write("a", PICTURE, content_type=PNG, expected=ABSENT),
        artifacts.put_blob(PICTURE, content_type=PNG),
        artifacts.get_blob("0" * 64),
        artifacts.publish("0" * 64, "a", content_type=PNG),
    ]
    for verb in verbs:
        with pytest.raises(ArtifactUnavailableError, match="no bucket gs://elsewhere.*gcloud storage buckets create"):
            await verb
    with pytest.raises(ConfigurationError, match="ARTIFACTS_BUCKET: there is no bucket"):
        await artifacts.check()


FORBIDDEN = (
    "x@p.iam.gserviceaccount.com does not have storage.objects.create access to the Google Cloud Storage object."
)


@pytest.mark.parametrize(
    ("status", "message", "error", "said"),
    [
        (403, FORBIDDEN, ArtifactUnavailableError, "lacks storage.objects.create.*Grant.*roles/storage.objectUser"),
        (
            403,
            "The billing account is disabled.",
            ArtifactUnavailableError,
            "billing account is disabled.*billing is on",
        ),
        (401, "Invalid Credentials", ArtifactUnavailableError, "credentials.*gcloud auth application-default login"),
        (400, "Invalid argument.", ArtifactError, "refuses gs://bucket/a: 400 .*Invalid argument"),
        (404, "The specified bucket does not exist.", ArtifactUnavailableError, "no bucket gs://bucket"),
    ],
)
async def test_a_refusal_says_what_to_do(
    artifacts: GcsArtifacts, proxy: FaultProxy, status: int, message: str, error: type[DetentError], said: str
) -> None:
    proxy.plan(Fault.REFUSE, status=status, message=message)
    with pytest.raises(error, match=said) as caught:
        await artifacts.write("a", PICTURE, content_type=PNG, expected=ABSENT)
    assert type(caught.value) is error
    assert len(proxy.seen) == 1  # it is not asked again


async def test_an_object_that_went_away_before_it_was_replaced_is_a_conflict(
    artifacts: GcsArtifacts, proxy: FaultProxy
) -> None:
    """Whether the service says 412 or 404 of it."""
    proxy.plan(Fault.REFUSE, status=404, message="No such object: bucket/a")
    with pytest.raises(ArtifactConflictError):
        await artifacts.write("a", PICTURE, content_type=PNG, expected="1700000000000000")


async def test_the_check_names_the_permissions_that_are_missing(
    artifacts: GcsArtifacts, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    await artifacts.check()
    monkeypatch.setattr("google.cloud.storage.Bucket.test_iam_permissions", lambda *_, **__: ["storage.objects.get"])
    with pytest.raises(ConfigurationError, match="lacks storage.objects.create, storage.objects.delete, .*objectUser"):
        await artifacts.check()


async def test_without_credentials_it_says_how_to_log_in(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    with pytest.raises(ArtifactUnavailableError, match="no credentials.*application-default login"):
        await GcsArtifacts(BUCKET).stat("a")


# How it is opened


@pytest.mark.parametrize(
    ("value", "url"),
    [
        ("127.0.0.1:9023", "http://127.0.0.1:9023"),
        ("http://127.0.0.1:9023/", "http://127.0.0.1:9023"),
        ("https://storage.example", "https://storage.example"),
        ("", None),
        (None, None),
    ],
)
def test_the_emulators_address_may_be_a_url_or_a_host(value: str | None, url: str | None) -> None:
    assert emulator_of(value) == url


@pytest.mark.parametrize("url", ["gs://bucket", "gs:bucket", "gcs:", "gs"])
def test_another_form_of_the_address_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="Use folder:PATH or gs:"):
        open_artifacts(url, BUCKET)


def test_the_google_library_is_loaded_where_it_is_used() -> None:
    code = (
        "import sys, engine\nfrom engine.artifacts import open_artifacts\n"
        "open_artifacts('folder:x', 'b')\nprint('google.cloud.storage' in sys.modules)\n"
        "open_artifacts('gs:', 'bucket')\nprint('google.cloud.storage' in sys.modules)"
    )
    root = engine.__file__.rpartition("/")[0] + "/.."
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert found.stdout.split() == ["False", "True"]


async def test_secrets_reach_the_artifacts_that_are_opened(
    emulator: StorageEmulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", emulator.url.removeprefix("http://"))
    artifacts = open_artifacts("gs:", BUCKET, Secrets(["a-very-secret-key"]))
    with pytest.raises(SecretLeakError):
        await artifacts.put_blob(b"a-very-secret-key", content_type=PNG)
    await artifacts.put_blob(PICTURE, content_type=PNG)
    await artifacts.close()
