"""One engine's agent: follow orders, follow the engine, make the second agree with the first."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import msgspec

from serving.agent.engine import Engine
from serving.agent.errors import AgentProblem, EngineUnavailable
from serving.agent.fetch import AdapterCache, Source
from serving.agent.metrics import agent_metrics
from serving.agent.metrics_socket import MetricsSocket, metrics_path
from serving.agent.pace import Pace
from serving.agent.report import Recipient, Reporter, retry_delay
from serving.agent.watch import EngineWatch
from serving.agent.work import AdapterWork
from serving.contracts import CONTRACT_VERSION, AgentOrders, AgentReport

SHORTEST_POLL_SECONDS = 0.5

log = logging.getLogger(__name__)


class ControlPlane(Source, Recipient, Protocol):
    async def orders(self, etag: str) -> AgentOrders | None: ...


class Agent:
    """Its state: the last orders, here and on disk, and the present incarnation (``EngineWatch``).

    Orders on disk let an agent that is restarted while the control plane is away go on working.
    """

    def __init__(  # noqa: PLR0913 - its parts, by name
        self,
        *,
        replica: str,
        run_dir: Path,
        control: ControlPlane,
        cache: AdapterCache,
        connect: Callable[[str], Engine],
        pace: Pace = Pace(),  # noqa: B008 - frozen
    ) -> None:
        self._replica = replica
        self._control = control
        self._orders_file = run_dir / "orders.json"
        self._orders = _read_orders(self._orders_file)
        self._wake = asyncio.Event()
        self._reporter = Reporter(control, self.report)
        self._watch = EngineWatch(
            run_dir, base=self._base, connect=connect, changed=self._engine_changed, pace=pace
        )
        self._metrics = MetricsSocket(metrics_path(run_dir), self.metrics)
        self._work = AdapterWork(cache, control, changed=self._reporter.changed, pace=pace)

    async def run(self) -> None:
        """Serve until cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._follow_orders())
                tasks.create_task(self._watch.follow_starts())
                tasks.create_task(self._watch.follow_health())
                tasks.create_task(self._follow_work())
                tasks.create_task(self._reporter.run())
                tasks.create_task(self._metrics.run())
        finally:
            await self._watch.aclose()

    def report(self) -> AgentReport | None:
        """What is true now; ``None`` before the engine was ever started."""
        present = self._watch.present
        if present is None:
            return None
        return AgentReport(
            version=CONTRACT_VERSION,
            replica=self._replica,
            incarnation=present.id,
            address=present.address,
            state=present.state,
            reason=present.reason,
            adapters=tuple(resident.report() for resident in present.residents.values()),
        )

    async def metrics(self) -> bytes:
        """Our own and the engine's, in Prometheus' text form; raises ``AgentProblem``."""
        present, report = self._watch.present, self.report()
        if present is None or report is None:
            raise EngineUnavailable("The engine was not started yet.")
        return agent_metrics(report).encode() + await present.engine.metrics()

    def _base(self) -> str | None:
        return self._orders.base if self._orders else None

    def _engine_changed(self) -> None:
        self._reporter.changed()
        self._wake.set()

    async def _follow_orders(self) -> None:
        """Poll for orders; the first poll names no etag, so the copy on disk is soon replaced."""
        failures, etag = 0, ""
        while True:
            started = time.monotonic()
            try:
                orders = await self._control.orders(etag)
            except AgentProblem as problem:
                if failures == 0:
                    log.warning("No orders, going on with the last ones: %s", problem)
                failures += 1
                await asyncio.sleep(retry_delay(failures))
                continue
            failures = 0
            if orders is not None:
                etag = orders.etag
                self._obey(orders)
            spent = time.monotonic() - started
            await asyncio.sleep(max(0.0, SHORTEST_POLL_SECONDS - spent))

    def _obey(self, orders: AgentOrders) -> None:
        if orders == self._orders:
            return
        log.info("%d adapters are ordered.", len(orders.adapters))
        self._orders = orders
        _write_orders(self._orders_file, orders)
        self._wake.set()

    async def _follow_work(self) -> None:
        failures = 0
        while True:
            self._wake.clear()
            wait = None
            present, orders = self._watch.present, self._orders
            if present is not None and present.state == "ready" and orders is not None:
                try:
                    wait = await self._work.converge(present, orders)
                    failures = 0
                except AgentProblem as problem:
                    log.warning("The engine's adapters cannot be seen to: %s", problem)
                    failures += 1
                    wait = retry_delay(failures)
            # Not wait_for: until Python 3.12 it may swallow a cancellation.
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._wake.wait()


def _read_orders(path: Path) -> AgentOrders | None:
    """The orders of the last run; what cannot be read is as if it were not there."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=AgentOrders)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def _write_orders(path: Path, orders: AgentOrders) -> None:
    temporary = path.with_suffix(".new")
    temporary.write_bytes(msgspec.json.encode(orders))
    temporary.rename(path)
