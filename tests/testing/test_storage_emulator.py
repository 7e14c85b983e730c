"""The storage emulator judges what the one beneath it ignores: each precondition on which detent relies."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from gcp_storage_emulator.server import create_server
from google.api_core.exceptions import BadRequest, NotFound, PreconditionFailed
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage

from engine.testing.storage_emulator import StorageEmulator, running_storage

BUCKET = "bucket"
LARGE = b"0123456789abcdef" * (640 * 1024)  # 10 MiB: the library sends it in a resumable upload


def bucket_at(url: str) -> storage.Bucket:
    client = storage.Client(
        project="p",
        credentials=AnonymousCredentials(),
        client_options={"api_endpoint": url},
        use_auth_w_custom_endpoint=False,
    )
    client._bucket_metadata_cache = None  # it would ask for the bucket in a thread that outlives the emulator
    return client.bucket(BUCKET)


@pytest.fixture
def emulator() -> Iterator[StorageEmulator]:
    with running_storage(BUCKET) as running:
        yield running


@pytest.fixture
def bucket(emulator: StorageEmulator) -> storage.Bucket:
    return bucket_at(emulator.url)


@pytest.fixture
def eager_threads() -> Iterator[None]:
    """Threads take turns a thousand times as often, so that a gap between judging and acting is fallen into."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(5e-6)
    yield
    sys.setswitchinterval(before)


@pytest.fixture
def there(bucket: storage.Bucket) -> storage.Blob:
    """An object, at the second of two generations."""
    blob = bucket.blob("there")
    blob.upload_from_string(b"first")
    blob = bucket.blob("there")
    blob.upload_from_string(b"second", if_generation_match=bucket.get_blob("there").generation)
    return blob


def test_of_sixteen_that_create_one_object_one_wins(emulator: StorageEmulator, eager_threads: None):
    start = threading.Barrier(16)

    def create(name: str) -> bool:
        blob = bucket_at(emulator.url).blob(name)
        start.wait()
        try:
            blob.upload_from_string(name, if_generation_match=0, retry=None)
        except PreconditionFailed:
            return False
        return True

    with ThreadPoolExecutor(16) as threads:
        winners = [sum(threads.map(create, [f"raced {turn}"] * 16)) for turn in range(5)]
    assert ([1] * 5, 5) == (winners, len(emulator.objects(BUCKET)))


def test_the_emulator_beneath_lets_a_second_create_win():
    """Why the shim is there; should this fail, the emulator has learnt it, and the shim can go."""
    server = create_server("127.0.0.1", 0, in_memory=True, default_bucket=BUCKET)
    server.start()
    try:
        while server._api._httpd is None:
            pass
        bucket = bucket_at(f"http://127.0.0.1:{server._api._httpd.server_address[1]}")
        for content in (b"first", b"second"):
            bucket.blob("a").upload_from_string(content, if_generation_match=0, retry=None)
        assert b"second" == bucket.blob("a").download_as_bytes()
    finally:
        server.stop()


@pytest.mark.parametrize("content", [b"third", LARGE], ids=["multipart", "resumable"])
def test_a_second_create_is_refused(emulator: StorageEmulator, bucket: storage.Bucket, there: storage.Blob, content):
    with pytest.raises(PreconditionFailed, match="pre-conditions"):
        bucket.blob("there").upload_from_string(content, if_generation_match=0)
    assert {"there": b"second"} == emulator.objects(BUCKET)


@pytest.mark.parametrize("content", [b"third", LARGE], ids=["multipart", "resumable"])
def test_an_upload_replaces_the_generation_that_it_names_and_no_other(
    emulator: StorageEmulator, bucket: storage.Bucket, there: storage.Blob, content
):
    with pytest.raises(PreconditionFailed):
        bucket.blob("there").upload_from_string(content, if_generation_match=there.generation - 1)
    with pytest.raises(PreconditionFailed):
        bucket.blob("missing").upload_from_string(content, if_generation_match=there.generation)
    assert {"there": b"second"} == emulator.objects(BUCKET)
    bucket.blob("there").upload_from_string(content, if_generation_match=there.generation)
    assert {"there": content} == emulator.objects(BUCKET)


def test_a_resumable_upload_is_judged_again_when_it_ends(emulator: StorageEmulator, bucket: storage.Bucket):
    place = f"{emulator.url}/upload/storage/v1/b/{BUCKET}/o?uploadType=resumable&name=a&ifGenerationMatch=0"
    begun = httpx.post(place, json={"name": "a"})
    bucket.blob("a").upload_from_string(b"of another writer")
    ended = httpx.put(begun.headers["location"], content=b"late", headers={"content-range": "bytes 0-3/4"})
    assert (200, 412) == (begun.status_code, ended.status_code)
    assert {"a": b"of another writer"} == emulator.objects(BUCKET)


VERBS: dict[str, Callable[[storage.Blob, int], object]] = {
    "download": lambda blob, generation: blob.download_as_bytes(if_generation_match=generation),
    "reload": lambda blob, generation: blob.reload(if_generation_match=generation),
    "patch": lambda blob, generation: blob.patch(if_generation_match=generation),
    "delete": lambda blob, generation: blob.delete(if_generation_match=generation),
    "copy over it": lambda blob, generation: blob.bucket.copy_blob(
        blob.bucket.blob("source"), blob.bucket, "there", if_generation_match=generation
    ),
    "copy of it": lambda blob, generation: blob.bucket.copy_blob(
        blob.bucket.blob("there"), blob.bucket, "new", if_source_generation_match=generation
    ),
    "rewrite over it": lambda blob, generation: blob.bucket.blob("there").rewrite(
        blob.bucket.blob("source"), if_generation_match=generation
    ),
    "rewrite of it": lambda blob, generation: blob.bucket.blob("new").rewrite(
        blob.bucket.blob("there"), if_source_generation_match=generation
    ),
    "compose over it": lambda blob, generation: blob.bucket.blob("there").compose(
        [blob.bucket.blob("source")], if_generation_match=generation
    ),
}


