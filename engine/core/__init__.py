"""The pure core: what a machine is, and what one step of a run does.

Laws of this package. Each has a test in tests/core.

1. `step(machine, snapshot, event) -> Step` is a function: equal arguments give equal results.
   It reads no clock, draws no random number, performs no I/O and logs nothing. Time arrives in the
   event (`at_ms`).
2. Everything that affects which state a run stands in happens in `step.py` and `draft.py`, by the table
   that the compiler built from the definition. No state name of any machine appears in Python.
3. An event that the present state does not take raises `IllegalEventError` and changes nothing.
4. A value is never changed in place: a snapshot, once made, stays as it is.
5. Folding the journal's events over the empty snapshot gives the stored snapshot, byte for byte.
6. A failure inside a step (an expression, a bound) is a `Failure` and takes the `catch` path; a
   failure that nothing catches ends the run. No input makes a step loop for ever.
7. This package imports nothing of detent but `engine.errors`.
"""
