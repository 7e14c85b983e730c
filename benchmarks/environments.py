"""Who is measured, and the environment of each: a peer's libraries never meet ours or another peer's.

In: a peer's name. Out: the Python to start it with, in a virtual environment that was made for exactly its
requirements (pinned, with the interpreter that runs the benchmark). Bare peers need nothing but what the project
itself brings, so they run in the project's own environment.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Final, NamedTuple


class Peer(NamedTuple):
    """A program of `benchmarks/peers`; `durability` says how its commits reach the disk."""

    name: str
    module: str
    title: str
    requirements: tuple[str, ...] = ()
    durability: str = ""


_WAL_FULL: Final = "WAL, synchronous=FULL"

PEERS: Final[dict[str, Peer]] = {
    peer.name: peer
    for peer in (
        Peer("detent", "detent", "detent", (), _WAL_FULL),
        Peer("detent-httpx", "detent", "detent over httpx", (), _WAL_FULL),
        Peer("sqlite3", "bare_sqlite", "bare sqlite3", (), f"{_WAL_FULL}; one INSERT and one UPDATE a commit"),
        Peer(
            "apsw", "bare_apsw", "bare apsw", (), f"{_WAL_FULL}; the same commits; many runs to a commit if in flight"
        ),
        Peer("aiohttp", "bare_http", "bare aiohttp", (), "none: no record"),
        Peer("httpx", "bare_http", "bare httpx over aiohttp", (), "none: no record"),
        Peer("script", "bare_script", "bare script, same libraries", (), _WAL_FULL),
        Peer("dict", "bare_step", "loop over a dict", (), "in memory"),
        Peer("transitions", "transitions_machine", "transitions", ("transitions==0.9.3",), "in memory"),
        Peer("sismic", "sismic_machine", "sismic", ("sismic==1.6.14",), "in memory"),
        Peer(
            "statemachine",
            "statemachine_machine",
            "python-statemachine",
            ("python-statemachine==3.2.2",),
            "in memory",
        ),
        Peer("huey", "huey_queue", "Huey", ("huey==3.5.4",), f"{_WAL_FULL} (SqliteHuey(fsync=True))"),
        Peer(
            "burr",
            "burr_application",
            "Burr",
            ("burr[tracking]==0.42.0",),
            f"{_WAL_FULL}: the journal mode set by us on its file",
        ),
        Peer(
            "langgraph",
            "langgraph_graph",
            "LangGraph",
            ("langgraph==1.2.22", "langgraph-checkpoint-sqlite==3.1.2", "aiohttp==3.14.5"),
            f'{_WAL_FULL}, durability="sync"',
        ),
        Peer(
            "dbos",
            "dbos_workflow",
            "DBOS",
            ("dbos==3.4.0", "aiohttp==3.14.5"),
            f"{_WAL_FULL}: the journal mode set by us on its file",
        ),
    )
}


def python_of(peer: Peer, folder: Path) -> Path:
    """The interpreter of a peer's environment, made on first use. Raises `CalledProcessError` when pip cannot."""
    if not peer.requirements:
        return Path(sys.executable)
    wanted = json.dumps([sys.version, *peer.requirements])
    place = folder / f"{peer.name}-{hashlib.sha256(wanted.encode()).hexdigest()[:12]}"
    python = place / "bin" / "python"
    done = place / "requirements.json"
    if not done.exists():
        print(f"making the environment of {peer.title}: {', '.join(peer.requirements)}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", place], check=True)
        install: list[str | Path] = [
            python,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            *peer.requirements,
        ]
        subprocess.run(install, check=True)
        done.write_text(wanted, encoding="utf-8")
    return python


def versions(peer: Peer, folder: Path) -> dict[str, str]:
    """The installed version of each library that a peer names."""
    names = [requirement.partition("==")[0].partition("[")[0] for requirement in peer.requirements]
    code = "import importlib.metadata as m, json, sys; print(json.dumps({n: m.version(n) for n in sys.argv[1:]}))"
    found = subprocess.run([python_of(peer, folder), "-c", code, *names], check=True, capture_output=True, text=True)
    answer: dict[str, str] = json.loads(found.stdout)
    return answer
