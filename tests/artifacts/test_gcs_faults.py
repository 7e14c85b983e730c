"""Artifacts in a bucket over a bad network: whatever happens to one request, one whole object lies there, or none."""

from __future__ import annotations

import gc
import time
from collections.abc import Awaitable, Callable, Iterator

import anyio
import pytest

from engine.artifacts import gcs
from engine.artifacts.gcs import BLOBS, GcsArtifacts
from engine.artifacts.port import ABSENT, Stored
from engine.errors import ArtifactConflictError, ArtifactUnavailableError
from engine.testing.artifacts_contract import BUCKET, OTHER, PICTURE, PNG, _sha256
from engine.testing.fault_proxy import Fault, FaultProxy, running_proxy
from engine.testing.storage_emulator import StorageEmulator, running_storage

# The library leaves the connection of a refused download to the garbage collector.
pytestmark = [pytest.mark.anyio, pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")]

SHA256 = _sha256(PICTURE)
BLOB = f"{BLOBS}/{SHA256[:2]}/{SHA256}"
READ_S = 0.3
"""How long a stalled request is waited for here."""


@pytest.fixture(scope="module")
def emulator() -> Iterator[StorageEmulator]:
    with running_storage(BUCKET) as running:
        yield running


@pytest.fixture
def proxy(emulator: StorageEmulator, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    monkeypatch.setattr(gcs, "_RETRY", gcs._RETRY.with_delay(initial=0.001, maximum=0.002))
    emulator.clear(BUCKET)
    with running_proxy(emulator.url) as running:
        yield running
    gc.collect()  # here, where the warning of such a connection is expected


def through(proxy: FaultProxy, deadline_s: float = 5.0, read_s: float = READ_S) -> GcsArtifacts:
    return GcsArtifacts(BUCKET, endpoint=proxy.url, deadline_s=deadline_s, read_s=read_s)


def near(emulator: StorageEmulator) -> GcsArtifacts:
    return GcsArtifacts(BUCKET, endpoint=emulator.url)


Verb = Callable[[GcsArtifacts, Stored], Awaitable[object]]

CHANGES: dict[str, tuple[Verb, str, bytes]] = {
    "create": (lambda it, before: it.write("new", PICTURE, content_type=PNG, expected=ABSENT), "new", PICTURE),
    "replace": (
        lambda it, before: it.write("there", OTHER, content_type=PNG, expected=before.generation), "there", OTHER,
    ),
    "put a blob": (lambda it, before: it.put_blob(b"blob", content_type=PNG), "", b"blob"),
    "publish": (lambda it, before: it.publish(SHA256, "new", content_type=PNG), "new", PICTURE),
}  # fmt: skip

READS: dict[str, tuple[Verb, object]] = {
    "read": (lambda it, before: it.read("there"), b"there"),
    "get a blob": (lambda it, before: it.get_blob(SHA256), PICTURE),
    "stat": (lambda it, before: it.stat("there"), None),
}

PASSING = {
    "429": (Fault.REFUSE, 429),
    "500": (Fault.REFUSE, 500),
    "503": (Fault.REFUSE, 503),
    "a reset before": (Fault.RESET_BEFORE, 0),
    "a lost answer": (Fault.RESET_AFTER, 0),
    "a stall before": (Fault.STALL_BEFORE, 0),
    "a stalled answer": (Fault.STALL_AFTER, 0),
    "an answer cut off": (Fault.TRUNCATE, 0),
}


async def prepared(emulator: StorageEmulator) -> Stored:
    """An object and a blob, put there over a good network."""
    artifacts = near(emulator)
    await artifacts.put_blob(PICTURE, content_type=PNG)
    return await artifacts.write("there", b"there", content_type=PNG, expected=ABSENT)


def whole(emulator: StorageEmulator) -> bool:
    """Whether every object's bytes are those of its checksum and size."""
    resources = {name: emulator.resource(BUCKET, name) for name in emulator.objects(BUCKET)}
    return all(
        resources[name]["metadata"]["sha256"] == _sha256(content) and int(resources[name]["size"]) == len(content)
        for name, content in emulator.objects(BUCKET).items()
    )


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("fault", PASSING)
@pytest.mark.parametrize("change", CHANGES)
async def test_a_change_survives_what_passes(
    change: str, fault: str, times: int, proxy: FaultProxy, emulator: StorageEmulator
) -> None:
    before = await prepared(emulator)
    verb, name, content = CHANGES[change]
    kind, status = PASSING[fault]
    proxy.plan(kind, when=lambda method, target: method == "POST", times=times, status=status or 503)
    objects = emulator.objects(BUCKET)

    answer = await verb(through(proxy), before)

    name = name or f"{BLOBS}/{_sha256(content)[:2]}/{_sha256(content)}"
    assert emulator.objects(BUCKET) == {**objects, name: content}
    assert whole(emulator)
    if isinstance(answer, Stored):
        assert answer == Stored(emulator.resource(BUCKET, name)["generation"], _sha256(content), len(content))


@pytest.mark.parametrize("fault", PASSING)
@pytest.mark.parametrize("read", READS)
async def test_a_read_survives_what_passes(read: str, fault: str, proxy: FaultProxy, emulator: StorageEmulator) -> None:
    before = await prepared(emulator)
    verb, expected = READS[read]
    kind, status = PASSING[fault]
    proxy.plan(kind, status=status or 503)
    assert await verb(through(proxy), before) == (expected or before)
    assert proxy.faults_left == 0


@pytest.mark.parametrize("change", ["create", "replace", "publish"])  # nobody can put another blob in a blob's place
async def test_a_stall_in_which_others_wrote_is_a_conflict_and_changes_nothing(
    change: str, proxy: FaultProxy, emulator: StorageEmulator
) -> None:
    before = await prepared(emulator)
    verb, name, _ = CHANGES[change]
    other = near(emulator)

    async def replace() -> None:
        found = await other.stat(name)
        expected = ABSENT if found is None else found.generation
        await other.write(name, b"of another worker", content_type=PNG, expected=expected)

    proxy.plan(Fault.STALL_BEFORE, when=lambda method, target: method == "POST")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(replace)
        with pytest.raises(ArtifactConflictError):
            await verb(through(proxy), before)
    assert emulator.objects(BUCKET)[name] == b"of another worker"


@pytest.mark.parametrize("verb", [*CHANGES, *READS])
@pytest.mark.parametrize("fault", ["503", "429", "a stall before", "a reset before"])
async def test_what_does_not_pass_is_unavailable_in_bounded_time(
    verb: str, fault: str, proxy: FaultProxy, emulator: StorageEmulator
) -> None:
    before = await prepared(emulator)
    objects = emulator.objects(BUCKET)
    kind, status = PASSING[fault]
    proxy.plan(kind, times=1_000_000, status=status or 503)
    run = CHANGES[verb][0] if verb in CHANGES else READS[verb][0]
    began = time.monotonic()
    with pytest.raises(
        ArtifactUnavailableError, match="Cloud Storage did not do .* in time: .*Try again later"
    ) as said:
        await run(through(proxy, deadline_s=0.5), before)
    assert time.monotonic() - began < 5  # the last request, and a busy machine; by itself the library takes 120 s
    assert (f"it answered {status}" if status else "the connection failed") in str(said.value)
    assert emulator.objects(BUCKET) == objects


@pytest.mark.parametrize("change", ["create", "replace", "put a blob"])
async def test_bytes_that_arrive_damaged_make_no_object(
    change: str, proxy: FaultProxy, emulator: StorageEmulator
) -> None:
    before = await prepared(emulator)
    objects = emulator.objects(BUCKET)
    content = b"x" * 5000  # so that the middle of the request is in the middle of the bytes
    verbs: dict[str, Verb] = {
        "create": lambda it, before: it.write("new", content, content_type=PNG, expected=ABSENT),
        "replace": lambda it, before: it.write("there", content, content_type=PNG, expected=before.generation),
        "put a blob": lambda it, before: it.put_blob(content, content_type=PNG),
    }
    proxy.plan(Fault.DAMAGE_REQUEST)
    with pytest.raises(ArtifactUnavailableError, match="damaged on their way"):
        await verbs[change](through(proxy), before)
    assert emulator.objects(BUCKET) == objects
    await verbs[change](through(proxy), before)
    assert whole(emulator)


@pytest.mark.parametrize("read", ["read", "get a blob"])
async def test_bytes_that_come_back_damaged_are_not_answered(
    read: str, proxy: FaultProxy, emulator: StorageEmulator
) -> None:
    before = await prepared(emulator)
    proxy.plan(Fault.DAMAGE_ANSWER)
    with pytest.raises(ArtifactUnavailableError, match="damaged on their way"):
        await READS[read][0](through(proxy), before)
    assert await READS[read][0](through(proxy), before) == READS[read][1]


async def test_a_download_that_was_cut_and_whose_rest_is_damaged_is_not_answered(
    proxy: FaultProxy, emulator: StorageEmulator
) -> None:
    """The library resumes a broken download by range, and does not compare what it puts together."""
    await near(emulator).write("big", PICTURE * 200, content_type=PNG, expected=ABSENT)
    proxy.plan(Fault.TRUNCATE)
    proxy.plan(Fault.DAMAGE_ANSWER)
    with pytest.raises(ArtifactUnavailableError, match="damaged on their way"):
        await through(proxy).read("big")
    assert proxy.faults_left == 0
    assert await through(proxy).read("big") == PICTURE * 200


async def test_a_verb_that_is_cancelled_ends_at_once(proxy: FaultProxy, emulator: StorageEmulator) -> None:
    before = await prepared(emulator)
    proxy.plan(Fault.STALL_BEFORE)

    async def put() -> None:
        await through(proxy, 3, read_s=3).write("new", PICTURE, content_type=PNG, expected=ABSENT)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(put)
        while not proxy.seen:
            await anyio.lowlevel.checkpoint()
        began = time.monotonic()
        tasks.cancel_scope.cancel()
    assert time.monotonic() - began < 1.5
    assert await near(emulator).stat("there") == before


async def test_an_emulator_that_is_not_there_is_unavailable() -> None:
    artifacts = GcsArtifacts(BUCKET, endpoint="http://127.0.0.1:9", deadline_s=0.2)
    with pytest.raises(ArtifactUnavailableError, match="the connection failed .ConnectionError"):
        await artifacts.stat("a")
