"""Identifiers: UUIDv7 for rows, ULID for requests, events and processes, base32 for names."""

from __future__ import annotations

import os
import time
import uuid
from base64 import b32encode

_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
# Ten bits are two digits, and a random byte is one random digit: a request pays for its id, too.
_PAIRS = [high + low for high in _CROCKFORD for low in _CROCKFORD]
_ULID_LENGTH = 26
_DIGIT_OF_BYTE = (_CROCKFORD * 8).encode()


def uuid7() -> uuid.UUID:
    """A UUID that sorts by time of creation (RFC 9562 section 5.7)."""
    value = (time.time_ns() // 1_000_000) << 80 | int.from_bytes(os.urandom(10), "big")
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return uuid.UUID(int=value)


def ulid() -> str:
    """26 characters of Crockford base32: 48 bits of milliseconds, 80 bits of randomness."""
    at = time.time_ns() // 1_000_000
    high = _PAIRS[at >> 40] + _PAIRS[at >> 30 & 1023] + _PAIRS[at >> 20 & 1023]
    low = _PAIRS[at >> 10 & 1023] + _PAIRS[at & 1023]
    return high + low + os.urandom(16).translate(_DIGIT_OF_BYTE).decode("ascii")


def ulid_time(text: str) -> float | None:
    """When a ULID was made, in seconds since the epoch; None for what is none."""
    try:
        digits = [_CROCKFORD.index(digit) for digit in text[:10]]
    except ValueError:
        return None
    if len(text) != _ULID_LENGTH:
        return None
    at = 0
    for digit in digits:
        at = at << 5 | digit
    return at / 1000


def request_id() -> str:
    """The id of one request, returned to the client as ``x-request-id``."""
    return "req_" + ulid()


def short_name(identifier: uuid.UUID) -> str:
    """26 lower-case base32 characters: a name for namespaces and adapters that never collides."""
    return b32encode(identifier.bytes).decode("ascii").rstrip("=").lower()


def adapter_name(organization: uuid.UUID, deployment: uuid.UUID, digest: str) -> str:
    """What an adapter is called on an engine: ``<org>--<deployment>--<digest12>``.

    Immutable by construction: other bytes have another digest, hence another name.
    """
    return f"{short_name(organization)}--{short_name(deployment)}--{digest[:12]}"
