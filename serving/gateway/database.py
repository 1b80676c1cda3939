"""PostgreSQL as a gateway meets it: functions it may call, each in one short statement."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any, LiteralString

import psycopg

from kernel.clock import monotonic

log = logging.getLogger(__name__)

_QUERY_SECONDS = 1.0
_CONNECT_SECONDS = 2
_REST_SECONDS = 1.0
_QUEUE_LIMIT = 1_000
# What we no longer wait for, the server gives up as well, also where nobody could tell it.
_OPTIONS = "-c statement_timeout=2000 -c lock_timeout=1000"

Row = tuple[Any, ...]


class SourceDown(Exception):
    """The source could not say; that is not the same as "no such thing"."""


class Database:
    """One connection that is opened when needed and again when it broke.

    After a failure it rests for a second, so that an outage costs requests nothing but the first.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: psycopg.AsyncConnection[Any] | None = None
        self._lock = asyncio.Lock()
        self._rests_until = 0.0
        self._queued = 0
        self._ending: set[asyncio.Task[None]] = set()

    async def fetch(self, query: LiteralString, parameters: Sequence[object]) -> Row | None:
        """The first row, if there is one.

        Raises ``SourceDown``, and ``UndefinedFunction`` where the database is a release behind.
        """
        if self._queued >= _QUEUE_LIMIT:
            raise SourceDown("too many lookups wait for PostgreSQL")
        self._queued += 1
        try:
            async with self._lock:
                return await self._fetch(query, parameters)
        finally:
            self._queued -= 1

    async def close(self) -> None:
        for ending in self._ending:
            ending.cancel()
        await self._drop()

    async def _fetch(self, query: LiteralString, parameters: Sequence[object]) -> Row | None:
        if monotonic() < self._rests_until:
            raise SourceDown("postgresql rests after a failure")
        try:
            return await self._ask(query, parameters)
        except psycopg.errors.UndefinedFunction:
            raise
        except (psycopg.Error, OSError, TimeoutError) as error:
            await self._drop()
            self._rests_until = monotonic() + _REST_SECONDS
            log.warning("postgresql unreachable: %s", type(error).__name__)
            raise SourceDown("postgresql") from error

    async def _ask(self, query: LiteralString, parameters: Sequence[object]) -> Row | None:
        if self._connection is None:
            async with asyncio.timeout(_CONNECT_SECONDS):
                self._connection = await psycopg.AsyncConnection.connect(
                    self._url,
                    autocommit=True,
                    connect_timeout=_CONNECT_SECONDS,
                    options=_OPTIONS,
                )
        work = asyncio.create_task(_first_row(self._connection, query, parameters))
        done, _ = await asyncio.wait({work}, timeout=_QUERY_SECONDS)
        if not done:
            self._abandon(work)
            raise TimeoutError
        return work.result()

    def _abandon(self, work: asyncio.Task[Any]) -> None:
        """Cancelling a query asks the server first, which may be what hangs: not on our time."""
        connection, self._connection = self._connection, None
        assert connection is not None
        work.cancel()
        ending = asyncio.create_task(_end(work, connection))
        self._ending.add(ending)
        ending.add_done_callback(self._ending.discard)

    async def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()


async def _first_row(
    connection: psycopg.AsyncConnection[Any], query: LiteralString, parameters: Sequence[object]
) -> Row | None:
    cursor = await connection.execute(query, parameters, prepare=True)
    return await cursor.fetchone()


async def _end(work: asyncio.Task[Any], connection: psycopg.AsyncConnection[Any]) -> None:
    await asyncio.wait({work})
    await connection.close()
