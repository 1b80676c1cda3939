"""Where answers to repeatable requests are kept for a day: Redis, sealed.

Redis may lose any of it at any time: who may run at all is decided in PostgreSQL. A record that
Redis made up is not believed: what it would repeat is sealed under a key that Redis does not have.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from serving.admission.link import RedisDown, RedisRefused

KEEP_SECONDS = 24 * 3600
LEASE_SECONDS = 30
MAX_ANSWER_BYTES = 1024 * 1024
ORGANIZATION_BYTES = 256 * 1024 * 1024  # kept of one organization's within a day
_NONCE_BYTES = 12
_DROP = b"if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end"


class State(StrEnum):
    """What is known of a request that came with a key."""

    RUNNING = "running"
    WHOLE = "whole"  # answered, and the answer is here
    TOO_LARGE = "too_large"  # answered, and the answer is larger than what is kept
    CUT = "cut"  # booked, and nobody has the whole answer


class Record(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """``body_hash`` and ``event_id`` are the first request's; the rest belongs to a whole one."""

    state: State
    body_hash: bytes
    event_id: str
    content_type: bytes = b""
    sealed: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """One request that came with a key. Hashes are keyed: neither tells the key or the body."""

    key_hash: bytes
    body_hash: bytes
    event_id: str
    organization: str
    project: str

    @property
    def running(self) -> Record:
        return Record(state=State.RUNNING, body_hash=self.body_hash, event_id=self.event_id)


class BookDown(Exception):
    """Redis could not say; that is not the same as "nothing is kept"."""


class Redis(Protocol):
    def call(self, *arguments: str | bytes | int) -> Any: ...


class AnswerBook:
    """Records by the hash of their key. ``secret`` is the platform's; each organization's key is
    derived from it.
    """

    def __init__(self, redis: Redis, *, secret: bytes) -> None:
        self._redis = redis
        self._hash_key = _derived(secret, b"tessera idempotency hashes")
        self._seal_key = _derived(secret, b"tessera idempotency answers")

    def key_hash(self, project: str, key: bytes) -> bytes:
        return self._hash(b"key", project.encode(), key)

    def body_hash(self, path: bytes, body: bytes) -> bytes:
        return self._hash(b"body", path, body)

    async def claim(self, claim: Claim) -> Record | None:
        """What is there; nothing when the key is ours now, for a lease. Raises ``BookDown``."""
        lease = LEASE_SECONDS * 1000
        running = _encode(claim.running)
        found = await self._call("SET", _name(claim), running, "NX", "GET", "PX", lease)
        try:
            return None if found is None else _decode(found)
        except msgspec.DecodeError as error:  # of another release
            raise BookDown("unreadable") from error

    async def renew(self, claim: Claim) -> None:
        """It still runs. Written whole: Redis may have lost it."""
        await self._call("SET", _name(claim), _encode(claim.running), "PX", LEASE_SECONDS * 1000)

    async def drop(self, claim: Claim) -> None:
        """It does not run, and nobody owes anything for it."""
        await self._call("EVAL", _DROP, 1, _name(claim), _encode(claim.running))

    async def end(self, claim: Claim, state: State) -> None:
        """It was answered, and there is nothing to repeat."""
        record = Record(state=state, body_hash=claim.body_hash, event_id=claim.event_id)
        await self._write(claim, record)

    async def keep(self, claim: Claim, content_type: bytes, answer: bytes) -> None:
        """It was answered with 200 and this."""
        if not await self._has_room(claim.organization, len(answer)):
            await self.end(claim, State.TOO_LARGE)
            return
        nonce = os.urandom(_NONCE_BYTES)
        seal = self._cipher(claim.organization).encrypt(
            nonce, answer, _bound(claim.key_hash, claim.body_hash, claim.event_id, content_type)
        )
        record = Record(
            state=State.WHOLE,
            body_hash=claim.body_hash,
            event_id=claim.event_id,
            content_type=content_type,
            sealed=nonce + seal,
        )
        await self._write(claim, record)

    def opened(self, claim: Claim, record: Record) -> bytes:
        """The answer. Raises ``BookDown`` for one that was not sealed for this very request."""
        nonce, seal = record.sealed[:_NONCE_BYTES], record.sealed[_NONCE_BYTES:]
        bound = _bound(claim.key_hash, record.body_hash, record.event_id, record.content_type)
        try:
            return self._cipher(claim.organization).decrypt(nonce, seal, bound)
        except (InvalidTag, ValueError) as error:
            raise BookDown("not sealed by us") from error

    async def _write(self, claim: Claim, record: Record) -> None:
        await self._call("SET", _name(claim), _encode(record), "EX", KEEP_SECONDS)

    async def _has_room(self, organization: str, size: int) -> bool:
        """A customer's answers must not fill a Redis that others need."""
        if size > MAX_ANSWER_BYTES:
            return False
        name = f"tessera:answers:{organization}"
        total: int = await self._call("INCRBY", name, size)
        if total == size:
            await self._call("EXPIRE", name, KEEP_SECONDS)
        return total <= ORGANIZATION_BYTES

    async def _call(self, *arguments: str | bytes | int) -> Any:
        try:
            return await self._redis.call(*arguments)
        except (RedisDown, RedisRefused) as error:
            raise BookDown(str(error)) from error

    def _cipher(self, organization: str) -> AESGCM:
        return AESGCM(_derived(self._seal_key, organization.encode()))

    def _hash(self, *parts: bytes) -> bytes:
        return hmac.digest(self._hash_key, _joined(*parts), hashlib.sha256)


def _derived(secret: bytes, purpose: bytes) -> bytes:
    """HKDF's expansion to one block; the secret is random and long already."""
    return hmac.digest(secret, purpose + b"\x01", hashlib.sha256)


def _bound(key_hash: bytes, body_hash: bytes, event_id: str, content_type: bytes) -> bytes:
    """What a seal holds for: the key hash has the project in it."""
    return _joined(key_hash, body_hash, event_id.encode(), content_type)


def _joined(*parts: bytes) -> bytes:
    return b"".join(b"%d:%b" % (len(part), part) for part in parts)


def _name(claim: Claim) -> str:
    return f"tessera:answer:{claim.key_hash.hex()}"


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Record).decode
