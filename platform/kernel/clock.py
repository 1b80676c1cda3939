"""Time as an argument: decisions take instants, doors take a ``Clock``."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime

Clock = Callable[[], float]
"""Returns seconds since the epoch (wall clock) or since an arbitrary start (monotonic)."""

wall: Clock = time.time
monotonic: Clock = time.monotonic


def micros(seconds: float) -> int:
    """Seconds since the epoch as whole microseconds, the unit of ``occurred_at``."""
    return round(seconds * 1_000_000)


def from_micros(value: int) -> datetime:
    """Microseconds since the epoch as an aware UTC datetime, exact to the microsecond."""
    seconds, rest = divmod(value, 1_000_000)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest)
