"""Asking a part whether it can be used, without ever waiting: the selector says when to go on."""

from __future__ import annotations

import selectors
import socket
from collections.abc import Callable
from pathlib import Path

from supervisor.parts import Health

Answer = Callable[[bool], None]


class Probe:
    """One question. ``answer`` is called once, with no if nothing was heard by the deadline."""

    def __init__(
        self,
        health: Health,
        answer: Answer,
        *,
        selector: selectors.BaseSelector,
        deadline: float,
    ) -> None:
        self.deadline = deadline
        self._health = health
        self._answer: Answer | None = answer
        self._selector = selector
        self._socket: socket.socket | None = None
        self._received = b""

    @property
    def is_over(self) -> bool:
        return self._answer is None

    def begin(self) -> None:
        kind, _, place = self._health.address.partition(":")
        if kind == "file":
            self._end(healthy=Path(place).exists())
            return
        try:
            self._socket = _connecting(kind, place)
        except OSError:
            self._end(healthy=False)
            return
        self._selector.register(self._socket, selectors.EVENT_WRITE, self._connected)

    def expire(self) -> None:
        self._end(healthy=False)

    def _connected(self) -> None:
        assert self._socket is not None
        if self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self._end(healthy=False)
        elif not self._health.expect:
            self._end(healthy=True)
        else:
            self._ask()

    def _ask(self) -> None:
        assert self._socket is not None
        try:
            self._socket.sendall(self._health.send.encode("latin-1"))
        except OSError:
            self._end(healthy=False)
            return
        self._selector.modify(self._socket, selectors.EVENT_READ, self._readable)

    def _readable(self) -> None:
        assert self._socket is not None
        wanted = self._health.expect.encode("latin-1")
        try:
            chunk = self._socket.recv(4096)
        except OSError:
            chunk = b""
        self._received += chunk
        enough = len(self._received) >= len(wanted)
        if enough or not chunk:
            self._end(healthy=self._received.startswith(wanted))

    def _end(self, *, healthy: bool) -> None:
        if self._socket is not None:
            self._selector.unregister(self._socket)
            self._socket.close()
            self._socket = None
        answer, self._answer = self._answer, None
        if answer is not None:
            answer(healthy)


def _connecting(kind: str, place: str) -> socket.socket:
    if kind == "tcp":
        host, _, port = place.rpartition(":")
        return _begin(socket.AF_INET, (host, int(port)))
    # The newest first: an engine's earlier starts may have left their sockets behind.
    path = Path(place)
    for found in sorted(path.parent.glob(path.name), key=_changed, reverse=True):
        try:
            return _begin(socket.AF_UNIX, str(found))
        except OSError:
            continue
    raise FileNotFoundError(place)


def _begin(family: int, address: str | tuple[str, int]) -> socket.socket:
    opened = socket.socket(family, socket.SOCK_STREAM)
    opened.settimeout(0)
    try:
        opened.connect(address)
    except BlockingIOError:
        pass
    except OSError:
        opened.close()
        raise
    return opened


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
