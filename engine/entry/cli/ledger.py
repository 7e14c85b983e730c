"""`detent ledger show`: what each account of a pool has used of its day."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import anyio
import click
from rich.console import Console
from rich.table import Table

from engine.core.machine import Pool
from engine.entry.assembly import Assembly
from engine.entry.cli.options import actions_option, chart_options, configuration, import_actions, store_option
from engine.handlers.ledger import rate_key, usage_key, usage_of


@click.group("ledger")
def command() -> None:
    """Show the units that each account has used."""


@command.command("show")
@click.option("--machine", metavar="MACHINE", default="machines/chart_request.yaml", show_default=True)
@click.option("--format", "format_", type=click.Choice(["text", "json"]), default="text", show_default=True)
@actions_option
@chart_options
@store_option
def show(
    machine: str, format_: str, actions: tuple[str, ...], mode: str | None, accounts: str | None, store: str | None
) -> None:
    """The accounts of every pool of MACHINE: used, left, and when the next call may be made. Never a key."""
    config = configuration(store=store, mode=mode, accounts=accounts)
    import_actions(actions)
    assembly = Assembly.for_reading(config)
    loaded = assembly.load(machine)
    pools = assembly.pools_of(loaded)

    async def read() -> list[dict[str, Any]]:
        async with assembly.engine() as app:
            rows = []
            now = datetime.now(UTC)
            for pool in pools:
                accounts_of = config.accounts_of(pool)
                keys = [key(pool.name, one.id) for one in accounts_of for key in (usage_key, rate_key)]
                documents = await app.store.get_many(keys)
                rows += [_row(pool, usage_of(pool, one, documents, now)) for one in accounts_of]
            return rows

    rows = anyio.run(read)
    if format_ == "json":
        click.echo(json.dumps(rows, ensure_ascii=False, indent=2))
        return
    if not rows:
        variables = ", ".join(dict.fromkeys(pool.accounts for pool in pools))
        click.echo(
            f"No accounts are configured; set {variables} or give --accounts FILE. Mock mode leaves the ledger alone."
            if pools
            else f"{loaded.name} declares no pool."
        )
        return
    table = Table(box=None, pad_edge=False)
    for name in ("pool", "account", "used", "limit", "left", "window", "free in"):
        table.add_column(name, justify="right" if name in ("used", "limit", "left", "free in") else "left")
    for row in rows:
        table.add_row(
            *(str(row[name]) for name in ("pool", "account", "used", "limit", "left", "window")),
            f"{row['free_in_s']:g} s",
        )
    Console(highlight=False).print(table)


def _row(pool: Pool, usage: Any) -> dict[str, Any]:
    return {
        "pool": pool.name,
        "account": usage.account.id,
        "used": usage.used,
        "limit": usage.limit,
        "left": max(usage.limit - usage.used, 0),
        "window": usage.day.isoformat(),
        "free_in_s": round(usage.wait_s, 3),
    }
