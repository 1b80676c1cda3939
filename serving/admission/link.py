"""One pipelined connection to Redis that comes back by itself.

Smaller than a general client on purpose: it sits on the path of every request. A call either
answers within its time or raises ``RedisDown`` at once; while Redis is away nobody waits for it.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import parse_qs, unquote, urlsplit

import hiredis

log = logging.getLogger(__name__)

_CONNECT_SECONDS = 1.0
_BACKOFF_SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0)  # after so many failures
_SECOND_LOOK_SECONDS = 0.005
_RUN_ID = re.compile(rb"run_id:(\w+)")


class RedisDown(Exception):
    """Redis is away, too slow, or unable: the caller's declared policy applies."""


class NotSent(RedisDown):
    """Redis was away before: it has not heard of the call."""


class RedisRefused(Exception):
    """Redis answered with an error; the text begins with its code."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where a ``redis://``, ``rediss://`` or ``unix://`` URL leads."""

    host: str
    port: int
    path: str
    is_tls: bool
    username: str
    password: str
    database: int


def address_from(url: str) -> Address:
    """Raises ``ValueError`` for a URL that is not Redis'."""
    parts = urlsplit(url)
    query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    if parts.scheme not in {"redis", "rediss", "unix", "redis+socket"}:
        raise ValueError(f"Not a Redis URL: scheme '{parts.scheme}'.")
    is_socket = parts.scheme in {"unix", "redis+socket"}
    database = query.get("db") or query.get("virtual_host")
    if database is None:
        database = "" if is_socket else parts.path.lstrip("/")
    return Address(
        host=parts.hostname or "127.0.0.1",
        port=parts.port or 6379,
        path=unquote(parts.path) if is_socket else "",
        is_tls=parts.scheme == "rediss",
        username=unquote(parts.username or query.get("username", "")),
        password=unquote(parts.password or query.get("password", "")),
        database=int(database or 0),
    )


class RedisLink:
    """Calls are answered in order, so a late answer means that all behind it are late.

    A server that has been silent for ``timeout_seconds`` while somebody waits is given up; one that
    answers, however slowly it works through what was sent, is not.

    All of the mutable state: the open connection, if there is one, which one it is, and which
    life of which server it leads to. ``run`` keeps it open. ``timeout_seconds`` of
    ``None`` is for a link that only makes blocking reads.
    """

    def __init__(self, url: str, *, timeout_seconds: float | None) -> None:
        self._address = address_from(url)
        self._timeout = timeout_seconds
        self._connection: _Connection | None = None
        self._up = asyncio.Event()
        self.generation = 0  # connections made and lost so far
        self.run_id = ""  # of the server at the other end; none where it may not be asked

    @property
    def is_up(self) -> bool:
        return self._connection is not None

    async def wait_up(self) -> None:
        await self._up.wait()

    def call(self, *arguments: str | bytes | int) -> asyncio.Future[Any]:
        """The answer's future; it raises ``RedisDown`` or ``RedisRefused``."""
        if self._connection is None:
            raise NotSent("not connected")
        return self._connection.send(_packed(*arguments))

    async def run(self, *, on_up: Callable[[], None] = lambda: None) -> None:
        """Connect, and again whenever the connection is lost, until cancelled."""
        failures = 0
        try:
            while True:
                connection = await self._connect()
                if connection is None:
                    failures += 1
                else:
                    failures = 0
                    await self._serve(connection, on_up)
                await asyncio.sleep(_BACKOFF_SECONDS[min(failures, len(_BACKOFF_SECONDS) - 1)])
        finally:
            self.close()

    def close(self) -> None:
        if self._connection is not None:
            self._connection.abort()
            self._connection = None
            self._up.clear()

    async def _serve(self, connection: _Connection, on_up: Callable[[], None]) -> None:
        self._connection = connection
        self.generation += 1
        self._up.set()
        on_up()
        try:
            await connection.lost.wait()
        finally:
            self._connection = None
            self.generation += 1
            self._up.clear()
            connection.abort()

    async def _connect(self) -> _Connection | None:
        connection = _Connection(self._timeout)
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                await self._open(connection)
                await self._introduce(connection)
        except (OSError, TimeoutError, RedisDown, RedisRefused) as error:
            connection.abort()
            log.debug("redis unreachable: %s", type(error).__name__)
            return None
        return connection

    async def _open(self, connection: _Connection) -> None:
        loop = asyncio.get_running_loop()
        address = self._address
        if address.path:
            await loop.create_unix_connection(lambda: connection, address.path)
        else:
            await loop.create_connection(
                lambda: connection, address.host, address.port, ssl=address.is_tls or None
            )

    async def _introduce(self, connection: _Connection) -> None:
        address = self._address
        if address.password:
            names = (address.username,) if address.username else ()
            await connection.send(_packed("AUTH", *names, address.password))
        if address.database:
            await connection.send(_packed("SELECT", address.database))
        await connection.send(_packed("PING"))
        self.run_id = await _run_id(connection)


