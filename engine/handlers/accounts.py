"""Accounts of paid APIs: read from one JSON text, found by pool, keys handed out by id.

In: the text of a variable such as `CHART_IMG_ACCOUNTS_JSON`. Out: frozen `Account`s in the order of the
text, which is their priority. Every mistake is a `ConfigurationError` that names the variable, the index
and the field. It never repeats a value, not even that of an unknown plan: someone may have pasted a key
into the wrong field. `api_key` is in no repr, and `AccountPools` registers every key as a secret.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from engine.core.machine import Pool
from engine.core.secret import Secrets
from engine.core.write import id_problem
from engine.errors import ConfigurationError

PLANS: Final[Mapping[str, tuple[float, int]]] = {
    "BASIC": (1, 3),
    "PRO": (10, 15),
    "MEGA": (15, 25),
    "ULTRA": (35, 50),
    "ENTERPRISE": (35, 50),
}
"""Calls a second and burst of each Chart-IMG plan. The daily units are never taken from a plan."""

COUNT_MAX: Final = 1_000_000_000
"""Largest `dailyLimit` and `burst`: far above any plan, and safe in every store's integers."""

PER_SECOND_MIN: Final = 1 / 86_400
"""One call a day. Slower than that, the next free instant would lie beyond the ledger's window."""

PER_SECOND_MAX: Final = 1_000_000.0
"""Calls a second; above a microsecond's resolution a rate means nothing."""

KEY_CHARACTERS_MAX: Final = 4096
"""Servers refuse header lines much longer than this (8 KiB for the whole line is common)."""

EXAMPLE: Final = 'Example: [{"id": "main", "apiKey": "…", "dailyLimit": 44}].'
"""The remedy of what cannot be read."""

_MISSING: Final = object()


@dataclass(frozen=True, slots=True)
class Account:
    """One account: `daily_limit` units a UTC day, `per_second` calls with `burst` at once.

    `None` leaves the number to the pool's declaration in the definition.
    """

    id: str
    api_key: str = field(repr=False)
    daily_limit: int | None = None
    per_second: float | None = None
    burst: int | None = None


class AccountPools:
    """Which accounts a pool draws on, by the pool's name in the definition; and the key of each account."""

    def __init__(self, pools: Mapping[str, Sequence[Account]], secrets: Secrets) -> None:
        """Register every key in `secrets`. Raises `ConfigurationError` when pools give one id two keys."""
        self._pools: dict[str, tuple[Account, ...]] = {}
        self._keys: dict[str, str] = {}
        self._secrets = secrets
        for name, accounts in pools.items():
            self.add(name, accounts)

    def __contains__(self, pool: str) -> bool:
        return pool in self._pools

    def add(self, name: str, accounts: Sequence[Account]) -> None:
        """Make one more pool known: a worker meets machines that it did not know of when it began. Raises as above."""
        for index, account in enumerate(accounts):
            if self._keys.setdefault(account.id, account.api_key) != account.api_key:
                raise ConfigurationError(
                    f"pools.{name}",
                    f"[{index}].id is an id that has another key elsewhere.",
                    remedy="Give each account an id of its own.",
                )
            self._secrets.add(account.api_key)
        self._pools[name] = tuple(accounts)

    @classmethod
    def from_environment(cls, pools: Iterable[Pool], environment: Mapping[str, str], secrets: Secrets) -> AccountPools:
        """The accounts of each pool, from the variable that it names. Raises `ConfigurationError`."""
        return cls(
            {pool.name: parse_accounts(environment.get(pool.accounts, ""), pool.accounts) for pool in pools}, secrets
        )

    def accounts(self, pool: str) -> tuple[Account, ...]:
        """The pool's accounts, first choice first. Raises `LookupError` for a pool without any."""
        try:
            return self._pools[pool]
        except KeyError:
            raise LookupError(f"no accounts are configured for the pool {pool!r}") from None

    def key_of(self, account_id: str) -> str:
        """The secret key of an account; only for the header of a call. Raises `LookupError`."""
        try:
            return self._keys[account_id]
        except KeyError:
            raise LookupError("there is no account with that id") from None


def parse_accounts(text: str, variable: str) -> tuple[Account, ...]:
    """The accounts in `text`, a JSON array of `{id, apiKey, dailyLimit?, perSecond?, burst?, plan?}`.

    Unknown keys are ignored. Raises `ConfigurationError` for `variable`, and nothing else.
    """
    entries, problem = _decoded(text)
    if not problem and not isinstance(entries, list):
        problem = "must be a JSON array of objects with id and apiKey."
    if not problem and not entries:
        problem = "must list at least one account."
    if problem:
        raise ConfigurationError(variable, problem, remedy=EXAMPLE)
    accounts: dict[str, tuple[int, Account]] = {}
    for index, entry in enumerate(entries):
        account = _Entry(entry, variable, index).account()
        if account.id in accounts:
            raise ConfigurationError(
                variable, f"[{index}].id is the same as that of [{accounts[account.id][0]}].", remedy=EXAMPLE
            )
        accounts[account.id] = (index, account)
    return tuple(account for _, account in accounts.values())


