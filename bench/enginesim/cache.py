"""The prefix cache as vLLM keeps it: full blocks, chained, the first one salted.

Two requests share a block only if they share salt, adapter and every byte before it. The last token
of a prompt is always computed, so a prompt is never cached whole.
"""

from __future__ import annotations

from collections import OrderedDict

BYTES_PER_TOKEN = 4


def token_count(prompt: bytes) -> int:
    return max(1, len(prompt) // BYTES_PER_TOKEN)


class PrefixCache:
    """Least recently used blocks go first. Mutable state: the blocks and two token counters."""

    def __init__(self, *, block_tokens: int, blocks: int) -> None:
        self._block_tokens = block_tokens
        self._capacity = blocks
        self._blocks: OrderedDict[int, None] = OrderedDict()
        self.queried_tokens = 0
        self.hit_tokens = 0

    def __len__(self) -> int:
        return len(self._blocks)

    @property
    def fill(self) -> float:
        return len(self._blocks) / self._capacity

    def lookup(self, prompt: bytes, *, salt: str, adapter: str) -> int:
        """How many leading tokens were there; afterwards all full blocks of the prompt are."""
        tokens = token_count(prompt)
        self.queried_tokens += tokens
        chain = self._chain(prompt, salt, adapter)
        usable = (tokens - 1) // self._block_tokens
        hits = 0
        for block in chain[:usable]:
            if block not in self._blocks:
                break
            hits += 1
        self._keep(chain)
        cached = hits * self._block_tokens
        self.hit_tokens += cached
        return cached

    def _chain(self, prompt: bytes, salt: str, adapter: str) -> list[int]:
        size = self._block_tokens * BYTES_PER_TOKEN
        chain = []
        previous = hash((salt, adapter))
        for start in range(0, len(prompt) - size + 1, size):
            previous = hash((previous, prompt[start : start + size]))
            chain.append(previous)
        return chain

    def _keep(self, chain: list[int]) -> None:
        for block in chain:
            self._blocks[block] = None
            self._blocks.move_to_end(block)
        while len(self._blocks) > self._capacity:
            self._blocks.popitem(last=False)
