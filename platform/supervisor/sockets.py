"""The listening sockets that the stack owns and its gateway processes inherit.

One socket per process, all on one port with SO_REUSEPORT: the kernel spreads connections over
them, and what waits on a socket waits for the next process that is given it. SO_REUSEPORT alone
would let a second stack join in silently, so the port is first bound without it.
"""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from supervisor.errors import PortTaken
from supervisor.parts import Listeners

BACKLOG = 1024
LOCK_SECONDS = 5.0


@dataclass(frozen=True)
class OwnedSockets:
    gateways: tuple[socket.socket, ...]
    metrics: socket.socket

    def environment(self, index: int) -> dict[str, str]:
        """How a process learns which descriptors it inherited and which of them is its own."""
        return {
            "TESSERA_LISTEN_FDS": ",".join(str(one.fileno()) for one in self.gateways),
            "TESSERA_LISTEN_INDEX": str(index),
            "TESSERA_METRICS_FD": str(self.metrics.fileno()),
        }

    def descriptors(self) -> tuple[int, ...]:
        return (*(one.fileno() for one in self.gateways), self.metrics.fileno())

    def close(self) -> None:
        for one in (*self.gateways, self.metrics):
            one.close()


def open_sockets(wanted: Listeners) -> OwnedSockets:
    """Raises ``PortTaken`` when anybody listens on one of the ports, another stack included."""
    with _port_lock(wanted.port):
        require_free(wanted.host, wanted.port)
        first = _listening(wanted.host, wanted.port, shared=True)
        port = first.getsockname()[1]
        others = [_listening(wanted.host, port, shared=True) for _ in range(wanted.count - 1)]
    metrics = _listening(
        "127.0.0.1", wanted.metrics_port, shared=False, variable="TESSERA_GATEWAY_METRICS_PORT"
    )
    return OwnedSockets(gateways=(first, *others), metrics=metrics)


def require_free(host: str, port: int, *, variable: str = "TESSERA_GATEWAY_PORT") -> None:
    """Raises ``PortTaken`` with a sentence for the user. Port 0 is always free."""
    try:
        _bound(host, port, shared=False).close()
    except OSError as error:
        raise _refusal(host, port, variable, error) from None


@contextmanager
def _port_lock(port: int) -> Iterator[None]:
    """Between the test and the bind nobody else may do the same.

    The lock is a name of the kernel's own name space for Unix sockets: it holds for all users of
    this network, and goes with the process that holds it.
    """
    deadline = time.monotonic() + LOCK_SECONDS
    with socket.socket(socket.AF_UNIX) as lock:
        while True:
            try:
                lock.bind(f"\0tessera-port-{port}")
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise PortTaken(
                        f"Another stack is being started on port {port}; wait for it, "
                        "or set TESSERA_GATEWAY_PORT to another number."
                    ) from None
                time.sleep(0.05)
        yield


def _listening(
    host: str, port: int, *, shared: bool, variable: str = "TESSERA_GATEWAY_PORT"
) -> socket.socket:
    try:
        opened = _bound(host, port, shared=shared)
    except OSError as error:
        raise _refusal(host, port, variable, error) from None
    opened.listen(BACKLOG)
    opened.settimeout(0)
    return opened


def _bound(host: str, port: int, *, shared: bool) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    opened = socket.socket(family, socket.SOCK_STREAM)
    try:
        # Connections of the last run may still be fading away; a listener is refused all the same.
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        opened.bind((host, port))
    except OSError:
        opened.close()
        raise
    return opened


def _refusal(host: str, port: int, variable: str, error: OSError) -> PortTaken:
    if error.errno == errno.EADDRINUSE:
        return PortTaken(
            f"Port {port} on {host} is taken by another program. Stop that, or choose another "
            f"port: {variable}={port + 1}, for example."
        )
    return PortTaken(
        f"Cannot listen on {host} port {port} ({os.strerror(error.errno or 0)}); choose another "
        f"port: {variable}."
    )
