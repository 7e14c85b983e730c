"""Finding definitions: files, the children that their maps name, and the machines that runs began with.

A map names its machine; the file `NAME.yaml` beside the definition is that machine. A machine is compiled
once for each digest.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.core.action import ActionDeclaration
from engine.core.diagnostic import Diagnostic, Position
from engine.core.machine import Machine
from engine.definition.compiler import Compiled, compile_source, compile_text
from engine.errors import DefinitionError


class Library:
    """The machines of one process: loaded from files, or rebuilt from stored definitions by digest."""

    def __init__(self, actions: Mapping[str, ActionDeclaration]) -> None:
        self.actions = actions
        self._by_digest: dict[str, Machine] = {}

    def load(self, path: str | Path) -> Machine:
        """Compile a file with its children. Raises `DefinitionError` with every diagnostic."""
        machine, diagnostics = self.check(path)
        if machine is None:
            raise DefinitionError(diagnostics)
        return machine

    def check(self, path: str | Path) -> Compiled:
        """Compile a file with its children; answers diagnostics instead of raising."""
        compiled = self._file(Path(path), ())
        if compiled.machine is not None:
            self.add(compiled.machine)
        return compiled

    def add(self, machine: Machine) -> None:
        """Remember a machine and its children by digest."""
        self._by_digest[machine.digest] = machine
        for child in machine.children.values():
            self.add(child)

    def get(self, digest: str) -> Machine | None:
        """The machine with this digest, if this process has met it."""
        return self._by_digest.get(digest)

    def rebuild(self, source: Mapping[str, Any], children: Mapping[str, Machine], file: str) -> Machine:
        """Compile a stored definition. Raises `DefinitionError` when this release cannot run it any more."""
        compiled = compile_source(source, file, self.actions, children.get)
        if compiled.machine is None:
            raise DefinitionError(compiled.diagnostics)
        self.add(compiled.machine)
        return compiled.machine

    def _file(self, path: Path, above: tuple[str, ...]) -> Compiled:
        try:
            text = path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            problem = "is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else f"cannot be read: {error.strerror}"
            found = Diagnostic(str(path), Position(1, 1), "file-unreadable", f"the definition {problem}")
            return Compiled(None, (found,))
        below: list[Diagnostic] = []

        def child(name: str) -> Machine | None:
            if name in (*above, path.stem) or not name:
                return None  # a machine that maps itself would never end; the map is reported as unknown
            file = path.parent / f"{name}.yaml"
            if not file.is_file():
                return None
            compiled = self._file(file, (*above, path.stem))
            below.extend(compiled.diagnostics)
            if compiled.machine is not None and compiled.machine.name != name:
                return None
            return compiled.machine

        compiled = compile_text(text, str(path), self.actions, child)
        return compiled if not below else Compiled(None, (*compiled.diagnostics, *below))


def load_machine(path: str | Path, actions: Mapping[str, ActionDeclaration]) -> Machine:
    """Compile one file with its children. Raises `DefinitionError` with every diagnostic."""
    return Library(actions).load(path)
