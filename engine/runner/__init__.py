"""Drives the pure core over the ports: one run (`driver`), an action (`perform`), many runs (`worker`).

Sees the core, `engine.runs` and the ports. Which concrete store, artifacts and handlers these are is for
`engine/entry`. LEASES.md beside this file says who may move a run, and what may happen twice.
"""
