"""detent itself, through its public Python API: what a user's program would write, and nothing faster.

Every step is an `async def` repeatable action that does nothing but answer, so each costs what the engine costs.
Commits are counted by SQLite's own commit hook, on every connection that the store opens.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from benchmarks.peers.protocol import STEPS, Figures, Job, Watch, Workload, serve

MACHINES = Path(__file__).with_name("machines")


class Commits:
    """Counts SQLite's commits in this process."""

    def __init__(self) -> None:
        import apsw

        self.count = 0
        apsw.connection_hooks.append(lambda connection: connection.set_commit_hook(self._committed))

    def _committed(self) -> bool:
        self.count += 1
        return False


class Held:
    """Actions that are under way until `let_go` is set; `until` waits for so many of them."""

    def __init__(self) -> None:
        import anyio

        self.let_go = anyio.Event()
        self._changed = anyio.Event()
        self._count = 0

    async def until(self, count: int) -> None:
        """Wait until so many have begun."""
        import anyio

        while self._count < count:
            self._changed = anyio.Event()
            await self._changed.wait()

    async def until_let_go(self) -> None:
        """What each action does."""
        self._count += 1
        self._changed.set()
        await self.let_go.wait()


@asynccontextmanager
async def opened(job: Job, *services: object, **more: Any) -> AsyncIterator[Any]:
    """An engine on the job's folder, with the actions of this module; `more` goes to the engine as it is."""
    import engine
    from engine.handlers.registry import Registry

    actions = Registry(own=())

    @actions.action("bench.nothing", kind="repeatable")
    async def nothing(request: engine.ActionRequest) -> engine.Outcome:
        return engine.Outcome("done", {"n": 1})

    @actions.action("bench.call", kind="repeatable")
    async def call(request: engine.ActionRequest) -> engine.Outcome:
        return engine.Outcome("done", {"length": await request.service(Caller)(request.params["url"])})

    @actions.action("bench.hold", kind="repeatable")
    async def hold(request: engine.ActionRequest) -> engine.Outcome:
        await request.service(Held).until_let_go()
        return engine.Outcome("done")

    folder = Path(job["folder"])
    async with engine.Engine(
        store=f"sqlite:///{folder}/detent.db",
        artifacts=f"folder:{folder}/artifacts",
        actions=actions,
        services=services,
        concurrency=max(job.get("in_flight", 1), 20),
        **more,
    ) as app:
        yield app


def runs(job: Job, watch: Watch) -> Figures:
    """Runs of five recorded steps, as many in flight as the job says."""
    import anyio

    commits = Commits()

    async def main() -> Figures:
        async with opened(job) as app:
            machine = app.load(MACHINES / "five_steps.yaml")
            prefix = f"p{job['process']}"
            for number in range(job["warm_up"]):
                await app.run(machine, {}, run_id=f"{prefix}-warm-{number}")
            numbers = iter(range(job["runs"]))

            async def keep_running() -> None:
                for number in numbers:
                    asked = time.perf_counter()
                    try:
                        result = await app.run(machine, {}, run_id=f"{prefix}-{number}")
                        assert (result.status, result.steps) == ("succeeded", STEPS + 1), result
                    except Exception as error:
                        watch.failed(error)
                    watch.took(time.perf_counter() - asked)

            watch.begin()
            before = commits.count
            async with anyio.create_task_group() as tasks:
                for _ in range(job["in_flight"]):
                    tasks.start_soon(keep_running)
            return watch.end(commits=commits.count - before)

    return anyio.run(main)


class Caller:
    """One HTTP client for all items: `aiohttp`, or `httpx` over aiohttp's transport as the project's own actions."""

    def __init__(self, client: Any, is_httpx: bool) -> None:
        self._client = client
        self._is_httpx = is_httpx

    async def __call__(self, url: str) -> int:
        """The length of the answer's body."""
        if self._is_httpx:
            answer = await self._client.get(url)
            answer.raise_for_status()
            return len(answer.content)
        async with self._client.get(url) as answer:
            answer.raise_for_status()
            return len(await answer.read())


@asynccontextmanager
async def caller(job: Job) -> AsyncIterator[Caller]:
    """The client that the job names."""
    if job["peer"].endswith("httpx"):
        import httpx
        from httpx_aiohttp import AiohttpTransport

        async with httpx.AsyncClient(transport=AiohttpTransport()) as client:
            yield Caller(client, is_httpx=True)
    else:
        import aiohttp

        async with aiohttp.ClientSession() as session:
            yield Caller(session, is_httpx=False)


def mapped(job: Job, watch: Watch) -> Figures:
    """A map of items, so many at a time, each one HTTP call and each recorded."""
    import anyio

    commits = Commits()

    async def main() -> Figures:
        async with caller(job) as call, opened(job, call) as app:
            machine = app.load(MACHINES / "calls.yaml")

            async def run(name: str, items: int) -> None:
                given = {"url": job["url"], "items": list(range(items))}
                result = await app.run(machine, given, run_id=f"{name}-{items}")
                assert (result.status, result.output) == ("succeeded", {"items": items}), result

            await run("warm", job["warm_up"])
            watch.begin()
            before = commits.count
            await run("run", job["items"])
            return watch.end(commits=commits.count - before)

    return anyio.run(main)


def start(job: Job, watch: Watch) -> Figures:
    """One recorded step in a fresh process: machine loaded from YAML, store opened."""
    import sys

    import anyio

    async def main() -> Figures:
        async with opened(job) as app:
            result = await app.run(app.load(MACHINES / "one_step.yaml"), {}, run_id="first")
            figures = watch.since_spawned(job)
            assert result.status == "succeeded", result
            return figures

    figures = anyio.run(main)
    if job.get("tell_modules"):
        figures["modules"] = [
            name for name, module in sys.modules.items() if "site-packages" in (getattr(module, "__file__", None) or "")
        ]
    return figures


def step(job: Job, watch: Watch) -> Figures:
    """Pure steps of the core, around a ring of five states."""
    from engine.core.event import ActionReturned, RunStarted, SignalReceived
    from engine.core.snapshot import empty
    from engine.core.step import step as take
    from engine.definition import Catalogue
    from engine.handlers.registry import Registry

    actions = Registry(own=())
    actions.action("bench.nothing", kind="repeatable", outcomes=("done", "stopped"))(lambda request: None)
    ring = job["ring"]
    machine = Catalogue(actions.declarations()).load(MACHINES / f"ring_{ring}.yaml")
    event: Any = ActionReturned(1, "done", None) if ring == "action" else SignalReceived(1, "next", {"go": True}, "s")
    first = take(machine, empty("run", machine.name, machine.version, machine.digest), RunStarted(1, {})).snapshot
    watch.begin()
    for _ in range(job["laps"]):  # the linter has every cycle bounded, so a run goes round 5,000 times at most
        snapshot = first
        for _ in range(job["steps"]):
            snapshot = take(machine, snapshot, event).snapshot
    figures = watch.end()
    assert snapshot.seq == job["steps"] + 1
    return figures


def growth(name: str) -> Workload:
    """A workload of `growth.py`, which is read when it is asked for: a start must not pay for it."""

    def work(job: Job, watch: Watch) -> Figures:
        from benchmarks.peers import growth

        found: Figures = getattr(growth, name)(job, watch)
        return found

    return work


if __name__ == "__main__":
    grown = {name: growth(name) for name in ("stored", "items", "memory")}
    serve({"runs": runs, "map": mapped, "start": start, "step": step, **grown})
