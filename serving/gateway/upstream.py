"""HTTP/1.1 as a client of engines: pooled connections, every one of them bounded and distrusted.

Only ``PATHS`` are ever asked. A connection carries one exchange at a time and is used again only
when the answer before was read to its end.
"""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass

from serving.contracts import Endpoint, engine_api_key
from serving.gateway.connection import EngineConnection, NotReached, Pulse
from serving.gateway.rhythm import Steps
from serving.gateway.watchdog import Signs

PATHS = frozenset({"/v1/chat/completions", "/v1/completions"})
IDLE_KEEP_SECONDS = 3.0  # engines close idle connections after 5
DEAD_PEER_SECONDS = 16  # a machine that vanished is noticed in this and a quarter of it
_CONNECT_SECONDS = 2.0
_MAX_IDLE_PER_REPLICA = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """In seconds: until an answer's first piece, streamed or whole, and between two pieces of it.

    An answer's head is no piece of it: engines send that before they have computed anything.
    """

    first_token: float
    answer: float
    idle: float


class Upstream:
    """All of the mutable state: idle connections per incarnation, and every open one."""

    def __init__(self, *, engine_key: bytes, dead_peer_seconds: int = DEAD_PEER_SECONDS) -> None:
        self.opened = 0
        self._dead_peer_seconds = dead_peer_seconds
        self._engine_key = engine_key
        self._idle: dict[str, list[EngineConnection]] = {}
        self._open: set[EngineConnection] = set()
        self._pulses: dict[str, Pulse] = {}
        # Since when the most patient stream of each waits: for its first piece, for its next one.
        self._owed: tuple[dict[str, float], dict[str, float]] = ({}, {})
        self._heads: dict[tuple[str, str], bytes] = {}
        self._loop = asyncio.get_running_loop()

    async def connection(self, endpoint: Endpoint) -> EngineConnection:
        """An idle connection if one is left, else a new one. Raises ``NotReached``."""
        idle = self._idle.get(endpoint.incarnation)
        while idle:
            connection = idle.pop()
            if connection.is_usable:
                return connection
        return await self.connect(endpoint)

    def request(self, endpoint: Endpoint, path: str, body: bytes, *, request_id: str) -> bytes:
        """The bytes of a request to one of ``PATHS``, with the replica's own key."""
        head = self._heads.get((endpoint.replica, path))
        if head is None:
            head = self._head(endpoint.replica, path)
            self._heads[endpoint.replica, path] = head
        length = b"%b\r\ncontent-length: %d\r\n\r\n" % (request_id.encode(), len(body))
        return b"".join((head, length, body))

    def release(self, connection: EngineConnection) -> None:
        """Give a connection back, exactly once: kept when its answer was read whole, else cut."""
        if not connection.is_usable:
            connection.abort()
            return
        idle = self._idle.setdefault(connection.incarnation, [])
        if len(idle) >= _MAX_IDLE_PER_REPLICA:
            connection.abort()
            return
        connection.idle_since = self._loop.time()
        idle.append(connection)

    def forget(self, incarnation: str) -> None:
        """The incarnation is gone: what is idle is closed, what is under way ends by itself."""
        for connection in self._idle.pop(incarnation, ()):
            connection.abort()
        self._pulses.pop(incarnation, None)

    def give_up(self, incarnation: str, *, also_whole: bool) -> None:
        """End what waits there for the first piece of its answer; whole answers only if asked to.

        They are given up as silent, and may be tried elsewhere.
        """
        for connection in tuple(self._open):
            if connection.incarnation == incarnation:
                connection.give_up(also_whole=also_whole)

    def signs(self) -> dict[str, Signs]:
        """What shows whether replicas get on, by incarnation; what is owed as of the last sweep."""
        first, following = self._owed
        return {
            name: Signs(
                first_since=first.get(name),
                next_since=following.get(name),
                heard_at=pulse.heard_at,
            )
            for name, pulse in self._pulses.items()
        }

    def sweep(self) -> Steps:
        """End exchanges that are silent for too long, drop connections that idled too long."""
        now = self._loop.time()
        first: dict[str, float] = {}
        following: dict[str, float] = {}
        for connection in tuple(self._open):
            connection.enforce(now)
            since = connection.waits_since
            if since is not None:
                oldest = following if connection.has_begun else first
                name = connection.incarnation
                oldest[name] = min(since, oldest.get(name, since))
            yield
        self._owed = first, following
        for incarnation, idle in tuple(self._idle.items()):
            for connection in idle:
                if now - connection.idle_since > IDLE_KEEP_SECONDS:
                    connection.abort()
            self._idle[incarnation] = [c for c in idle if c.is_usable]

    def close(self) -> None:
        for connection in tuple(self._open):
            connection.abort()

    @property
    def open_connections(self) -> int:
        return len(self._open)

    async def connect(self, endpoint: Endpoint) -> EngineConnection:
        """A new connection. Raises ``NotReached``."""
        pulse = self._pulses.setdefault(endpoint.incarnation, Pulse())
        connection = EngineConnection(endpoint.incarnation, self._open, pulse, self._loop)
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                await self._open_transport(connection, endpoint.address)
        except (OSError, TimeoutError) as error:
            raise NotReached(f"{type(error).__name__}: {endpoint.replica}") from error
        self.opened += 1
        return connection

    async def _open_transport(self, connection: EngineConnection, address: str) -> None:
        kind, _, rest = address.partition(":")
        if kind == "unix":
            await self._loop.create_unix_connection(lambda: connection, rest)
            return
        host, _, port = rest.removeprefix("//").rpartition(":")
        transport, _ = await self._loop.create_connection(
            lambda: connection, host.strip("[]"), int(port)
        )
        _notice_dead_peer(transport.get_extra_info("socket"), self._dead_peer_seconds)

    def _head(self, replica: str, path: str) -> bytes:
        assert path in PATHS, "nothing else goes upstream"
        key = engine_api_key(self._engine_key, replica)
        return (
            f"POST {path} HTTP/1.1\r\nhost: engine\r\ncontent-type: application/json\r\n"
            f"authorization: Bearer {key}\r\nx-request-id: "
        ).encode()


def _notice_dead_peer(connection: socket.socket, seconds: int) -> None:
    """Have the kernel cut a connection whose peer is gone without a word, also while it is silent:
    what was sent and not acknowledged, and probes of its own where nothing was sent.
    """
    step = max(1, seconds // 4)
    values = {
        "TCP_KEEPIDLE": step,
        "TCP_KEEPINTVL": step,
        "TCP_KEEPCNT": 3,
        "TCP_USER_TIMEOUT": seconds * 1000,
    }
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in values.items():
        if hasattr(socket, name):  # macOS has not all of them
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
