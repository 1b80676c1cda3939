"""Copies of principals in Redis: signed, and never replaced by older ones."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import psycopg
import pytest

from kernel.keys import key_mac
from serving.admission.link import RedisLink
from serving.gateway.database import SourceDown
from serving.gateway.principals import (
    Copy,
    Limits,
    Principal,
    PrincipalCache,
    PrincipalDatabase,
)
from serving.gateway.tests.stack import PEPPER, Servers, Stack

MAC = b"m" * 32
KEY = b"k" * 32
FUNCTION_BEFORE = """
CREATE FUNCTION tessera_principal(wanted bytea)
RETURNS TABLE (
    key_id text, organization text, project text, scopes text[], models text[], environment text,
    version bigint, active boolean, expires_at double precision
) LANGUAGE sql STABLE SECURITY DEFINER AS $$
    SELECT key_id, organization, project, scopes, models, environment, version, active, expires_at
    FROM principals WHERE mac = wanted
$$;
GRANT EXECUTE ON FUNCTION tessera_principal(bytea) TO tessera_gateway;
"""


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
    stolen = await link.call("HGET", f"tessera:principal:2:{(b'x' * 32).hex()}", "copy")
    await link.call("HSET", f"tessera:principal:2:{MAC.hex()}", "copy", stolen)
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


async def test_limits_are_read_with_the_principal_and_bearers_without_any_left_out(
    bare: Stack,
) -> None:
    organization = Limits(scope="organization", id="o", requests_per_minute=60)
    key = Limits(scope="key", id="k", budget_nano=0)
    limits = (organization, Limits(scope="project", id="p"), key)
    tenant = bare.tenant(tier="premium", weight=4, billing="prepaid", limits=limits)
    database = PrincipalDatabase(bare.servers.database_gateway)
    found = await database.read(key_mac(PEPPER, tenant.key))
    await database.close()
    assert found is not None
    principal = found.principal
    assert (principal.tier, principal.weight, principal.billing) == ("premium", 4, "prepaid")
    assert principal.limits == (organization, key)


async def test_a_database_of_the_release_before_knows_no_limits(bare: Stack) -> None:
    tenant = bare.tenant("support")
    with psycopg.connect(bare.servers.database_owner, autocommit=True) as connection:
        connection.execute("ALTER FUNCTION tessera_principal_2 RENAME TO kept")
        connection.execute(FUNCTION_BEFORE)
        database = PrincipalDatabase(bare.servers.database_gateway)
        try:
            found = await database.read(key_mac(PEPPER, tenant.key))
            again = await database.read(key_mac(PEPPER, tenant.key))
        finally:
            await database.close()
            connection.execute("DROP FUNCTION tessera_principal")
            connection.execute("ALTER FUNCTION kept RENAME TO tessera_principal_2")
    assert found is not None
    assert again is not None
    assert found.principal == again.principal
    assert (found.principal.key_id, found.principal.limits) == (tenant.key_id, ())


async def test_a_postgresql_that_is_away_says_so_and_rests() -> None:
    database = PrincipalDatabase("postgresql:///x?host=/nowhere")
    for _ in range(3):
        with pytest.raises(SourceDown):
            await database.read(MAC)
    await database.close()
