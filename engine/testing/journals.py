"""Makes the journals that every later release must replay: `python -m engine.testing.journals FOLDER`.

In: the project's machines and some small ones. Out: one file for each run, children of maps too, in the form of
`engine.entry.journals`. A file that is there is never written over: it is what an earlier release has written.
Nothing is called and nothing sleeps: the store is in memory, the API answers from a script, time moves by itself.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import anyio

from engine.core import canonical
from engine.core.action import Failure, Outcome
from engine.core.bounds import EVENT_BYTES_MAX
from engine.core.handler import ActionRequest
from engine.core.machine import Machine
from engine.definition.compiler import compile_source
from engine.definition.yaml_text import parse
from engine.entry.application import Engine
from engine.entry.journals import exported
from engine.handlers.registry import Registry
from engine.runs.transaction import stored_snapshot
from engine.store.memory import MemoryStore
from engine.testing.clock import SimulatedClock

ASKING: Final = """
machine: asking
version: 1
initial: ASKING
states:
  ASKING:
    on: {approve: {target: DOING, guard: "result.by != ''", assign: {by: "${result.by}"}}, reject: REFUSED}
    after: {1h: LATE}
    cancel: UNDOING
  DOING: {invoke: {action: script, with: {name: doing}}, on: {done: DONE}}
  UNDOING: {invoke: {action: script, with: {name: undoing}}, on: {done: CANCELLED}, cancel: UNDOING}
  DONE: {type: final, output: "${context.by}"}
  REFUSED: {type: final, status: FAILED}
  LATE: {type: final, status: FAILED}
  CANCELLED: {type: final, status: CANCELLED}
"""
RETRYING: Final = """
machine: retrying
version: 1
initial: TRYING
states:
  TRYING:
    max_visits: 2
    invoke:
      action: script
      with: {name: "try ${string(visits.TRYING)}"}
      retry: {errors: [BUSY], attempts: 3, backoff: 500ms}
    on: {done: {target: RESTING, after: 5}}
    catch: {target: TIDYING, assign: {error: "${error}"}}
  RESTING: {on: {wake: DONE}, after: {10s: DONE}}
  TIDYING: {invoke: {action: script, with: {name: tidying}}, on: {done: FAILED}}
  DONE: {type: final, output: "${visits.TRYING}"}
  FAILED: {type: final, status: FAILED, error: "${context.error}"}
"""
ITEM: Final = """
machine: one_item
version: 1
initial: DOING
states:
  DOING: {invoke: {action: script, with: {name: "${input}"}}, on: {done: DONE}, catch: FAILED}
  DONE: {type: final, output: "${input}"}
  FAILED: {type: final, status: FAILED}
"""
QUORUM: Final = """
machine: quorum
version: 1
initial: MAPPING
states:
  MAPPING:
    map: {machine: one_item, items: "${input.items}", key: "${item}", concurrency: 2, min_success: 3, assign: {all: "${result.items}"}}
    on: {done: [{guard: "context.all.filter(i, i.status == 'succeeded').size() >= 3", target: DONE}, {target: FAILED}]}
    timeout: 1h
    catch: FAILED
  DONE: {type: final, output: "${context.all.map(i, i.status)}"}
  FAILED: {type: final, status: FAILED}
"""  # noqa: E501  # one line is one thought here
STRICT: Final = """
machine: strict_item
version: 1
input: {type: string}
initial: DOING
states:
  DOING: {invoke: {action: script, with: {name: "${input}"}}, on: {done: DONE}, catch: FAILED}
  DONE: {type: final, output: "${input}"}
  FAILED: {type: final, status: FAILED}
"""
REFUSING: Final = """
machine: refusing
version: 1
initial: ASKING
states:
  ASKING: {invoke: {action: script, with: {name: large}}, on: {done: DONE}, catch: {target: MAPPING, assign: {error: "${error}"}}}
  MAPPING:
    map: {machine: strict_item, items: "${input.items}", key: "${string(item)}", assign: {all: "${result.items}"}}
    on: {done: DONE}
    catch: FAILED
  DONE: {type: final, output: "${context.error.code}"}
  FAILED: {type: final, status: FAILED}
