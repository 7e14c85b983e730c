"""LangGraph with its SQLite checkpointer, `durability="sync"`: a checkpoint is on the disk before the next step.

The checkpointer itself sets the write-ahead log; `synchronous` is SQLite's default, FULL. In flight, its asynchronous
twin is used, as its documentation asks.
"""

from __future__ import annotations

import asyncio
import operator
import time
from pathlib import Path
from typing import Annotated, Any, TypedDict

from langgraph.graph import END, START, StateGraph

from benchmarks.peers.protocol import STEPS, Figures, Job, Watch, serve


class State(TypedDict, total=False):
    """The graph's state: `n` counts steps, `lengths` gathers a map's answers."""

    n: int
    lengths: Annotated[list[int], operator.add]
    items: int


def graph(steps: int) -> Any:
    """A chain of nodes that each count one."""
    made = StateGraph(State)
    names = [f"s{number}" for number in range(steps)]

    def count(state: State) -> State:
        return {"n": state["n"] + 1}

    for name in names:
        made.add_node(name, count)
    for source, target in zip([START, *names], [*names, END], strict=True):
        made.add_edge(source, target)
    return made


def config(thread: str) -> dict[str, Any]:
    """What names a run to LangGraph."""
    return {"configurable": {"thread_id": thread}}


def runs(job: Job, watch: Watch) -> Figures:
    """Invocations of a chain of five nodes, as many in flight as the job says."""
    return asyncio.run(_in_flight(job, watch)) if job["in_flight"] > 1 else _one_at_a_time(job, watch)


def _one_at_a_time(job: Job, watch: Watch) -> Figures:
    from langgraph.checkpoint.sqlite import SqliteSaver

    prefix = f"p{job['process']}"
    with SqliteSaver.from_conn_string(str(Path(job["folder"]) / "graph.db")) as saver:
        app = graph(STEPS).compile(checkpointer=saver)
        for number in range(job["warm_up"]):
            app.invoke({"n": 0}, config(f"{prefix}-warm-{number}"), durability="sync")
        watch.begin()
        for number in range(job["runs"]):
            asked = time.perf_counter()
            try:
                assert app.invoke({"n": 0}, config(f"{prefix}-{number}"), durability="sync")["n"] == STEPS
            except Exception as error:
                watch.failed(error)
            watch.took(time.perf_counter() - asked)
        return watch.end()


async def _in_flight(job: Job, watch: Watch) -> Figures:
    from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

    async with AsyncSqliteSaver.from_conn_string(str(Path(job["folder"]) / "graph.db")) as saver:
        app = graph(STEPS).compile(checkpointer=saver)
        for number in range(job["warm_up"]):
            await app.ainvoke({"n": 0}, config(f"warm-{number}"), durability="sync")
        numbers = iter(range(job["runs"]))

        async def keep_running() -> None:
            for number in numbers:
                asked = time.perf_counter()
                assert (await app.ainvoke({"n": 0}, config(f"run-{number}"), durability="sync"))["n"] == STEPS
                watch.took(time.perf_counter() - asked)

        watch.begin()
        await asyncio.gather(*(keep_running() for _ in range(job["in_flight"])))
        return watch.end()


def mapped(job: Job, watch: Watch) -> Figures:
    """A `Send` for each item; each item's writes are stored as they come."""
    import aiohttp
    from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
    from langgraph.types import Send

    async def main() -> Figures:
        async with (
            aiohttp.ClientSession() as session,
            AsyncSqliteSaver.from_conn_string(str(Path(job["folder"]) / "graph.db")) as saver,
        ):

            async def call(state: State) -> State:
                async with session.get(job["url"]) as answer:
                    answer.raise_for_status()
                    return {"lengths": [len(await answer.read())]}

            made = StateGraph(State)
            made.add_node("deal", lambda state: {})
            made.add_node("call", call)
            made.add_edge(START, "deal")
            made.add_conditional_edges("deal", lambda state: [Send("call", state) for _ in range(state["items"])])
            made.add_edge("call", END)
            app = made.compile(checkpointer=saver)

            async def run(thread: str, items: int) -> None:
                told = {**config(thread), "max_concurrency": job["in_flight"]}
                done = await app.ainvoke({"n": 0, "items": items, "lengths": []}, told, durability="sync")
                assert len(done["lengths"]) == items

            await run("warm", job["warm_up"])
            watch.begin()
            await run("run", job["items"])
            return watch.end()

    return asyncio.run(main())


def start(job: Job, watch: Watch) -> Figures:
    """One node in a fresh process, its checkpoint stored."""
    from langgraph.checkpoint.sqlite import SqliteSaver

    with SqliteSaver.from_conn_string(str(Path(job["folder"]) / "graph.db")) as saver:
        done = graph(1).compile(checkpointer=saver).invoke({"n": 0}, config("first"), durability="sync")
        figures = watch.since_spawned(job)
    assert done["n"] == 1
    return figures


if __name__ == "__main__":
    serve({"runs": runs, "map": mapped, "start": start})
