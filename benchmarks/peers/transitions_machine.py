"""transitions: a model hung on a machine of five states."""

from __future__ import annotations

from typing import Any

from transitions import Machine

from benchmarks.peers.protocol import Figures, Job, Watch, serve


class Model:
    """What the machine moves; its trigger is made by the library."""

    next: Any
    state: str

    def may_go(self, event: dict[str, bool]) -> bool:
        """The guard."""
        return event["go"]


def step(job: Job, watch: Watch) -> Figures:
    """Transitions around a ring of five states."""
    model = Model()
    machine = Machine(model, [f"S{number}" for number in range(1, 6)], initial="S1", auto_transitions=False)
    conditions = "may_go" if job["ring"] == "signal_guarded" else None
    for number in range(1, 6):
        machine.add_transition("next", f"S{number}", f"S{number % 5 + 1}", conditions=conditions)
    event = {"go": True}
    steps = job["steps"] * job["laps"]
    watch.begin()
    if conditions:
        for _ in range(steps):
            model.next(event)
    else:
        for _ in range(steps):
            model.next()
    figures = watch.end()
    assert model.state == f"S{steps % 5 + 1}"
    return figures


if __name__ == "__main__":
    serve({"step": step})
