"""The command line in a process of its own, with a store of its own and whatever streams a test gives it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent
WAITS = "{machine: waits, version: 1, initial: W, states: {W: {'on': {go: END}, after: {1h: END}}, END: {type: final}}}"
DONE = "{machine: done, version: 1, initial: W, states: {W: {after: {0s: END}}, END: {type: final}}}"

AT_IMPORT = """
import os, signal, sys
class Signalled:
    def find_spec(self, name, path=None, target=None):
        if name == {name!r}:
            os.kill(os.getpid(), signal.{number})
sys.meta_path.insert(0, Signalled())
from engine.entry.cli import main
main()
"""
"""A process that sends itself a signal when it comes to import a module."""


class Door:
    """A folder with definitions and a store; `command` is what `detent` is in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "waits.yaml").write_text(WAITS)
        (folder / "done.yaml").write_text(DONE)
        self.env = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG")}
        self.env |= {"PYTHONPATH": f"{ROOT}:{folder}", "DETENT_STORE": f"sqlite:///{folder}/d.db"}
        self.env |= {"DETENT_ARTIFACTS": f"folder:{folder}/out"}
        self.command = [sys.executable, "-m", "engine.entry.cli"]

    def __call__(self, *arguments: str, **streams: Any) -> subprocess.CompletedProcess[str]:
        return self._run([*self.command, *arguments], **streams)

    def in_shell(self, arguments: str) -> subprocess.CompletedProcess[str]:
        """The rest of a line of a shell, redirections and all."""
        return self._run(["sh", "-c", f"exec {' '.join(self.command)} {arguments}"])

    def signalled_at_import(self, name: str, number: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self._run([sys.executable, "-c", AT_IMPORT.format(name=name, number=number), *arguments])

    def started(self, *arguments: str, **streams: Any) -> subprocess.Popen[str]:
        given: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | streams
        return subprocess.Popen([*self.command, *arguments], env=self.env, cwd=self.folder, text=True, **given)

    def _run(self, command: list[str], **streams: Any) -> subprocess.CompletedProcess[str]:
        given: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | streams
        return subprocess.run(command, env=self.env, cwd=self.folder, text=True, timeout=60, **given)
