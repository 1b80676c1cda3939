"""Stand-ins for what an agent talks to, and waiting with a deadline."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from serving.contracts import AgentOrders, AgentReport, WantedAdapter


class FakeControlPlane:
    """Gives orders, serves files from folders, remembers reports. All in this process."""

    def __init__(self, *, base: str = "tiny") -> None:
        self.base = base
        self.reports: list[AgentReport] = []
        self.downloads = 0
        self._folders: dict[str, Path] = {}
        self._orders = self._numbered(0, ())
        self._changed = asyncio.Event()

    def order(self, folders: dict[str, Path]) -> None:
        """Order these adapters, by name, and no others."""
        adapters = tuple(wanted_adapter(name, folder) for name, folder in folders.items())
        self._folders.update(
            {
                adapter.digest: folder
                for adapter, folder in zip(adapters, folders.values(), strict=True)
            }
        )
        self._orders = self._numbered(int(self._orders.etag) + 1, adapters)
        self._changed.set()

    def _numbered(self, number: int, adapters: tuple[WantedAdapter, ...]) -> AgentOrders:
        return AgentOrders(
            version=1, etag=str(number), replica="replica-1", base=self.base, adapters=adapters
        )

    async def orders(self, etag: str) -> AgentOrders | None:
        while etag == self._orders.etag:
            self._changed.clear()
            await self._changed.wait()
        return self._orders

    @asynccontextmanager
    async def artifact(self, digest: str, name: str) -> AsyncIterator[AsyncIterator[bytes]]:
        self.downloads += 1
        yield in_chunks((self._folders[digest] / name).read_bytes())

    async def report(self, report: AgentReport) -> None:
        self.reports.append(report)

    @property
    def last(self) -> AgentReport:
        return self.reports[-1]

    def states(self) -> dict[str, str]:
        """What the last report says, once the engine is ready."""
        if not self.reports or self.last.state != "ready":
            return {"engine": "not ready"}
        return {adapter.name: adapter.state for adapter in self.last.adapters}

    def every_state_of(self, name: str) -> set[str]:
        return {
            adapter.state
            for report in self.reports
            for adapter in report.adapters
            if adapter.name == name
        }

    def reason_of(self, name: str) -> str:
        return next(adapter.reason for adapter in self.last.adapters if adapter.name == name)


def wanted_adapter(name: str, folder: Path) -> WantedAdapter:
    files = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
    digest = hashlib.sha256(repr(sorted(files.items())).encode()).hexdigest()
    return WantedAdapter(name=name, digest=digest, files=files)


async def in_chunks(data: bytes, size: int = 65_536) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


async def eventually(condition: Callable[[], bool], *, seconds: float = 60) -> None:
    """Wait until it is so; fail, saying what never was, when the time is up."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not so after {seconds} s"
        await asyncio.sleep(0.05)
