"""What was measured, for people: tables on the terminal, and the same in Markdown for the README.

In: the results that `__main__.py` gathers. Out: text. Figures are medians of the rounds; a ratio stands with the least
and the largest of any round.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from rich.console import Console
from rich.table import Table

from benchmarks.environments import PEERS
from benchmarks.judge import Verdict
from benchmarks.rounds import HEADLINE, Rounds, medians, ratio
from benchmarks.targets import Disk, Target
from benchmarks.workloads import WORKLOADS

DISKS: Final = {"bare": "bare disk", "slow": "1 ms added to each fsync"}
BEGIN: Final = "<!-- benchmarks: begin -->"
END: Final = "<!-- benchmarks: end -->"


class Column(NamedTuple):
    """A figure, its heading and the digits it is shown with."""

    figure: str
    heading: str
    digits: int = 1


_COLUMNS: Final = {
    "runs": (
        Column("runs_per_s", "runs/s", 0),
        Column("p50_ms", "p50 ms"),
        Column("max_ms", "longest ms", 0),
        Column("commits_per_run", "commits/run", 2),
        Column("syncs_per_run", "fsyncs/run", 2),
        Column("cpu_ms_per_run", "CPU ms/run", 2),
        Column("errors", "errors", 0),
    ),
    "map": (
        Column("wall_ms", "wall ms", 0),
        Column("most_in_flight", "in flight", 0),
        Column("syncs", "fsyncs", 0),
        Column("cpu_ms_per_item", "CPU ms/item", 2),
    ),
    "start": (Column("wall_ms", "ms", 0),),
    "step": (Column("step_us", "µs/step", 2),),
    "stored": (
        Column("few", "runs/s with few", 0),
        Column("many", "runs/s with many", 0),
        Column("many_to_few", "many / few", 2),
    ),
    "items": (
        Column("few", "µs/item of few", 0),
        Column("many", "µs/item of many", 0),
        Column("many_to_few", "many / few", 2),
    ),
    "memory": (Column("in_flight_kib", "KiB/run in flight", 1), Column("resting_kib", "KiB/run at rest", 2)),
}

_HEADINGS: Final = {column.figure: column.heading for columns in _COLUMNS.values() for column in columns} | {
    "syncs_per_step": "fsyncs/step",
    "wall_ms": "ms",
}


class Sheet(NamedTuple):
    """A table without a shape yet: a title, headings, and rows of texts."""

    title: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]


def workload_sheets(found: Mapping[Disk, Mapping[str, Rounds]]) -> list[Sheet]:
    """A sheet for each workload on each disk."""
    return [
        workload_sheet(name, disk, {peer: figures for peer, figures in rounds.items() if figures})
        for disk, workloads in found.items()
        for name, rounds in workloads.items()
        if any(rounds.values())
    ]


def workload_sheet(name: str, disk: str, rounds: Rounds) -> Sheet:
    """Every peer of a workload, and how detent compares with it."""
    workload = WORKLOADS[name]
    columns = _COLUMNS[workload.kind]
    rows = []
    for peer, found in rounds.items():
        middle = medians(found)
        cells = [shown(middle.get(column.figure), column.digits) for column in columns]
        rows.append([PEERS[peer].title, *cells, _compared(rounds, peer, HEADLINE[workload.kind])])
    headings = ["", *(column.heading for column in columns)]
    if len(rows) > 1:
        headings.append("detent / this")
    else:
        rows = [row[:-1] for row in rows]
    return Sheet(f"{workload.title} ({DISKS[disk]})", headings, rows)


def targets_sheet(verdicts: Iterable[Verdict]) -> Sheet:
    """Target, reached, and whether it holds."""
    rows = []
    for verdict in verdicts:
        target = verdict.target
        spread = f" ({shown(verdict.least, 2)} to {shown(verdict.largest, 2)})"
        answer = "ok" if verdict.holds else "MISSED" if verdict.must_hold else "not promised here"
        rows.append(
            [
                target.workload,
                DISKS[verdict.disk],
                claim(target),
                shown(verdict.reached, 2) + spread,
                answer,
                target.why,
            ]
        )
    return Sheet("Targets", ["workload", "disk", "target", "reached", "", "because"], rows)


SUMMARY: Final[tuple[tuple[str, Disk], ...]] = (
    ("w1-one", "bare"), ("w1-one", "slow"), ("w1-many", "bare"), ("w1-many", "slow"), ("w2-map", "bare"),
    ("w3-start", "bare"),
)  # fmt: skip
"""The workloads that the README's one table shows, with their disks."""


