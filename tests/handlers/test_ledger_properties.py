"""The law of the ledger: no interleaving of reservations passes a limit, of a day or of a rate."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

import anyio
import anyio.lowlevel
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.core.secret import Secrets
from engine.handlers.accounts import Account, AccountPools
from engine.handlers.ledger import Ledger, _keys, exhaust, reserve
from engine.store.memory import MemoryStore
from tests.handlers.test_ledger import Books

EVENING = datetime(2026, 1, 5, 23, 59, 30, tzinfo=UTC)

ACCOUNTS = st.lists(
    st.builds(
        lambda number, limit, rate, burst: Account(f"acc{number}", f"key-{number}", limit, rate, burst),
        st.integers(0, 5), st.integers(1, 6), st.sampled_from([0.5, 1.0, 4.0]), st.integers(1, 4),
    ),
    min_size=1, max_size=4, unique_by=lambda account: account.id,
)  # fmt: skip
MOVES = st.lists(st.one_of(st.just("reserve"), st.floats(0, 20), st.just("exhaust")), min_size=1, max_size=60)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(ACCOUNTS, MOVES)
def test_no_sequence_of_reservations_passes_a_limit_of_a_day_or_a_rate(accounts, moves):
    books = Books(*accounts)
    now, calls = EVENING, {account.id: [] for account in accounts}
    for move in moves:
        if isinstance(move, float):
            now += timedelta(seconds=move)
        elif move == "exhaust":
            books.exhaust(accounts[0].id, now)
        elif (outcome := books.reserve(now)).name == "reserved":
            calls[outcome.value["account_id"]].append(now + timedelta(seconds=outcome.value["wait_s"]))

    for account in accounts:
        made = calls[account.id]
        for day in {call.date() for call in made}:
            assert sum(call.date() == day for call in made) <= account.daily_limit
        for first in range(len(made) - account.burst):
            span = (made[first + account.burst] - made[first]).total_seconds()
            assert span >= 1 / account.per_second - 0.002  # burst + 1 calls take at least one interval


class Interleaved(MemoryStore):
    """A store in which every transaction pauses at random between reading and committing."""

    def __init__(self, seed: int) -> None:
        super().__init__(lambda: round(EVENING.timestamp() * 1000))
        self._random = random.Random(seed)

    async def get_many(self, keys):
        for _ in range(self._random.randrange(3)):
            await anyio.lowlevel.checkpoint()
        return await super().get_many(keys)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(ACCOUNTS, st.integers(1, 30), st.integers(0, 10_000))
def test_no_interleaving_of_workers_passes_a_limit(accounts, workers, seed):
    books = Books(*accounts)
    store = Interleaved(seed)
    reserved, exhausted = [], []

    async def work(number):
        request = books.request(account=accounts[0].id)
        request.services[Ledger] = Ledger(AccountPools({"chart_img": accounts}, Secrets()))
        action = exhaust if number % 7 == 6 else reserve

        def decide(documents, now_ms):
            decision = action(request, documents, EVENING)
            return decision.writes, decision.outcome

        outcome = await store.transact(_keys(request), decide)
        (reserved if outcome.name == "reserved" else exhausted).append(outcome)

    async def main():
        async with anyio.create_task_group() as tasks:
            for number in range(workers):
                tasks.start_soon(work, number)
        return [document for _, document in await store.query("chart_img_accounts_usage")]

    documents = anyio.run(main)
    limits = sum(account.daily_limit for account in accounts)

    assert len(reserved) <= 2 * limits  # the evening's day and the next one's, for calls that wait past midnight
    assert len(reserved) + len(exhausted) == workers
    for account in accounts:
        mine = sum(outcome.value["account_id"] == account.id for outcome in reserved)
        assert mine <= 2 * account.daily_limit
    assert all(document["usageToday"] <= 6 for document in documents)