async def _run_id(connection: _Connection) -> str:
    try:
        found = _RUN_ID.search(await connection.send(_packed("INFO", "server")))
    except RedisRefused:
        return ""
    return found[1].decode() if found else ""


def _packed(*arguments: str | bytes | int) -> bytes:
    command: bytes = hiredis.pack_command(arguments)  # type: ignore[arg-type]  # its text: any length
    return command


class _Connection(asyncio.Protocol):
    """Bytes to answers. ``_waiting`` holds, in order, who waits since when."""

    def __init__(self, timeout_seconds: float | None) -> None:
        self.lost = asyncio.Event()
        self._timeout = timeout_seconds
        self._loop = asyncio.get_running_loop()
        self._reader = hiredis.Reader()
        self._waiting: deque[tuple[asyncio.Future[Any], float]] = deque()
        self._transport: asyncio.Transport | None = None
        self._watch: asyncio.TimerHandle | None = None
        self._is_suspect = False
        self._heard = 0.0  # when the last answer came

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass

    def send(self, command: bytes) -> asyncio.Future[Any]:
        if self._transport is None or self.lost.is_set():
            raise NotSent("connection lost")
        future: asyncio.Future[Any] = self._loop.create_future()
        self._waiting.append((future, self._loop.time()))
        self._transport.write(command)
        if self._watch is None and self._timeout is not None:
            self._watch = self._loop.call_later(self._timeout, self._check_time)
        return future

    def data_received(self, data: bytes) -> None:
        self._heard = self._loop.time()
        try:
            self._reader.feed(data)
            while (answer := self._reader.gets()) is not False:
                self._deliver(answer)
        except (hiredis.ProtocolError, IndexError):
            self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()
        self._fail()

    def _deliver(self, answer: Any) -> None:
        future, _ = self._waiting.popleft()
        if future.done():  # its caller was cancelled
            return
        if isinstance(answer, hiredis.ReplyError):
            future.set_exception(RedisRefused(str(answer)))
        else:
            future.set_result(answer)

    def _check_time(self) -> None:
        self._watch = None
        if not self._waiting or self._timeout is None:
            self._is_suspect = False
            return
        late_at = max(self._waiting[0][1], self._heard) + self._timeout
        now = self._loop.time()
        if now >= late_at and self._is_suspect:
            self.abort()
        elif now >= late_at:
            # We may have been the ones who slept: its answer is read before it is judged.
            self._is_suspect = True
            self._watch = self._loop.call_later(_SECOND_LOOK_SECONDS, self._check_time)
        else:
            self._is_suspect = False
            self._watch = self._loop.call_at(late_at, self._check_time)

    def _fail(self) -> None:
        self.lost.set()
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        while self._waiting:
            future, _ = self._waiting.popleft()
            if not future.done():
                future.set_exception(RedisDown("connection lost"))
