"""Artifacts in a folder: published objects as plain files, blobs out of sight beside them.

In: names and bytes. Out: `PATH/<bucket>/<name>` for each object, so that a person who opens the bucket's folder
sees what was published and nothing else; `PATH/.blobs/<bucket>/<2 hex>/<sha256>` for each blob. An object's
generation is its content's SHA-256.

A file gets its name only when it is whole and on the disk: by a hard link, which cannot replace anything, or by a
rename under the bucket's lock. Nothing below the bucket's folder is reached through a symbolic link. All file work
runs in threads. Full disks and missing permissions are `ArtifactUnavailableError`; no partial file stays behind.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final, ParamSpec, TypeVar

import anyio.to_thread

from engine.artifacts.port import ABSENT, Stored, check_name, check_sha256
from engine.core.secret import Secrets
from engine.errors import (
    ArtifactConflictError,
    ArtifactError,
    ArtifactUnavailableError,
    ConfigurationError,
    SecretLeakError,
)

SEGMENT_BYTES_MAX: Final = 255
"""One segment of a name: the longest file name that the usual file systems take."""

_BLOBS: Final = ".blobs"
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_NEW_FILE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC

_NO_SPACE: Final = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NO_LINKS: Final = {errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOSYS}
"""How a file system says that it cannot make this hard link; then the bytes are copied."""

Parameters = ParamSpec("Parameters")
Answer = TypeVar("Answer")


class FolderArtifacts:
    """`Artifacts` in a folder; see the module.

    `secrets` are refused in names and contents (`SecretLeakError`). Raises `ConfigurationError` for a bucket that
    cannot name a folder; the folder itself is made by the first write.
    """

    def __init__(self, path: str | os.PathLike[str], bucket: str, secrets: Secrets | None = None) -> None:
        problem = "it must be one segment of a path" if "/" in bucket or bucket == _BLOBS else ""
        try:
            check_name(bucket)
            _check_segments(bucket)
        except ArtifactError as error:
            problem = str(error)
        if problem:
            raise ConfigurationError("DETENT_BUCKET", f"the bucket {bucket!r} cannot be used: {problem}")
        self._bucket = bucket
        self._root = Path(path).absolute()
        self._objects = self._root / bucket
        self._blobs = self._root / _BLOBS / bucket
        self._secrets = secrets or Secrets()

    def uri(self, name: str) -> str:
        self._check(name)
        return f"gs://{self._bucket}/{name}"

    async def stat(self, name: str) -> Stored | None:
        self._check(name)
        content = await self._in_thread(self._content, name)
        return None if content is None else _stored(content)

    async def read(self, name: str) -> bytes:
        self._check(name)
        content = await self._in_thread(self._content, name)
        if content is None:
            raise ArtifactError(f"there is no object {self.uri(name)}.")
        return content

    async def write(self, name: str, content: bytes, *, content_type: str, expected: str) -> Stored:
        self._check(name)
        self._refuse_secret(content, self.uri(name))
        return await self._in_thread(self._write, name, content, expected)

    async def put_blob(self, content: bytes, *, content_type: str) -> str:
        self._refuse_secret(content, "a blob")
        return await self._in_thread(self._put_blob, content)

    async def get_blob(self, sha256: str) -> bytes:
        check_sha256(sha256)
        return await self._in_thread(self._get_blob, sha256)

    async def publish(self, sha256: str, name: str, *, content_type: str) -> Stored:
        check_sha256(sha256)
        self._check(name)
        return await self._in_thread(self._publish, sha256, name)

    async def close(self) -> None:
        return None

    # What follows runs in threads. -------------------------------------------------------------------------------

    async def _in_thread(
        self, work: Callable[Parameters, Answer], *args: Parameters.args, **kwargs: Parameters.kwargs
    ) -> Answer:
        try:
            return await anyio.to_thread.run_sync(partial(work, *args, **kwargs))
        except OSError as error:
            raise self._unavailable(error) from error

    def _write(self, name: str, content: bytes, expected: str) -> Stored:
        goal = _stored(content)
        if self._is_settled(name, goal, expected):
            return goal
        with self._spooled(content) as spooled, self._folder_of(name) as (folder, leaf):
            if expected != ABSENT:
                with self._lock():
                    if not self._is_settled(name, goal, expected):
                        self._replace(spooled, folder, leaf, content)
            else:
                self._create(spooled, folder, leaf, content, name)
            os.fsync(folder)
        return goal

    def _publish(self, sha256: str, name: str) -> Stored:
        content = self._get_blob(sha256)
        goal = _stored(content)
        if self._is_settled(name, goal, ABSENT):
            return goal
        with self._folder_of(name) as (folder, leaf):
            self._create(self._blob_path(sha256), folder, leaf, content, name)
            os.fsync(folder)
        return goal

    def _put_blob(self, content: bytes) -> str:
        sha256 = hashlib.sha256(content).hexdigest()
        with contextlib.suppress(ArtifactError):
            self._get_blob(sha256)
            return sha256
        path = self._blob_path(sha256)
        with self._spooled(content) as spooled:
            # A published object shares the blob's bytes: an editor must not change both in place.
            spooled.chmod(0o444)
            _make_folders(path.parent)
            spooled.replace(path)
            _sync_folder(path.parent)
        return sha256

    def _get_blob(self, sha256: str) -> bytes:
        try:
            content = _read(os.open(self._blob_path(sha256), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC))
        except FileNotFoundError:
            raise ArtifactError(f"there is no blob {sha256}.") from None
        if hashlib.sha256(content).hexdigest() != sha256:
            raise ArtifactError(
                f"the blob {sha256} is damaged: its bytes have another SHA-256.",
                remedy="Remove its file; whatever made it will store it again.",
            )
        return content

    def _is_settled(self, name: str, goal: Stored, expected: str) -> bool:
        """Whether the very same bytes lie there already. Raises `ArtifactConflictError` when others do."""
        content = self._content(name)
        found = ABSENT if content is None else _stored(content).generation
        if found == goal.generation:
            return True
        if found != expected:
            raise self._conflict(name, expected)
        return False

    def _content(self, name: str) -> bytes | None:
        """The object's bytes; `None` when there is none."""
        try:
            with self._folder_of(name, make=False) as (folder, leaf):
                return _read(os.open(leaf, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder))
        except (FileNotFoundError, IsADirectoryError):
            return None
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise self._in_the_way(name, "a symbolic link") from None
            raise

    def _create(self, source: Path, folder: int, leaf: str, content: bytes, name: str) -> None:
        """Give a file its name, unless the very same bytes have it. Raises `ArtifactConflictError` when others do."""
        try:
            os.link(source, leaf, dst_dir_fd=folder, follow_symlinks=False)
            return
        except FileExistsError:
            pass
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            if self._create_by_copy(folder, leaf, content):
                return
        if not self._is_settled(name, _stored(content), ABSENT):
            raise self._in_the_way(name, "a folder of other objects")

    def _create_by_copy(self, folder: int, leaf: str, content: bytes) -> bool:
        """Where there are no hard links all who create do it under the lock; answers whether the name was free."""
        with self._lock():
            try:
                os.stat(leaf, dir_fd=folder, follow_symlinks=False)
            except FileNotFoundError:
                _rename_copy(folder, leaf, content)
                return True
        return False

    def _replace(self, source: Path, folder: int, leaf: str, content: bytes) -> None:
        try:
            os.replace(source, leaf, dst_dir_fd=folder)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            _rename_copy(folder, leaf, content)

    @contextmanager
    def _folder_of(self, name: str, *, make: bool = True) -> Iterator[tuple[int, str]]:
        """The open folder that holds the object, and the object's file name in it; no symbolic link is followed."""
        *segments, leaf = name.split("/")
        if make:
            _make_folders(self._objects)
        folder = os.open(self._objects, _FOLDER)
        try:
            for segment in segments:
                inner = self._inner_folder(folder, segment, name, make)
                os.close(folder)
                folder = inner
            yield folder, leaf
        finally:
            os.close(folder)

    def _inner_folder(self, folder: int, segment: str, name: str, make: bool) -> int:
        if make:
            with contextlib.suppress(FileExistsError):
                os.mkdir(segment, dir_fd=folder)
                os.fsync(folder)
        try:
            return os.open(segment, _FOLDER | os.O_NOFOLLOW, dir_fd=folder)
        except OSError as error:
            if error.errno not in (errno.ENOTDIR, errno.ELOOP):
                raise
            is_link = stat.S_ISLNK(os.stat(segment, dir_fd=folder, follow_symlinks=False).st_mode)
            if not is_link and not make:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)) from None
            raise self._in_the_way(name, "a symbolic link" if is_link else f"the object {segment!r}") from None

    @contextmanager
    def _spooled(self, content: bytes) -> Iterator[Path]:
        """The path of a file that holds `content` and is on the disk; it is gone afterwards."""
        _make_folders(self._blobs)
        path = self._blobs / f"spool-{os.urandom(8).hex()}"
        try:
            _write_file(os.open(path, _NEW_FILE, 0o666), content)
            yield path
        finally:
            path.unlink(missing_ok=True)

    @contextmanager
    def _lock(self) -> Iterator[None]:
        """The bucket's lock, over threads and processes; the kernel takes it back from one that dies."""
        _make_folders(self._blobs)
        lock = os.open(self._blobs / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def _blob_path(self, sha256: str) -> Path:
        return self._blobs / sha256[:2] / sha256

    def _check(self, name: str) -> None:
        self._secrets.refuse(name, sink="the name of an artifact")
        check_name(name)
        _check_segments(name)

    def _refuse_secret(self, content: bytes, sink: str) -> None:
        if self._secrets.found_in_bytes(content):
            raise SecretLeakError(
                f"a secret value was about to be written to {sink}; nothing was written.",
                remedy="See which server or handler put its key into what it returned.",
            )

    def _conflict(self, name: str, expected: str) -> ArtifactConflictError:
        return ArtifactConflictError(
            f"{self.uri(name)} is not at the generation {expected} that was expected; nothing was written.",
            remedy="Read it again and decide anew.",
        )

    def _in_the_way(self, name: str, what: str) -> ArtifactError:
        return ArtifactError(
            f"{self.uri(name)} cannot be kept in a folder: {what} is in the way.",
            remedy="Rename one of the two: a file cannot also be a folder.",
        )

    def _unavailable(self, error: OSError) -> ArtifactUnavailableError:
        remedy = f"See that {self._root} is a folder that this user may write."
        if error.errno in _NO_SPACE:
            remedy = f"Free space on the disk of {self._root} and try again."
        return ArtifactUnavailableError(
            f"the artifacts in {self._root} cannot be used: {error.strerror}.", remedy=remedy
        )


def _check_segments(name: str) -> None:
    for segment in name.split("/"):
        size = len(segment.encode())
        if size > SEGMENT_BYTES_MAX:
            raise ArtifactError(
                f"the object name {name!r} cannot be kept in a folder: the segment {segment[:40]!r}... is {size} bytes"
                f" long, and a file name holds at most {SEGMENT_BYTES_MAX}.",
                remedy="Shorten the segment, or use a bucket.",
            )


def _stored(content: bytes) -> Stored:
    sha256 = hashlib.sha256(content).hexdigest()
    return Stored(f"sha256:{sha256}", sha256, len(content))


def _read(file: int) -> bytes:
    """Everything in an open file, which is closed; what is no regular file is as good as a folder."""
    with os.fdopen(file, "rb") as reader:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        return reader.read()


def _write_file(file: int, content: bytes) -> None:
    with os.fdopen(file, "wb") as writer:
        writer.write(content)
        writer.flush()
        os.fsync(file)


def _rename_copy(folder: int, leaf: str, content: bytes) -> None:
    spooled = f".spool-{os.urandom(8).hex()}"
    try:
        _write_file(os.open(spooled, _NEW_FILE, 0o666, dir_fd=folder), content)
        os.replace(spooled, leaf, src_dir_fd=folder, dst_dir_fd=folder)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(spooled, dir_fd=folder)


def _make_folders(path: Path) -> None:
    """Make the folder and those above it; each new name is on the disk."""
    if path.is_dir():
        return
    _make_folders(path.parent)
    with contextlib.suppress(FileExistsError):
        path.mkdir()
    _sync_folder(path.parent)


def _sync_folder(path: Path) -> None:
    folder = os.open(path, _FOLDER)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
