"""The prefix cache: full blocks, chained, apart by salt and adapter."""

from __future__ import annotations

from typing import Any

from bench.engines import BASE, Simulator
from bench.enginesim.cache import BYTES_PER_TOKEN, PrefixCache

BLOCK = 4
PROMPT = bytes(range(BLOCK * BYTES_PER_TOKEN)) * 3


def cache(blocks: int = 100) -> PrefixCache:
    return PrefixCache(block_tokens=BLOCK, blocks=blocks)


def test_the_second_time_all_but_the_last_block_is_there() -> None:
    prefixes = cache()
    assert prefixes.lookup(PROMPT, salt="a", adapter="m") == 0
    assert prefixes.lookup(PROMPT, salt="a", adapter="m") == 2 * BLOCK
    assert prefixes.lookup(PROMPT + b"more", salt="a", adapter="m") == 3 * BLOCK


def test_nothing_is_shared_over_salts_or_adapters() -> None:
    prefixes = cache()
    prefixes.lookup(PROMPT, salt="a", adapter="m")
    assert prefixes.lookup(PROMPT, salt="b", adapter="m") == 0
    assert prefixes.lookup(PROMPT, salt="a", adapter="n") == 0


def test_a_difference_ends_what_is_shared() -> None:
    prefixes = cache()
    prefixes.lookup(PROMPT, salt="a", adapter="m")
    other = PROMPT[: BLOCK * BYTES_PER_TOKEN] + b"x" + PROMPT[BLOCK * BYTES_PER_TOKEN + 1 :]
    assert prefixes.lookup(other, salt="a", adapter="m") == BLOCK


def test_the_longest_unused_blocks_go_first() -> None:
    prefixes = cache(blocks=3)
    prefixes.lookup(PROMPT, salt="a", adapter="m")
    prefixes.lookup(PROMPT, salt="b", adapter="m")
    assert len(prefixes) == 3
    assert prefixes.lookup(PROMPT, salt="a", adapter="m") == 0


def test_usage_tells_cached_tokens(engine: Simulator) -> None:
    def cached(salt: str) -> Any:
        body = {"model": BASE, "prompt": "once upon a time " * 40, "cache_salt": salt}
        _, answer = engine.call("POST", "/v1/completions", body)
        return answer["usage"]["prompt_tokens_details"]["cached_tokens"]

    assert [cached("a1"), cached("a1"), cached("b2")] == [0, 160, 0]
