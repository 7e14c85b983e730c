"""`detent verify`: explore every crash of a machine in an in-memory world, and show what does not hold."""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from engine.core.snapshot import Status
from engine.definition import Catalogue
from engine.entry.cli.options import actions_option, import_actions
from engine.entry.loading import read_document, read_flag, read_value
from engine.errors import InvalidRequestError
from engine.handlers.registry import ACTIONS

if TYPE_CHECKING:
    from engine.testing.verification import Exploration, Report

EXIT_VIOLATED = 1
WIDTH_ELSEWHERE = 160
"""Columns where standard output is no terminal."""

DRAWN = 300
"""Schedules of each crossing kind that are drawn when `--pairs` does not say: two minutes for three items."""


class _Pairs(click.ParamType):  # type: ignore[type-arg]  # generic in newer releases of click alone
    """`all` or a number."""

    name = "all|N"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | None:
        """See click; `None` is all."""
        if value is None or value == "all":
            return None
        if not str(value).isdecimal():
            self.fail(f"{value!r} is neither a number nor 'all'.", param, ctx)
        return int(value)


@click.command("verify")
@click.argument("machine", metavar="MACHINE")
@click.option("--load", metavar="DIR", help="Documents that are there before: DIR/<collection>/<id>.json.")
@click.option("--input", "inputs", metavar="JSON|@FILE", multiple=True, help="A start event; may be repeated.")
@click.option(
    "--signal", "signals", metavar="NAME[=JSON|@FILE]", multiple=True,
    help="A signal, sent when a run waits for it; may be repeated, first the one to be sent first.",
)  # fmt: skip
@click.option("--run-id", metavar="ID", help="Id of the run, for a machine without a key.")
@actions_option
@click.option("--world", metavar="MODULE:NAME", help="Your fake world; the bundled one fits when it is not given.")
@click.option("--items", type=click.IntRange(1, 1000), help="Have the bundled world ask for so many charts.")
@click.option(
    "--pairs",
    type=_Pairs(),
    default=DRAWN,
    show_default=True,
    help="Schedules of each kind that crosses a crash with another, a cancel or a redrive: all, or so many drawn.",
)
@click.option("--samples", type=click.IntRange(0), default=60, show_default=True, help="Schedules of each drawn kind.")
@click.option("--kind", "only", metavar="KIND", multiple=True, help="Only schedules of this kind; may be repeated.")
@click.option("--seed", type=int, default=0, show_default=True, help="What is drawn; the same seed draws the same.")
@click.option(
    "--semantics",
    type=click.Choice(["locking", "preconditions"]),
    default="locking",
    show_default=True,
    help="How the store commits: as SQLite does, or as Firestore does.",
)
@click.option("--jobs", type=click.IntRange(1), help="Processes that share the work; by default one for each core.")
@click.option("--replay", metavar="SCHEDULE", help="Play one schedule and show every effect of it.")
@click.option("--format", "format_", type=click.Choice(["text", "json"]), default="text", show_default=True)
def command(
    machine: str, load: str | None, inputs: tuple[str, ...], signals: tuple[str, ...], run_id: str | None,
    actions: tuple[str, ...], world: str | None, items: int | None, pairs: int | None, samples: int,
    only: tuple[str, ...], seed: int, semantics: str, jobs: int | None, replay: str | None, format_: str,
) -> None:  # fmt: skip
    """Prove MACHINE by crashing it everywhere: no call, no file and no store outside of this process is touched."""
    import_actions(actions)
    # The second place where production code names the test kit: verification drives the production runner from outside.
    from engine.testing.verification import KINDS, Exploration, Schedule, setting_of, world_named

    if unknown := [kind for kind in only if kind not in KINDS]:
        raise InvalidRequestError(f"there is no kind {unknown[0]!r}.", remedy=f"Kinds: {', '.join(KINDS)}.")
    catalogue = Catalogue(ACTIONS.declarations())
    loaded = catalogue.load(machine)
    chosen = None if world is None else world_named(world)
    values = [read_document(*read_flag(text, "--input")) for text in inputs]
    setting = setting_of(
        loaded, catalogue, values, world=chosen, folder=load, items=items, semantics=semantics, run_id=run_id,
        signals=[_given(text) for text in signals],
    )  # fmt: skip
    began = time.monotonic()
    with _progress() as progress:
        exploration = Exploration(
            setting, pairs=pairs, samples=samples, seed=seed, jobs=jobs, only=only, progress=progress
        )
        if replay is None:
            report = exploration.run()
        else:
            report, lines = _replayed(exploration, Schedule.read(replay))
    if format_ == "json":
        click.echo(json.dumps(report.to_json(), ensure_ascii=False))
    elif replay is not None:
        click.echo("\n".join(lines))
        _violations(_console(), report, "")
    else:
        _show(report, time.monotonic() - began)
    sys.exit(0 if report.holds else EXIT_VIOLATED)


