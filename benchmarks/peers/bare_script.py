"""A script without an engine that imports the libraries that detent does, reads the YAML and records one step.

The list of libraries is not ours to choose: the harness asks a detent process for what it has imported.
"""

from __future__ import annotations

import importlib
from pathlib import Path

from benchmarks.peers.protocol import Figures, Job, Watch, serve

MACHINE = Path(__file__).with_name("machines") / "one_step.yaml"


def start(job: Job, watch: Watch) -> Figures:
    """Import, load, open, and two commits: the run, and its step."""
    for name in job["modules"]:
        importlib.import_module(name)
    import anyio
    import yaml

    from benchmarks.peers.bare_apsw import opened
    from benchmarks.peers.bare_sqlite import BODY, CREATE, MOVE, NOTE

    async def main() -> Figures:
        machine = yaml.load(MACHINE.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
        execute = opened(job).execute
        for seq, statement, values in (
            (1, CREATE, ("first", machine["initial"], BODY)),
            (2, MOVE, ("END", BODY, "first")),
        ):
            execute("BEGIN IMMEDIATE")
            execute(statement, values)
            execute(NOTE, ("first", seq, BODY))
            execute("COMMIT")
        return watch.since_spawned(job)

    return anyio.run(main)


if __name__ == "__main__":
    serve({"start": start})
