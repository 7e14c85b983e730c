"""python-statemachine: a class of five states."""

from __future__ import annotations

from statemachine import State, StateMachine

from benchmarks.peers.protocol import Figures, Job, Watch, serve


class Ring(StateMachine):
    """Five states in a ring; the ways `turn` go round freely, those of `ask` where the guard lets them."""

    s1 = State(initial=True)
    s2 = State()
    s3 = State()
    s4 = State()
    s5 = State()
    turn = s1.to(s2) | s2.to(s3) | s3.to(s4) | s4.to(s5) | s5.to(s1)
    ask = (
        s1.to(s2, cond="may_go")
        | s2.to(s3, cond="may_go")
        | s3.to(s4, cond="may_go")
        | s4.to(s5, cond="may_go")
        | s5.to(s1, cond="may_go")
    )

    def may_go(self, go: bool) -> bool:
        """The guard."""
        return go


def step(job: Job, watch: Watch) -> Figures:
    """Events sent around the ring."""
    ring = Ring()
    name = "ask" if job["ring"] == "signal_guarded" else "turn"
    steps = job["steps"] * job["laps"]
    watch.begin()
    for _ in range(steps):
        ring.send(name, go=True)
    figures = watch.end()
    assert ring.current_state_value == f"s{steps % 5 + 1}", ring.current_state_value
    return figures


if __name__ == "__main__":
    serve({"step": step})
