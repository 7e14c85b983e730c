"""`detent worker`: drive what is due or abandoned in the store; for ever, or with `--once` until nothing is.

SIGTERM and Ctrl-C end it gracefully: it takes no more work, what is under way has the grace time to finish, and the
rest is let go of for others. A second signal ends the grace time, and further ones change nothing. The exit status is 0
either way. It makes a store that is not there yet, in a folder that is. With `--once` the store is there already, and
signals interrupt it as any other command.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Final

import anyio
import click

from engine.core.bounds import CONCURRENCY_MAX, DEFAULT_CONCURRENCY
from engine.core.secret import Secrets
from engine.entry.assembly import Assembly, expect_place, expect_store
from engine.entry.cli.interruption import heard, owns_process
from engine.entry.cli.options import (
    actions_option,
    artifacts_options,
    chart_options,
    configuration,
    import_actions,
    store_option,
)
from engine.entry.cli.progress import observer_for_terminal
from engine.entry.cli.streams import tell_loss
from engine.entry.configuration import Configuration
from engine.entry.starts import Begun, expect_source, start_waiting
from engine.runner.observer import Observer

LEFT_MAX: Final = 100
"""How many runs that are due and were left are counted."""


@click.command("worker")
@click.option("--once", is_flag=True, help="End when nothing is due any more; short waits are waited for.")
@click.option(
    "--concurrency", type=click.IntRange(1, CONCURRENCY_MAX), default=DEFAULT_CONCURRENCY, show_default=True,
    help="Runs that are driven at once; one that waits is not among them.",
)  # fmt: skip
@click.option(
    "--start", metavar="MACHINE", multiple=True,
    help="With --once: begin too what waits for MACHINE, and whose event was lost.",
)  # fmt: skip
@click.option("--grace", metavar="SECONDS", help="How long what is under way may take after SIGTERM or Ctrl-C.")
@actions_option
@chart_options
@store_option
@artifacts_options
def command(
    once: bool, concurrency: int, start: tuple[str, ...], grace: str | None, actions: tuple[str, ...], mode: str | None,
    accounts: str | None, store: str | None, artifacts: str | None, bucket: str | None,
) -> None:  # fmt: skip
    """Drive what is due or abandoned in the store, until it is told to stop."""
    config = configuration(
        store=store, artifacts=artifacts, mode=mode, accounts=accounts, bucket=bucket, grace=grace
    )  # fmt: skip
    if start and not once:
        raise click.UsageError("--start looks once at what waits; give --once with it.")
    import_actions(actions)
    if once:
        with observer_for_terminal(config) as (observer, secrets):
            told = anyio.run(_work_once, _assembly(config, secrets, observer, concurrency), start)
    else:
        expect_place(config.store)
        calls = _Calls()
        with heard(calls), observer_for_terminal(config) as (observer, secrets):
            assembly = _assembly(config, secrets, observer, concurrency)
            driven = anyio.run(_serve, assembly, observer, config.grace_s, calls)
        told = f"Stopped; runs were taken {driven} time{'' if driven == 1 else 's'}."
    click.echo(told)
    tell_loss()  # here, where it changes no exit status: the line is for whoever looks on
    _end()


def _assembly(config: Configuration, secrets: Secrets, observer: Observer, concurrency: int) -> Assembly:
    assembly = Assembly(config, secrets, observer)
    assembly.concurrency = concurrency
    return assembly


async def _work_once(assembly: Assembly, start: Sequence[str]) -> str:
    """Drive what is due and begin what waits; answers what was done."""
    machines = [assembly.load(path) for path in start]
    for machine in machines:
        expect_source(machine)
    expect_store(assembly.config.store)  # what is not there yet holds nothing that is due
    async with assembly.engine() as app:
        driven = await app.work_once()
        begun = [await start_waiting(app, machine) for machine in machines]
        return _told(driven, begun, len(await app.runs.claimable(app.clock.now_ms(), LEFT_MAX)))


def _told(driven: int, begun: list[Begun], left: int) -> str:
    """What was done, in one line; of starts only where some were asked for."""
    told = [f"{driven} run{'' if driven == 1 else 's'} driven"]
    if begun:
        told.append(f"{sum(one.started for one in begun)} started")
    if refused := sum(one.refused for one in begun):
        told.append(f"{refused} refused (the log says why)")
    if left:
        some = f"{left} or more" if left == LEFT_MAX else str(left)
        why = "their actions are not known here (name their module with --actions), or the log says why"
        return f"{', '.join(told)}; {some} left that {'is' if left == 1 else 'are'} due: {why}."
    return f"{', '.join(told)}; nothing is due."


class _Calls:
    """The signals that a worker is sent. Those that come before it looks are kept for it, and none comes too late."""

    def __init__(self) -> None:
        self._names: list[str] = []
        self.wake: Callable[[], object] | None = None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """See signal: this stands between two instructions of anything, so that nothing but noting it is safe."""
        self._names.append(signal.Signals(number).name)
        if self.wake is not None:
            self.wake()

    def taken(self) -> list[str]:
        """The names of those that have come since the last look."""
        found, self._names = self._names, []
        return found


async def _serve(assembly: Assembly, observer: Observer, grace_s: float, calls: _Calls) -> int:
    """Work until a signal comes; a second one ends the grace time."""
    stop, hurry = anyio.Event(), anyio.Event()

    def look() -> None:
        for name in calls.taken():
            if not stop.is_set():
                observer.trouble("worker_stops", "INFO", {"signal": name, "grace_s": grace_s})
                stop.set()
            elif not hurry.is_set():
                observer.trouble("worker_hurries", "INFO", {"signal": name})
                hurry.set()

    # Not the loop's own receiver of signals: it leaves behind the handlers that end a process at once.
    loop = asyncio.get_running_loop()
    calls.wake = lambda: loop.call_soon_threadsafe(look)
    look()
    try:
        async with assembly.engine() as app:
            observer.trouble("worker_started", "INFO", {"worker": app.worker_name})
            return await app.work(stop, grace_s, hurry)
    finally:
        calls.wake = None


def _end() -> None:
    """End the process even if a handler's thread, which nothing can stop, is still in its call."""
    if owns_process() and any(
        not thread.daemon and thread is not threading.main_thread() for thread in threading.enumerate()
    ):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
