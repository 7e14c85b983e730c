"""`detent runs cancel | signal | redrive`: what a person may do to a run, beside having it go on.

`cancel` and `signal` record what is asked and say what will happen; with `--wait` this process drives the run as far
as it can. `redrive` drives the run, as `resume` does, unless `--no-wait` leaves it to a worker.
"""

from __future__ import annotations

import secrets as randomness
import sys
from collections.abc import Awaitable, Callable
from typing import Any, Final

import anyio
import click

from engine.core.machine import Machine
from engine.entry.application import Engine, RunResult
from engine.entry.assembly import Assembly, expect_store
from engine.entry.cli.options import (
    actions_option,
    artifacts_options,
    chart_options,
    configuration,
    import_actions,
    store_option,
)
from engine.entry.cli.progress import observer_for_terminal
from engine.entry.cli.run import report
from engine.entry.loading import read_value
from engine.handlers.accounts import parse_accounts
from engine.runs import Head
from engine.runs.deliver import Delivered
from engine.runs.records import Cancel

ACCOUNTS: Final = "CHART_IMG_ACCOUNTS_JSON"
Driving = Callable[[Engine], Awaitable[RunResult]]
_SUMMARY = click.option("--summary", type=click.Choice(["text", "json", "none"]), default="text", show_default=True)
_WAIT = click.option("--wait", is_flag=True, help="Drive the run here, as `detent runs resume` does.")


@click.command("cancel")
@click.argument("run_id", metavar="RUN")
@click.option("--reason", default="", help="What the run and its definition are told.")
@_WAIT
@actions_option
@chart_options
@store_option
@artifacts_options
@_SUMMARY
def cancel(run_id: str, reason: str, wait: bool, summary: str, **flags: Any) -> None:
    """Ask that a run end by the way that its definition gives; a call under way is awaited first."""

    async def send(app: Engine) -> Delivered:
        return await app.cancel(run_id, reason)

    delivered = anyio.run(_with_engine, flags, send)
    if not delivered.is_new:
        click.echo(f"Run {run_id} has been asked to end before; {_when(delivered.head)}.", err=wait)
    else:
        click.echo(f"Run {run_id} is asked to end; {_when(delivered.head)}.", err=wait)
    if wait:
        status, ended = _driven(flags, lambda app: app.resume(run_id), summary)
        sys.exit(0 if ended else status)


@click.command("signal")
@click.argument("run_id", metavar="RUN")
@click.argument("name", metavar="NAME")
@click.option("--value", metavar="JSON|@FILE", help="What the signal carries; null when left out.")
@click.option("--id", "signal_id", metavar="ID", help="Delivers it once for this id, however often it is sent.")
@_WAIT
@actions_option
@chart_options
@store_option
@artifacts_options
@_SUMMARY
def signal(
    run_id: str, name: str, value: str | None, signal_id: str | None, wait: bool, summary: str, **flags: Any
) -> None:
    """Send a run the signal NAME, which it takes where it waits for it: now, or when it comes there."""
    given = None if value is None else read_value(value, "--value")
    chosen = f"signal-{randomness.token_hex(8)}" if signal_id is None else signal_id

    async def send(app: Engine) -> Delivered:
        return await app.signal(run_id, name, given, signal_id=chosen)

    delivered = anyio.run(_with_engine, flags, send)
    if delivered.is_new:
        click.echo(f"Run {run_id} has the signal {name} ({chosen}); {_when_signalled(delivered)}.", err=wait)
    else:
        click.echo(f"Run {run_id} had the signal {chosen} before; nothing was changed.", err=wait)
    if wait:
        sys.exit(_driven(flags, lambda app: app.resume(run_id), summary)[0])


@click.command("redrive")
@click.argument("run_id", metavar="RUN")
@click.option("--from", "from_state", metavar="STATE", help="Where to start again, in place of the state that failed.")
@click.option("--no-wait", is_flag=True, help="Leave the run to a worker.")
@actions_option
@chart_options
@store_option
@artifacts_options
@_SUMMARY
def redrive(run_id: str, from_state: str | None, no_wait: bool, summary: str, **flags: Any) -> None:
    """Start a failed or cancelled run again from the state that failed; items that succeeded are kept."""

    async def start_again(app: Engine) -> RunResult:
        if no_wait:
            return await app.redrive(run_id, from_state=from_state, patience_s=None)
        return await app.redrive(run_id, from_state=from_state)

    status, _ = _driven(flags, start_again, "none" if no_wait else summary, is_quiet=no_wait)
    if no_wait:
        click.echo(f"Run {run_id} starts again; a worker goes on with it.")
        sys.exit(0)
    sys.exit(status)


async def _with_engine(flags: dict[str, Any], send: Callable[[Engine], Awaitable[Delivered]]) -> Delivered:
    config = configuration(store=flags["store"], accounts=flags["accounts"])
    assembly = Assembly.for_reading(config)
    if text := config.variables.get(ACCOUNTS):  # so that no key goes out with a value or a reason
        for account in parse_accounts(text, ACCOUNTS):
            assembly.secrets.add(account.api_key)
    async with assembly.engine() as app:
        return await send(app)


def _driven(flags: dict[str, Any], drive: Driving, summary: str, *, is_quiet: bool = False) -> tuple[int, bool]:
    """Drive something in this process and report; answers the exit status, and whether the run has ended."""
    names = ("store", "artifacts", "mode", "accounts", "bucket")
    config = configuration(**{name: flags[name] for name in names})
    expect_store(config.store)
    import_actions(flags["actions"])
    with observer_for_terminal(config) as (observer, secrets):
        assembly = Assembly(config, secrets, observer)

        async def go() -> tuple[Machine, RunResult]:
            async with assembly.engine() as app:
                result = await drive(app)
                head = await app.runs.get(result.run_id)
                assert head is not None
                return await app.runs.definitions.machine(head.snapshot.digest), result

        machine, result = anyio.run(go)
    return (0 if is_quiet else report(machine, result, summary)), result.is_final


def _when(head: Head) -> str:
    """When a run takes a cancel that waits in its inbox."""
    if not any(isinstance(message, Cancel) for message in head.inbox):
        return "it has been seen to"
    if head.worker is not None:
        holder = f"{head.worker}, which holds it in {head.snapshot.state}"
        return f"{holder}, takes it with its next commit, unless that ends the run"
    lost = ", unless a call that was cut short ends the run first" if head.begun else ""
    return f"it rests in {head.snapshot.state}, and the next worker takes it there{lost}"


def _when_signalled(delivered: Delivered) -> str:
    head = delivered.head
    if delivered.is_due:
        earlier = _earlier(head)
        unless = f", unless {' or '.join(earlier)} moves it on first" if earlier else ""
        return f"it waits for it in {head.snapshot.state}, and the next worker takes it{unless}"
    return f"it stands in {head.snapshot.state} and keeps it until a state waits for it, or it ends"


def _earlier(head: Head) -> list[str]:
    """What has come to a run before the last message of its inbox, and may leave it waiting for that no more."""
    *before, last = head.inbox
    told = ["the cancel" if isinstance(one, Cancel) else f"the signal {one.name} ({one.id})" for one in before]
    is_timer_due = any(at_ms <= last.at_ms for at_ms in head.snapshot.timers.values())
    return [*told, "its timer, which is due,"] if is_timer_due else told
