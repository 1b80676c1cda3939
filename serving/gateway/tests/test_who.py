from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest

from kernel.keys import key_mac, key_new
from serving.gateway.database import SourceDown
from serving.gateway.errors import Busy, TooManyFailedKeys, Unauthorized
from serving.gateway.principals import Copy, Principal
from serving.gateway.who import Who, maximum_age

PEPPER = b"p" * 32
KEY = key_new("live")
MAC = key_mac(PEPPER, KEY)
BEARER = f"Bearer {KEY}".encode()
ADDRESS = "198.51.100.7"


def principal(**changes: Any) -> Principal:
    values = {
        "key_id": "k", "organization": "o", "project": "p", "scopes": ("inference",), "models": (),
        "environment": "live", "version": 1, "active": True, "expires_at": None,
    }  # fmt: skip
    return Principal(**{**values, **changes})


@dataclass
class Source:
    """Redis or PostgreSQL: what it has, whether it answers, how often it was asked."""

    clock: Any
    row: Principal | None = None
    copy: Copy | None = None
    is_down: bool = False
    reads: int = 0
    gate: asyncio.Event | None = None

    async def read(self, mac: bytes) -> Copy | None:
        self.reads += 1
        if self.gate is not None:
            await self.gate.wait()
        if self.is_down:
            raise SourceDown("x")
        if mac != MAC:
            return None
        if self.row is not None:
            return Copy(principal=self.row, read_at=self.clock())
        return self.copy

    async def write(self, mac: bytes, copy: Copy) -> None:
        if not self.is_down:
            self.copy = copy


@dataclass
class World:
    now: float = 1000.0
    ended: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.cache = Source(self.wall)
        self.database = Source(self.wall, row=principal())
        self.who = self.process()

    def process(self) -> Who:
        return Who(
            cache=self.cache, database=self.database, pepper=PEPPER,
            on_revoked=self.ended.append, clock=lambda: self.now, wall_clock=self.wall,
        )  # fmt: skip

    def wall(self) -> float:
        return self.now + 1_700_000_000

    async def status(self, who: Who | None = None) -> int:
        who = who or self.who
        try:
            await who.identify(BEARER, ADDRESS)
        except (Unauthorized, Busy) as error:
            return error.status
        finally:
            await who.settle_reads()
        return 200


@pytest.fixture
def world() -> World:
    return World()


@pytest.mark.parametrize(
    "header",
    [None, b"", b"Bearer", b"Bearer x", b"Basic " + KEY.encode(), BEARER[:-1] + b"!", b"Bearer \xff",
     b"Bearer " + b"a" * 5000, KEY.encode()],
)  # fmt: skip
async def test_what_is_no_key_is_refused_without_a_lookup(
    world: World, header: bytes | None
) -> None:
    with pytest.raises(Unauthorized):
        await world.who.identify(header, ADDRESS)
    assert world.cache.reads == world.database.reads == 0


async def test_a_key_is_read_once_and_then_remembered(world: World) -> None:
    for _ in range(5):
        assert await world.status() == 200
    assert (world.cache.reads, world.database.reads) == (1, 1)


async def test_a_crowd_of_first_requests_shares_one_read(world: World) -> None:
    world.database.gate = asyncio.Event()
    crowd = [asyncio.create_task(world.status()) for _ in range(50)]
    await asyncio.sleep(0)
    world.database.gate.set()
    assert set(await asyncio.gather(*crowd)) == {200}
    assert world.database.reads == 1


async def test_another_process_reads_from_redis_while_that_is_young(world: World) -> None:
    await world.status()
    world.now += 1
    assert await world.status(world.process()) == 200
    assert world.database.reads == 1
    world.now += 2
    assert await world.status(world.process()) == 200
    assert world.database.reads == 2


async def test_age_counts_from_the_postgresql_read_through_every_layer(world: World) -> None:
    await world.status()
    world.now += 2
    second = world.process()
    await world.status(second)
    world.database.row = principal(active=False, version=2)
    world.now += 2
    assert await world.status(second) == 200  # 4 s old: trusted, and read again behind the answer
    assert await world.status(second) == 401


async def test_a_change_is_seen_within_five_seconds_without_any_push(world: World) -> None:
    await world.status()
    world.database.row = principal(active=False, version=2)
    world.now += 5.01
    assert await world.status() == 401


async def test_an_unknown_key_is_asked_for_every_two_seconds_at_most(world: World) -> None:
    world.database.row = None
    for _ in range(10):
        assert await world.status() == 401
    assert world.database.reads == 1
    world.now += 2.1
    world.database.row = principal()
    assert await world.status() == 200


