"""Money in words and numbers: integer nano-USD inside, dollars for people. Pure."""

from __future__ import annotations

from decimal import Decimal

from billing.models import MAX_NANO
from kernel.errors import Invalid

NANO = 1_000_000_000
TOKENS = 1_000_000
NANO_PER_TOKEN = NANO // TOKENS
"""Nano-USD per token that are one dollar per million tokens."""


def nano_of_usd(text: str, *, param: str = "amount") -> int:
    """``"12.50"`` as nano-USD. Refuses what is no exact number of them."""
    return _exact(text, NANO, param=param, unit="dollars with at most 9 decimals, such as 12.50")


def nano_per_token(text: str, *, param: str = "price") -> int:
    """Dollars per million tokens as nano-USD per token. Refuses what is no exact number of them."""
    unit = "dollars per million tokens with at most 3 decimals, such as 0.15"
    return _exact(text, NANO_PER_TOKEN, param=param, unit=unit)


def usd(nano: int, *, decimals: int = 2) -> str:
    """Nano-USD in dollars: exact, with at least ``decimals`` decimals, and no exponent."""
    sign, whole, rest = "-" * (nano < 0), abs(nano) // NANO, abs(nano) % NANO
    digits = f"{rest:09d}".rstrip("0").ljust(decimals, "0")
    return f"{sign}{whole}.{digits}" if digits else f"{sign}{whole}"


def usd_per_million(nano_per_token: int) -> str:
    """The price of a million tokens in dollars, as price lists have it."""
    return usd(nano_per_token * TOKENS)


def _exact(text: str, factor: int, *, param: str, unit: str) -> int:
    try:
        amount = Decimal(text) * factor
        nano = int(amount)
    except (ArithmeticError, ValueError):
        raise Invalid(f"{text[:40]!r} is not an amount in {unit}.", param=param) from None
    if nano != amount or abs(nano) > MAX_NANO:
        raise Invalid(f"{text[:40]!r} is not an amount in {unit}.", param=param, rule="amount")
    return nano
