"""`detent validate FILE…`: every diagnostic of every file, at once."""

from __future__ import annotations

import json
import sys

import click

from engine.core.diagnostic import Diagnostic
from engine.definition import Catalogue
from engine.entry.cli import EXIT_DEFINITION
from engine.entry.cli.options import actions_option, import_actions
from engine.handlers.registry import ACTIONS


@click.command("validate")
@click.argument("machines", metavar="MACHINE…", nargs=-1, required=True)
@actions_option
@click.option("--format", "format_", type=click.Choice(["text", "json"]), default="text", show_default=True)
def command(machines: tuple[str, ...], actions: tuple[str, ...], format_: str) -> None:
    """Report everything that is wrong with definitions, as file:line:column: message [rule] remedy."""
    import_actions(actions)
    catalogue = Catalogue(ACTIONS.declarations())
    found: list[Diagnostic] = []
    for path in machines:
        machine, diagnostics = catalogue.check(path)
        found.extend(one for one in diagnostics if one not in found)
        if format_ == "text" and machine is not None:
            states, transitions = len(machine.states), len(machine.branches())
            click.echo(
                f"{path}: valid: {machine.name} version {machine.version}, {states} states, {transitions} transitions"
            )
    if format_ == "json":
        names = ("file", "line", "column", "rule", "message", "remedy")
        rows = [(one.file, *one.position, one.rule, one.message, one.remedy) for one in found]
        click.echo(json.dumps([dict(zip(names, row, strict=True)) for row in rows], ensure_ascii=False, indent=2))
    else:
        for diagnostic in found:
            click.echo(str(diagnostic))
    if found:
        if format_ == "text":
            click.echo(f"{len(found)} problem{'s' if len(found) > 1 else ''}", err=True)
        sys.exit(EXIT_DEFINITION)
