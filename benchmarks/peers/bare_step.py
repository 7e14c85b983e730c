"""The floor of a transition: a table of tuples in a dict, and a loop."""

from __future__ import annotations

from benchmarks.peers.protocol import Figures, Job, Watch, serve


def step(job: Job, watch: Watch) -> Figures:
    """Transitions around a ring of five states."""
    table = {(f"S{number}", "next"): (f"S{number % 5 + 1}", None) for number in range(1, 6)}
    guarded = {key: (target, lambda event: event["go"]) for key, (target, _) in table.items()}
    ways = guarded if job["ring"] == "signal_guarded" else table
    event = {"go": True}
    watch.begin()
    for _ in range(job["laps"]):
        state = "S1"
        for _ in range(job["steps"]):
            target, guard = ways[state, "next"]
            if guard is None or guard(event):
                state = target
    figures = watch.end()
    assert state == f"S{job['steps'] % 5 + 1}"
    return figures


if __name__ == "__main__":
    serve({"step": step})
