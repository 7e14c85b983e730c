"""What every `Store` must do, as checks that any store can be put through.

In: `open_store`, a function that opens a store holding no document; call each of `CHECKS` with it, on asyncio. A
check that returns has passed; one that raises says what is wrong. With pytest:

    @pytest.mark.parametrize("check", store_contract.CHECKS, ids=store_contract.name)
    async def test_the_store_keeps_its_contract(check): await check(open_store)

`DISTURBED_CHECKS` are for a store that lets another client commit between a decide and its commit: they take
`open_disturbed(disturb)`. Nothing here assumes a file, a clock or an order of tasks.
"""

from __future__ import annotations

from typing import Final

from engine.testing import store_contract_commits, store_contract_queries, store_contract_values
from engine.testing.store_check import (
    Disturb,
    DisturbedCheck,
    OpenDisturbed,
    OpenStore,
    StoreCheck,
    name,
    touch_unguarded,
)

__all__ = [
    "CHECKS",
    "DISTURBED_CHECKS",
    "Disturb",
    "DisturbedCheck",
    "OpenDisturbed",
    "OpenStore",
    "StoreCheck",
    "name",
    "touch_unguarded",
]

CHECKS: Final[tuple[StoreCheck, ...]] = (
    *store_contract_commits.CHECKS,
    *store_contract_values.CHECKS,
    *store_contract_queries.CHECKS,
)

DISTURBED_CHECKS: Final[tuple[DisturbedCheck, ...]] = tuple(store_contract_commits.DISTURBED_CHECKS)