@pytest.mark.parametrize("verb", VERBS)
def test_a_wrong_generation_is_refused_and_the_right_one_taken(
    emulator: StorageEmulator, bucket: storage.Bucket, there: storage.Blob, verb: str
):
    bucket.blob("source").upload_from_string(b"source")
    before = emulator.objects(BUCKET)
    for wrong in (there.generation - 1, there.generation + 1):
        with pytest.raises(PreconditionFailed):
            VERBS[verb](bucket.blob("there"), wrong)
    assert before == emulator.objects(BUCKET)
    VERBS[verb](bucket.blob("there"), there.generation)


def test_a_rewrite_of_a_generation_that_is_gone_finds_nothing(bucket: storage.Bucket, there: storage.Blob):
    gone = bucket.blob("there", generation=there.generation - 1)
    with pytest.raises(NotFound):
        bucket.blob("new").rewrite(gone)
    with pytest.raises(NotFound):
        gone.download_as_bytes()


def test_a_rewrite_gives_its_target_the_metadata_that_it_names(emulator: StorageEmulator, bucket: storage.Bucket):
    source = bucket.blob("source")
    source.metadata = {"of": "source"}
    source.upload_from_string(b"bytes", content_type="text/plain")
    target = bucket.blob("target")
    target.metadata, target.content_type = {"of": "target"}, "image/png"
    assert (None, 5, 5) == target.rewrite(source)
    assert ({"of": "target"}, "image/png") == (target.metadata, target.content_type)
    found = bucket.get_blob("target")
    assert ({"of": "target"}, "image/png", b"bytes") == (found.metadata, found.content_type, found.download_as_bytes())
    assert found.generation == target.generation
    assert {"of": "source"} == bucket.get_blob("source").metadata


def test_bytes_that_are_not_those_of_the_checksum_make_no_object(emulator: StorageEmulator, bucket: storage.Bucket):
    wrong = base64.b64encode(b"\0\0\0\1").decode()
    parts = [f"--x\r\ncontent-type: application/json\r\n\r\n{json.dumps({'name': 'a', 'crc32c': wrong})}\r\n"]
    parts += ["--x\r\ncontent-type: text/plain\r\n\r\nbytes\r\n--x--"]
    answer = httpx.post(
        f"{emulator.url}/upload/storage/v1/b/{BUCKET}/o?uploadType=multipart", content="".join(parts),
        headers={"content-type": 'multipart/related; boundary="x"'},
    )  # fmt: skip
    assert (400, "doesn't match calculated" in answer.text) == (answer.status_code, True)
    with pytest.raises(BadRequest, match="doesn't match calculated"):
        bucket.blob("a").upload_from_string(LARGE, crc32c_checksum_value=wrong, checksum=None)
    assert {} == emulator.objects(BUCKET)


def test_a_404_says_whether_the_bucket_or_the_object_is_missing(emulator: StorageEmulator, bucket: storage.Bucket):
    with pytest.raises(NotFound, match="No such object: bucket/a b/ü"):
        bucket.blob("a b/ü").reload()
    elsewhere = bucket.client.bucket("elsewhere")
    for verb in (elsewhere.blob("a").reload, elsewhere.blob("a").download_as_bytes, elsewhere.reload):
        with pytest.raises(NotFound, match="The specified bucket does not exist"):
            verb()
    with pytest.raises(NotFound, match="The specified bucket does not exist"):
        elsewhere.blob("a").upload_from_string(b"")


def test_a_download_tells_generation_and_checksum_whole_or_in_part(bucket: storage.Bucket, there: storage.Blob):
    for options in ({}, {"start": 1}, {"start": 1, "end": 2}):
        found = bucket.blob("there")
        assert b"second"[slice(options.get("start"), options.get("end", 5) + 1)] == found.download_as_bytes(**options)
        assert (there.generation, there.crc32c) == (found.generation, found.crc32c)


@pytest.mark.parametrize("condition", ["ifMetagenerationMatch", "ifGenerationNotMatch", "ifSourceMetagenerationMatch"])
def test_a_precondition_that_is_not_judged_is_not_ignored(
    emulator: StorageEmulator, there: storage.Blob, condition: str
):
    answer = httpx.get(f"{emulator.url}/storage/v1/b/{BUCKET}/o/there?{condition}=7")
    assert (501, f"does not judge the precondition {condition}") == (
        answer.status_code,
        answer.json()["error"]["message"][13:-1],
    )


def test_a_batch_is_refused(emulator: StorageEmulator, bucket: storage.Bucket, there: storage.Blob):
    with pytest.raises(Exception, match="does not judge a batch"), bucket.client.batch():
        bucket.blob("there").delete()
    assert {"there": b"second"} == emulator.objects(BUCKET)


def test_it_runs_as_a_process_of_its_own():
    command = [sys.executable, "-m", "engine.testing.storage_emulator", BUCKET, "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            name, _, url = process.stdout.readline().strip().partition("=")
            assert "STORAGE_EMULATOR_HOST" == name
            bucket_at(url).blob("a").upload_from_string(b"over a process")
            assert b"over a process" == bucket_at(url).blob("a").download_as_bytes()
        finally:
            process.terminate()
