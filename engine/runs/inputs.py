"""Run inputs against a machine's `input` schema (JSON Schema draft 2020-12)."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from engine.core import canonical
from engine.core.machine import Machine

if TYPE_CHECKING:
    from jsonschema_rs import Validator


def input_problem(machine: Machine, value: Any) -> str | None:
    """Why `value` is no input of `machine`, or `None`. Names the place; bounded, since a value may be long."""
    if machine.input_schema is None:
        return None
    error = next(iter(_validator(canonical.encode(machine.input_schema)).iter_errors(value)), None)
    if error is None:
        return None
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.instance_path)
    return f"input{place}: {error.message[:300]}"


@lru_cache(maxsize=256)
def _validator(schema: str) -> Validator:
    # Imported here: a machine without a schema does not pay for it.
    from jsonschema_rs import Draft202012Validator

    return Draft202012Validator(schema, validate_formats=True)
