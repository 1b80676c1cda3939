"""A small HTTP server inside the test's process, with answers given by a function."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Request:
    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Answer:
    status: int = 200
    body: bytes = b""
    promised: int | None = None  # a Content-Length that is not kept


Handler = Callable[[Request], Awaitable[Answer]]


def json_answer(value: Any, status: int = 200) -> Answer:
    return Answer(status, json.dumps(value).encode())


@asynccontextmanager
async def serve(handler: Handler, socket: Path | None = None) -> AsyncIterator[str]:
    """Serve on a Unix socket or a free port; gives the URL of the latter."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = await _read_request(reader)
            answer = await handler(request)
            length = len(answer.body) if answer.promised is None else answer.promised
            head = f"HTTP/1.1 {answer.status} X\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
            writer.write(head.encode() + answer.body)
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # either side left, or the test is over
        finally:
            writer.close()

    if socket is not None:
        server = await asyncio.start_unix_server(connected, socket)
        url = ""
    else:
        server = await asyncio.start_server(connected, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield url
    finally:
        server.close()
        await asyncio.sleep(0)


async def _read_request(reader: asyncio.StreamReader) -> Request:
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    method, target, _ = head[0].split(" ")
    pairs = (line.split(": ", 1) for line in head[1:] if line)
    headers = {name.lower(): value for name, value in pairs}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Request(method, target, headers, body)
