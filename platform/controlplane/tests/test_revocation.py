"""From the service that revokes a key to the gateway that refuses it: how long a key still works."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest
import redis
from pytest_django import Settings

from serving.contracts import cell_stream
from serving.gateway.tests import raw
from serving.gateway.tests.stack import Stack, Tenant, until
from tenants.services import NewKey, key_revoke, quota_set
from tenants.tests.factories import SYSTEM, make_key, make_organization

KEYS = 20
PUSHED_SECONDS = 1.0
LOST_SECONDS = 5.0
GRACE_SECONDS = 0.5  # a machine that does other things as well
NEVER_MET = {"requests_per_minute": 10**9, "tokens_per_minute": 10**12, "concurrency": 10**6}

pytestmark = pytest.mark.django_db(transaction=True)


@dataclass
class Uses:
    """When the requests with one key began, by whether they were let in."""

    key: NewKey
    request: bytes
    accepted: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)

    def ask(self, port: int) -> None:
        began = time.monotonic()
        status = raw.ask(port, self.request).status
        assert status in (200, 401)
        (self.accepted if status == 200 else self.refused).append(began)


@pytest.fixture
def keys(gateway: Stack, settings: Settings) -> list[Uses]:
    """Keys of one organization whose model is served."""
    organization = make_organization()
    quota_set(organization.id, caller=SYSTEM, limits=NEVER_MET)
    made = [make_key(organization) for _ in range(KEYS)]
    project = str(made[0].key.project_id)
    gateway.tenants.append(Tenant(str(organization.id), project, "", "", ("support",)))
    gateway.engine()
    gateway.serve(
        TESSERA_KEY_PEPPER=settings.TESSERA_KEY_PEPPER,
        TESSERA_GATEWAY_FAILED_KEYS_PER_MINUTE="1000000",  # all of them are refused here, on purpose
    )
    body = {"model": "support", "prompt": "x", "max_tokens": 1}
    return [Uses(key, raw.request("/v1/completions", body, key=key.secret)) for key in made]


@contextmanager
def in_use(keys: list[Uses], port: int) -> Iterator[None]:
    """Ask with every key in turn, over and over; each was let in before the ``with`` begins."""
    stop = threading.Event()

    def use() -> None:
        while not stop.is_set():
            for uses in keys:
                uses.ask(port)

    with ThreadPoolExecutor(1) as threads:
        asking = threads.submit(use)
        try:
            until(lambda: asking.done() or all(uses.accepted for uses in keys))
            yield
        finally:
            stop.set()
            asking.result()


def longest_use_seconds(keys: list[Uses], port: int) -> float:
    """Revoke every key while it is used: from a call's return to the key's last accepted start."""
    revoked_at = []
    with in_use(keys, port):
        for uses in keys:
            key_revoke(uses.key.key.organization_id, uses.key.key.id, caller=SYSTEM)
            revoked_at.append(time.monotonic())
        until(lambda: all(uses.refused for uses in keys), seconds=30, what="every key refused")
        settled = [len(uses.refused) for uses in keys]
        until(lambda: all(len(u.refused) > n for u, n in zip(keys, settled, strict=True)))
    assert all(max(uses.accepted) < min(uses.refused) for uses in keys), "let in again"
    return max(max(uses.accepted) - at for uses, at in zip(keys, revoked_at, strict=True))


def test_a_revoked_key_is_refused_within_a_second(gateway: Stack, keys: list[Uses]) -> None:
    assert longest_use_seconds(keys, gateway.port) <= PUSHED_SECONDS


def test_a_revocation_that_reaches_nobody_holds_within_five_seconds(
    gateway: Stack, keys: list[Uses], redis_client: redis.Redis, settings: Settings
) -> None:
    settings.TESSERA_KEY_REVOKED_RECEIVER = "tenants.tests.test_keys.unreachable"
    told = redis_client.xlen(cell_stream(gateway.cell))
    seconds = longest_use_seconds(keys, gateway.port)
    assert redis_client.xlen(cell_stream(gateway.cell)) == told
    assert seconds <= LOST_SECONDS + GRACE_SECONDS
