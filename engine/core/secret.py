"""The registry of secret values, asked at every sink before anything is written.

A definition names accounts by id and keys are resolved inside the handler, so no secret should ever
reach a context. The registry is the net behind that: `found_in` answers whether a text holds one, and
the sink refuses it; `redact` is for texts that come from outside (a server that echoes a key).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Final

from engine.errors import SecretLeakError

LENGTH_MIN: Final = 8
"""Shorter values cannot be told from ordinary text by a search; handlers redact them as whole words."""

REDACTED: Final = "[redacted]"


class Secrets:
    """The values that must never be written. Add-only; shared by every sink of one engine."""

    def __init__(self, values: Iterable[str] = ()) -> None:
        self._values: set[str] = set()
        self._searched: tuple[str, ...] = ()
        self._pattern: re.Pattern[str] | None = None
        for value in values:
            self.add(value)

    def add(self, value: str) -> None:
        """Register one secret value. A JSON text holds it escaped, so that form is searched for too."""
        if not value:
            return
        self._values.add(value)
        forms = {form for known in self._values for form in _forms(known)}
        self._searched = tuple(sorted((form for form in forms if len(form) >= LENGTH_MIN), key=len, reverse=True))
        words = (
            re.escape(form) if len(form) >= LENGTH_MIN else rf"(?<!\w){re.escape(form)}(?!\w)"
            for form in sorted(forms, key=len, reverse=True)
        )
        self._pattern = re.compile("|".join(words))

    def __len__(self) -> int:
        return len(self._values)

    def __bool__(self) -> bool:
        return True  # a registry without values is a registry

    def found_in(self, text: str) -> bool:
        """Whether `text` holds a registered value of at least `LENGTH_MIN` characters."""
        for value in self._searched:  # noqa: SIM110 - each step asks twice, and a generator costs more than the search
            if value in text:
                return True
        return False

    def found_in_bytes(self, content: bytes) -> bool:
        """As `found_in`, for bytes."""
        return any(value.encode() in content for value in self._searched)

    def refuse(self, text: str, *, sink: str) -> None:
        """Raise `SecretLeakError` naming the sink when `text` holds a secret."""
        if self._searched and self.found_in(text):
            raise SecretLeakError(
                f"a secret value was about to be written to {sink}; nothing was written.",
                remedy="Keep keys out of parameters, outcomes and messages: name accounts by id.",
            )

    def redact(self, text: str) -> str:
        """`text` with every registered value replaced."""
        return self._pattern.sub(REDACTED, text) if self._pattern else text


def _forms(value: str) -> set[str]:
    return {value, json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]}
