"""`detent worker --once`: drive everything in the store that is due or abandoned, and end."""

from __future__ import annotations

import anyio
import click

from engine.entry.assembly import Assembly
from engine.entry.cli.options import (
    actions_option,
    artifacts_options,
    chart_options,
    configuration,
    import_actions,
    store_option,
)
from engine.entry.cli.progress import observer_for_terminal


@click.command("worker")
@click.option("--once", is_flag=True, required=True, help="Drain what is due or abandoned, and end.")
@actions_option
@chart_options
@store_option
@artifacts_options
def command(
    once: bool, actions: tuple[str, ...], mode: str | None, accounts: str | None, store: str | None,
    artifacts: str | None, bucket: str | None,
) -> None:  # fmt: skip
    """Drive what is due or abandoned in the store."""
    config = configuration(store=store, artifacts=artifacts, mode=mode, accounts=accounts, bucket=bucket)
    import_actions(actions)
    with observer_for_terminal(config) as (observer, secrets):
        assembly = Assembly(config, secrets, observer)

        async def work() -> int:
            async with assembly.engine() as app:
                return await app.work_once()

        driven = anyio.run(work)
    click.echo(f"{driven} run{'' if driven == 1 else 's'} driven; nothing is due.")
