"""Files that are either absent or whole, and one writer at a time among processes.

In: paths and bytes. `write_whole` puts a file in place by rename, after its bytes are on the disk;
`locked` lets one thread of one process at a time into a folder. The lock is on the folder itself, so that
no lock file is left behind for a version control to find. POSIX only, as is recording.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def write_whole(path: Path, content: bytes) -> None:
    """Replace `path` by `content`, atomically and durably. Its folder must exist. Raises `OSError`."""
    import tempfile  # here: a process that records nothing does without it, and without what it imports

    # A short name of its own: `path`'s may have the full length that a folder can hold.
    handle, name = tempfile.mkstemp(prefix=".detent-", suffix=".part", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            os.fchmod(file.fileno(), 0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make `folder` and hold its lock, waiting for whoever has it. Raises `OSError`."""
    import fcntl

    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        # Each opening has a lock of its own, so threads of one process exclude each other too.
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _sync_folder(folder: Path) -> None:
    """Make the rename itself durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
