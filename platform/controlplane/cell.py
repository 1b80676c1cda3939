"""A cell's admission as operators see it: epoch, writers and what they hold, queues and slots.

Read from its Redis with plain commands (key names: ``serving/admission/README.md``) and joined with
the roster in PostgreSQL. Nothing is written, so that looking changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
from django.conf import settings
from redis import Redis
from redis.exceptions import RedisError

from billing.models import GatewayRoster, JournalPosition
from controlplane.admitted import AdmissionUnread, client
from kernel.ids import ulid_time
from serving.admission.keys import admission_prefix

TIERS = {1: "premium", 2: "standard", 3: "free"}
_MOST_HOLDS = 10_000  # of one writer; what is beyond is counted, not summed


@dataclass(frozen=True, slots=True, kw_only=True)
class Epoch:
    """One life of one Redis. ``since`` in seconds since the epoch, by Redis' clock."""

    id: str
    since: float
    is_complete: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Writer:
    """A gateway process as money sees it. ``held_nano`` over its open holds, the oldest's age."""

    id: str
    node: str
    is_announced: bool
    is_in_roster: bool
    is_alive: bool  # said something to Redis within seconds
    holds: int
    held_nano: int
    oldest_seconds: float | None

    @property
    def is_missing(self) -> bool:
        """Whether prepaid calls wait for it: it may hold money that this epoch does not know."""
        return self.is_in_roster and not self.is_announced


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """The calls of one tier, and of each tenant in it, that wait for a slot."""

    tier: str
    calls: int
    oldest_seconds: float | None
    tenants: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolQueue:
    pool: str
    slots: int
    taken: int
    waiting_bytes: int
    tiers: tuple[Waiting, ...]

    @property
    def waiting(self) -> int:
        return sum(tier.calls for tier in self.tiers)


@dataclass(frozen=True, slots=True, kw_only=True)
class CellNow:
    cell: str
    at: float  # Redis' clock, seconds since the epoch
    epoch: Epoch | None
    writers: tuple[Writer, ...] = ()
    pools: tuple[PoolQueue, ...] = ()
    missing: tuple[str, ...] = field(default=())


def cell_now(cell: str | None = None) -> CellNow:
    """What admission of a cell holds. Needs the platform's scope. Raises ``AdmissionUnread``."""
    cell = cell or settings.TESSERA_CELL
    roster = roster_of(cell)
    try:
        return _look(client(), cell, roster)
    except RedisError as error:
        raise AdmissionUnread from error


def roster_of(cell: str) -> dict[str, str]:
    """Writers that are accounted for or waited for, with their nodes: those with open journals."""
    closed = JournalPosition.objects.exclude(closed_at=None).values("writer")
    rows = GatewayRoster.objects.filter(cell=cell).exclude(writer__in=closed)
    return dict(rows.order_by("writer").values_list("writer", "node"))


def _look(redis: Redis, cell: str, roster: Mapping[str, str]) -> CellNow:
    prefix = admission_prefix(cell)
    seconds, micros = redis.time()
    now = seconds * 1_000_000 + micros
    marker = redis.get(f"{prefix}epoch")
    writers: tuple[Writer, ...] = tuple(
        _writer(each, roster, announced=set(), alive=False, holds={}, now=now) for each in roster
    )
    epoch = None
    if marker is not None:
        name = text_of(marker)
        money = f"{prefix}money:{name}:"
        epoch = epoch_of(name, is_complete=bool(redis.exists(f"{money}complete")))
        writers = _writers(redis, prefix, money, roster, now)
    pools = sorted(text_of(each) for each in redis.smembers(f"{prefix}pools"))
    return CellNow(
        cell=cell,
        at=now / 1e6,
        epoch=epoch,
        writers=writers,
        pools=tuple(_pool(redis, prefix, pool, now) for pool in pools),
        missing=tuple(each.id for each in writers if each.is_missing),
    )


