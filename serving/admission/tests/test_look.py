from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import redis

from serving.admission import look
from serving.admission.tests.parts import (
    CELL,
    StandInLedger,
    granted,
    prepaid,
    queued,
    request,
    started,
    until,
)


def see(client: redis.Redis, *operation: Any) -> Any:
    answer: Sequence[Any] = client.eval(*look.looking(CELL, operation))
    return answer[3]


def test_whoever_looks_at_nothing_begins_nothing(redis_client: redis.Redis) -> None:
    assert look.pools_from(see(redis_client, "look_pools")) == []
    assert look.epoch_from(see(redis_client, "look_epoch")).epoch == ""
    assert redis_client.dbsize() == 0


async def test_pools_accounts_and_the_epoch_can_be_seen(
    redis_client: redis.Redis, redis_url: str
) -> None:
    ledger = StandInLedger(credits={"org:acme": 1_000_000})
    process = await started(redis_url, "writer", ledger=ledger)
    await granted(process, request(1, slots=1, subjects=prepaid(), price=(1_000, 2_000)))
    await queued(process, request(2, slots=1, wait_seconds=9, tier="free", body_bytes=7))
    process.admission.beat(0)
    await process.admission.flush()
    assert look.pools_from(see(redis_client, "look_pools")) == ["pool"]
    pool = look.pool_from("pool", see(redis_client, "look_pool", "pool"))
    assert (pool.slots, pool.taken, pool.waiting, pool.waiting_bytes) == (1, 1, 1, 7)
    assert (pool.held_tokens, pool.waiting_tokens) == (30, 30)
    assert (pool.tiers["free"].waiting, pool.tiers["premium"].waiting) == (1, 0)
    account = look.account_from(see(redis_client, "look_account", "org:acme"))
    assert account == look.AccountLook(is_loaded=True, base=1_000_000, spent=0, held=50_000)
    await until(lambda: process.admission.is_money_ready)
    epoch = look.epoch_from(see(redis_client, "look_epoch"))
    assert epoch.is_complete
    assert epoch.writers == {"writer": 1}
    await process.stop()
