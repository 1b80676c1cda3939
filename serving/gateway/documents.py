"""The two signed documents: from disk at the start, from Redis when pushed and every few seconds.

A document is taken when its signature, kind and scope are right and its sequence is higher than
that of the one in use, which also holds over restarts. While Redis is away the last ones stay.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

from kernel.errors import Invalid
from serving.admission.link import RedisDown, RedisRefused
from serving.contracts import (
    EndpointsDocument,
    Kind,
    RoutesDocument,
    SignedDocument,
    cell_stream,
    document_key,
    open_document,
)
from serving.gateway.what import Directory

log = logging.getLogger(__name__)

BLOCK_MS = 1_000
_BATCH = 1_000
_START = b"0-0"


class Redis(Protocol):
    def call(self, *arguments: str | bytes | int) -> asyncio.Future[Any]: ...
    async def wait_up(self) -> None: ...


class Documents:
    """All of the mutable state: the documents in use, and how far the cell's stream is read."""

    def __init__(  # noqa: PLR0913 - where documents come from, lie and go
        self,
        *,
        redis: Redis,
        key: bytes,
        cell: str,
        folder: Path,
        on_change: Callable[[Directory], None],
        on_revoked: Callable[[str], None],
    ) -> None:
        self.directory = Directory(None, ())
        self._redis = redis
        self._key = key
        self._cell = cell
        self._folder = folder
        self._on_change = on_change
        self._on_revoked = on_revoked
        self._used: dict[tuple[Kind, str], SignedDocument] = {}
        self._routes: RoutesDocument | None = None
        self._endpoints: dict[str, EndpointsDocument] = {}
        self._last_id: bytes | None = None

    @property
    def routes_sequence(self) -> int:
        used = self._used.get(("routes", self._cell))
        return used.sequence if used else 0

    def load(self) -> None:
        """What lay on disk when we last stopped."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for kind, scope in self._wanted():
            self._take_file(kind, scope)
        for kind, scope in self._wanted():
            self._take_file(kind, scope)

    def take(self, raw: bytes, kind: Kind, scope: str) -> bool:
        """Whether the document was good and newer, and is now in use."""
        try:
            signed, document = open_document(raw, key=self._key)
        except Invalid as error:
            log.warning("document %s/%s refused: %s", kind, scope, error.rule)
            return False
        used = self._used.get((kind, scope))
        if (signed.kind, signed.scope) != (kind, scope):
            log.warning("document %s/%s refused: it is another one", kind, scope)
            return False
        if used is not None and signed.sequence <= used.sequence:
            return False
        self._used[kind, scope] = signed
        if isinstance(document, RoutesDocument):
            self._routes = document
        else:
            self._endpoints[scope] = document
        self.directory = Directory(self._routes, self._endpoints.values())
        self._on_change(self.directory)
        return True

    async def run(self) -> None:
        """Follow the cell's stream until cancelled."""
        while True:
            await self._redis.wait_up()
            try:
                await self._follow()
            except RedisDown:
                await asyncio.sleep(0.1)
            except RedisRefused as error:
                log.warning("documents: redis refused: %.80s", error)
                await asyncio.sleep(1.0)

    async def refresh(self) -> None:
        """Read every wanted document; endpoints may become wanted by new routes."""
        seen: set[tuple[Kind, str]] = set()
        while missing := [wanted for wanted in self._wanted() if wanted not in seen]:
            for kind, scope in missing:
                seen.add((kind, scope))
                await self._fetch(kind, scope)

    async def _follow(self) -> None:
        if self._last_id is None:
            self._last_id = await self._newest_id()
        await self.refresh()
        while True:
            reply = await self._redis.call(
                "XREAD", "COUNT", _BATCH, "BLOCK", BLOCK_MS,
                "STREAMS", cell_stream(self._cell), self._last_id,
            )  # fmt: skip
            for _, entries in reply or ():
                for identity, fields in entries:
                    self._last_id = identity
                    await self._hear(dict(zip(fields[::2], fields[1::2], strict=True)))
            if not reply:
                await self.refresh()

    async def _newest_id(self) -> bytes:
        entries = await self._redis.call("XREVRANGE", cell_stream(self._cell), "+", "-", "COUNT", 1)
        return entries[0][0] if entries else _START

    async def _hear(self, entry: dict[bytes, bytes]) -> None:
        match entry.get(b"kind"):
            case b"revoked":
                self._on_revoked(entry.get(b"key_id", b"").decode())
            case b"routes" | b"endpoints":
                await self.refresh()
            case kind:
                log.warning("unknown push %r ignored", kind)

    async def _fetch(self, kind: Kind, scope: str) -> None:
        raw = await self._redis.call("GET", document_key(kind, scope))
        if raw is not None and self.take(raw, kind, scope):
            self._write(kind, scope, raw)

    def _wanted(self) -> list[tuple[Kind, str]]:
        clusters = {pool.cluster for pool in self._routes.pools} if self._routes else set()
        return [("routes", self._cell), *(("endpoints", name) for name in sorted(clusters))]

    def _take_file(self, kind: Kind, scope: str) -> None:
        try:
            raw = self._path(kind, scope).read_bytes()
        except OSError:
            return
        self.take(raw, kind, scope)

    def _write(self, kind: Kind, scope: str, raw: bytes) -> None:
        """A copy that cannot be written costs a restart without Redis, nothing now."""
        path = self._path(kind, scope)
        staging = path.with_suffix(f".{os.getpid()}")
        try:
            staging.write_bytes(raw)
            staging.replace(path)
        except OSError as error:
            log.warning("document copy not written: %s", error.strerror)

    def _path(self, kind: Kind, scope: str) -> Path:
        return self._folder / f"{kind}-{quote(scope, safe='')}.json"
