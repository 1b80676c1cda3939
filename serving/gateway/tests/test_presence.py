"""What a process says of itself in Redis."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from serving.admission.link import RedisDown
from serving.gateway.metrics import Snapshot
from serving.gateway.presence import Presence, Sign, presence_key
from serving.gateway.tests.stack import Stack, until

SNAPSHOT = Snapshot(9.0, {"a_total": 1.0}, {"b": 2.0}, {})


class Redis:
    """Keeps what it is asked; answers when it is told to."""

    def __init__(self, *, is_down: bool = False) -> None:
        self.is_down = is_down
        self.asked: list[tuple[Any, ...]] = []
        self.answers: list[asyncio.Future[Any]] = []

    def call(self, *arguments: str | bytes | int) -> asyncio.Future[Any]:
        if self.is_down:
            raise RedisDown("not connected")
        self.asked.append(arguments)
        self.answers.append(asyncio.get_running_loop().create_future())
        return self.answers[-1]


def presence(redis: Redis) -> Presence:
    return Presence(redis, cell="c", node="n", index=1, writer="w", clock=lambda: 5.0)


async def test_a_process_says_who_it_is_and_what_it_counts() -> None:
    redis = Redis()
    presence(redis).tell(SNAPSHOT)
    ((command, key, field, raw),) = redis.asked
    assert (command, key, field) == ("HSET", "tessera:gateways:c", "n/1")
    sign = msgspec.json.decode(raw, type=Sign)
    assert (sign.writer, sign.started_at, sign.at) == ("w", 5.0, 9.0)
    assert (sign.counters, sign.gauges) == ({"a_total": 1.0}, {"b": 2.0})


async def test_it_does_not_pile_up_behind_a_redis_that_is_slow() -> None:
    redis = Redis()
    speaker = presence(redis)
    speaker.tell(SNAPSHOT)
    speaker.tell(SNAPSHOT)
    assert len(redis.asked) == 1
    redis.answers[0].set_exception(RedisDown("too slow"))
    await asyncio.sleep(0)
    speaker.tell(SNAPSHOT)
    assert len(redis.asked) == 2


async def test_a_redis_that_is_away_is_no_matter() -> None:
    presence(Redis(is_down=True)).tell(SNAPSHOT)


def test_a_running_gateway_says_it(bare: Stack) -> None:
    bare.tenant()
    bare.engine()
    bare.serve()
    with bare.servers.client() as client:
        raw = until(lambda: client.hget(presence_key(bare.cell), "node/0"), what="a sign")
    sign = msgspec.json.decode(raw, type=Sign)
    assert sign.pid == bare.gateways[0].pid
    assert sign.gauges["tessera_gateway_redis_up"] == 1