@pytest.mark.parametrize(
    ("database_up", "cache_up", "age"),
    [(True, True, 5), (True, False, 5), (False, True, 600), (False, False, 60)],
)
async def test_how_old_a_principal_may_be(
    world: World, *, database_up: bool, cache_up: bool, age: float
) -> None:
    assert maximum_age(database_up=database_up, cache_up=cache_up) == age
    await world.status()
    world.database.is_down, world.cache.is_down = not database_up, not cache_up
    if not database_up:
        world.now += age - 1
        assert await world.status() == 200
        world.now += 2
        assert await world.status() == 503
    world.database.is_down = world.cache.is_down = False
    assert await world.status() == 200


async def test_with_postgresql_down_a_fresh_process_trusts_redis_as_long(world: World) -> None:
    await world.status()
    world.database.is_down = True
    world.now += 590
    assert await world.status(world.process()) == 200
    world.now += 20
    assert await world.status(world.process()) == 503


async def test_who_cannot_be_looked_up_is_told_to_come_back_not_that_the_key_is_wrong(
    world: World,
) -> None:
    world.database.is_down = True
    assert await world.status() == 503


async def test_a_pushed_revocation_holds_at_once_and_outlives_older_copies(world: World) -> None:
    await world.status()
    world.now += 1
    world.who.revoke("k")
    assert world.ended == ["k"]
    assert await world.status() == 401
    world.database.is_down = True
    world.now += 10
    assert await world.status() == 401  # the copy in Redis is older than the push
    world.database.is_down = False
    world.database.row = principal(version=3)
    world.now += 10
    await world.status()
    assert await world.status() == 200


async def test_a_lower_version_never_replaces_a_higher_one(world: World) -> None:
    world.database.row = principal(version=5, scopes=("inference", "manage"))
    await world.status()
    world.now += 3
    world.cache.copy = Copy(principal=principal(version=4), read_at=world.wall())
    await world.status()
    known = await world.who.identify(BEARER, ADDRESS)
    assert known.principal.version == 5


async def test_a_copy_from_the_future_is_not_believed(world: World) -> None:
    world.cache.copy = Copy(principal=principal(), read_at=world.wall() + 3600)
    world.database.row = None
    assert await world.status() == 401


async def test_an_expired_key_is_refused_whatever_the_copies_say(world: World) -> None:
    world.database.row = principal(expires_at=world.wall() + 1)
    assert await world.status() == 200
    world.now += 1.5
    assert await world.status() == 401


async def test_an_open_stream_learns_of_a_revocation_whose_push_was_lost(world: World) -> None:
    known = await world.who.identify(BEARER, ADDRESS)
    world.database.row = principal(active=False, version=2)
    world.now += 3
    world.who.refresh(known)
    await world.who.settle_reads()
    assert world.who.is_revoked(known)
    assert world.ended == ["k"]


def test_a_principal_survives_its_encoding() -> None:
    copy = Copy(principal=principal(models=("a",)), read_at=1.5)
    assert msgspec.json.decode(msgspec.json.encode(copy), type=Copy) == copy


async def test_a_key_in_use_is_served_whatever_its_neighbours_do(world: World) -> None:
    """One HMAC finds a key in memory; only strangers are held to the limit of their address."""
    assert await world.status() == 200
    guesses = [f"Bearer {key_new('live')}".encode() for _ in range(100)]
    world.database.row = None
    outcomes = []
    for guess in guesses:
        with pytest.raises((Unauthorized, TooManyFailedKeys)) as caught:
            await world.who.identify(guess, ADDRESS)
        outcomes.append(type(caught.value))
    assert outcomes == [Unauthorized] * 60 + [TooManyFailedKeys] * 40
    assert await world.status() == 200


async def test_a_refused_guess_costs_no_lookup(world: World) -> None:
    world.database.row = None
    for _ in range(100):
        with pytest.raises((Unauthorized, TooManyFailedKeys)):
            await world.who.identify(f"Bearer {key_new('live')}".encode(), ADDRESS)
    assert world.cache.reads == world.database.reads == 60


async def test_no_key_at_all_is_no_guess(world: World) -> None:
    for _ in range(100):
        with pytest.raises(Unauthorized):
            await world.who.identify(None, ADDRESS)
    assert await world.status() == 200


async def test_a_source_that_is_away_is_not_the_keys_fault(world: World) -> None:
    world.database.is_down = world.cache.is_down = True
    for _ in range(100):
        with pytest.raises(Busy):
            await world.who.identify(f"Bearer {key_new('live')}".encode(), ADDRESS)
    world.database.is_down = False
    assert await world.status() == 200
