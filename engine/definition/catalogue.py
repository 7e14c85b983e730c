"""Finding definitions: files, the children that their maps name, and the machines that runs began with.

A map names its machine; the file `NAME.yaml` beside the definition is that machine. A machine is compiled
once for each digest.
"""

from __future__ import annotations

import codecs
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.core.action import ActionDeclaration
from engine.core.bounds import CHILD_DEPTH_MAX, DEFINITION_BYTES_MAX
from engine.core.diagnostic import Diagnostic, Position
from engine.core.machine import Machine
from engine.definition.compiler import Absent, Compiled, compile_source, compile_text
from engine.errors import DefinitionError


class Catalogue:
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
        if machine.digest not in self._by_digest:
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
            text = _read(path)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "this cannot be the name of a file"
            problem = "is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else f"cannot be read: {reason}"
            remedy = "Save it as UTF-8." if isinstance(error, UnicodeDecodeError) else "Check its path and permissions."
            found = Diagnostic(str(path), Position(1, 1), "file-unreadable", f"the definition {problem}", remedy)
            return Compiled(None, (found,))
        names = (*above, path.stem)
        below: list[Diagnostic] = []

        def child(name: str) -> Machine | Absent | None:
            file = path.parent / f"{name}.yaml"
            if name in names:
                chain = " → ".join((*names[names.index(name) :], name))
                return Absent(f"a machine cannot map itself: {chain}", "It would never end; map another one.")
            if len(names) > CHILD_DEPTH_MAX:
                return Absent(f"maps are nested more than {CHILD_DEPTH_MAX} machines deep", "Nest them less.")
            if not file.is_file():
                return None
            compiled = self._file(file, names)
            below.extend(compiled.diagnostics)
            if compiled.machine is None:
                return Absent("", is_reported=True)
            if compiled.machine.name != name:
                problem = f"{file.name} holds the machine {compiled.machine.name!r}, not {name!r}"
                return Absent(problem, "Give the file the name of its machine.")
            return compiled.machine

        compiled = compile_text(text, str(path), self.actions, child)
        return compiled if not below else Compiled(None, (*compiled.diagnostics, *dict.fromkeys(below)))


def _read(path: Path) -> str:
    """The text of a file; a file that is too long is read only as far as it takes to say so."""
    with path.open("rb") as file:
        content = file.read(DEFINITION_BYTES_MAX + len(codecs.BOM_UTF8) + 1)
    if len(content) > DEFINITION_BYTES_MAX + len(codecs.BOM_UTF8):
        return content.decode("utf-8-sig", errors="replace")
    return content.decode("utf-8-sig")


def load_machine(path: str | Path, actions: Mapping[str, ActionDeclaration]) -> Machine:
    """Compile one file with its children. Raises `DefinitionError` with every diagnostic."""
    return Catalogue(actions).load(path)
