"""Streamed requests that wait: after a while they get 200 and comments, so that nobody in between
takes a connection that waits for one that is dead.

A comment is no part of an answer: an engine may still fail and another be asked, and what goes
wrong for good is an error event from then on.
"""

from __future__ import annotations

from kernel.clock import Clock, monotonic
from serving.gateway.reply import Reply

FIRST_SECONDS = 10.0
NEXT_SECONDS = 5.0


class Patience:
    """All of the mutable state: who waits, and when each hears from us next.

    ``sweep`` speaks; its owner calls it about once a second.
    """

    def __init__(self, *, clock: Clock = monotonic) -> None:
        self._clock = clock
        self._due: dict[Reply, float] = {}

    def begin(self, reply: Reply) -> None:
        self._due[reply] = self._clock() + FIRST_SECONDS

    def end(self, reply: Reply) -> None:
        """It waits no more, whether it was answered, refused or left."""
        self._due.pop(reply, None)

    def sweep(self) -> None:
        now = self._clock()
        for reply, due in tuple(self._due.items()):
            if reply.has_started:
                self.end(reply)
            elif now >= due:
                reply.comfort()
                self._due[reply] = now + NEXT_SECONDS

    def __len__(self) -> int:
        return len(self._due)
