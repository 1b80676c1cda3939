"""The sockets we accept on: our own, and a sibling's while no process holds its lock.

The supervisor owns the sockets and outlives us. Each process holds a lock on a file of its index
while it accepts; a file that nobody locks means a dead or draining process, and its queue is ours
to serve until somebody holds the lock again.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import socket
import struct
import sys
from collections.abc import Callable
from pathlib import Path

log = logging.getLogger(__name__)

WATCH_SECONDS = 0.1
BACKLOG = 2048
_LOCK_SECONDS = 3.0
_IS_LINUX = sys.platform == "linux"
_FLOCK = struct.Struct("hhqqi4x" if _IS_LINUX else "qqihh")


class AlreadyRunning(Exception):
    """Another process has this index."""


class Listeners:
    """All of the mutable state: our lock, our server, and the servers we run for siblings."""

    def __init__(
        self,
        sockets: list[socket.socket],
        index: int,
        *,
        run: Path,
        factory: Callable[[], asyncio.Protocol],
    ) -> None:
        self._sockets = sockets
        self._index = index
        self._run = run
        self._factory = factory
        self._lock = -1
        self._own: asyncio.Server | None = None
        self._adopted: dict[int, asyncio.Server] = {}

    async def open(self) -> None:
        """Take our lock and accept on our socket. Raises ``AlreadyRunning``."""
        self._lock = await _locked(lock_path(self._run, self._index))
        self._own = await self._serve(self._sockets[self._index])

    async def watch(self) -> None:
        """Stand in for siblings until cancelled."""
        others = [index for index in range(len(self._sockets)) if index != self._index]
        while others:
            for index in others:
                await self._look_after(index)
            await asyncio.sleep(WATCH_SECONDS)

    def close(self) -> None:
        """Accept no more; from now on siblings serve our queue."""
        for server in (self._own, *self._adopted.values()):
            if server is not None:
                server.close()
        self._own = None
        self._adopted.clear()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    async def _look_after(self, index: int) -> None:
        is_alive = is_locked(lock_path(self._run, index))
        if is_alive and index in self._adopted:
            self._adopted.pop(index).close()
            log.info("sibling %d is back", index)
        elif not is_alive and index not in self._adopted:
            self._adopted[index] = await self._serve(self._sockets[index])
            log.info("accepting for sibling %d", index)

    async def _serve(self, listening: socket.socket) -> asyncio.Server:
        return await asyncio.get_running_loop().create_server(
            self._factory, sock=listening.dup(), backlog=BACKLOG
        )


def lock_path(run: Path, index: int) -> Path:
    return run / f"gateway-{index}.lock"


def is_locked(path: Path) -> bool:
    """Whether another process holds the lock; asking takes nothing."""
    try:
        descriptor = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        order = (fcntl.F_WRLCK, 0, 0, 0, 0) if _IS_LINUX else (0, 0, 0, fcntl.F_WRLCK, 0)
        answer = _FLOCK.unpack(fcntl.fcntl(descriptor, fcntl.F_GETLK, _FLOCK.pack(*order)))
        kind: int = answer[0] if _IS_LINUX else answer[3]
        return kind != fcntl.F_UNLCK
    finally:
        os.close(descriptor)


async def _locked(path: Path) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    deadline = asyncio.get_running_loop().time() + _LOCK_SECONDS
    while True:
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if asyncio.get_running_loop().time() > deadline:
                os.close(descriptor)
                raise AlreadyRunning(f"Another gateway process holds {path}.") from error
            await asyncio.sleep(WATCH_SECONDS)
        else:
            return descriptor
