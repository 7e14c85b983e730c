"""Every error that detent raises, on one screen.

Each class has a stable `code`; an instance keeps the facts it was born with and says what happened,
where, and what to do (`remedy`). Handlers do not raise these for ordinary failures: those are values
(`engine.core.action.Failure`). An exception here marks a boundary (a store that is away, a lease that
was lost) or a mistake of the caller. No message ever holds a secret.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from engine.core.diagnostic import Diagnostic


NAME_CHARS_MAX: Final = 300
"""Of a name that somebody else chose, in a message."""


class DetentError(Exception):
    """Root of the tree. `code` is stable; `remedy` is one sentence that says what to do."""

    code = "DETENT_ERROR"

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(message, remedy)
        self.message = message
        self.remedy = remedy

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.__dict__))

    def __str__(self) -> str:
        return f"{self.message} {self.remedy}".strip()


def _rebuild(cls: type[DetentError], facts: dict[str, object]) -> DetentError:
    error = cls.__new__(cls)
    Exception.__init__(error, facts.get("message", ""), facts.get("remedy", ""))
    error.__dict__.update(facts)
    return error


class ConfigurationError(DetentError):
    """A flag or an environment variable is wrong. Names the variable, never its value."""

    code = "CONFIG_ERROR"

    def __init__(self, variable: str, problem: str, *, remedy: str = "") -> None:
        super().__init__(f"{variable}: {problem}", remedy=remedy)
        self.variable = variable


class DefinitionError(DetentError):
    """A definition does not compile. Carries every diagnostic, in the order of the text."""

    code = "DEFINITION_INVALID"

    def __init__(self, diagnostics: Sequence[Diagnostic]) -> None:
        super().__init__("\n".join(str(diagnostic) for diagnostic in diagnostics))
        self.diagnostics = tuple(diagnostics)


class ExpressionError(DetentError):
    """A CEL expression does not compile (`column` is from 1) or failed on its data."""

    code = "EXPRESSION_FAILED"

    def __init__(self, message: str, *, expression: str, column: int = 1, remedy: str = "") -> None:
        super().__init__(message, remedy=remedy)
        self.expression = expression
        self.column = column


class IllegalEventError(DetentError):
    """An event that the run's present state does not take. Nothing has changed."""

    code = "EVENT_ILLEGAL"


class InvalidKeyError(DetentError):
    """A collection or document id that no store may hold (the rules are Firestore's)."""

    code = "KEY_INVALID"


class InvalidRequestError(DetentError):
    """A caller's input cannot be taken: run input against its schema, an unknown run, a conflicting id."""

    code = "REQUEST_INVALID"


class StoreError(DetentError):
    """Root of what a store may raise."""

    code = "STORE_ERROR"


class StoreUnavailableError(StoreError):
    """The store is away or full and nothing was written. Trying again later is right."""

    code = "STORE_UNAVAILABLE"


class CommitUncertainError(StoreError):
    """The store did not say whether the commit was applied. Read the journal entry again to know."""

    code = "COMMIT_UNCERTAIN"


class WriteRefusedError(StoreError):
    """A write's own condition does not hold: `Create` over a document, `Update` of a missing one."""

    code = "WRITE_REFUSED"


class ContentionError(StoreError):
    """A decide met conflicts until its attempts were used up. Nothing was written."""

    code = "STORE_CONTENTION"


class StoreDamagedError(StoreError):
    """The store's own file is damaged. Nothing was written, and waiting does not mend it."""

    code = "STORE_DAMAGED"


class DocumentUnreadableError(StoreError):
    """A stored document is not as detent wrote it. Names it; what it holds is not told, for it may be anything.

    Nothing was written, and waiting does not mend it; runs that do not need the document are untouched.
    """

    code = "DOCUMENT_UNREADABLE"

    def __init__(self, document: str, problem: str, *, remedy: str = "Restore it from a copy.") -> None:
        super().__init__(f"the document {document[:NAME_CHARS_MAX]} cannot be read: {problem}.", remedy=remedy)
        self.document = document


class ArtifactError(DetentError):
    """Root of what an artifact store may raise."""

    code = "ARTIFACT_ERROR"


class ArtifactUnavailableError(ArtifactError):
    """Objects cannot be written or read now: no space, no permission, no service."""

    code = "ARTIFACT_UNAVAILABLE"


class ArtifactConflictError(ArtifactError):
    """The object is not at the generation that the caller expected. Nothing was written."""

    code = "ARTIFACT_CONFLICT"


class LeaseLostError(DetentError):
    """This worker's fence is no longer the run's: another worker took the run over."""

    code = "LEASE_LOST"


class SecretLeakError(DetentError):
    """A value about to be written holds a registered secret. Names the sink, never the value."""

    code = "SECRET_LEAKED"
