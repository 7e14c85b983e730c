"""What the project promises of its speed, as data: the one place where these numbers stand.

Each target compares a figure of detent with a bound: a count (`against=None`), or its ratio to another's figure, taken
in the same rounds. Ratios of rates say how many times as fast; ratios of times how many times as long. `disks` are
those it must hold on: a ratio to a peer shrinks where each fsync takes a millisecond, since both then wait for the
disk, so those are promised on a bare disk and only shown for the slow one. `in_ci` is the bound that the small
benchmark gates on: the same for counts; looser for ratios, which must hold on a disk and with neighbours that nobody
knows, and still catch what makes the engine several times slower.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

Disk = Literal["bare", "slow"]
BOTH: Final[tuple[Disk, ...]] = ("bare", "slow")


class Against(NamedTuple):
    """Whose figure ours is divided by: a peer's, of the same workload unless another is named."""

    peer: str
    workload: str | None = None


class Target(NamedTuple):
    """`figure` of `peer` in `workload`, or its ratio, stands in `relation` to `value`."""

    workload: str
    figure: str
    relation: Literal[">=", "<=", "=="]
    value: float
    why: str
    against: Against | None = None
    peer: str = "detent"
    disks: tuple[Disk, ...] = ("bare",)
    in_ci: float | None = None

    def holds(self, reached: float) -> bool:
        """Whether what was reached is within the bound; an exact count may be off by a thousandth."""
        if self.relation == "==":
            return abs(reached - self.value) <= 0.001 * self.value
        return reached >= self.value if self.relation == ">=" else reached <= self.value


_W1, _MANY, _FOUR, _MAP = "w1-one", "w1-many", "w1-processes", "w2-map"
_START, _SIGNAL, _GUARD, _ACTION = "w3-start", "w4-signal", "w4-guard", "w4-action"

TARGETS: Final = (
    Target(_W1, "commits_per_run", "==", 6, "one for the start, one for each step", disks=BOTH, in_ci=6),
    Target(_W1, "syncs_per_run", "<=", 6.6, "one a commit, and a tenth for checkpoints", disks=BOTH, in_ci=6.6),
    Target(_W1, "syncs_per_run", ">=", 6, "nothing is acknowledged that is not on the disk", disks=BOTH, in_ci=6),
    Target(_MANY, "syncs_per_step", "<=", 0.1, "runs in flight share their commits", disks=BOTH, in_ci=0.1),
    Target(_W1, "runs_per_s", ">=", 8, "DBOS builds each statement anew", Against("dbos")),
    Target(_W1, "runs_per_s", ">=", 3, "Huey commits three times a step", Against("huey"), in_ci=0.7),
    Target(_W1, "runs_per_s", ">=", 0.5, "the same commits bare", Against("sqlite3"), disks=BOTH, in_ci=0.2),
    Target(_MANY, "runs_per_s", ">=", 40, "DBOS has no group commit", Against("dbos")),
    Target(_MANY, "runs_per_s", ">=", 3, "group commit", Against("detent", _W1), disks=BOTH, in_ci=1.5),
    Target(_FOUR, "runs_per_s", ">=", 0.8, "of one process: a fair lock", Against("detent", _W1), in_ci=0.35),
    Target(_FOUR, "errors", "<=", 0, "no run meets a locked file", disks=BOTH, in_ci=0),
    Target(_FOUR, "max_ms", "<=", 250, "the longest wait of one run", disks=BOTH),
    Target(_MAP, "wall_ms", "<=", 1.6, "the same client, no records", Against("aiohttp")),
    Target(_MAP, "wall_ms", "<=", 1.6, "the same client, no records", Against("httpx"), "detent-httpx"),
    Target(_MAP, "wall_ms", "<=", 2.5, "the fastest bare client", Against("aiohttp"), "detent-httpx", in_ci=6),
    *(
        Target(_MAP, "wall_ms", "<=", 1, "ahead of every peer", Against(peer), in_ci=1.3 if peer == "huey" else None)
        for peer in ("huey", "burr", "langgraph", "dbos")
    ),
    Target(_MAP, "most_in_flight", "==", 20, "the cap is reached, and kept", disks=BOTH, in_ci=20),
    Target(_START, "wall_ms", "<=", 1.5, "the same libraries, no engine", Against("script"), in_ci=3),
    *(
        Target(_START, "wall_ms", "<=", 1, "ahead of every peer", Against(peer))
        for peer in ("huey", "burr", "langgraph", "dbos")
    ),
    Target(_SIGNAL, "step_us", "<=", 3, "one look-up in a table"),
    Target(_ACTION, "step_us", "<=", 3, "one look-up in a table"),
    Target("w5-stored", "many_to_few", ">=", 0.9, "no cost grows with the runs that are stored"),
    Target("w5-items", "many_to_few", "<=", 1.15, "no cost of an item grows with their number"),
    Target("w5-memory", "in_flight_kib", "<=", 16, "a task, its claim and its context", in_ci=24),
    Target("w5-memory", "resting_kib", "<=", 0.25, "none: it lies in the store; the rest is noise", in_ci=2),
    Target(_ACTION, "step_us", "<=", 0.5, "half the time, durable or not", Against("transitions"), in_ci=1.2),
)
