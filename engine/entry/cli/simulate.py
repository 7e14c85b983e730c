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
        from engine.testing.chart_img import PLANS, simulate
    except ImportError as error:
        raise ConfigurationError(
            "detent[simulator]",
            f"is not installed ({error.name} is missing).",
            remedy='pip install "detent[simulator]".',
        ) from None
    accounts = {}
    for text in keys:
        key, _, plan = text.rpartition("=")  # a key may hold '=' itself: only a plan's name is split off
        is_plan = bool(key) and plan.upper() in PLANS
        accounts[key if is_plan else text] = PLANS[plan.upper() if is_plan else "BASIC"]
    simulate(accounts or None, port=port, announce=lambda line: click.echo(line, err=False))