class _Object(dict[str, Any]):
    """A JSON object that remembers which keys its text gave twice; `json` would silently keep the last."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        self.repeated = {key for key, times in Counter(key for key, _ in pairs).items() if times > 1}


class _NotJsonError(ValueError):
    """NaN or Infinity, which Python's parser takes and JSON does not know."""


def _decoded(text: str) -> tuple[Any, str]:
    """The JSON value and no problem, or None and the problem.

    A value and not an exception: the parser's own errors carry the whole text, keys included, and would
    travel along as the context of ours.
    """
    if not text.strip():
        return None, "is not set."
    try:
        return json.loads(text.removeprefix("\ufeff"), object_pairs_hook=_Object, parse_constant=_refuse), ""
    except json.JSONDecodeError as error:
        return None, f"is not valid JSON at line {error.lineno}, column {error.colno}."
    except _NotJsonError:
        return None, "holds NaN or Infinity, which JSON does not know."
    except ValueError:
        return None, "holds a number with too many digits."
    except RecursionError:
        return None, "is nested too deeply."


def _refuse(name: str) -> Any:
    raise _NotJsonError(name)


class _Entry:
    """One entry of the array, with where it stands, so that every problem can say so."""

    def __init__(self, entry: Any, variable: str, index: int) -> None:
        self._entry = entry
        self._variable = variable
        self._at = f"[{index}]"

    def account(self) -> Account:
        """The account that the entry describes."""
        if not isinstance(self._entry, _Object):
            raise self._wrong("", "must be an object")
        for name in ("id", "apiKey", "dailyLimit", "perSecond", "burst", "plan"):
            if name in self._entry.repeated:
                raise self._wrong(name, "is given twice")
        per_second, burst = self._plan()
        return Account(
            id=self._text("id", id_problem),
            api_key=self._text("apiKey", _key_problem),
            daily_limit=self._count("dailyLimit"),
            per_second=self._rate("perSecond", per_second),
            burst=self._count("burst", burst),
        )

    def _plan(self) -> tuple[float | None, int | None]:
        plan = self._entry.get("plan", _MISSING)
        if plan is _MISSING:
            return None, None
        if not isinstance(plan, str) or plan not in PLANS:
            raise self._wrong("plan", f"must be one of {', '.join(PLANS)}")
        return PLANS[plan]

    def _text(self, name: str, problem_of: Callable[[object], str]) -> str:
        value = self._entry.get(name, _MISSING)
        if value is _MISSING:
            raise self._wrong(name, "is missing")
        if not isinstance(value, str):
            raise self._wrong(name, "must be a string")
        # A blank around a key is a 403 from the server that nobody understands; it is not guessed away.
        problem = "must not begin or end with blanks" if value and value != value.strip() else problem_of(value)
        if problem:
            raise self._wrong(name, problem)
        return value

    def _count(self, name: str, default: int | None = None) -> int | None:
        value = self._entry.get(name, _MISSING)
        if value is _MISSING:
            return default
        if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= COUNT_MAX:
            raise self._wrong(name, f"must be a whole number from 1 to {COUNT_MAX}")
        return value

    def _rate(self, name: str, default: float | None) -> float | None:
        value = self._entry.get(name, _MISSING)
        if value is _MISSING:
            return default
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not is_number or not PER_SECOND_MIN <= value <= PER_SECOND_MAX:
            raise self._wrong(
                name, f"must be a number greater than 0, from one a day (1/86400) to {PER_SECOND_MAX:.0f}"
            )
        return float(value)

    def _wrong(self, name: str, problem: str) -> ConfigurationError:
        return ConfigurationError(self._variable, f"{self._at}{'.' if name else ''}{name} {problem}.", remedy=EXAMPLE)


def _key_problem(key: object) -> str:
    if not isinstance(key, str) or not key:
        return "must not be empty"
    if len(key) > KEY_CHARACTERS_MAX:
        return f"must be at most {KEY_CHARACTERS_MAX} characters long"
    if not all(" " <= character <= "~" for character in key):
        # Latin-1 could travel in a header too, but clients disagree on how; keys are ASCII everywhere.
        return "must hold only printable ASCII characters, as it is sent in an HTTP header"
    return ""
