"""Where a key's principal is read: Redis (signed copies shared by all gateways) and PostgreSQL.

Redis alone cannot grant anything: a copy is signed, carries the instant of its PostgreSQL read,
and only replaces a copy of a lower version, or of the same version read earlier.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
from typing import Any, Literal, Protocol

import msgspec
import psycopg

from kernel.clock import Clock, wall
from serving.admission.link import RedisDown, RedisRefused
from serving.gateway.database import Database, SourceDown

log = logging.getLogger(__name__)

COPY_SECONDS = 660
_COLUMNS_BEFORE = 9
# The second is the release before's, for a database that was not migrated yet: no limits are known
# there, as there were none then.
_QUERY = (
    "SELECT key_id, organization, project, scopes, models, environment, version, active,"
    " expires_at, tier, weight, billing, limits FROM tessera_principal_2(%s)"
)
_QUERY_BEFORE = "SELECT * FROM tessera_principal(%s)"
_SET_IF_NEWER = b"""
local had = redis.call('HMGET', KEYS[1], 'version', 'read_at')
local version, read_at = tonumber(ARGV[1]), tonumber(ARGV[2])
if had[1] then
  local had_version, had_read_at = tonumber(had[1]), tonumber(had[2])
  if version < had_version or (version == had_version and read_at <= had_read_at) then
    return 0
  end
end
redis.call('HSET', KEYS[1], 'version', ARGV[1], 'read_at', ARGV[2], 'copy', ARGV[3])
redis.call('EXPIRE', KEYS[1], ARGV[4])
return 1
"""


Tier = Literal["premium", "standard", "free"]
Billing = Literal["prepaid", "postpaid"]
LimitScope = Literal["organization", "project", "key"]


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What one organization, project or key may use. None: not limited here.

    ``budget_nano`` is nano-USD in a calendar month (UTC): hard for a project and a key; for an
    organization that pays afterwards soft, that is, a call may still start while any of it is left.
    """

    scope: LimitScope
    id: str
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrency: int | None = None
    budget_nano: int | None = None

    @property
    def is_limiting(self) -> bool:
        bounds = (self.requests_per_minute, self.tokens_per_minute, self.concurrency)
        return self.budget_nano is not None or any(bound is not None for bound in bounds)


class Principal(msgspec.Struct, frozen=True, kw_only=True):
    """Who a key speaks for and what it may do, as PostgreSQL had it at one instant."""

    key_id: str
    organization: str
    project: str
    scopes: tuple[str, ...]
    models: tuple[str, ...]  # empty: all of the project's
    environment: str
    version: int
    active: bool
    expires_at: float | None
    tier: Tier = "standard"
    weight: int = 1  # the share within its tier, beside the weights of others
    billing: Billing = "postpaid"
    limits: tuple[Limits, ...] = ()


class Copy(msgspec.Struct, frozen=True, kw_only=True):
    """A principal with the instant of its PostgreSQL read (seconds since the epoch)."""

    principal: Principal
    read_at: float


class Redis(Protocol):
    def call(self, *arguments: str | bytes | int) -> asyncio.Future[Any]: ...


class PrincipalCache:
    """Signed copies in Redis."""

    def __init__(self, redis: Redis, *, key: bytes) -> None:
        self._redis = redis
        self._key = key

    async def read(self, mac: bytes) -> Copy | None:
        """Nothing for a copy that is absent or not signed by us. Raises ``SourceDown``."""
        try:
            raw = await self._redis.call("HGET", _name(mac), "copy")
        except (RedisDown, RedisRefused) as error:
            raise SourceDown("redis") from error
        if raw is None:
            return None
        signature, _, body = raw.partition(b".")
        if not hmac.compare_digest(signature, self._sign(mac, body)):
            log.warning("principal copy with a wrong signature ignored")
            return None
        try:
            return msgspec.json.decode(body, type=Copy)
        except msgspec.DecodeError:  # written by another release
            return None

    async def write(self, mac: bytes, copy: Copy) -> None:
        """Best effort: a copy that cannot be written is read from PostgreSQL again."""
        body = msgspec.json.encode(copy)
        signed = self._sign(mac, body) + b"." + body
        version, read_at = copy.principal.version, repr(copy.read_at)
        try:
            await self._redis.call(
                "EVAL", _SET_IF_NEWER, 1, _name(mac), version, read_at, signed, COPY_SECONDS
            )
        except (RedisDown, RedisRefused):
            log.debug("principal copy not written: redis is away")

    def _sign(self, mac: bytes, body: bytes) -> bytes:
        text = b"principal:" + mac + body
        return hmac.new(self._key, text, hashlib.sha256).hexdigest().encode()


class PrincipalDatabase:
    """PostgreSQL's answer."""

    def __init__(self, url: str, *, clock: Clock = wall) -> None:
        self._database = Database(url)
        self._clock = clock

    async def read(self, mac: bytes) -> Copy | None:
        """Nothing for a key that is not there. Raises ``SourceDown``."""
        read_at = self._clock()
        try:
            row = await self._database.fetch(_QUERY, (mac,))
        except psycopg.errors.UndefinedFunction:
            log.warning("the database is a release behind: limits of keys are not known yet")
            row = await self._database.fetch(_QUERY_BEFORE, (mac,))
        return None if row is None else Copy(principal=_principal(row), read_at=read_at)

    async def close(self) -> None:
        await self._database.close()


def _principal(row: tuple[Any, ...]) -> Principal:
    key_id, organization, project, scopes, models, environment, version, active, expires_at = row[
        :_COLUMNS_BEFORE
    ]
    principal = Principal(
        key_id=str(key_id),
        organization=str(organization),
        project=str(project),
        scopes=tuple(scopes),
        models=tuple(models),
        environment=environment,
        version=version,
        active=active,
        expires_at=expires_at,
    )
    if len(row) == _COLUMNS_BEFORE:
        return principal
    tier, weight, billing, limits = row[_COLUMNS_BEFORE:]
    return msgspec.structs.replace(
        principal, tier=tier, weight=weight, billing=billing, limits=_limits(limits)
    )


def _limits(documents: list[dict[str, Any]]) -> tuple[Limits, ...]:
    """Of every bearer that has one; who is not limited costs admission nothing."""
    found = msgspec.convert(documents, tuple[Limits, ...])
    return tuple(each for each in found if each.is_limiting)


def _name(mac: bytes) -> str:
    """With the number of the function it was read with: a gateway of the release before leaves
    limits out of what it writes, and must not take them from us while both run.
    """
    return f"tessera:principal:2:{mac.hex()}"
