"""The command line, `detent`. Each command lives in a module of its own and is imported when it is asked for.

Exit status: 0 it succeeded, had ended before, or the check holds · 1 the run failed or was refused, or the check
does not hold · 2 usage or configuration · 3 an invalid definition · 4 the run goes on elsewhere or waits.
Summary and data go to stdout; logs, progress and errors to stderr.
"""

from __future__ import annotations

import importlib
import signal
import sys
import threading
from typing import Any, Final

import click

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

EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
EXIT_DEFINITION: Final = 3
EXIT_ELSEWHERE: Final = 4

COMMANDS: Final = {
    "run": ("run", "Run a machine to its end."),
    "validate": ("validate", "Report everything that is wrong with definitions."),
    "visualize": ("visualize", "Draw a machine as Mermaid, DOT or SVG."),
    "runs": ("runs", "List runs, look into one, resume, cancel, signal or redrive one."),
    "worker": ("worker", "Drive what is due or abandoned in the store."),
    "replay": ("replay", "Fold a run's journal again and compare it with what is stored."),
    "documents": ("documents", "Read and write documents of the store."),
    "ledger": ("ledger", "Show the units that each account has used."),
    "verify": ("verify", "Prove a machine by crashing it everywhere."),
    "doctor": ("doctor", "Check that everything runs need is there, and say what to do."),
    "simulate": ("simulate", "Start a simulator of an outside API on this machine."),
}
"""Every command: its module here and its line in the help, which needs no import."""


class _Commands(click.Group):
    """A group that imports a command's module when the command is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """See click."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """See click."""
        if name not in COMMANDS:
            return None
        module = importlib.import_module(f"engine.entry.cli.{COMMANDS[name][0]}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """See click; the lines stand in `COMMANDS`."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


@click.command(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="detent")
def detent() -> None:
    """Durable state machines in YAML: run, test, replay and prove them."""


def main(arguments: list[str] | None = None) -> Any:
    """The entry point: runs a command and turns every error of detent's into its exit status."""
    if threading.current_thread() is threading.main_thread():
        # A service manager's stop is a person's Ctrl-C: runs are let go of, and no traceback is printed.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        detent.main(args=arguments, prog_name="detent", standalone_mode=False)
    except click.exceptions.Exit as end:
        sys.exit(end.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(EXIT_USAGE)
    except (click.Abort, KeyboardInterrupt):
        click.echo("Interrupted; a run that was under way goes on from its last commit.", err=True)
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(EXIT_FAILED)
    except DetentError as error:
        sys.exit(report(error))
    except ExceptionGroup as group:
        found = _leaf(group)
        if not isinstance(found, DetentError):
            raise
        sys.exit(report(found))


def report(error: DetentError) -> int:
    """Say on stderr what is wrong and what to do; answers the exit status."""
    if isinstance(error, ConfigurationError):
        click.echo(f"CONFIG_ERROR: {error}", err=True)
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


def _leaf(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first error inside nested groups: concurrent tasks of one command fail for one reason."""
    inner = group.exceptions[0]
    return _leaf(inner) if isinstance(inner, BaseExceptionGroup) else inner
