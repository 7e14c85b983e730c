"""How a command's error ends it: what is said on stderr, and the exit status."""

from __future__ import annotations

import sys
from typing import Final

import click

from engine.entry.cli import EXIT_DEFINITION, EXIT_ELSEWHERE, EXIT_FAILED, EXIT_USAGE, streams
from engine.entry.cli.interruption import EXIT_INTERRUPTED, RunsInterrupted
from engine.errors import (
    ConfigurationError,
    DefinitionError,
    DetentError,
    DocumentUnreadableError,
    InvalidKeyError,
    InvalidRequestError,
    StoreDamagedError,
    StoreError,
)

FLAGS: Final = f"{__name__}.flags"
"""Where a command's context keeps, for each variable that a flag has set, the flag's name."""


def status_of(error: BaseException) -> int:
    """Say what has ended a command, and answer its exit status. Raises `error` where that is a bug."""
    found = _leaf(error)
    if isinstance(found, KeyboardInterrupt):
        if sys.stderr.isatty():
            click.echo(err=True)  # the line on which the terminal shows ^C
        rest = "; a run that was under way goes on from its last commit" if isinstance(found, RunsInterrupted) else ""
        click.echo(f"Interrupted{rest}.", err=True)
        return EXIT_INTERRUPTED
    if isinstance(found, DetentError):
        return report(found)
    if streams.is_loss(found):
        return EXIT_FAILED
    raise error


def report(error: DetentError) -> int:
    """Say on stderr what is wrong and what to do; answers the exit status."""
    if isinstance(error, ConfigurationError):
        click.echo(f"CONFIG_ERROR: {by_flag(error)}", err=True)
        return EXIT_USAGE
    if isinstance(error, DefinitionError):
        for diagnostic in error.diagnostics:
            click.echo(str(diagnostic), err=True)
        return EXIT_DEFINITION
    click.echo(f"{error.code}: {error}", err=True)
    if isinstance(error, (InvalidRequestError, InvalidKeyError)):
        return EXIT_USAGE
    if isinstance(error, (DocumentUnreadableError, StoreDamagedError)):
        return EXIT_FAILED  # nothing goes on elsewhere: it waits for a person
    return EXIT_ELSEWHERE if isinstance(error, StoreError) else EXIT_FAILED


def by_flag(error: ConfigurationError) -> ConfigurationError:
    """The error, naming the flag that set its variable where one did: nobody looks for that in the environment."""
    context = click.get_current_context(silent=True)
    flag = context.meta.get(FLAGS, {}).get(error.variable) if context is not None else None
    if flag is not None and error.message.startswith(f"{error.variable}: "):
        error.message = f"{flag}{error.message.removeprefix(error.variable)}"
    return error


def _leaf(error: BaseException) -> BaseException:
    """The first error inside nested groups: concurrent tasks of one command fail for one reason."""
    return _leaf(error.exceptions[0]) if isinstance(error, BaseExceptionGroup) else error
