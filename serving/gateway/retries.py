"""How often a call may be tried elsewhere: a token bucket that requests fill and retries empty.

A pool that is sick gets a fifth more requests than were made, never three times as many.
"""

from __future__ import annotations

RATIO = 0.2  # retries per request
FLOOR_PER_SECOND = 1.0  # what a pool with little traffic may always do
CAPACITY = 50.0
START = 10.0


class RetryBudget:
    """Of one pool in one process. All of the mutable state: what is left, when it was filled."""

    __slots__ = ("_filled_at", "left")

    def __init__(self, now: float) -> None:
        self.left = START
        self._filled_at = now

    def earn(self) -> None:
        """A request came."""
        self.left = min(self.left + RATIO, CAPACITY)

    def spend(self, now: float) -> bool:
        """Whether one of them may be tried again elsewhere."""
        gained = (now - self._filled_at) * FLOOR_PER_SECOND
        self._filled_at = now
        self.left = min(self.left + gained, CAPACITY)
        if self.left < 1:
            return False
        self.left -= 1
        return True
