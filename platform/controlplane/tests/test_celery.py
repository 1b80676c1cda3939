from __future__ import annotations

import json

import redis

from controlplane.tasks import key_use


def test_a_task_travels_as_json_in_the_brokers_own_database(
    redis_client: redis.Redis, redis_url: str
) -> None:
    key_use.delay()
    assert redis_client.dbsize() == 0
    with redis.Redis.from_url(redis_url, single_connection_client=True) as broker:
        broker.select(1)
        (message,) = broker.lrange("celery", 0, -1)
    envelope = json.loads(message)
    assert envelope["content-type"] == "application/json"
    assert envelope["headers"]["task"] == "controlplane.tasks.key_use"
