"""Processes of a cell that talk to a real server, and a ledger that stands in for PostgreSQL."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from serving.admission.client import Admission
from serving.admission.ledger import Base, LedgerUnavailable, Roster
from serving.admission.link import RedisLink
from serving.admission.values import (
    AdmissionRequest,
    Demand,
    Grant,
    Money,
    Queued,
    Refusal,
    Subject,
    Tier,
    Used,
)

CELL = "cell"
POOL = "pool"


@dataclass
class StandInLedger:
    """Credits and the spending of every writer, as PostgreSQL would have them.

    Nobody's spending arrives here by itself: ``shipped`` says what a writer's journal came to.
    """

    credits: dict[str, int] = field(default_factory=dict)
    entries: Counter[str] = field(default_factory=Counter)
    living: list[str] = field(default_factory=list)
    closed: dict[str, Mapping[str, int]] = field(default_factory=dict)
    shipped: dict[str, dict[str, int]] = field(default_factory=dict)
    is_away: bool = False
    reads: int = 0

    async def base(self, account: str, announced: Sequence[str]) -> Base:
        if self.is_away:
            raise LedgerUnavailable
        self.reads += 1
        spent = sum(
            totals.get(account, 0)
            for writer, totals in (self.shipped | self.closed).items()
            if writer not in announced
        )
        nano = self.credits.get(account, 0) - spent
        return Base(nano=nano, last_entry=self.entries[account])

    async def roster(self, silent: Sequence[str] = ()) -> Roster:
        if self.is_away:
            raise LedgerUnavailable
        living = tuple(name for name in self.living if name not in self.closed)
        closed = {name: totals for name, totals in self.closed.items() if name in silent}
        return Roster(living=living, closed=closed)


@dataclass
class Process:
    """A gateway process, as far as admission is concerned."""

    admission: Admission
    link: RedisLink
    writer: str
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    async def stop(self) -> None:
        """Like kill -9: nothing is settled, nobody is told."""
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


async def started(
    url: str,
    writer: str,
    *,
    ledger: StandInLedger | None = None,
    processes: int = 1,
    timeout_seconds: float = 1.0,
    on_lapsed: Callable[[Sequence[Grant]], None] | None = None,
) -> Process:
    link = RedisLink(url, timeout_seconds=timeout_seconds)
    push = RedisLink(url, timeout_seconds=5.0)
    if ledger is not None and writer not in ledger.living:
        ledger.living.append(writer)
    admission = Admission(
        link,
        cell=CELL,
        processes=processes,
        writer=writer,
        ledger=ledger,
        push=push,
        on_lapsed=on_lapsed,
    )
    tasks = [asyncio.create_task(work) for work in (link.run(), push.run(), admission.run())]
    await link.wait_up()
    await push.wait_up()
    return Process(admission, link, writer, tasks)


@asynccontextmanager
async def processes(
    url: str, count: int, *, ledger: StandInLedger | None = None
) -> AsyncIterator[list[Process]]:
    found = [
        await started(url, f"writer-{index}", ledger=ledger, processes=count)
        for index in range(count)
    ]
    try:
        yield found
    finally:
        for process in found:
            await process.stop()


def request(
    name: str | int,
    *,
    slots: int = 100,
    pool: str = POOL,
    subjects: tuple[Subject, ...] = (),
    tenant: str = "acme",
    tier: Tier = "standard",
    weight: int = 1,
    wait_seconds: float = 0.0,
    body_bytes: int = 100,
    input_tokens: int = 10,
    output_tokens: int = 20,
    choices: int = 1,
    price: tuple[int, int] = (0, 0),
) -> AdmissionRequest:
    return AdmissionRequest(
        grant_id=f"grant-{name}",
        pool=pool,
        slots=slots,
        demand=Demand(
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            choices=choices,
            input_nano=price[0],
            output_nano=price[1],
        ),
        subjects=subjects,
        tenant=tenant,
        tier=tier,
        weight=weight,
        wait_seconds=wait_seconds,
        body_bytes=body_bytes,
    )


def prepaid(organization: str = "acme") -> tuple[Subject, ...]:
    account = f"org:{organization}"
    money = Money(account=account, budget_nano=0, is_hard=True)
    return (Subject(id=account, money=money),)


def budget(nano: int, *, is_hard: bool = True, project: str = "p") -> Subject:
    money = Money(account=f"project:{project}:202611", budget_nano=nano, is_hard=is_hard)
    return Subject(id=f"project:{project}", money=money)


def used(input_tokens: int = 0, output_tokens: int = 0, cost_nano: int = 0) -> Used:
    return Used(input_tokens=input_tokens, output_tokens=output_tokens, cost_nano=cost_nano)


async def granted(process: Process, one: AdmissionRequest) -> Grant:
    answer = await process.admission.admit(one)
    assert isinstance(answer, Grant), answer
    return answer


async def refused(process: Process, one: AdmissionRequest) -> Refusal:
    answer = await process.admission.admit(one)
    assert isinstance(answer, Refusal), answer
    return answer


async def queued(process: Process, one: AdmissionRequest) -> Queued:
    answer = await process.admission.admit(one)
    assert isinstance(answer, Queued), answer
    return answer


async def until(is_so: Callable[[], object], *, seconds: float = 5.0) -> None:
    """What happens in another process or server is waited for, never slept for."""
    async with asyncio.timeout(seconds):
        while not is_so():  # noqa: ASYNC110 - what is awaited has no event
            await asyncio.sleep(0.005)
