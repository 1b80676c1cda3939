"""How a process hears of grants to its waiters that another process's call has made."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Protocol

from serving.admission.link import RedisDown, RedisRefused

log = logging.getLogger(__name__)

BLOCK_MS = 1_000
_COUNT = 1_000
_START = b"0-0"


class PushLink(Protocol):
    """A link of its own: a blocking read holds up all behind it."""

    def call(self, *arguments: str | bytes | int) -> asyncio.Future[Any]: ...
    async def wait_up(self) -> None: ...


class Inbox:
    """Follows the process's own stream. All of its state: how far it is read."""

    def __init__(
        self, link: PushLink, *, stream: str, on_grant: Callable[[str, str, int], None]
    ) -> None:
        self._link = link
        self._stream = stream
        self._on_grant = on_grant
        self._last_id = _START

    def rewind(self) -> None:
        """Another life of Redis counts anew; what comes twice is known by its grant."""
        self._last_id = _START

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._link.wait_up()
            try:
                await self._read()
            except RedisDown:
                await asyncio.sleep(0.05)
            except RedisRefused as error:
                log.warning("grants are not heard of: %.80s", error)
                await asyncio.sleep(1.0)

    async def _read(self) -> None:
        reply = await self._link.call(
            "XREAD", "COUNT", _COUNT, "BLOCK", BLOCK_MS, "STREAMS", self._stream, self._last_id
        )
        for _, entries in reply or ():
            for identity, fields in entries:
                self._last_id = identity
                entry = dict(zip(fields[::2], fields[1::2], strict=True))
                self._on_grant(
                    entry[b"pool"].decode(), entry[b"grant"].decode(), int(entry[b"charged"])
                )
