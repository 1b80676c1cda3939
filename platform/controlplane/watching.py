"""The watcher's loop: one of possibly several holds the lease and publishes when rows change."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from threading import Event

from django.db import InterfaceError, OperationalError, connection
from redis.exceptions import RedisError

from controlplane.publishing import Publisher
from kernel.errors import DomainError
from serving.changes import CHANNEL

POLL_SECONDS = 2.0

log = logging.getLogger(__name__)


def watch(publisher: Publisher, *, cell: str, stop: Event) -> None:
    """Publish at once, within moments of every change, and at least every 2 s, until ``stop``.

    A database or Redis that is away is waited for; gateways serve on with what they have.
    """
    while not stop.is_set():
        try:
            for _ in _changes(cell, stop):
                _publish(publisher)
        except (OperationalError, InterfaceError) as error:
            log.warning("the database does not answer, trying again: %s", error)
            connection.close()
            stop.wait(POLL_SECONDS / 2)
    connection.close()


def _changes(cell: str, stop: Event) -> Iterator[None]:
    """Once at the start, then for every announced change and every poll, while this session holds
    the lease.
    """
    with connection.cursor() as cursor:
        cursor.execute(f"LISTEN {CHANNEL}")
        while not stop.is_set():
            cursor.execute(
                "SELECT pg_try_advisory_lock(hashtextextended(%s, 0))", [f"watch:{cell}"]
            )
            (leader,) = cursor.fetchone()
            if leader:
                break
            stop.wait(POLL_SECONDS)
        while not stop.is_set():
            yield
            _wait_for_change()


def _wait_for_change() -> None:
    assert connection.connection is not None
    with connection.wrap_database_errors:
        for _ in connection.connection.notifies(timeout=POLL_SECONDS, stop_after=1):
            return


def _publish(publisher: Publisher) -> None:
    try:
        publisher.publish()
    except RedisError as error:
        log.warning("Redis does not answer, trying again: %s", error)
    except DomainError as error:
        log.warning("could not publish: %s", error.message)
