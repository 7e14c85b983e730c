"""The same HTTP calls with the same clients as detent's, at most so many at a time, and no record of any.

`aiohttp` alone, and `httpx` over aiohttp's transport, which is what the project's own actions use.
"""

from __future__ import annotations

import asyncio

from benchmarks.peers.detent import caller
from benchmarks.peers.protocol import Figures, Job, Watch, serve


def mapped(job: Job, watch: Watch) -> Figures:
    """One call for each item, by as many tasks as may be in flight."""

    async def main() -> Figures:
        async with caller(job) as call:

            async def run(items: int) -> None:
                left = iter(range(items))

                async def lane() -> None:
                    for _ in left:
                        await call(job["url"])

                await asyncio.gather(*(lane() for _ in range(job["in_flight"])))

            await run(job["warm_up"])
            watch.begin()
            await run(job["items"])
            return watch.end()

    return asyncio.run(main())


if __name__ == "__main__":
    serve({"map": mapped})