def _given(text: str) -> Any:
    from engine.testing.verification import Given

    name, is_valued, value = text.partition("=")
    return Given(name, read_value(value, f"--signal {name}") if is_valued else None)


def _replayed(exploration: Exploration, schedule: Any) -> tuple[Report, list[str]]:
    from engine.testing.verification import told

    report, ending = exploration.replay(schedule)
    never = [move.told() for move in schedule.moves if move.effect > len(ending.effects)]
    if never:
        raise InvalidRequestError(
            f"the schedule has only {len(ending.effects)} effects, so this never comes: {'; '.join(never)}.",
            remedy="Replay it with the options of the exploration that found it.",
        )
    return report, told(ending)


# What is shown


def _show(report: Report, seconds: float) -> None:
    from engine.testing.verification import KINDS, RULES

    console = _console()
    effects = report.crash_free.effects
    kinds = Counter(effect.kind for effect in effects)
    counted = ", ".join(f"{kind} {count}" for kind, count in kinds.items())
    console.print(Text(f"{report.setting.machine.name}: {len(effects)} effects without a crash ({counted})", "bold"))
    for effect in effects:
        console.print(Text(f"{effect.number:>4} {effect.kind:<9}{effect.name}"), overflow="ellipsis", no_wrap=True)
    for run_id, status in report.ends().items():
        style = "" if status == Status.SUCCEEDED else "bold yellow"
        console.print(Text(f"     without a crash {run_id} ends {status}", style))
    console.print()
    table = Table(box=None, pad_edge=False)
    table.add_column("schedules")
    table.add_column("played", justify="right")
    table.add_column("what befalls the run")
    meanings = {"crash-free": "nothing", **KINDS}
    for kind, count in report.schedules.items():
        table.add_row(kind, f"{count:,}".replace(",", " "), meanings.get(kind, ""))
    console.print(table)
    console.print()
    total = f"{sum(report.schedules.values()):,}".replace(",", " ")
    told = f"{total} schedules, {len(RULES)} rules and the world's own; {report.setting.semantics}, seed {report.seed}"
    _violations(console, report, f"{told}, {seconds:.0f} s")


def _violations(console: Console, report: Report, summary: str) -> None:
    traced = set()
    for violation in report.violations:
        console.print(Text(f"{violation.rule}: {violation.message}", "bold red"))
        told = violation.to_json()
        console.print(Text(f"  must hold: {told['means']}"))
        for line in told["schedule"] or ["nothing befalls the run"]:
            console.print(Text(f"  schedule:  {line}"))
        console.print(Text(f"  recovery:  {violation.schedule.by}"))
        console.print(Text(f"  in all:    {violation.count} schedules"))
        console.print(Text(f"  again:     --replay {shlex.quote(str(violation.schedule))}"))
        is_new = violation.schedule not in traced
        for line in violation.trace if summary and is_new else ():
            console.print(Text(f"  {line}"), overflow="ellipsis", no_wrap=True)
        traced.add(violation.schedule)
        console.print()
    count = len(report.violations)
    verdict = "Every rule held." if report.holds else f"{count} {'rule does' if count == 1 else 'rules do'} not hold."
    style = "bold green" if report.holds else "bold red"
    console.print(Text.assemble((verdict, style), f" {summary}"))


def _console() -> Console:
    """Standard output; where that is no terminal, lines are not cut to the width of one."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=WIDTH_ELSEWHERE)


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    """A bar on stderr, where that is a terminal."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda kind, done, of: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as shown:
        tasks: dict[int, TaskID] = {}

        def progress(kind: str, done: int, of: int) -> None:
            if of not in tasks:
                tasks[of] = shown.add_task(kind, total=of)
            shown.update(tasks[of], completed=done, description=kind)

        yield progress
