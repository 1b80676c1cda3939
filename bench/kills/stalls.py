"""How long this machine keeps those waiting who are due: figures in seconds must allow for it."""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from typing import Self

STEP_SECONDS = 0.02
WINDOW_SECONDS = 3.0


class Stalls:
    """A thread that wants to run every 20 ms and notes when it did not. Times are the wall's."""

    def __init__(self) -> None:
        self._times: list[float] = []
        self._late: list[float] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def before(self, instant: float) -> float:
        """The longest delay within three seconds before, and one step after."""
        first = bisect_left(self._times, instant - WINDOW_SECONDS)
        last = bisect_left(self._times, instant + 2 * STEP_SECONDS)
        return max(self._late[first:last], default=0.0)

    @property
    def longest(self) -> float:
        return max(self._late, default=0.0)

    def _watch(self) -> None:
        while not self._stop.is_set():
            due = time.monotonic() + STEP_SECONDS
            time.sleep(STEP_SECONDS)
            self._late.append(time.monotonic() - due)
            self._times.append(time.time())
