"""The ledger: units of a paid, rate-limited API, reserved before each call. Transactional.

One decision takes a unit of the UTC day *and* the account's next free instant. Accounts are tried in the
order of their list; one that is busy is passed over for one that is free sooner. The rate is GCRA (the
virtual scheduling of ITU-T I.371: one theoretical arrival time per account), so a burst passes at once and
the rest is spread evenly.

Documents: `<pool>_accounts_usage/{accountId}` is the contract's `{windowStart, usageToday[, dailyLimit]}`;
`<pool>_accounts_rate/{accountId}` is the engine's own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final, NamedTuple

from engine.core.action import Decision, Outcome, Remark
from engine.core.handler import ActionRequest, Documents
from engine.core.machine import Pool
from engine.core.write import Check, Create, Document, Key, Set, Update, Write
from engine.handlers.accounts import Account, AccountPools
from engine.handlers.registry import action

LATENESS_S: Final = 0.25
"""How late calls may start after their reservation: one that waits for its turn waits this much longer (at most a
quarter of the interval), or the server, which counts from when the earlier ones arrived, would refuse it."""

DAY_MS: Final = 24 * 3600 * 1000
DAY_FORMAT: Final = "%Y-%m-%dT00:00:00Z"


@dataclass(frozen=True, slots=True)
class Ledger:
    """The accounts of each pool. `is_live` is false in mock mode, which never touches the ledger."""

    pools: AccountPools
    is_live: bool = True


class Usage(NamedTuple):
    """An account's place in its day: `used` units of `limit` in the UTC day `day`, `wait_s` until it is free."""

    account: Account
    day: date
    used: int
    limit: int
    wait_s: float
    busy_until_ms: int

    @property
    def is_exhausted(self) -> bool:
        return self.used >= self.limit


def _accounts(request: ActionRequest) -> Sequence[Account]:
    ledger = request.service(Ledger)
    return ledger.pools.accounts(request.params["pool"]) if ledger.is_live else ()


def _keys(request: ActionRequest) -> Sequence[Key]:
    pool = request.params["pool"]
    return [key for account in _accounts(request) for key in (usage_key(pool, account.id), rate_key(pool, account.id))]


def usage_key(pool: str, account_id: str) -> Key:
    """Where the contract keeps an account's usage."""
    return Key.of(f"{pool}_accounts_usage", account_id)


def rate_key(pool: str, account_id: str) -> Key:
    """Where the engine keeps an account's next free instant."""
    return Key.of(f"{pool}_accounts_rate", account_id)


@action(
    "ledger.reserve",
    kind="transactional",
    outcomes=("reserved", "exhausted"),
    parameters=("pool",),
    documents=_keys,
)
def reserve(request: ActionRequest, documents: Documents, now: datetime) -> Decision:
    """Take one unit: `reserved {account_id, wait_s, usage_today, daily_limit, window_start}`, or `exhausted`.

    The call may be made after `wait_s` seconds. Both outcomes carry `exhausted_accounts`.
    """
    if not request.service(Ledger).is_live:
        return Decision(Outcome("reserved", _value(_first_id(request), 0.0, None, None, [])))
    pool = request.pools[request.params["pool"]]
    usages = [usage_of(pool, account, documents, now) for account in _accounts(request)]
    exhausted = [usage.account.id for usage in usages if usage.is_exhausted]
    free = [usage for usage in usages if not usage.is_exhausted]
    if not free:
        # The answer rests on every account, so each is checked: one that was topped up meanwhile is tried again.
        keys = [usage_key(pool.name, account_id) for account_id in exhausted]
        error = {"code": "CHART_API_LIMIT_EXCEEDED"}
        remark = Remark("chart_api_limit_exceeded", {"error": error, "exhaustedAccounts": exhausted}, "ERROR")
        checks = tuple(Check(key) for key in keys)
        return Decision(Outcome("exhausted", _value(None, 0.0, None, None, exhausted)), checks, (remark,))
    chosen = min(free, key=lambda usage: usage.wait_s)  # the first of equals: the order of the list
    value = _value(chosen.account.id, chosen.wait_s, chosen.used + 1, chosen.limit, exhausted)
    writes = (
        _used(pool.name, chosen, chosen.used + 1, documents),
        Set(rate_key(pool.name, chosen.account.id), {"busyUntilMs": _busy_after(pool, chosen)}),
    )
    value["window_start"] = chosen.day.strftime(DAY_FORMAT)
    return Decision(Outcome("reserved", value), writes)


@action(
    "ledger.exhaust",
    kind="transactional",
    parameters=("pool", "account"),
    optional=("window_start",),
    documents=_keys,
)
def exhaust(request: ActionRequest, documents: Documents, now: datetime) -> Decision:
    """The API said that an account has no units left: its usage becomes its limit, for the rest of that UTC day.

    `window_start` is the day that the refused call was reserved in (today when absent); a later one is left alone.
    """
    pool = request.pools[request.params["pool"]]
    account = next((one for one in _accounts(request) if one.id == request.params["account"]), None)
    if account is None:
        return Decision(Outcome("done", {}))
    usage = usage_of(pool, account, documents, now)
    refused_on = _day(request.params.get("window_start")) or now.astimezone(UTC).date()
    stored = _day((documents[usage_key(pool.name, account.id)] or {}).get("windowStart"))
    done = Outcome("done", {"account_id": account.id})
    if stored is not None and stored > refused_on:
        return Decision(done)
    rate = rate_key(pool.name, account.id)
    said = {**(documents[rate] or {}), "exhaustedOn": refused_on.strftime(DAY_FORMAT)}
    return Decision(done, (_used(pool.name, usage._replace(day=refused_on), usage.limit, documents), Set(rate, said)))


