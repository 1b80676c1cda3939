"""Copies of principals in Redis: signed, and never replaced by older ones."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from kernel.keys import key_mac
from serving.admission.link import RedisLink
from serving.gateway.principals import (
    Copy,
    Principal,
    PrincipalCache,
    PrincipalDatabase,
    SourceDown,
)
from serving.gateway.tests.stack import PEPPER, Servers, Stack

MAC = b"m" * 32
KEY = b"k" * 32


def copy(*, version: int = 1, read_at: float = 1.0, mac_of: str = "k") -> Copy:
    return Copy(
        principal=Principal(
            key_id=mac_of, organization="o", project="p", scopes=(), models=(),
            environment="live", version=version, active=True, expires_at=None,
        ),
        read_at=read_at,
    )  # fmt: skip


@pytest.fixture
async def link(gateway_servers: Servers) -> AsyncIterator[RedisLink]:
    made = RedisLink(gateway_servers.redis_url, timeout_seconds=1.0)
    running = asyncio.create_task(made.run())
    await made.wait_up()
    await made.call("FLUSHDB")
    yield made
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


@pytest.mark.parametrize(
    ("first", "second", "kept"),
    [
        (copy(version=1, read_at=1), copy(version=2, read_at=1), 1),
        (copy(version=2, read_at=1), copy(version=1, read_at=9), 0),
        (copy(version=1, read_at=1.25), copy(version=1, read_at=1.5), 1),
        (copy(version=1, read_at=1.5), copy(version=1, read_at=1.25), 0),
    ],
)
async def test_only_newer_copies_replace(
    link: RedisLink, first: Copy, second: Copy, kept: int
) -> None:
    cache = PrincipalCache(link, key=KEY)
    await cache.write(MAC, first)
    await cache.write(MAC, second)
    assert await cache.read(MAC) == (first, second)[kept]


async def test_a_copy_that_was_not_signed_for_this_key_is_not_there(link: RedisLink) -> None:
    await PrincipalCache(link, key=b"other" * 8).write(MAC, copy())
    cache = PrincipalCache(link, key=KEY)
    assert await cache.read(MAC) is None
    await link.call("FLUSHDB")
    await cache.write(b"x" * 32, copy(mac_of="somebody"))
    stolen = await link.call("HGET", f"tessera:principal:{(b'x' * 32).hex()}", "copy")
    await link.call("HSET", f"tessera:principal:{MAC.hex()}", "copy", stolen)
    assert await cache.read(MAC) is None


async def test_a_redis_that_is_away_is_not_an_absent_key(gateway_servers: Servers) -> None:
    cache = PrincipalCache(RedisLink("unix:///nowhere", timeout_seconds=1.0), key=KEY)
    with pytest.raises(SourceDown):
        await cache.read(MAC)
    await cache.write(MAC, copy())


async def test_postgresql_is_asked_as_the_gateways_role_and_only_through_the_function(
    bare: Stack,
) -> None:
    tenant = bare.tenant("support", models=["support"])
    database = PrincipalDatabase(bare.servers.database_gateway)
    found = await database.read(key_mac(PEPPER, tenant.key))
    assert found is not None
    assert (found.principal.key_id, found.principal.models) == (tenant.key_id, ("support",))
    assert await database.read(MAC) is None
    await database.close()


async def test_a_postgresql_that_is_away_says_so_and_rests() -> None:
    database = PrincipalDatabase("postgresql:///x?host=/nowhere")
    for _ in range(3):
        with pytest.raises(SourceDown):
            await database.read(MAC)
    await database.close()