def epoch_of(name: str, *, is_complete: bool) -> Epoch:
    """``<number>-<run id>-<microseconds>``, taken apart."""
    started = name.rpartition("-")[2]
    since = int(started) / 1e6 if started.isdecimal() else 0.0
    return Epoch(id=name, since=since, is_complete=is_complete)


def _writers(
    redis: Redis, prefix: str, money: str, roster: Mapping[str, str], now: int
) -> tuple[Writer, ...]:
    announced = {text_of(each) for each in redis.smembers(f"{money}announced")}
    names = sorted(announced | set(roster))
    with redis.pipeline(transaction=False) as asked:
        for name in names:
            asked.exists(f"{prefix}alive:{name}")
            asked.hlen(f"{money}holds:{name}")
        found = asked.execute()
    return tuple(
        _writer(
            name,
            roster,
            announced=announced,
            alive=bool(found[2 * place]),
            holds=_holds(redis, f"{money}holds:{name}", found[2 * place + 1]),
            now=now,
        )
        for place, name in enumerate(names)
    )


def _holds(redis: Redis, key: str, count: int) -> dict[str, int]:
    """Nano-USD by grant."""
    if not count:
        return {}
    found = redis.hscan_iter(key, count=1_000)
    held: dict[str, int] = {}
    for grant, packed in found:
        held[grant.decode()] = held_nano(packed)
        if len(held) >= _MOST_HOLDS:
            break
    return held


def text_of(value: bytes | str) -> str:
    return value if isinstance(value, str) else value.decode()


def held_nano(packed: bytes) -> int:
    """A hold is a list: nano-USD, then the accounts it lies on."""
    return int(msgspec.msgpack.decode(packed)[0])


def _writer(  # noqa: PLR0913 - what a writer is made of
    name: str,
    roster: Mapping[str, str],
    *,
    announced: set[str],
    alive: bool,
    holds: Mapping[str, int],
    now: int,
) -> Writer:
    began = [at for grant in holds if (at := ulid_time(grant)) is not None]
    return Writer(
        id=name,
        node=roster.get(name, ""),
        is_announced=name in announced,
        is_in_roster=name in roster,
        is_alive=alive,
        holds=len(holds),
        held_nano=sum(holds.values()),
        oldest_seconds=max(0.0, now / 1e6 - min(began)) if began else None,
    )


def _pool(redis: Redis, prefix: str, pool: str, now: int) -> PoolQueue:
    queue = f"{prefix}queue:{pool}:"
    with redis.pipeline(transaction=False) as asked:
        asked.hmget(f"{queue}state", "slots", "bytes")
        asked.zcount(f"{prefix}slots:{pool}", now // 1000, "+inf")
        for tier in TIERS:
            asked.zcard(f"{queue}arrivals:{tier}")
            asked.zrange(f"{queue}arrivals:{tier}", 0, 0, withscores=True)
            asked.zrange(f"{queue}tenants:{tier}", 0, -1)
        (slots, waiting_bytes), taken, *tiers = asked.execute()
    return PoolQueue(
        pool=pool,
        slots=int(slots or 0),
        taken=int(taken),
        waiting_bytes=int(waiting_bytes or 0),
        tiers=tuple(_tiers(redis, queue, tiers, now)),
    )


def _tiers(redis: Redis, queue: str, found: list[Any], now: int) -> Iterable[Waiting]:
    for place, (tier, name) in enumerate(TIERS.items()):
        calls, first, tenants = found[3 * place : 3 * place + 3]
        with redis.pipeline(transaction=False) as asked:
            for tenant in tenants:
                asked.zcard(f"{queue}calls:{tier}:{tenant.decode()}")
            counts = asked.execute()
        yield Waiting(
            tier=name,
            calls=int(calls),
            oldest_seconds=max(0.0, (now - float(first[0][1])) / 1e6) if first else None,
            tenants={each.decode(): int(n) for each, n in zip(tenants, counts, strict=True)},
        )
