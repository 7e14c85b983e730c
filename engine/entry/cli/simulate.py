"""`detent simulate chart-img`: the Chart-IMG simulator on loopback, until it is interrupted."""

from __future__ import annotations

import click

from engine.errors import ConfigurationError


@click.group("simulate")
def command() -> None:
    """Start a simulator of an outside API on this machine."""


@command.command("chart-img")
@click.option("--port", type=click.IntRange(0, 65535), default=8086, show_default=True, help="0 takes a free one.")
@click.option("--key", "keys", multiple=True, metavar="KEY[=PLAN]", help="An account; without any every key is let in.")
def chart_img(port: int, keys: tuple[str, ...]) -> None:
    """Answer as Chart-IMG does: key check, validation, plan limits, drawn pictures of a made-up market."""
    try:
        # The one place where production code names the test kit: the simulator is a product of its own.
        from engine.testing.chart_img import account_from_text, simulate
    except ImportError as error:
        raise ConfigurationError(
            "detent[simulator]",
            f"is not installed ({error.name} is missing).",
            remedy='pip install "detent[simulator]".',
        ) from None
    try:
        accounts = dict(account_from_text(key if "=" in key else f"{key}=BASIC") for key in keys)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--key") from None
    simulate(accounts or None, port=port, announce=lambda line: click.echo(line, err=False))
