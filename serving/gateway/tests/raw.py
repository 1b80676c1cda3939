"""Raw sockets for tests: bytes as they are, and what comes back."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        return str(self.json["error"]["code"])


def request(
    path: str,
    body: bytes | dict[str, Any] = b"",
    *,
    key: str = "",
    method: str = "POST",
    headers: dict[str, str] | None = None,
) -> bytes:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = {
        "host": "test",
        "content-type": "application/json",
        "content-length": str(len(content)),
        **({"authorization": f"Bearer {key}"} if key else {}),
        **(headers or {}),
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + content


@contextmanager
def connected(port: int, *, seconds: float = 10.0) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", port), timeout=seconds) as connection:
        yield connection


def ask(port: int, data: bytes) -> Answer:
    """One request on a connection of its own."""
    with connected(port) as connection:
        connection.sendall(data)
        return read_answer(connection)


def read_all(connection: socket.socket) -> bytes:
    """Everything until the other side closes."""
    data = b""
    while part := connection.recv(65536):
        data += part
    return data


def read_all_until(connection: socket.socket, end: bytes) -> bytes:
    """Everything up to a marker."""
    data = b""
    while end not in data:
        part = connection.recv(65536)
        assert part, f"closed after {data[-300:]!r}"
        data += part
    return data


def read_answer(connection: socket.socket) -> Answer:
    """One answer with a length or chunks."""
    file = connection.makefile("rb")
    status = int(file.readline().split()[1])
    headers = {}
    while (line := file.readline()) not in {b"\r\n", b""}:
        name, _, value = line.decode("latin-1").partition(":")
        headers[name.lower()] = value.strip()
    if "content-length" in headers:
        return Answer(status, headers, file.read(int(headers["content-length"])))
    body = b""
    while size := int(file.readline() or b"0", 16):
        body += file.read(size)
        file.readline()
    return Answer(status, headers, body)


def answers(data: bytes) -> list[int]:
    """The status codes of all answers in a byte string."""
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) [A-Z]", data)]
