"""API keys: how they look, how a typing error is told apart, and what is stored in their place.

A key is ``tsr_<live|test>_<27 base62>_<6 base62>``: 160 random bits, then the CRC-32 of everything
before the last underscore. The checksum keeps nonsense away from the database; it proves nothing.
Stored is only the MAC.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import zlib
from functools import lru_cache
from typing import Literal

Environment = Literal["live", "test"]

_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_SHAPE = re.compile(r"tsr_(?:live|test)_[0-9A-Za-z]{27}_[0-9A-Za-z]{6}", re.ASCII)
_RANDOM_BITS = 160
_RANDOM_LENGTH = 27
_CHECKSUM_LENGTH = 6


def key_new(environment: Environment) -> str:
    """A new key. Whoever calls this shows it once and keeps only its MAC."""
    secret = _base62(secrets.randbits(_RANDOM_BITS), _RANDOM_LENGTH)
    body = f"tsr_{environment}_{secret}"
    return f"{body}_{_checksum(body)}"


def key_is_wellformed(text: str) -> bool:
    """Whether ``text`` has the shape of a key and its checksum is right: no lookup is worth it
    otherwise.
    """
    if _SHAPE.fullmatch(text) is None:
        return False
    body, _, checksum = text.rpartition("_")
    return checksum == _checksum(body)


def key_mac(pepper: bytes, text: str) -> bytes:
    """What is stored and looked up: HMAC-SHA256 of the whole key under a secret pepper."""
    mac = _keyed(pepper).copy()
    mac.update(text.encode("ascii"))
    return mac.digest()


@lru_cache(maxsize=4)
def _keyed(pepper: bytes) -> hmac.HMAC:
    """Half of the work is the pepper's and the same for every key."""
    return hmac.new(pepper, digestmod=hashlib.sha256)


def _checksum(body: str) -> str:
    return _base62(zlib.crc32(body.encode("ascii")), _CHECKSUM_LENGTH)


def _base62(value: int, length: int) -> str:
    digits = []
    for _ in range(length):
        value, digit = divmod(value, 62)
        digits.append(_ALPHABET[digit])
    return "".join(reversed(digits))
