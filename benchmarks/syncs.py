"""Counting and slowing down the calls that wait for the disk, through a preloaded library (`syncs.c`).

In: the folder for the compiled library. Out: the environment variables of a measured program. Where there is no C
compiler nothing is counted, and the slow disk is left out; the table says so.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

_SOURCE = Path(__file__).with_name("syncs.c")


def compiled(folder: Path) -> Path | None:
    """The library, compiled anew when its source is newer; `None` without a C compiler, or where it cannot be built."""
    library = folder / "syncs.so"
    if library.exists() and library.stat().st_mtime > _SOURCE.stat().st_mtime:
        return library
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        return None
    folder.mkdir(parents=True, exist_ok=True)
    made = subprocess.run(
        [compiler, "-O2", "-shared", "-fPIC", "-o", library, _SOURCE, "-ldl"], capture_output=True, check=False
    )
    return library if made.returncode == 0 else None


def environment(library: Path | None, count: Path, delay_us: int) -> dict[str, str]:
    """What to add to a program's environment; makes `count`, the shared counter, start at zero."""
    if library is None:
        return {}
    count.write_bytes(bytes(8))
    return {"LD_PRELOAD": str(library), "BENCH_SYNCS": str(count), "BENCH_SYNC_US": str(delay_us)}
