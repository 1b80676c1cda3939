"""``GET /metrics`` on a Unix socket in the run folder: for whoever may enter that folder."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path

from serving.agent.errors import AgentProblem

EXCHANGE_SECONDS = 10.0
HEAD_BYTES = 8 * 1024
ASKING = 8  # at once; each may hold one copy of the engine's metrics

# Until Python 3.12 a connection's task that ends cancelled is logged as a failure: it just ends.
_ENDINGS = (ConnectionError, TimeoutError, asyncio.IncompleteReadError, asyncio.CancelledError)
_TEXT = "text/plain; version=0.0.4; charset=utf-8"  # Prometheus' text form


def metrics_path(run_dir: Path) -> Path:
    return run_dir / "metrics.sock"


class MetricsSocket:
    """Answers one request per connection with what ``metrics`` gives.

    503 with a sentence when that raises ``AgentProblem``; 404 for every other path or method.
    """

    def __init__(self, path: Path, metrics: Callable[[], Awaitable[bytes]]) -> None:
        self._path = path
        self._metrics = metrics
        self._asking = asyncio.Semaphore(ASKING)
        self._open: set[asyncio.Task[None] | None] = set()

    async def run(self) -> None:
        """Serve until cancelled."""
        server = await asyncio.start_unix_server(
            self._connected, sock=_listening(self._path), limit=HEAD_BYTES
        )
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            self._path.unlink(missing_ok=True)
            server.close()
            for task in self._open:
                if task is not None:
                    task.cancel()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        self._open.add(task)
        writer.transport.set_write_buffer_limits(0)  # drained means handed over, all of it
        try:
            with suppress(*_ENDINGS):
                async with asyncio.timeout(EXCHANGE_SECONDS):
                    writer.write(await self._answer(reader))
                    await writer.drain()
        finally:
            self._open.discard(task)
            writer.transport.abort()  # closing would keep what a reader who stopped has not taken

    async def _answer(self, reader: asyncio.StreamReader) -> bytes:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            words = f"The request's head exceeds {HEAD_BYTES} bytes."
            return _response(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, words)
        if not _asks_for_metrics(head):
            return _response(HTTPStatus.NOT_FOUND, "Only GET /metrics is answered here.")
        if self._asking.locked():
            return _response(HTTPStatus.SERVICE_UNAVAILABLE, "Too many ask at once; ask again.")
        try:
            async with self._asking:
                return _response(HTTPStatus.OK, await self._metrics())
        except AgentProblem as problem:
            return _response(HTTPStatus.SERVICE_UNAVAILABLE, str(problem))


def _listening(path: Path) -> socket.socket:
    """Bound beside its place and moved there: it is private from the start, and a socket that a
    killed agent left behind is replaced.
    """
    beside = path.with_suffix(".new")
    beside.unlink(missing_ok=True)
    listening = socket.socket(socket.AF_UNIX)
    try:
        listening.bind(os.fspath(beside))
        beside.chmod(0o600)
        beside.rename(path)
    except OSError:
        listening.close()
        raise
    return listening


def _asks_for_metrics(head: bytes) -> bool:
    method, _, rest = head.partition(b"\r\n")[0].partition(b" ")
    target = rest.partition(b" ")[0]
    return method == b"GET" and target.partition(b"?")[0] == b"/metrics"


def _response(status: HTTPStatus, body: bytes | str) -> bytes:
    data = body if isinstance(body, bytes) else f"{body}\n".encode()
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: {_TEXT}\r\n"
        f"Content-Length: {len(data)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + data
