"""sismic: its interpreter on a statechart of five states."""

from __future__ import annotations

from sismic.interpreter import Interpreter
from sismic.io import import_from_yaml

from benchmarks.peers.protocol import Figures, Job, Watch, serve


def step(job: Job, watch: Watch) -> Figures:
    """Events queued and executed around a ring of five states."""
    guard = "\n            guard: event.go" if job["ring"] == "signal_guarded" else ""
    states = "".join(
        f"      - name: S{number}\n        transitions:\n"
        f"          - event: next{guard}\n            target: S{number % 5 + 1}\n"
        for number in range(1, 6)
    )
    text = f"statechart:\n  name: ring\n  root state:\n    name: ring\n    initial: S1\n    states:\n{states}"
    interpreter = Interpreter(import_from_yaml(text))
    interpreter.execute()
    steps = job["steps"]
    watch.begin()
    for _ in range(steps * job["laps"]):
        interpreter.queue("next", go=True)
        interpreter.execute_once()
    figures = watch.end()
    assert f"S{steps * job['laps'] % 5 + 1}" in interpreter.configuration
    return figures


if __name__ == "__main__":
    serve({"step": step})
