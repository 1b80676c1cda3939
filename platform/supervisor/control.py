"""The control socket: one JSON object per line in, one line out.

Whoever may open the socket may command; it has mode 0600 and lies in a private folder.

    {"op": "ensure", "part": {...}}  start it, or replace it when its description differs
    {"op": "remove", "name": "..."}  stop it and forget it
    {"op": "list"}                   what is running
    {"op": "stop"}                   stop everything
    An answer is the result, or {"error": "a sentence"}.
"""

from __future__ import annotations

import json
import os
import selectors
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from supervisor.errors import SupervisorError

LINE_BYTES = 1_000_000
Handle = Callable[[object], dict[str, Any]]


class ControlServer:
    """Serves on ``path`` from the caller's selector; ``handle`` answers, or refuses by raising."""

    def __init__(self, path: Path, handle: Handle, selector: selectors.BaseSelector) -> None:
        self._path, self._handle, self._selector = path, handle, selector
        self._listener = _listen(path)
        selector.register(self._listener, selectors.EVENT_READ, self._accept)

    def close(self) -> None:
        self._selector.unregister(self._listener)
        self._listener.close()
        self._path.unlink(missing_ok=True)

    def _accept(self) -> None:
        with suppress(OSError):
            connection, _ = self._listener.accept()
            connection.settimeout(0)
            _Conversation(connection, self._handle, self._selector)


class _Conversation:
    def __init__(
        self, connection: socket.socket, handle: Handle, selector: selectors.BaseSelector
    ) -> None:
        self._connection, self._handle, self._selector = connection, handle, selector
        self._received = b""
        selector.register(connection, selectors.EVENT_READ, self._readable)

    def _readable(self) -> None:
        try:
            chunk = self._connection.recv(65_536)
        except BlockingIOError:
            return
        except OSError:
            chunk = b""
        *lines, self._received = (self._received + chunk).split(b"\n")
        for line in lines:
            self._answer(line)
        if not chunk or len(self._received) > LINE_BYTES:
            self._selector.unregister(self._connection)
            self._connection.close()

    def _answer(self, line: bytes) -> None:
        try:
            answer = self._handle(json.loads(line))
        except ValueError as error:
            answer = {"error": f"The request is not JSON: {error}."}
        except SupervisorError as error:
            answer = {"error": str(error)}
        # Answers are small and clients read them; one that does not loses its connection's answers.
        with suppress(OSError):
            self._connection.sendall(json.dumps(answer).encode() + b"\n")


def ask(path: Path, request: dict[str, Any], *, timeout_seconds: float = 5.0) -> dict[str, Any]:
    """Send one request to a running supervisor. Raises ``SupervisorError`` with its refusal.

    Raises ``OSError`` where nobody answers.
    """
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(timeout_seconds)
        connection.connect(str(path))
        connection.sendall(json.dumps(request).encode() + b"\n")
        with connection.makefile("rb") as lines:
            answer: dict[str, Any] = json.loads(lines.readline() or b'{"error": "It hung up."}')
    if "error" in answer:
        raise SupervisorError(str(answer["error"]))
    return answer


def _listen(path: Path) -> socket.socket:
    """The caller holds the stack's lock, so a socket that lies there is a dead one's."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    before = os.umask(0o177)
    try:
        listener.bind(str(path))
    finally:
        os.umask(before)
    listener.listen(16)
    listener.settimeout(0)
    return listener
