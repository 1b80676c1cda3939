"""Work on a whole crowd without keeping anybody waiting: a little at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator

from kernel.clock import Clock, monotonic

PIECE_SECONDS = 0.001
REST_SECONDS = 0.004

Rest = Callable[[float], Awaitable[None]]
Steps = Iterator[None]
"""A piece of work that may be left for a moment after each of its steps."""


async def in_pieces(steps: Steps, *, clock: Clock = monotonic, rest: Rest = asyncio.sleep) -> None:
    """All steps, with a rest whenever ``PIECE_SECONDS`` are used up.

    With 5,000 streams a sweep takes some 60 ms; done at once, every chunk that comes meanwhile
    would be as late.
    """
    until = clock() + PIECE_SECONDS
    for _ in steps:
        if clock() >= until:
            await rest(REST_SECONDS)
            until = clock() + PIECE_SECONDS


def all_of(steps: Steps) -> None:
    """All steps at once."""
    for _ in steps:
        pass
