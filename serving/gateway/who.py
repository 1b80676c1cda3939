"""Who calls: HMAC and memory; for a key not in memory the limit on failed ones of its address, its
checksum, then Redis, PostgreSQL. A key that is in use is never refused for what neighbours do.

A principal's age counts from its PostgreSQL read, through every layer. How old it may be depends on
what can be reached (``maximum_age``); it is read again in the background before that.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import msgspec

from kernel.clock import Clock, monotonic, wall
from kernel.keys import key_is_wellformed, key_mac
from serving.gateway.database import SourceDown
from serving.gateway.errors import Busy, Unauthorized
from serving.gateway.failed_keys import FailedKeys
from serving.gateway.principals import Copy, Principal

ALL_UP_SECONDS = 5.0
DATABASE_DOWN_SECONDS = 600.0
BOTH_DOWN_SECONDS = 60.0
REFRESH_SECONDS = 2.5
ABSENT_SECONDS = 2.0
ABSENT_LIMIT = 10_000
KNOWN_LIMIT = 100_000
FAILED_KEYS_PER_MINUTE = 60
_MAX_KEY_BYTES = 256
_BEARER = b"bearer "


class Source(Protocol):
    """Where principals are read; raises ``SourceDown`` when it cannot say."""

    async def read(self, mac: bytes) -> Copy | None: ...


class Cache(Source, Protocol):
    async def write(self, mac: bytes, copy: Copy) -> None: ...


@dataclass(slots=True)
class Known:
    """A principal in memory; ``read_at`` is monotonic, so that a clock that jumps ages nothing."""

    mac: bytes
    principal: Principal
    read_at: float


def maximum_age(*, database_up: bool, cache_up: bool) -> float:
    """The longest that a principal may be trusted after its PostgreSQL read, in seconds."""
    if database_up:
        return ALL_UP_SECONDS
    return DATABASE_DOWN_SECONDS if cache_up else BOTH_DOWN_SECONDS


class Who:
    """All of the mutable state: principals known and keys known absent, reads under way, keys
    revoked by push, and whether each source answered when last asked.
    """

    def __init__(  # noqa: PLR0913 - its sources, its clocks and whom it tells
        self,
        *,
        cache: Cache,
        database: Source,
        pepper: bytes,
        on_revoked: Callable[[str], None] = lambda _: None,
        failed_keys: FailedKeys | None = None,
        clock: Clock = monotonic,
        wall_clock: Clock = wall,
    ) -> None:
        self.database_up = True
        self.cache_up = True
        self.database_reads = 0
        self.failed_keys = failed_keys or FailedKeys(FAILED_KEYS_PER_MINUTE, clock=clock)
        self._cache = cache
        self._database = database
        self._pepper = pepper
        self._on_revoked = on_revoked
        self._clock = clock
        self._wall = wall_clock
        self._known: OrderedDict[bytes, Known] = OrderedDict()
        self._absent: OrderedDict[bytes, float] = OrderedDict()
        self._reading: dict[bytes, asyncio.Task[None]] = {}
        self._writing: set[asyncio.Task[None]] = set()
        self._revoked: OrderedDict[str, float] = OrderedDict()

    async def identify(self, authorization: bytes | None, address: str) -> Known:
        """Raises ``Unauthorized``, always the same, ``TooManyFailedKeys`` in its place when the
        address has failed too often, or ``Busy`` when nobody can say.
        """
        if authorization is None:
            raise Unauthorized
        key = _bearer(authorization)
        mac = key_mac(self._pepper, key)
        known = self._known.get(mac)
        if known is None or not self._is_valid(known.principal):
            return await self._stranger(key, mac, address)
        if self._clock() - known.read_at >= REFRESH_SECONDS:
            known = await self._current(mac)
            self._check(known)
        return known

    def refresh(self, known: Known) -> None:
        """For open streams: read again when due, so that a lost push still ends them."""
        if self._clock() - known.read_at >= REFRESH_SECONDS:
            self._begin_read(known.mac)

    def is_revoked(self, known: Known) -> bool:
        current = self._known.get(known.mac)
        if current is None:
            return known.mac in self._absent
        return not self._is_valid(current.principal)

    def revoke(self, key_id: str) -> None:
        """A push: nothing read before this instant is believed about the key."""
        self._revoked[key_id] = self._clock()
        _bound(self._revoked, ABSENT_LIMIT)
        for known in self._known.values():
            if known.principal.key_id == key_id:
                known.principal = msgspec.structs.replace(known.principal, active=False)
        self._on_revoked(key_id)

    async def settle_reads(self) -> None:
        """Wait for the reads and writes under way."""
        await asyncio.gather(*self._reading.values(), *self._writing, return_exceptions=True)

    async def _stranger(self, key: str, mac: bytes, address: str) -> Known:
        """Nobody known to be valid: a failure is charged to the address it comes from."""
        is_key = key_is_wellformed(key)  # else a typing error: not worth a lookup
        self.failed_keys.check(address, mac if is_key else None)
        try:
            return await self._looked_up(mac, is_key=is_key)
        except Unauthorized:
            self.failed_keys.failed(address, mac if is_key else None)
            raise

    async def _looked_up(self, mac: bytes, *, is_key: bool) -> Known:
        if not is_key:
            raise Unauthorized
        known = self._known.get(mac)
        if known is None or self._age(known) >= REFRESH_SECONDS:
            known = await self._current(mac)
        self._check(known)
        return known

    async def _current(self, mac: bytes) -> Known:
        known = self._known.get(mac)
        if known is None and self._absent.get(mac, 0.0) > self._clock():
            raise Unauthorized
        self._begin_read(mac)
        if known is None or self._age(known) >= self._limit():
            await asyncio.shield(self._reading[mac])
            known = self._known.get(mac)
        if known is None:
            if mac in self._absent:
                raise Unauthorized
            raise _unknowable()
        if self._age(known) >= self._limit():
            raise _unknowable()
        return known

    def _check(self, known: Known) -> None:
        if not self._is_valid(known.principal):
            raise Unauthorized

    def _is_valid(self, principal: Principal) -> bool:
        return principal.active and not self._is_expired(principal)

    def _is_expired(self, principal: Principal) -> bool:
        return principal.expires_at is not None and self._wall() >= principal.expires_at

    def _age(self, known: Known) -> float:
        return self._clock() - known.read_at

    def _limit(self) -> float:
        return maximum_age(database_up=self.database_up, cache_up=self.cache_up)

    def _begin_read(self, mac: bytes) -> None:
        """One read per key at a time, however many requests wait for it."""
        if mac not in self._reading:
            task = asyncio.get_running_loop().create_task(self._read(mac))
            self._reading[mac] = task
            task.add_done_callback(lambda _: self._reading.pop(mac, None))

    async def _read(self, mac: bytes) -> None:
        copy = await self._read_cache(mac)
        if copy is not None and self._wall() - copy.read_at < REFRESH_SECONDS:
            self._learn(mac, copy)
            return
        self.database_reads += 1
        try:
            fresh = await self._database.read(mac)
        except SourceDown:
            self.database_up = False
            if copy is not None:
                self._learn(mac, copy)
            return
        self.database_up = True
        if fresh is None:
            self._forget(mac)
        else:
            self._learn(mac, fresh)
            self._write_soon(mac, fresh)

    async def _read_cache(self, mac: bytes) -> Copy | None:
        try:
            copy = await self._cache.read(mac)
        except SourceDown:
            self.cache_up = False
            return None
        self.cache_up = True
        return copy if copy is None or self._is_believable(copy) else None

    def _is_believable(self, copy: Copy) -> bool:
        """Not from the future, and not older than a revocation we heard of."""
        age = self._wall() - copy.read_at
        revoked_at = self._revoked.get(copy.principal.key_id)
        return age > -1.0 and (revoked_at is None or self._clock() - age > revoked_at)

    def _learn(self, mac: bytes, copy: Copy) -> None:
        read_at = self._clock() - max(0.0, self._wall() - copy.read_at)
        known = self._known.get(mac)
        if known is None:
            self._known[mac] = Known(mac, copy.principal, read_at)
            _bound(self._known, KNOWN_LIMIT)
        elif _is_newer(copy.principal, read_at, known):
            self._known[mac] = replace(known, principal=copy.principal, read_at=read_at)
        self._absent.pop(mac, None)
        if not copy.principal.active:
            self._on_revoked(copy.principal.key_id)

    def _forget(self, mac: bytes) -> None:
        known = self._known.pop(mac, None)
        self._absent[mac] = self._clock() + ABSENT_SECONDS
        self._absent.move_to_end(mac)
        _bound(self._absent, ABSENT_LIMIT)
        if known is not None:
            self._on_revoked(known.principal.key_id)

    def _write_soon(self, mac: bytes, copy: Copy) -> None:
        task = asyncio.get_running_loop().create_task(self._cache.write(mac, copy))
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)


def _bearer(authorization: bytes) -> str:
    """What an ``Authorization`` header presents as a key; empty where that is nothing."""
    if len(authorization) > _MAX_KEY_BYTES or not authorization.isascii():
        return ""
    if authorization[:7].lower() != _BEARER:
        return ""
    return authorization[7:].strip().decode("ascii")


def _is_newer(principal: Principal, read_at: float, known: Known) -> bool:
    if principal.version != known.principal.version:
        return principal.version > known.principal.version
    return read_at > known.read_at


def _unknowable() -> Busy:
    return Busy(
        "Keys cannot be checked right now; try again shortly.",
        code="keys_unavailable",
        retry_after_seconds=2,
    )


def _bound(
    table: OrderedDict[bytes, Known] | OrderedDict[bytes, float] | OrderedDict[str, float],
    limit: int,
) -> None:
    while len(table) > limit:
        table.popitem(last=False)
