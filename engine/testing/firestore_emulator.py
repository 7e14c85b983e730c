"""The official emulator of Firestore, started for tests and stopped for sure.

In: nothing, or a port. Out: an address for `FIRESTORE_EMULATOR_HOST`. Found in this order: an emulator that runs
already (`FIRESTORE_EMULATOR_HOST`), the jar that `DETENT_FIRESTORE_EMULATOR_JAR` names, the jar of an installed
Google Cloud SDK. Tests share one and keep apart by project: `fresh_project` names one that nobody else has.

Java is started directly: the `gcloud` wrapper, when it is stopped, leaves its Java running. The emulator keeps
everything in memory, so a restart forgets it, and its memory grows with what was written.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex
from typing import Any, Final

EMULATOR_HOST: Final = "FIRESTORE_EMULATOR_HOST"
JAR: Final = "DETENT_FIRESTORE_EMULATOR_JAR"
LOOPBACK: Final = "127.0.0.1"

START_S_MAX: Final = 60.0
"""Until it answers; two to four seconds where nothing else runs."""

POLL_S: Final = 0.05
STOP_S_MAX: Final = 5.0

_PLACE: Final = "platform/cloud-firestore-emulator/cloud-firestore-emulator.jar"
_ROOTS: Final = (
    "/usr/lib/google-cloud-sdk",
    "/usr/share/google-cloud-sdk",
    "/opt/google-cloud-sdk",
    "/snap/google-cloud-cli/current",
)
_CLASS: Final = "com.google.cloud.datastore.emulator.firestore.CloudFirestore"


_STARTED: Final[list[subprocess.Popen[bytes]]] = []
"""What this process has started for others too: it may be the last one's to stop, and is this one's to bury."""


class EmulatorMissingError(RuntimeError):
    """No emulator can be had here; the message says in one line what was looked for."""


class FirestoreEmulator:
    """An emulator on loopback. `process` is `None` for one that somebody else has started."""

    def __init__(self, host: str, process: subprocess.Popen[bytes] | None = None) -> None:
        self.host = host
        self._process = process

    @property
    def pid(self) -> int | None:
        """The process's id; `None` for one that somebody else has started."""
        return None if self._process is None else self._process.pid

    def stop(self) -> None:
        """End the process, whatever it is doing. Idempotent."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()  # it has nothing to put in order, and SIGTERM it may take seconds over
            process.wait(STOP_S_MAX)

    def restart(self) -> None:
        """End it and start an empty one on the same port."""
        self.stop()
        self._process = _start(int(self.host.rpartition(":")[2]))


def fresh_project() -> str:
    """A project's id of which an emulator holds nothing yet; `demo-` is Google's mark of a project that is not real."""
    return f"demo-{token_hex(6)}"


def find_jar(environ: Mapping[str, str] = os.environ) -> Path:
    """The emulator's jar. Raises `EmulatorMissingError`."""
    if named := environ.get(JAR):
        if not Path(named).is_file():
            raise EmulatorMissingError(f"{JAR} names no file.")
        return Path(named)
    for root in _sdk_roots():
        if (jar := root / _PLACE).is_file():
            return jar
    raise EmulatorMissingError(
        f"no Firestore emulator: set {EMULATOR_HOST} or {JAR}, or `gcloud components install cloud-firestore-emulator`."
    )


@contextmanager
def running_firestore(port: int = 0) -> Iterator[FirestoreEmulator]:
    """An emulator of its own, ready when the block is entered and gone after it; port 0 takes a free one.

    Raises `EmulatorMissingError` without Java or the emulator.
    """
    port = port or _free_port()
    emulator = FirestoreEmulator(f"{LOOPBACK}:{port}", _start(port))
    try:
        yield emulator
    finally:
        emulator.stop()


@contextmanager
def shared_firestore(folder: Path) -> Iterator[FirestoreEmulator]:
    """One emulator for every process that gives the same folder: the first starts it, the last one out stops it."""
    if running := os.environ.get(EMULATOR_HOST):
        yield FirestoreEmulator(running)
        return
    with _state(folder) as state:
        if not state.get("users"):
            port = _free_port()
            process = _start(port)
            _STARTED.append(process)
            state.update(host=f"{LOOPBACK}:{port}", pid=process.pid)
        state["users"] = state.get("users", 0) + 1
        host = state["host"]
    try:
        yield FirestoreEmulator(host)
    finally:
        with _state(folder) as state:
            state["users"] -= 1
            if state["users"] == 0:
                os.kill(state["pid"], signal.SIGKILL)
            for process in _STARTED:
                process.returncode = 0  # whoever is last stops it: Python need not warn that it is still there
            if state["users"] == 0:
                with suppress(ChildProcessError):  # another process's child is another's to bury
                    os.waitpid(state["pid"], 0)


@contextmanager
def _state(folder: Path) -> Iterator[dict[str, Any]]:
    """What the processes of one folder know together, held by one of them at a time."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "firestore-emulator.json").open("a+", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        state: dict[str, Any] = json.loads(file.read() or "{}")
        try:
            yield state
        finally:
            file.truncate(0)
            file.write(json.dumps(state))


def _start(port: int) -> subprocess.Popen[bytes]:
    java = shutil.which("java")
    if java is None:
        raise EmulatorMissingError("no Firestore emulator: there is no `java` on the path.")
    command = [java, "-Duser.language=en", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xmx768m", "-cp"]
    command += [str(find_jar()), _CLASS, "--host", LOOPBACK, "--port", str(port), "--websocket_port", str(_free_port())]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + START_S_MAX
    while not _answers(port):
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            process.wait()
            raise EmulatorMissingError(f"the Firestore emulator did not start (status {process.returncode}).")
        time.sleep(POLL_S)
    return process


def _answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://{LOOPBACK}:{port}/", timeout=1) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


def _sdk_roots() -> Iterator[Path]:
    if gcloud := shutil.which("gcloud"):
        yield Path(gcloud).resolve().parent.parent
    yield from map(Path, _ROOTS)
    yield Path.home() / "google-cloud-sdk"
    if gcloud:  # asked last: it takes seconds to answer
        asked = [gcloud, "info", "--format=value(installation.sdk_root)"]
        yield Path(subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip() or os.devnull)
