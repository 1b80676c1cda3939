"""Reports arrive, the newest of them, for as long as it takes."""

from __future__ import annotations

import asyncio

import pytest

from serving.agent.errors import ControlUnavailable
from serving.agent.report import LONGEST_RETRY_SECONDS, Reporter, retry_delay
from serving.agent.tests.stand_ins import eventually
from serving.contracts import AgentReport


def report(reason: str) -> AgentReport:
    return AgentReport(
        version=1,
        replica="replica-1",
        incarnation="01",
        address="unix:/x",
        state="ready",
        reason=reason,
    )


class Recipient:
    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.received: list[AgentReport] = []

    async def report(self, report: AgentReport) -> None:
        if self.failures:
            self.failures -= 1
            raise ControlUnavailable("The control plane cannot be reached.")
        self.received.append(report)


async def test_the_newest_report_arrives_once_the_recipient_is_back() -> None:
    recipient = Recipient(failures=1)
    now = "first"
    reporter = Reporter(recipient, lambda: report(now))
    running = asyncio.create_task(reporter.run())
    await eventually(lambda: recipient.failures == 0)
    now = "second"
    reporter.changed()
    await eventually(lambda: bool(recipient.received))
    assert recipient.received[0].reason == "second"
    now = "third"
    reporter.changed()
    await eventually(lambda: recipient.received[-1].reason == "third")
    running.cancel()


async def test_nothing_is_said_before_there_is_something_to_say() -> None:
    recipient = Recipient(failures=0)
    reporter = Reporter(recipient, lambda: None)
    running = asyncio.create_task(reporter.run())
    await asyncio.sleep(0)
    running.cancel()
    assert recipient.received == []


@pytest.mark.parametrize("turns", range(6))
async def test_stopping_at_the_moment_of_a_change_stops(turns: int) -> None:
    reporter = Reporter(Recipient(failures=0), lambda: report("x"))
    running = asyncio.create_task(reporter.run())
    for _ in range(10):
        await asyncio.sleep(0)
    reporter.changed()
    for _ in range(turns):
        await asyncio.sleep(0)
    running.cancel()
    done, _ = await asyncio.wait({running}, timeout=10)
    assert done == {running}


@pytest.mark.parametrize("failures", [1, 3, 10, 10_000])
def test_retries_are_spread_and_bounded(failures: int) -> None:
    delays = {retry_delay(failures) for _ in range(20)}
    assert len(delays) > 1
    assert max(delays) <= LONGEST_RETRY_SECONDS
    assert min(delays) >= 0.5
