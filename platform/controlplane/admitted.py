"""What admission holds right now, read from its Redis with plain commands; nothing is written.

The key names are those of ``serving/admission/README.md``. Rates are GCRA: one instant per limit,
up to which the minute's worth is used; whoever has not called for a minute has no key at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from django.conf import settings
from redis import Redis
from redis.exceptions import RedisError

from serving.admission.keys import admission_prefix

_MINUTE_MICROS = 60_000_000
_TIMEOUT_SECONDS = 0.5  # somebody looks at a page: an answer without these numbers is better


class AdmissionUnread(Exception):
    """Redis did not answer in time; what is used right now cannot be said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SubjectUse:
    """How full a bearer's minute is, in microseconds of it, and its calls under way."""

    requests_micros: int = 0
    tokens_micros: int = 0
    running: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountUse:
    """One account in nano-USD: ``base`` is what PostgreSQL said when it was loaded in this epoch.

    None: not loaded, because nothing was called on it since. Available is
    ``base + budget - spent - held``.
    """

    base: int | None = None
    spent: int = 0
    held: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    subjects: tuple[SubjectUse, ...]
    accounts: tuple[AccountUse, ...]


def use_now(subjects: Sequence[str], accounts: Sequence[str]) -> Use:
    """What bearers and accounts of this cell use, as asked. Raises ``AdmissionUnread``."""
    prefix = admission_prefix(settings.TESSERA_CELL)
    try:
        return _use(prefix, subjects, accounts)
    except RedisError as error:
        raise AdmissionUnread from error


def _use(prefix: str, subjects: Sequence[str], accounts: Sequence[str]) -> Use:
    redis = client()
    seconds, micros = redis.time()
    now = seconds * 1_000_000 + micros
    with redis.pipeline(transaction=False) as asked:
        asked.get(f"{prefix}epoch")
        for subject in subjects:
            asked.get(f"{prefix}requests:{subject}")
            asked.get(f"{prefix}tokens:{subject}")
            asked.zcount(f"{prefix}running:{subject}", now // 1000, "+inf")
        epoch, *found = asked.execute()
    uses = tuple(
        SubjectUse(
            requests_micros=_filled(found[place], now),
            tokens_micros=_filled(found[place + 1], now),
            running=int(found[place + 2]),
        )
        for place in range(0, len(found), 3)
    )
    return Use(subjects=uses, accounts=_accounts(redis, prefix, epoch, accounts))


def _accounts(
    redis: Redis, prefix: str, epoch: bytes | None, accounts: Sequence[str]
) -> tuple[AccountUse, ...]:
    if epoch is None or not accounts:
        return (AccountUse(),) * len(accounts)
    with redis.pipeline(transaction=False) as asked:
        for account in accounts:
            name = f"{prefix}money:{epoch.decode()}:account:{account}"
            asked.hmget(name, "base", "spent", "held")
        return tuple(_account(values) for values in asked.execute())


def _account(values: list[bytes | None]) -> AccountUse:
    base, spent, held = values
    return AccountUse(
        base=None if base is None else int(base), spent=int(spent or 0), held=int(held or 0)
    )


def _filled(arrival: bytes | None, now: int) -> int:
    """Never more than the whole minute, however large the last call was."""
    return min(_MINUTE_MICROS, max(0, int(float(arrival)) - now)) if arrival else 0


@cache
def client() -> Redis:
    return Redis.from_url(
        settings.REDIS_URL,
        socket_timeout=_TIMEOUT_SECONDS,
        socket_connect_timeout=_TIMEOUT_SECONDS,
    )
