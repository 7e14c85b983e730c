"""Artifacts in a folder: the contract, and what only a file system can do to them."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import anyio
import pytest

import engine
from engine.artifacts import open_artifacts
from engine.artifacts.folder import FolderArtifacts
from engine.artifacts.port import ABSENT, Artifacts
from engine.core.secret import Secrets
from engine.errors import (
    ArtifactConflictError,
    ArtifactError,
    ArtifactUnavailableError,
    ConfigurationError,
    SecretLeakError,
)
from engine.testing import artifacts_contract
from engine.testing.artifacts_contract import BUCKET, OTHER, PICTURE, PNG, ArtifactsCheck

pytestmark = pytest.mark.anyio

ROOT = Path(engine.__file__).parent.parent


def visible_files(path: Path) -> list[str]:
    """Every file below the bucket's folder, hidden ones too."""
    return sorted(str(file.relative_to(path / BUCKET)) for file in (path / BUCKET).rglob("*") if not file.is_dir())


def spooled_files(path: Path) -> list[Path]:
    return [*path.rglob("spool-*"), *path.rglob(".spool-*")]


def without_hard_links(monkeypatch: pytest.MonkeyPatch) -> None:
    def link(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", link)


@pytest.fixture(params=["hard links", "no hard links"])
def links(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "no hard links":
        without_hard_links(monkeypatch)


@pytest.mark.usefixtures("links")
@pytest.mark.parametrize("check", artifacts_contract.CHECKS, ids=artifacts_contract.name)
async def test_the_folder_keeps_the_contract(check: ArtifactsCheck, tmp_path: Path) -> None:
    async def open_one() -> Artifacts:
        return open_artifacts(f"folder:{tmp_path}", BUCKET)

    await check(open_one)
    assert spooled_files(tmp_path) == []


async def test_the_buckets_folder_holds_published_objects_and_nothing_else(tmp_path: Path) -> None:
    artifacts = FolderArtifacts(tmp_path, BUCKET)
    sha256 = await artifacts.put_blob(PICTURE, content_type=PNG)
    assert not (tmp_path / BUCKET).exists()
    await artifacts.publish(sha256, "run/BTC:USD 1h.png", content_type=PNG)
    await artifacts.write("manifest.json", b"{}", content_type="application/json", expected=ABSENT)
    assert visible_files(tmp_path) == ["manifest.json", "run/BTC:USD 1h.png"]
    assert (tmp_path / ".blobs" / BUCKET / sha256[:2] / sha256).read_bytes() == PICTURE


async def test_publishing_sends_no_bytes_again(tmp_path: Path) -> None:
    artifacts = FolderArtifacts(tmp_path, BUCKET)
    sha256 = await artifacts.put_blob(PICTURE, content_type=PNG)
    await artifacts.publish(sha256, "a", content_type=PNG)
    blob = tmp_path / ".blobs" / BUCKET / sha256[:2] / sha256
    assert (tmp_path / BUCKET / "a").samefile(blob)
    assert blob.stat().st_mode & 0o222 == 0


async def test_a_damaged_blob_is_neither_read_nor_published_and_can_be_stored_again(tmp_path: Path) -> None:
    artifacts = FolderArtifacts(tmp_path, BUCKET)
    sha256 = await artifacts.put_blob(PICTURE, content_type=PNG)
    blob = tmp_path / ".blobs" / BUCKET / sha256[:2] / sha256
    blob.chmod(0o644)
    blob.write_bytes(PICTURE[:-1])
    with pytest.raises(ArtifactError, match="damaged"):
        await artifacts.get_blob(sha256)
    with pytest.raises(ArtifactError, match="damaged"):
        await artifacts.publish(sha256, "a", content_type=PNG)
    assert await artifacts.stat("a") is None
    await artifacts.put_blob(PICTURE, content_type=PNG)
    assert await artifacts.get_blob(sha256) == PICTURE


async def test_a_segment_too_long_for_a_file_name_is_refused_by_its_length(tmp_path: Path) -> None:
    artifacts = FolderArtifacts(tmp_path, BUCKET)
    assert artifacts.uri("a/" + "é" * 127) == f"gs://{BUCKET}/a/" + "é" * 127
    with pytest.raises(ArtifactError, match="256 bytes long, and a file name holds at most 255"):
        await artifacts.write("a/" + "é" * 128, PICTURE, content_type=PNG, expected=ABSENT)
    assert not (tmp_path / BUCKET).exists()


@pytest.mark.parametrize("leads", ["inside", "outside"])
async def test_no_symbolic_link_is_followed(tmp_path: Path, leads: str) -> None:
    artifacts = FolderArtifacts(tmp_path / "artifacts", BUCKET)
    await artifacts.write("real/a", PICTURE, content_type=PNG, expected=ABSENT)
    bucket, outside = tmp_path / "artifacts" / BUCKET, tmp_path / "outside"
    outside.mkdir()
    (outside / "a").write_bytes(OTHER)
    target = bucket / "real" if leads == "inside" else outside
    (bucket / "link").symlink_to(target, target_is_directory=True)
    (bucket / "file").symlink_to(target / "a")
    sha256 = await artifacts.put_blob(OTHER, content_type=PNG)
    for name in ("link/a", "link/new", "file"):
        with pytest.raises(ArtifactError, match="symbolic link"):
            await artifacts.read(name)
        with pytest.raises(ArtifactError, match="symbolic link"):
            await artifacts.write(name, b"x", content_type=PNG, expected=ABSENT)
        with pytest.raises(ArtifactError, match="symbolic link"):
            await artifacts.publish(sha256, name, content_type=PNG)
    assert sorted(path.name for path in target.iterdir()) == ["a"]
    assert (outside / "a").read_bytes() == OTHER


@pytest.mark.usefixtures("links")
async def test_an_object_and_objects_below_it_cannot_both_be_kept(tmp_path: Path) -> None:
    artifacts = FolderArtifacts(tmp_path, BUCKET)
    await artifacts.write("a", PICTURE, content_type=PNG, expected=ABSENT)
    await artifacts.write("b/c", PICTURE, content_type=PNG, expected=ABSENT)
    assert await artifacts.stat("a/b") is None
    assert await artifacts.stat("b") is None
    with pytest.raises(ArtifactError, match="object 'a' is in the way"):
        await artifacts.write("a/b", PICTURE, content_type=PNG, expected=ABSENT)
    with pytest.raises(ArtifactError, match="folder of other objects is in the way"):
        await artifacts.write("b", PICTURE, content_type=PNG, expected=ABSENT)
    assert visible_files(tmp_path) == ["a", "b/c"]


async def test_what_is_no_regular_file_is_no_object(tmp_path: Path) -> None:
    artifacts = FolderArtifacts(tmp_path, BUCKET)
    (tmp_path / BUCKET).mkdir()
    os.mkfifo(tmp_path / BUCKET / "pipe")
    assert await artifacts.stat("pipe") is None


async def test_a_file_in_place_of_the_folder_makes_everything_unavailable(tmp_path: Path) -> None:
    (tmp_path / "artifacts").write_text("a file")
    artifacts = FolderArtifacts(tmp_path / "artifacts", BUCKET)
    attempts = (
        lambda: artifacts.write("a", PICTURE, content_type=PNG, expected=ABSENT),
        lambda: artifacts.put_blob(PICTURE, content_type=PNG),
        lambda: artifacts.stat("a"),
    )
    for attempt in attempts:
        with pytest.raises(ArtifactUnavailableError) as raised:
            await attempt()
        assert str(tmp_path / "artifacts") in raised.value.remedy


FULL_DISK = """
import resource, signal, sys, anyio
from engine.artifacts.folder import FolderArtifacts
from engine.artifacts.port import ABSENT
from engine.errors import ArtifactUnavailableError

async def main(path):
    artifacts = FolderArtifacts(path, "bucket")
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, resource.RLIM_INFINITY))
    content = bytes(10_001)
    for attempt in (
        lambda: artifacts.write("folder/new", content, content_type="x", expected=ABSENT),
        lambda: artifacts.write("old", content, content_type="x", expected=sys.argv[2]),
        lambda: artifacts.put_blob(content, content_type="x"),
    ):
        try:
            await attempt()
        except ArtifactUnavailableError as error:
            print(error.remedy)
    await artifacts.write("fits", content[1:], content_type="x", expected=ABSENT)

anyio.run(main, sys.argv[1])
"""


async def test_a_full_disk_leaves_no_partial_file(tmp_path: Path) -> None:
    artifacts = FolderArtifacts(tmp_path, BUCKET)
    stored = await artifacts.write("old", OTHER, content_type=PNG, expected=ABSENT)
    command = [sys.executable, "-c", FULL_DISK, str(tmp_path), stored.generation]
    done = await anyio.to_thread.run_sync(
        lambda: subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    )
    assert [line.startswith("Free space") for line in done.stdout.splitlines()] == [True, True, True]
    assert visible_files(tmp_path) == ["fits", "old"]
    assert await artifacts.read("old") == OTHER
    assert spooled_files(tmp_path) == []


async def test_a_write_that_lost_the_race_to_create_is_a_conflict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process creates the object after our look and before our link."""
    artifacts = FolderArtifacts(tmp_path, BUCKET)
    link = os.link

    def link_after_another(*args: object, **kwargs: object) -> None:
        (tmp_path / BUCKET / "a").write_bytes(OTHER)
        link(*args, **kwargs)  # type: ignore[arg-type]  # passed through as it came

    monkeypatch.setattr(os, "link", link_after_another)
    with pytest.raises(ArtifactConflictError):
        await artifacts.write("a", PICTURE, content_type=PNG, expected=ABSENT)
    assert (await artifacts.write("a", OTHER, content_type=PNG, expected=ABSENT)).size == len(OTHER)
    assert await artifacts.read("a") == OTHER


async def test_a_secret_reaches_no_artifact(tmp_path: Path) -> None:
    secret = "s3cr3t-k3y-é"  # noqa: S105 - made up
    artifacts = FolderArtifacts(tmp_path, BUCKET, Secrets([secret]))
    picture = PICTURE + secret.encode() + PICTURE
    escaped = b'{"key": "s3cr3t-k3y-\\u00e9"}'
    for content in (picture, escaped):
        with pytest.raises(SecretLeakError) as raised:
            await artifacts.write("a", content, content_type=PNG, expected=ABSENT)
        assert secret not in str(raised.value)
        with pytest.raises(SecretLeakError):
            await artifacts.put_blob(content, content_type="application/json")
    for attempt in (
        artifacts.write(secret, PICTURE, content_type=PNG, expected=ABSENT),
        artifacts.publish("0" * 64, f"a/{secret}", content_type=PNG),
    ):
        with pytest.raises(SecretLeakError) as raised:
            await attempt
        assert secret not in str(raised.value)
    assert list(tmp_path.iterdir()) == []  # noqa: ASYNC240 - a test waits for nothing else


@pytest.mark.parametrize("bucket", ["", ".", "..", "a/b", ".blobs", "a\0", "x" * 256])
def test_a_bucket_that_cannot_name_a_folder_is_refused(tmp_path: Path, bucket: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        FolderArtifacts(tmp_path, bucket)
    assert raised.value.variable == "DETENT_BUCKET"


def test_a_url_that_names_no_artifacts_is_refused() -> None:
    for url in ("", "folder:", "ftp://x", "gs"):
        with pytest.raises(ConfigurationError):
            open_artifacts(url, BUCKET)
