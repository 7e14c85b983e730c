"""The group of all commands. Each lives in a module of its own and is imported when it is asked for."""

from __future__ import annotations

import importlib
import sys
from typing import Any, Final

import click

from engine.entry.cli import EXIT_FAILED, EXIT_USAGE, interruption, streams
from engine.entry.cli.reporting import status_of

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
        interruption.begin()
        command: click.Command = module.command
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """See click. Every error of detent's becomes its exit status."""
        try:
            return super().invoke(ctx)
        except (Exception, KeyboardInterrupt, BaseExceptionGroup) as error:
            if isinstance(error, (click.ClickException, click.exceptions.Exit, click.Abort)):
                raise
            sys.exit(status_of(error))

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """See click; the lines stand in `COMMANDS`."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


@click.command(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="detent")
def detent() -> None:
    """Durable state machines in YAML: run, test, replay and prove them."""


def perform(arguments: list[str] | None) -> int:
    """Run a command; answers its exit status."""
    status: object = 0
    try:
        detent.main(args=arguments, prog_name="detent", standalone_mode=False)
    except SystemExit as end:
        status = end.code or 0
    except click.ClickException as error:
        error.show()
        status = EXIT_USAGE
    except (click.Abort, OSError) as error:  # before a command was begun, or in what click itself prints
        status = status_of(error.__cause__ or error)
    found = status if isinstance(status, int) else EXIT_FAILED
    return EXIT_FAILED if streams.tell_loss() and found == 0 else found