def summary_sheet(found: Mapping[Disk, Mapping[str, Rounds]], verdicts: Sequence[Verdict]) -> Sheet:
    """One row for each peer, one column for each workload: the figure that it is compared by."""
    columns = [(name, disk) for name, disk in SUMMARY if name in found.get(disk, {})]
    peers = [peer for peer in PEERS if any(found[disk][name].get(peer) for name, disk in columns)]
    rows = []
    for peer in peers:
        cells = []
        for name, disk in columns:
            figures = found[disk][name].get(peer)
            figure = HEADLINE[WORKLOADS[name].kind]
            cells.append(shown(medians(figures)[figure], 0) if figures else "–")
        rows.append([PEERS[peer].title, *cells])
    headings = [
        f"{_SHORT[name]}{', slow disk' if disk == 'slow' else ''}, {_HEADINGS[HEADLINE[WORKLOADS[name].kind]]}"
        for name, disk in columns
    ]
    promised = [verdict for verdict in verdicts if verdict.must_hold]
    held = sum(verdict.holds for verdict in promised)
    return Sheet(f"{held} of {len(promised)} targets reached", ["", *headings], rows)


_SHORT: Final = {
    "w1-one": "5 steps, one run at a time",
    "w1-many": "5 steps, 64 runs in flight",
    "w2-map": "map of 1000 calls",
    "w3-start": "first step of a process",
}


def on_terminal(sheets: Iterable[Sheet]) -> str:
    """The sheets as tables of a terminal, as wide as they need."""
    console = Console(file=io.StringIO(), width=160)
    for sheet in sheets:
        table = Table(title=sheet.title, title_justify="left", title_style="bold")
        for heading in sheet.headings:
            table.add_column(heading, justify="left" if heading in _TEXTS else "right")
        for row in sheet.rows:
            table.add_row(*row)
        console.print(table)
    file = console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


def in_markdown(sheets: Iterable[Sheet]) -> str:
    """The sheets as Markdown tables."""
    lines: list[str] = []
    for sheet in sheets:
        marks = ["---" if heading in _TEXTS else "---:" for heading in sheet.headings]
        lines += [f"**{sheet.title}**", "", _line(sheet.headings), _line(marks), *map(_line, sheet.rows), ""]
    return "\n".join(lines)


def placed(text: str, table: str) -> str:
    """A document with what stands between its two marks replaced. Raises `ValueError` where they are missing."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the document has no {BEGIN} … {END}")
    return f"{before}{BEGIN}\n{table}\n{END}{after}"


def shown(value: Any, digits: int) -> str:
    """A number with so many digits behind the point, a dash for what was not counted."""
    return "–" if value is None else f"{value:,.{digits}f}"


_TEXTS: Final = ("", "workload", "disk", "target", "reached", "because")


def claim(target: Target) -> str:
    """A target in words: figure, relation, bound, and against whom."""
    heading = _HEADINGS.get(target.figure, target.figure)
    who = "" if target.peer == "detent" else f"{PEERS[target.peer].title}: "
    if target.against is None:
        return f"{who}{heading} {target.relation} {target.value:g}"
    other = PEERS[target.against.peer].title
    where = f" ({target.against.workload})" if target.against.workload else ""
    return f"{who}{heading} {target.relation} {target.value:g} × {other}{where}"


def _compared(rounds: Rounds, peer: str, figure: str) -> str:
    if peer == "detent" or not rounds.get("detent"):
        return ""
    middle, least, largest = ratio(rounds["detent"], rounds[peer], figure)
    return f"{middle:.2f} ({least:.2f} to {largest:.2f})"


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def machine_line(machine: Mapping[str, Any]) -> str:
    """Where it was measured, in one sentence."""
    return (
        f"{machine['cores']} cores ({machine['processor']}), {machine['file_system']}, Python {machine['python']}, "
        f"SQLite {machine['sqlite']}; an fdatasync took {machine['fdatasync_ms']:g} ms and the load was "
        f"{machine['load']:g} when it began; medians of {machine['rounds']} interleaved rounds."
    )