"""  # noqa: E501  # one line is one thought here


class Script:
    """The one action of these machines: `answers` by name, each used once, then `done`.

    Named `large` it answers more than a step takes.
    """

    def __init__(self) -> None:
        self.registry = Registry(own=())
        self.answers: dict[str, list[Failure]] = {}

        @self.registry.action("script", kind="repeatable", parameters=("name",))
        async def script(request: ActionRequest) -> Outcome | Failure:
            if request.params["name"] == "large":
                return Outcome("done", "x" * EVENT_BYTES_MAX)
            left = self.answers.get(request.params["name"])
            return left.pop(0) if left else Outcome("done", {"at": request.state})


class Scenes:
    """One store in which every scene is played."""

    def __init__(self, app: Engine, script: Script) -> None:
        self.app = app
        self.script = script
        self.machines: dict[str, Machine] = {}
        for text in (ASKING, RETRYING, ITEM, QUORUM, STRICT, REFUSING):
            source: Any = parse(text, "journals.yaml").data
            found = compile_source(source, "journals.yaml", script.registry.declarations(), self.machines.get)
            assert found.machine is not None, [str(diagnostic) for diagnostic in found.diagnostics]
            self.machines[found.machine.name] = found.machine

    async def run(self, machine: str, run_id: str, value: Any, patience_s: float = 60) -> None:
        """Run a machine as far as it comes within the time."""
        await self.app.run(self.machines[machine], value, run_id=run_id, patience_s=patience_s)

    async def signals(self) -> None:
        """A signal that a guard lets through, a wait that is too long, and a cancel."""
        await self.run("asking", "approved", {}, 1)
        await self.app.signal("approved", "approve", {"by": "ann"}, signal_id="s1")
        await self.app.resume("approved")
        await self.run("asking", "late", {}, 7200)
        await self.run("asking", "cancelled", {}, 1)
        await self.app.cancel("cancelled", "nobody needs it")
        await self.app.resume("cancelled")
        await self.app.redrive("cancelled", patience_s=1)
        await self.app.signal("cancelled", "approve", {"by": "ben"}, signal_id="s2")
        await self.app.resume("cancelled")

    async def timers(self) -> None:
        """Retries with their backoff, a delay, a timer, a failure that a catch takes, and a redrive."""
        self.script.answers = {"try 1": [Failure("BUSY", "busy", retriable=True)] * 2}
        await self.run("retrying", "retried", {})
        self.script.answers = {"try 1": [Failure("BROKEN", "it broke", {"why": None})]}
        await self.run("retrying", "redriven", {})
        await self.app.redrive("redriven")

    async def maps(self) -> None:
        """A map that its quorum ends, one that fails, and the same redriven with the items that succeeded kept."""
        await self.run("quorum", "reached", {"items": ["a", "b", "c", "d", "e"]})
        broken = [Failure("BROKEN", "it broke")]
        self.script.answers = {"a": broken.copy(), "c": broken.copy()}
        await self.run("quorum", "missed", {"items": ["a", "b", "c", "d"]})
        await self.app.redrive("missed")

    async def refusals(self) -> None:
        """An answer that is too large for a step, and an item that its machine does not take."""
        await self.run("refusing", "refused", {"items": ["a", 1]})


async def scenes(keep: Callable[[Engine], Awaitable[None]]) -> None:
    """Play every scene, then have `keep` look at what is in the store."""
    clock = SimulatedClock(now_ms=1_767_600_000_000, automatic=True)
    script = Script()
    store = MemoryStore(clock.now_ms)
    app = Engine(store=store, artifacts="folder:.", actions=script.registry, clock=clock, worker="w1")
    async with app:
        played = Scenes(app, script)
        for scene in (played.signals, played.timers, played.maps, played.refusals):
            await scene()
        await keep(app)


async def keep_all(app: Engine, folder: Path, prefix: str = "") -> list[Path]:
    """Export every run of a store into a folder, but none over a file that is there; answers the files written."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for key, document in await app.store.query("runs"):
        name = f"{prefix}{document['machine']}~{key.id}".replace("/", "_").replace(":", "_")
        path = folder / f"{name}.json"
        found = await stored_snapshot(app.store, key.id)
        assert found is not None
        head, text = found
        machine = await app.runs.definitions.machine(head.snapshot.digest)
        whole = exported(machine, head, await app.runs.journal(key.id), text)
        assert canonical.plain(whole, name)
        if not path.exists():
            path.write_text(json.dumps(whole, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
            written.append(path)
    return written


def main(folder: str) -> None:
    """Write the journals that are not there yet."""
    written: list[Path] = []

    async def keep(app: Engine) -> None:
        written.extend(await keep_all(app, Path(folder)))

    anyio.run(scenes, keep)
    sys.stdout.write(f"{len(written)} journals written to {folder}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
