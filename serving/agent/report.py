"""Say what is true: build reports, and deliver the newest one for as long as it takes."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from serving.agent.errors import AgentProblem
from serving.contracts import AgentReport

HEARTBEAT_SECONDS = 10.0
FIRST_RETRY_SECONDS = 0.5
LONGEST_RETRY_SECONDS = 10.0

log = logging.getLogger(__name__)


class Recipient(Protocol):
    async def report(self, report: AgentReport) -> None: ...


class Reporter:
    """Delivers ``current()`` after every ``changed`` and every ten seconds.

    A report replaces all earlier ones, so only the newest matters: what changes while the control
    plane is away is told once it is back.
    """

    def __init__(self, recipient: Recipient, current: Callable[[], AgentReport | None]) -> None:
        self._recipient = recipient
        self._current = current
        self._changed = asyncio.Event()

    def changed(self) -> None:
        self._changed.set()

    async def run(self) -> None:
        failures = 0
        while True:
            self._changed.clear()
            failures = 0 if await self._deliver(failures) else failures + 1
            if failures:
                await asyncio.sleep(retry_delay(failures))
                continue
            with suppress(TimeoutError):
                async with asyncio.timeout(HEARTBEAT_SECONDS):
                    await self._changed.wait()

    async def _deliver(self, failures: int) -> bool:
        report = self._current()
        if report is None:
            return True
        try:
            await self._recipient.report(report)
        except AgentProblem as problem:
            if failures == 0:
                log.warning("Report not delivered, trying on: %s", problem)
            return False
        if failures:
            log.info("Reports are delivered again.")
        return True


def retry_delay(failures: int) -> float:
    """Seconds before the next attempt: doubling, bounded, and never in step with other agents."""
    longest = min(LONGEST_RETRY_SECONDS, FIRST_RETRY_SECONDS * 2 ** min(failures, 10))
    return random.uniform(longest / 2, longest)  # noqa: S311 - not a secret
