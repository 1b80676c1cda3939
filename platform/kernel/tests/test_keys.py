from __future__ import annotations

import re
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel.keys import Environment, key_is_wellformed, key_mac, key_new

ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


@pytest.mark.parametrize("environment", ["live", "test"])
def test_a_new_key_has_the_documented_shape(environment: Environment) -> None:
    key = key_new(environment)
    assert re.fullmatch(rf"tsr_{environment}_[0-9A-Za-z]{{27}}_[0-9A-Za-z]{{6}}", key)
    assert key_is_wellformed(key)


def test_the_checksum_is_the_crc_of_everything_before_it() -> None:
    body, _, checksum = key_new("live").rpartition("_")
    value = 0
    for digit in checksum:
        value = value * 62 + ALPHABET.index(digit)
    assert value == zlib.crc32(body.encode())


def test_no_two_keys_are_alike() -> None:
    assert len({key_new("live") for _ in range(1000)}) == 1000


def test_every_single_typing_error_is_noticed() -> None:
    key = key_new("live")
    for place in range(len("tsr_live_"), len(key)):
        for other in "aZ0":
            if key[place] not in {other, "_"}:
                assert not key_is_wellformed(key[:place] + other + key[place + 1 :])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "tsr_live_",
        "tsr_prod_" + "0" * 27 + "_000000",
        "tsr_live_" + "0" * 27 + "_000000",
        "x" * 1_000_000,
        "tsr_live_" + "é" * 27 + "_000000",
        "tsr_live_" + "0" * 26 + "\0_000000",
    ],
)
def test_what_is_no_key_is_not_wellformed(text: str) -> None:
    assert not key_is_wellformed(text)


@pytest.mark.parametrize("around", [" {}", "{} ", "{}\n", "\n{}", "{}\0"])
def test_nothing_may_stand_around_a_key(around: str) -> None:
    assert not key_is_wellformed(around.format(key_new("live")))


@given(st.text())
def test_any_text_gets_an_answer(text: str) -> None:
    assert key_is_wellformed(text) is False


def test_a_mac_depends_on_the_whole_key_and_on_the_pepper() -> None:
    key = key_new("live")
    mac = key_mac(b"pepper", key)
    assert len(mac) == 32
    assert mac == key_mac(b"pepper", key)
    assert mac != key_mac(b"other", key)
    assert mac != key_mac(b"pepper", key[:-1])
