"""Stand-ins for what an agent talks to, and waiting with a deadline."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from serving.agent.tests.http_server import Answer, Request, json_answer
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


class FakeEngine:
    """Answers like vLLM on a Unix socket; how it behaves is set from the test."""

    def __init__(self, base: str = "tiny") -> None:
        self.base = base
        self.loaded: dict[str, str] = {}
        self.without_effect: set[str] = set()
        self.not_a_number: set[str] = set()
        self.healthy = True
        self.gives_tokens = True
        self.refuses_loads = False
        self.metrics = b'vllm:num_requests_running{model_name="tiny"} 0.0\n'
        self.metrics_status = 200

    async def handle(self, request: Request) -> Answer:
        if request.path == "/health":
            return Answer(200 if self.healthy else 503)
        if request.path == "/metrics":
            return Answer(self.metrics_status, self.metrics)
        if request.path == "/v1/models":
            names = [self.base, *self.loaded]
            return json_answer({"data": [{"id": name} for name in names]})
        if request.path == "/v1/completions":
            return self._complete(request.json["model"])
        if request.path == "/v1/load_lora_adapter":
            return self._load(request.json["lora_name"], request.json["lora_path"])
        removed = self.loaded.pop(request.json["lora_name"], None)
        return Answer(200 if removed else 404)

    def _load(self, name: str, path: str) -> Answer:
        if self.refuses_loads:
            return json_answer({"error": {"message": "No such adapter."}}, 400)
        if name in self.loaded:
            return json_answer({"error": {"message": f"'{name}' has already been loaded."}}, 400)
        self.loaded[name] = path
        return Answer(200, b"Success")

    def _complete(self, model: str) -> Answer:
        if not self.gives_tokens:
            return Answer(500)
        if model != self.base and model not in self.loaded:
            return json_answer({"error": {"message": f"{model} does not exist."}}, 404)
        top: dict[str, float | None] = {"a": -0.1, "b": -2.0}
        if model in self.not_a_number:
            top = {"a": None}
        elif model != self.base and model not in self.without_effect:
            top = {"a": -2.0, "b": -0.1}
        return json_answer({"choices": [{"logprobs": {"top_logprobs": [top]}}]})
