"""Redis killed, frozen, failed over, full, read-only, loading, forgetful: F06 to F09.

Real servers of their own. After each fault prepaid is exact again and nothing crashed.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from serving.admission.tests.parts import (
    Process,
    StandInLedger,
    granted,
    prepaid,
    refused,
    request,
    started,
    until,
    used,
)
from serving.admission.tests.server import Server, server_of
from serving.admission.values import Grant, Reason, Refusal, Subject

PRICE = (1_000, 2_000)
CALL = 50_000


@pytest.fixture
def servers(run_dir: Path, tmp_path: Path) -> Iterator[list[Server]]:
    found = [server_of(run_dir / f"{tmp_path.name[-20:]}-{index}") for index in range(2)]
    yield found
    for one in found:
        one.kill()


@pytest.fixture
def server(servers: list[Server]) -> Server:
    servers[0].start()
    return servers[0]


@pytest.fixture
def ledger() -> StandInLedger:
    return StandInLedger(credits={"org:acme": 4 * CALL})


async def overrun(process: Process, ledger: StandInLedger, held: int) -> None:
    """Exactly what is left may start, and nothing more."""
    left = ledger.credits["org:acme"] // CALL - held
    names = [f"{time.monotonic_ns()}-{n}" for n in range(left + 3)]
    answers = [
        await process.admission.admit(request(name, subjects=prepaid(), price=PRICE))
        for name in names
    ]
    grants = [answer for answer in answers if isinstance(answer, Grant)]
    assert len(grants) == left, answers
    for grant in grants:
        process.admission.settle(grant, used())
    await process.admission.flush()


async def test_a_kill_and_an_empty_return(server: Server, ledger: StandInLedger) -> None:
    """F06: postpaid on a local share meanwhile, prepaid whole again after, no phantom refusals."""
    process = await started(server.url, "w", ledger=ledger, timeout_seconds=0.1)
    held = await granted(process, request(1, subjects=prepaid(), price=PRICE))
    server.kill()
    await until(lambda: not process.link.is_up)
    refusal = await refused(process, request(2, subjects=prepaid(), price=PRICE))
    assert refusal.reason is Reason.BALANCE_UNAVAILABLE
    local = await granted(process, request(3))
    assert local.is_local
    server.start()
    await until(lambda: process.admission.is_money_ready, seconds=20)
    await overrun(process, ledger, held=1)
    process.admission.settle(held, used(10, 20, cost_nano=CALL))
    process.admission.settle(local, used())
    await process.admission.flush()
    await overrun(process, ledger, held=1)
    await process.stop()


async def test_a_failover_that_lost_writes(servers: list[Server], ledger: StandInLedger) -> None:
    """F07: the promoted replica knows neither the last hold nor the last settlement."""
    primary, replica = servers
    primary.start()
    replica.start()
    replica.follow(primary)
    process = await started(primary.url, "w", ledger=ledger, timeout_seconds=0.1)
    first = await granted(process, request(1, subjects=prepaid(), price=PRICE))
    await process.admission.flush()
    replica.client.replicaof("127.0.0.1", 1)  # its link is cut: what follows is lost
    process.admission.settle(first, used(10, 20, cost_nano=CALL))
    await granted(process, request(2, subjects=prepaid(), price=PRICE))
    await process.admission.flush()
    primary.kill()
    await until(lambda: not process.link.is_up)
    replica.client.replicaof("NO", "ONE")
    replica.stand_in_for(primary)
    await until(lambda: process.admission.is_money_ready, seconds=20)
    await overrun(process, ledger, held=2)
    await process.stop()


async def test_an_old_primary_that_comes_back_is_not_believed(
    server: Server, ledger: StandInLedger
) -> None:
    """Its marker names its own run, but its callers have seen a later epoch."""
    process = await started(server.url, "w", ledger=ledger)
    await granted(process, request(1, subjects=prepaid(), price=PRICE))
    old = process.admission.epoch
    process.admission._batch.seen = f"{int(old.split('-')[0]) + 3}-other-1"
    process.link.close()
    await until(lambda: process.link.is_up)
    await until(lambda: process.admission.epoch != old and process.admission.is_money_ready)
    assert int(process.admission.epoch.split("-")[0]) > int(old.split("-")[0]) + 3
    await overrun(process, ledger, held=1)
    await process.stop()


async def test_a_frozen_server_costs_one_timeout(server: Server, ledger: StandInLedger) -> None:
    """F08: the first calls wait 100 ms at most, the next ones not at all."""
    process = await started(server.url, "w", ledger=ledger, timeout_seconds=0.1)
    held = await granted(process, request("h", subjects=prepaid(), price=PRICE))
    server.signal(signal.SIGSTOP)
    began = time.monotonic()
    answers = await asyncio.gather(*(process.admission.admit(request(n)) for n in range(20)))
    first = time.monotonic() - began
    began = time.monotonic()
    answers += await asyncio.gather(
        *(process.admission.admit(request(f"later-{n}")) for n in range(20))
    )
    later = time.monotonic() - began
    assert all(isinstance(answer, Grant) and answer.is_local for answer in answers)
    assert 0.09 < first < 0.5
    assert later < 0.05
    for answer in answers:
        assert isinstance(answer, Grant)
        process.admission.settle(answer, used())
    server.signal(signal.SIGCONT)
    await until(lambda: process.admission.is_money_ready, seconds=20)
    await process.admission.flush()
    await overrun(process, ledger, held=1)
    process.admission.settle(held, used())
    await process.admission.flush()
    assert server.client.zcard("tessera:admission:cell:slots:pool") == 0
    await process.stop()


@pytest.mark.parametrize("trouble", ["oom", "readonly", "noscript", "noreplicas"])
async def test_a_server_that_refuses_is_as_good_as_away(
    server: Server, ledger: StandInLedger, trouble: str
) -> None:
    """F09: the same declared mode, and nothing half."""
    process = await started(server.url, "w", ledger=ledger, timeout_seconds=0.1)
    held = await granted(process, request("h", subjects=prepaid(), price=PRICE))
    client = server.client
    limited = (Subject(id="key:k", requests_per_minute=100, concurrency=100),)
    match trouble:
        case "oom":
            client.config_set("maxmemory", "1mb")
        case "readonly":
            client.replicaof("127.0.0.1", 1)
        case "noreplicas":
            client.config_set("min-replicas-to-write", "1")
        case _:
            client.script_flush()
    answer = await process.admission.admit(request(1, subjects=limited))
    money = await process.admission.admit(request(2, subjects=prepaid(), price=PRICE))
    assert isinstance(answer, Grant)
    if trouble == "noscript":
        assert not answer.is_local
        assert isinstance(money, Grant)
    else:
        assert answer.is_local
        assert isinstance(money, Refusal)
        assert money.reason is Reason.BALANCE_UNAVAILABLE
        assert not client.exists("tessera:admission:cell:running:key:k")
    process.admission.settle(answer, used())
    if isinstance(money, Grant):
        process.admission.settle(money, used())
    process.admission.settle(held, used())
    await process.admission.flush()
    if trouble == "oom":
        assert client.zcard("tessera:admission:cell:slots:pool") == 0  # what frees is let through
    client.config_set("maxmemory", "0")
    client.config_set("min-replicas-to-write", "0")
    client.replicaof("NO", "ONE")
    process.admission.beat(0)
    await process.admission.flush()
    await until(lambda: process.admission.is_money_ready, seconds=20)
    await overrun(process, ledger, held=0)
    await process.stop()


async def test_a_process_that_was_stopped_ends_its_streams(server: Server) -> None:
    lapsed: list[str] = []
    process = await started(
        server.url, "w", on_lapsed=lambda grants: lapsed.extend(one.grant_id for one in grants)
    )
    await granted(process, request(1))
    now = time.monotonic()
    process.admission.beat(now)
    process.admission.beat(now + 29)
    assert not lapsed
    process.admission.beat(now + 29 + 31)
    assert lapsed == ["grant-1"]
    await process.stop()
