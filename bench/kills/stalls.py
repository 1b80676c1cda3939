"""How long this machine keeps gateways waiting that are ready to run: what a promise in seconds
must allow for.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Self

STEP_SECONDS = 0.1
WINDOW_SECONDS = 2.0


class Stalls:
    """A thread that notes, every 100 ms, how long the kernel has made each process wait for a core.

    Times are the wall's, as in the engines' journals.
    """

    def __init__(self, pids: Callable[[], Iterable[int]]) -> None:
        self._pids = pids
        self._waits: dict[int, list[tuple[float, float]]] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def before(self, instant: float) -> float:
        """The most that one of the processes waited within two seconds before."""
        return max((_waited(samples, instant) for samples in self._waits.values()), default=0.0)

    def _watch(self) -> None:
        while not self._stop.wait(STEP_SECONDS):
            now = time.time()
            for pid in tuple(self._pids()):
                with suppress(OSError):  # killed
                    text = Path(f"/proc/{pid}/schedstat").read_text()
                    self._waits.setdefault(pid, []).append((now, int(text.split()[1]) / 1e9))


def _waited(samples: list[tuple[float, float]], instant: float) -> float:
    first, last = instant - WINDOW_SECONDS - STEP_SECONDS, instant + 2 * STEP_SECONDS
    near = [waited for at, waited in samples if first <= at <= last]
    return near[-1] - near[0] if near else 0.0
