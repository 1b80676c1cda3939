"""What of a prompt decides where it goes: its beginning, block by block, and who has met which.

An engine keeps what it computed of a prompt, so a request is cheapest where the longest beginning
of its prompt was computed before. Blocks grow with depth: a few sums tell beginnings of 256 bytes
and of 16 KB apart. Sums are CRC-32, the same in every process; salt and adapter go in first, so
tenants never share one, and a collision costs a choice that is less good, nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from zlib import crc32

# Where a block ends, in bytes of the prompt's JSON. Four bytes are about a token.
EDGES = (256, 512, 768, 1024, 1536, 2048, 3072, 4096, 6144, 8192, 12288, 16384)
_BYTES_PER_TOKEN = 4
_TOKENS = (0, *(edge // _BYTES_PER_TOKEN for edge in EDGES))
_PROMPTS = (b'"messages":', b'"prompt":')

Blocks = Sequence[int]


def blocks(rest: bytes, *, salt: str, adapter: str) -> Blocks:
    """A sum for each beginning of the prompt in ``rest``; the first is of salt and adapter alone.

    ``rest`` is a request's JSON; what stands before the prompt in it says nothing about the prompt.
    """
    start = _prompt_start(rest)
    sums = [crc32(salt.encode(), crc32(adapter.encode()))]
    size = len(rest) - start
    before = start
    for edge in EDGES:
        if edge > size:
            break
        sums.append(crc32(rest[before : start + edge], sums[-1]))
        before = start + edge
    return sums


def tokens(depth: int) -> int:
    """About how many tokens the first ``depth`` blocks are."""
    return _TOKENS[depth]


def _prompt_start(rest: bytes) -> int:
    for name in _PROMPTS:
        start = rest.find(name)
        if start >= 0:
            return start
    return 0


class Seen:
    """Beginnings that a replica was lately asked for, in two generations.

    When the younger is full it becomes the older, and what only the older one knew is forgotten: at
    least the last ``size`` sums are kept, at most twice as many. All of the mutable state: the two.
    """

    __slots__ = ("_old", "_size", "_young")

    def __init__(self, size: int = 4096) -> None:
        self._young: set[int] = set()
        self._old: set[int] = set()
        self._size = size

    def depth(self, blocks: Blocks) -> int:
        """How many blocks of a prompt, from its beginning, were met before."""
        young, old = self._young, self._old
        found = -1
        for block in blocks:
            if block not in young and block not in old:
                break
            found += 1
        return max(found, 0)

    def add(self, blocks: Blocks) -> None:
        self._young.update(blocks)
        if len(self._young) >= self._size:
            self._old, self._young = self._young, set()
