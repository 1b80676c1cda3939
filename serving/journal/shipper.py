"""The shipper's process: one per node, told where by the environment.

python -m serving.journal.shipper
"""

from __future__ import annotations

import logging
import os
import random
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from kernel.clock import Clock, monotonic
from serving.journal.segment import lock_acquire, shipper_lock
from serving.journal.shipping import Shipper
from serving.journal.store import PostgresStore, StoreUnavailable

log = logging.getLogger(__name__)

_POLL_SECONDS = 0.2
_HEARTBEAT_SECONDS = 1.0
_EXPIRE_SECONDS = 60.0
_LONGEST_PAUSE_SECONDS = 15.0


def run(shipper: Shipper, stop: threading.Event, *, steady: Clock = monotonic) -> None:
    """Ship until told to stop, then once more. Trouble is waited out, never given up."""
    failures = 0
    ship_at = beat_at = expire_at = steady()
    while not stop.is_set():
        now = steady()
        if now >= ship_at:
            failures = 0 if _succeeds(shipper.ship) else failures + 1
            ship_at = steady() + pause_seconds(failures, jitter=random.random())  # noqa: S311
        if now >= beat_at:
            beat_at = now + _HEARTBEAT_SECONDS
            _succeeds(shipper.heartbeat)
        if now >= expire_at:
            expire_at = now + _EXPIRE_SECONDS
            _succeeds(shipper.expire)
        stop.wait(_POLL_SECONDS)
    _succeeds(shipper.ship)


def pause_seconds(failures: int, *, jitter: float) -> float:
    """How long to leave the database alone; ``jitter`` (0 to 1) spreads the nodes' shippers."""
    if failures == 0:
        return 0.0
    longest = min(_LONGEST_PAUSE_SECONDS, _POLL_SECONDS * 2.0 ** min(failures, 10))
    return longest * (0.5 + jitter / 2)


def wait_for_lock(journal: Path, stop: threading.Event) -> int | None:
    """The descriptor that makes us the node's shipper; nothing when told to stop before."""
    journal.mkdir(mode=0o700, parents=True, exist_ok=True)
    said = False
    while not stop.is_set():
        lock = lock_acquire(shipper_lock(journal))
        if lock is not None:
            return lock
        if not said:
            log.warning("another shipper serves %s; waiting until it ends", journal)
            said = True
        stop.wait(_POLL_SECONDS)
    return None


def main() -> int:
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    dsn = os.environ.get("TESSERA_DATABASE_SHIPPER_URL", "")
    if not dsn:
        print("TESSERA_DATABASE_SHIPPER_URL is not set: where should usage go?", file=sys.stderr)  # noqa: T201
        return 2
    journal = Path(os.environ.get("TESSERA_HOME", ".tessera")) / "journal"
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    if wait_for_lock(journal, stop) is None:
        return 0
    store = PostgresStore(dsn)
    try:
        run(Shipper(journal, store), stop)
    finally:
        store.close()
    return 0


def _succeeds(step: Callable[[], None]) -> bool:
    try:
        step()
    except StoreUnavailable as error:
        log.warning("database not available, nothing is lost: %s", error)
        return False
    except OSError:
        log.exception("journal not readable or disk in trouble, trying again")
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