@action(
    "ledger.release",
    kind="transactional",
    parameters=("pool", "account", "window_start"),
    documents=_keys,
)
def release(request: ActionRequest, documents: Documents, now: datetime) -> Decision:
    """Give one unit back whose call never began, in the UTC day it was reserved in; a later day owes nothing.

    `window_start` is what `ledger.reserve` answered. The account's place in its rate is not given back; nor is a unit
    of a day on which the API has said that there are none left: the account would be asked again.
    """
    account = next((one for one in _accounts(request) if one.id == request.params["account"]), None)
    if account is None:
        return Decision(Outcome("done", {}))
    done = Outcome("done", {"account_id": account.id})
    key = usage_key(request.params["pool"], account.id)
    document = documents[key] or {}
    reserved_on = _day(request.params["window_start"])
    used = _integer(document.get("usageToday")) or 0
    exhausted_on = _day((documents[rate_key(request.params["pool"], account.id)] or {}).get("exhaustedOn"))
    is_owed = reserved_on is not None and _day(document.get("windowStart")) == reserved_on != exhausted_on
    if not is_owed or used <= 0:
        return Decision(done)
    return Decision(done, (Update(key, {("usageToday",): used - 1}),))


def usage_of(pool: Pool, account: Account, documents: Mapping[Key, Document | None], now: datetime) -> Usage:
    """An account's usage as a call that is reserved now would find it."""
    document = documents.get(usage_key(pool.name, account.id)) or {}
    rate = documents.get(rate_key(pool.name, account.id)) or {}
    now_ms = round(now.timestamp() * 1000)
    # A clock that once ran ahead must not block an account for longer than a day.
    busy_until_ms = min(max(_integer(rate.get("busyUntilMs")) or 0, now_ms), now_ms + DAY_MS)
    wait_s = max(0.0, (busy_until_ms - now_ms) / 1000 - _tolerance_s(pool, account))
    if wait_s > 0:
        wait_s += min(LATENESS_S, _interval_s(pool, account) / 4)
    # The unit belongs to the day of the call, which a wait may put on the other side of midnight; and a window
    # that lies ahead already (a call reserved so) is kept: units are never counted into a day that is over.
    called_on = (now + timedelta(seconds=wait_s)).astimezone(UTC).date()
    window = _day(document.get("windowStart"))
    limit = _positive(document.get("dailyLimit")) or account.daily_limit or pool.per_day
    if window is None or window < called_on:
        return Usage(account, called_on, 0, limit, wait_s, busy_until_ms)
    used = max(_integer(document.get("usageToday")) or 0, 0)
    return Usage(account, window, used, limit, wait_s, busy_until_ms)


def _used(pool: str, usage: Usage, used: int, documents: Documents) -> Write:
    key = usage_key(pool, usage.account.id)
    start = usage.day.strftime(DAY_FORMAT)
    if documents[key] is None:
        return Create(key, {"windowStart": start, "usageToday": used})
    return Update(key, {("windowStart",): start, ("usageToday",): used})


def _interval_s(pool: Pool, account: Account) -> float:
    return 1 / (account.per_second or pool.per_second)


def _tolerance_s(pool: Pool, account: Account) -> float:
    """How far ahead of the even spread a call may come: a burst of n passes at once."""
    return ((account.burst or pool.burst) - 1) * _interval_s(pool, account)


def _busy_after(pool: Pool, usage: Usage) -> int:
    return usage.busy_until_ms + round(_interval_s(pool, usage.account) * 1000)


def _value(
    account_id: str | None, wait_s: float, used: int | None, limit: int | None, exhausted: list[str]
) -> dict[str, Any]:
    return {
        "account_id": account_id,
        "wait_s": round(wait_s, 3),
        "usage_today": used,
        "daily_limit": limit,
        "exhausted_accounts": exhausted,
        "window_start": None,
    }


def _first_id(request: ActionRequest) -> str:
    accounts = request.service(Ledger).pools.accounts(request.params["pool"])
    return accounts[0].id if accounts else "mock"


def _day(value: Any) -> date | None:
    """The UTC day of a window: RFC 3339 text, or a store's native timestamp."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value.replace("Z", "+00:00").replace("z", "+00:00"))
        except (ValueError, OverflowError):
            return None
    if not isinstance(value, datetime):
        return None
    try:
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).astimezone(UTC).date()
    except OverflowError:  # a day outside of the calendar once it is in UTC
        return None


def _integer(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _positive(value: Any) -> int | None:
    number = _integer(value)
    return number if number is not None and number > 0 else None
