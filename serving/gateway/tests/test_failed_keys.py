from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from serving.gateway import failed_keys
from serving.gateway.errors import TooManyFailedKeys
from serving.gateway.failed_keys import FailedKeys

HOME, NEXT_DOOR = "198.51.100.7", "198.51.100.8"


@dataclass
class World:
    now: float = 1000.0
    keys: FailedKeys = field(init=False)

    def __post_init__(self) -> None:
        self.keys = FailedKeys(60, clock=lambda: self.now)

    def attempt(self, mac: bytes | None, address: str = HOME) -> bool:
        """A key that turns out to be no good: whether it was looked at."""
        try:
            self.keys.check(address, mac)
        except TooManyFailedKeys:
            return False
        self.keys.failed(address, mac)
        return True

    def delay(self, mac: bytes | None) -> float:
        with pytest.raises(TooManyFailedKeys) as caught:
            self.keys.check(HOME, mac)
        assert caught.value.retry_after_seconds is not None
        return caught.value.retry_after_seconds


@pytest.fixture
def world() -> World:
    return World()


def distinct(count: int) -> list[bytes]:
    return [b"%032d" % number for number in range(count)]


def test_guesses_are_looked_up_as_often_as_the_limit_says(world: World) -> None:
    assert sum(world.attempt(mac) for mac in distinct(1000)) == 60
    assert world.keys.refused == 940
    assert world.delay(b"new") == pytest.approx(1.0)
    world.now += 30
    assert sum(world.attempt(b"later" + mac) for mac in distinct(1000)) == 30


def test_one_bad_key_leaves_room_for_neighbours_new_ones(world: World) -> None:
    for _ in range(1000):
        world.attempt(b"bad")
        world.attempt(None)
        world.now += 0.01
    world.keys.check(HOME, b"new")
    assert world.delay(None) > 0


def test_other_addresses_are_not_meant(world: World) -> None:
    for mac in distinct(100):
        world.attempt(mac)
    world.keys.check(NEXT_DOOR, b"new")


def test_an_ipv6_client_cannot_change_its_address_for_a_new_allowance(world: World) -> None:
    tried = [world.attempt(mac, f"2001:db8::{int(mac):x}") for mac in distinct(100)]
    assert sum(tried) == 60


def test_what_is_remembered_is_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failed_keys, "ADDRESS_LIMIT", 10)
    monkeypatch.setattr(failed_keys, "KEY_LIMIT", 10)
    for number, mac in enumerate(distinct(100)):
        world.attempt(mac, f"192.0.2.{number}")
    assert len(world.keys._buckets) == len(world.keys._lately) == 10
