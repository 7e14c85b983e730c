"""`detent doctor`: look at everything that runs need, and say what is wrong and what to do."""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path

import anyio
import click
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from engine.core.secret import Secrets
from engine.entry.cli import EXIT_FAILED
from engine.entry.cli.options import (
    actions_option,
    artifacts_options,
    chart_options,
    environment,
    import_actions,
    store_option,
)
from engine.entry.cli.reporting import by_flag
from engine.entry.cli.screen import screen
from engine.entry.configuration import read_configuration
from engine.entry.logs import configure
from engine.entry.preflight import TIMEOUT_S, Report, Result, Status, misconfigured, preflight, read_around
from engine.errors import ConfigurationError

MARKS = {
    Status.OK: ("✔", "green"),
    Status.DEGRADED: ("!", "yellow"),
    Status.FAILED: ("✘", "red"),
    Status.SKIPPED: ("–", "dim"),
}
COLOURS = {Result.READY: "green", Result.DEGRADED: "yellow", Result.FAILED: "red"}


@click.command("doctor")
@click.argument("machines", metavar="[MACHINE]…", nargs=-1)
@click.option("--format", "format_", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option(
    "--timeout", "timeout_s", type=click.FloatRange(min=0.1), default=TIMEOUT_S, show_default=True, metavar="SECONDS",
    help="For each section.",
)  # fmt: skip
@actions_option
@chart_options
@store_option
@artifacts_options
def command(
    machines: tuple[str, ...], format_: str, timeout_s: float, actions: tuple[str, ...], mode: str | None,
    accounts: str | None, store: str | None, artifacts: str | None, bucket: str | None,
) -> None:  # fmt: skip
    """Check configuration, store, artifacts, ledger, clock, machines, runs and secrets.

    MACHINE are definitions to compile; without any, those in machines/. It ends with 0 when all is ready or degraded,
    with 1 when something failed.
    """
    import_actions(actions)
    secrets = Secrets()
    try:
        environ = environment(store=store, artifacts=artifacts, mode=mode, accounts=accounts, bucket=bucket)
        config, errors = read_around(environ, partial(read_configuration, default_mode="mock"))
    except ConfigurationError as error:
        config, errors = None, [error]
    if config is None:
        report = misconfigured(by_flag(errors[0]))
    else:
        errors = [by_flag(error) for error in errors]
        configure(config.log_level, secrets)
        paths = machines or tuple(str(path) for path in sorted(Path("machines").glob("*.yaml")))

        async def look() -> Report:
            return await preflight(
                config, errors=errors, machines=paths, accounts_file=accounts, secrets=secrets, timeout_s=timeout_s
            )

        report = anyio.run(look)
    if format_ == "json":
        click.echo(json.dumps(report.to_json(), ensure_ascii=False, indent=2))
    else:
        show(report)
    sys.exit(EXIT_FAILED if report.result is Result.FAILED else 0)


def show(report: Report) -> None:
    """Print a report for a person."""
    console = screen()
    table = Table(box=None, pad_edge=False, show_header=False)
    for justify in ("left", "left", "left", "right", "left"):
        table.add_column(justify=justify, overflow="fold")
    for section in report.sections:
        mark, colour = MARKS[section.finding.status]
        table.add_row(
            Text(mark, colour),
            section.name,
            Text(section.finding.status.value, colour),
            Text(f"{section.latency_ms:.0f} ms", "dim"),
            Text(section.finding.details),
        )
    console.print(table)
    if report.how_to_fix:
        console.print("\nWhat to do:")
        for remedy in report.how_to_fix:
            console.print(Padding(Text(remedy), (0, 0, 0, 2), expand=False))
    console.print(Text(f"\n{report.result.value} ({report.duration_ms:.0f} ms)", f"bold {COLOURS[report.result]}"))
