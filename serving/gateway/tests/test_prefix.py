from __future__ import annotations

import pytest

from serving.gateway.fields import parse_chat
from serving.gateway.prefix import EDGES, Seen, blocks, tokens


def chain(rest: bytes, salt: str = "s", adapter: str = "a") -> tuple[int, ...]:
    return tuple(blocks(rest, salt=salt, adapter=adapter))


def common(one: tuple[int, ...], other: tuple[int, ...]) -> int:
    return sum(a == b for a, b in zip(one, other, strict=False)) - 1


PROMPT = b'"prompt":"' + b"abcdefgh" * 4096


@pytest.mark.parametrize(
    ("size", "depth"), [(10, 0), (255, 0), (256, 1), (1024, 4), (20_000, len(EDGES))]
)
def test_whole_blocks_count(size: int, depth: int) -> None:
    assert len(chain(PROMPT[:size])) == depth + 1


def test_two_prompts_share_the_blocks_before_their_first_difference() -> None:
    changed = PROMPT[:1500] + b"X" + PROMPT[1501:]
    shared = common(chain(PROMPT), chain(changed))
    assert EDGES[shared - 1] <= 1500 < EDGES[shared]
    assert tokens(shared) == 256
    assert chain(PROMPT)[shared + 1 :] != chain(changed)[shared + 1 :]


def test_nothing_is_shared_over_salts_or_adapters() -> None:
    for other in (chain(PROMPT, salt="t"), chain(PROMPT, adapter="b")):
        assert set(chain(PROMPT)).isdisjoint(other)


def test_sampling_says_nothing_about_the_prompt() -> None:
    def ask(fields: bytes) -> tuple[int, ...]:
        message = b'"messages":[{"role":"user","content":"' + b"y" * 2000 + b'"}]'
        return chain(parse_chat(b'{"model":"m",' + fields + message + b"}").rest)

    plain = ask(b"")
    assert ask(b'"temperature":0.5,"stop":["\\"messages\\":"],"stream":true,') == plain


def test_what_was_met_is_known_and_what_was_not_met_for_long_is_forgotten() -> None:
    seen = Seen(size=100)
    first = chain(PROMPT)
    seen.add(first)
    assert seen.depth(first) == len(EDGES)
    assert seen.depth(chain(PROMPT[:2000])) == 5
    assert seen.depth(chain(PROMPT, salt="other")) == 0
    for n in range(30):
        seen.add(chain(PROMPT, salt=str(n)))
    assert seen.depth(first) == 0
    assert seen.depth(chain(PROMPT, salt="29")) == len(EDGES)
