"""What every `Artifacts` must do, as checks that any artifact store can be put through.

In: `open_artifacts`, a function that opens an artifact store whose bucket is named `BUCKET` and holds nothing;
call each of `CHECKS` with it, on asyncio. A check that returns has passed; one that raises says what is wrong.
Nothing here assumes a file system.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final, TypeAlias

import anyio

from engine.artifacts.port import ABSENT, Artifacts, Stored
from engine.errors import ArtifactConflictError, ArtifactError

OpenArtifacts: TypeAlias = Callable[[], Awaitable[Artifacts]]
ArtifactsCheck: TypeAlias = Callable[[OpenArtifacts], Awaitable[None]]

BUCKET: Final = "bucket"
PNG: Final = "image/png"
PICTURE: Final = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 40
OTHER: Final = b"other bytes"

NAMES: Final = (
    "a",
    "folder/a.png",
    "a/b/c/d/e/f",
    "BINANCE:BTCUSDT/1h/2026-01-01T00:00:00Z.png",
    "with spaces/and 'quotes' \"double\"",
    "ünïcode/漢字/😀",
    "..a/b../...",
    ".hidden/.too",
    "-dash/--flag",
    "%2e%2e/%00",
    "a*b?c[d]{e}|f<g>h;i&j$k`l!m~n#o@p+q=r,s^t",
    "back\\slash",
    "x" * 255,
    "/".join(["y" * 127] * 8),
)

BAD_NAMES: Final = (
    "",
    "/",
    "/a",
    "a/",
    "a//b",
    ".",
    "..",
    "./a",
    "../a",
    "a/../b",
    "a/./b",
    "a/..",
    "a\0b",
    "a\nb",
    "a\x1fb",
    "a\x7fb",
    "a\x85b",
    "a\ud800b",
    "/".join(["y" * 127] * 8) + "/",
    "é" * 513,
    "/".join(["z" * 204] * 5) + "z",
)

CHECKS: Final[list[ArtifactsCheck]] = []


def name(check: Callable[..., Any]) -> str:
    """A check's name, for reports."""
    return getattr(check, "__name__", repr(check))


def _check(function: ArtifactsCheck) -> ArtifactsCheck:
    CHECKS.append(function)
    return function


@asynccontextmanager
async def _opened(open_artifacts: OpenArtifacts) -> AsyncIterator[Artifacts]:
    artifacts = await open_artifacts()
    try:
        yield artifacts
    finally:
        await artifacts.close()


async def _refused(error: type[BaseException], attempt: Awaitable[Any]) -> None:
    try:
        await attempt
    except error:
        return
    raise AssertionError(f"{error.__name__} was expected, and nothing was raised")


async def _create(artifacts: Artifacts, name: str, content: bytes) -> Stored:
    return await artifacts.write(name, content, content_type=PNG, expected=ABSENT)


async def _uri(artifacts: Artifacts, name: str) -> str:
    return artifacts.uri(name)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@_check
async def nothing_lies_under_a_name_at_first(open_artifacts: OpenArtifacts) -> None:
    async with _opened(open_artifacts) as artifacts:
        for object_name in ("a", "a/b"):
            assert await artifacts.stat(object_name) is None
            await _refused(ArtifactError, artifacts.read(object_name))


@_check
async def what_is_written_is_read(open_artifacts: OpenArtifacts) -> None:
    async with _opened(open_artifacts) as artifacts:
        for content in (PICTURE, b"", "é\r\n".encode()):
            stored = await _create(artifacts, f"folder/{len(content)}", content)
            assert (stored.sha256, stored.size) == (_sha256(content), len(content))
            assert stored.generation != ABSENT
            assert await artifacts.stat(f"folder/{len(content)}") == stored
            assert await artifacts.read(f"folder/{len(content)}") == content


@_check
async def every_allowed_name_works(open_artifacts: OpenArtifacts) -> None:
    async with _opened(open_artifacts) as artifacts:
        sha256 = await artifacts.put_blob(PICTURE, content_type=PNG)
        # One name is an object, another a folder of objects; a prefix of their own keeps them apart.
        for number, object_name in enumerate(entry for entry in NAMES if len(entry.encode()) < 1000):
            await _create(artifacts, f"{number}/{object_name}", object_name.encode())
            await artifacts.publish(sha256, f"{number}-/{object_name}", content_type=PNG)
            assert await artifacts.read(f"{number}/{object_name}") == object_name.encode()
            assert await artifacts.read(f"{number}-/{object_name}") == PICTURE
            assert artifacts.uri(object_name) == f"gs://{BUCKET}/{object_name}"
        longest = "/".join(["y" * 127] * 8)
        await _create(artifacts, longest + "z", PICTURE)
        assert await artifacts.read(longest + "z") == PICTURE


@_check
async def a_name_that_no_store_may_hold_is_refused_by_every_verb(open_artifacts: OpenArtifacts) -> None:
    async with _opened(open_artifacts) as artifacts:
        sha256 = await artifacts.put_blob(PICTURE, content_type=PNG)
        for object_name in BAD_NAMES:
            await _refused(ArtifactError, _uri(artifacts, object_name))
            await _refused(ArtifactError, artifacts.stat(object_name))
            await _refused(ArtifactError, artifacts.read(object_name))
            await _refused(ArtifactError, _create(artifacts, object_name, PICTURE))
            await _refused(ArtifactError, artifacts.publish(sha256, object_name, content_type=PNG))


@_check
async def create_over_other_bytes_is_a_conflict(open_artifacts: OpenArtifacts) -> None:
    async with _opened(open_artifacts) as artifacts:
        stored = await _create(artifacts, "a", PICTURE)
        await _refused(ArtifactConflictError, _create(artifacts, "a", OTHER))
        assert await artifacts.stat("a") == stored
        assert await artifacts.read("a") == PICTURE


