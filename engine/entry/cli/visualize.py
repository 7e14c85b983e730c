"""`detent visualize MACHINE`: the machine as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, cast

import click

from engine.definition import load_machine
from engine.definition.diagram import draw
from engine.entry.cli.options import actions_option, import_actions
from engine.errors import InvalidRequestError
from engine.handlers.registry import ACTIONS


@click.command("visualize")
@click.argument("machine", metavar="MACHINE")
@actions_option
@click.option("--format", "format_", type=click.Choice(["mermaid", "dot", "svg"]), help="Default: by the file's name.")
@click.option("-o", "--output", metavar="FILE", help="Write there instead of to stdout.")
def command(machine: str, actions: tuple[str, ...], format_: str | None, output: str | None) -> None:
    """Draw MACHINE: nested states as boxes, guards and outcomes on the edges, errors apart."""
    import_actions(actions)
    chosen = format_ or {".svg": "svg", ".dot": "dot", ".gv": "dot"}.get(Path(output or "").suffix, "mermaid")
    picture = draw(load_machine(machine, ACTIONS.declarations()), cast("Literal['mermaid', 'dot', 'svg']", chosen))
    if output is None:
        click.echo(picture, nl=False)
        return
    try:
        Path(output).write_text(picture, encoding="utf-8")
    except OSError as error:
        raise InvalidRequestError(f"{output} cannot be written: {error.strerror}.") from None