@_check
async def the_generation_that_was_read_may_be_replaced(open_artifacts: OpenArtifacts) -> None:
    async with _opened(open_artifacts) as artifacts:
        first = await _create(artifacts, "a", PICTURE)
        second = await artifacts.write("a", OTHER, content_type=PNG, expected=first.generation)
        assert second.generation != first.generation
        assert await artifacts.stat("a") == second
        assert await artifacts.read("a") == OTHER


@_check
async def a_stale_generation_replaces_nothing(open_artifacts: OpenArtifacts) -> None:
    async with _opened(open_artifacts) as artifacts:
        first = await _create(artifacts, "a", PICTURE)
        await artifacts.write("a", OTHER, content_type=PNG, expected=first.generation)
        stale = artifacts.write("a", b"stale", content_type=PNG, expected=first.generation)
        await _refused(ArtifactConflictError, stale)
        assert await artifacts.read("a") == OTHER
        missing = artifacts.write("missing", b"stale", content_type=PNG, expected=first.generation)
        await _refused(ArtifactConflictError, missing)
        assert await artifacts.stat("missing") is None


@_check
async def the_same_bytes_there_already_are_success(open_artifacts: OpenArtifacts) -> None:
    async with _opened(open_artifacts) as artifacts:
        first = await _create(artifacts, "a", PICTURE)
        assert (await _create(artifacts, "a", PICTURE)).sha256 == first.sha256
        second = await artifacts.write("a", OTHER, content_type=PNG, expected=first.generation)
        again = await artifacts.write("a", OTHER, content_type=PNG, expected=first.generation)
        assert (again.sha256, again.size) == (second.sha256, second.size)
        assert await artifacts.read("a") == OTHER


@_check
async def a_blob_is_its_content(open_artifacts: OpenArtifacts) -> None:
    async with _opened(open_artifacts) as artifacts:
        for content in (PICTURE, b""):
            sha256 = await artifacts.put_blob(content, content_type=PNG)
            assert sha256 == _sha256(content)
            assert await artifacts.put_blob(content, content_type="text/plain") == sha256
            assert await artifacts.get_blob(sha256) == content


@_check
async def a_missing_blob_is_an_error(open_artifacts: OpenArtifacts) -> None:
    async with _opened(open_artifacts) as artifacts:
        await _refused(ArtifactError, artifacts.get_blob(_sha256(b"never stored")))
        await _refused(ArtifactError, artifacts.publish(_sha256(b"never stored"), "a", content_type=PNG))
        assert await artifacts.stat("a") is None
        for bad in ("", "../../etc/passwd", "x" * 64, _sha256(b"").upper(), _sha256(b"") + "0", _sha256(b"") + "\n"):
            await _refused(ArtifactError, artifacts.get_blob(bad))
            await _refused(ArtifactError, artifacts.publish(bad, "a", content_type=PNG))


@_check
async def publish_gives_a_blob_a_name(open_artifacts: OpenArtifacts) -> None:
    async with _opened(open_artifacts) as artifacts:
        sha256 = await artifacts.put_blob(PICTURE, content_type=PNG)
        stored = await artifacts.publish(sha256, "folder/a.png", content_type=PNG)
        assert (stored.sha256, stored.size) == (sha256, len(PICTURE))
        assert await artifacts.stat("folder/a.png") == stored
        assert await artifacts.read("folder/a.png") == PICTURE
        assert (await artifacts.publish(sha256, "folder/b.png", content_type=PNG)).sha256 == sha256
        assert await artifacts.get_blob(sha256) == PICTURE


@_check
async def publish_is_create_only(open_artifacts: OpenArtifacts) -> None:
    async with _opened(open_artifacts) as artifacts:
        picture = await artifacts.put_blob(PICTURE, content_type=PNG)
        other = await artifacts.put_blob(OTHER, content_type=PNG)
        await artifacts.publish(picture, "a", content_type=PNG)
        assert (await artifacts.publish(picture, "a", content_type=PNG)).sha256 == picture
        await _refused(ArtifactConflictError, artifacts.publish(other, "a", content_type=PNG))
        assert await artifacts.read("a") == PICTURE


@_check
async def replacing_an_object_leaves_the_blob_it_came_from(open_artifacts: OpenArtifacts) -> None:
    async with _opened(open_artifacts) as artifacts:
        sha256 = await artifacts.put_blob(PICTURE, content_type=PNG)
        stored = await artifacts.publish(sha256, "a", content_type=PNG)
        await artifacts.write("a", OTHER, content_type=PNG, expected=stored.generation)
        assert await artifacts.get_blob(sha256) == PICTURE


@_check
async def one_of_many_concurrent_writers_wins(open_artifacts: OpenArtifacts) -> None:
    won: list[bytes] = []

    async with _opened(open_artifacts) as artifacts:

        async def attempt(content: bytes, expected: str) -> None:
            try:
                await artifacts.write("a", content, content_type=PNG, expected=expected)
            except ArtifactConflictError:
                return
            won.append(content)

        expected = ABSENT
        for turn in range(3):
            won.clear()
            async with anyio.create_task_group() as tasks:
                for number in range(10):
                    tasks.start_soon(attempt, f"{turn}:{number}".encode(), expected)
            assert len(won) == 1
            assert await artifacts.read("a") == won[0]
            stored = await artifacts.stat("a")
            assert stored is not None
            expected = stored.generation


@_check
async def closing_twice_is_closing_once(open_artifacts: OpenArtifacts) -> None:
    artifacts = await open_artifacts()
    await artifacts.close()
    await artifacts.close()
