"""What the pretended model says: a formula over weights and prompt, so that equal asks get equal
answers.

Nothing here is language. Other weights or another prompt give other words and other logprobs.
"""

from __future__ import annotations

import hashlib
import itertools
from dataclasses import dataclass

_SYLLABLES = (
    "ba",
    "de",
    "fi",
    "go",
    "lu",
    "ma",
    "ne",
    "ri",
    "so",
    "tu",
    "va",
    "we",
    "xi",
    "yo",
    "za",
    "ke",
)
WORDS = tuple(" " + a + b for a, b in itertools.product(_SYLLABLES, repeat=2))


@dataclass(frozen=True, slots=True)
class Answer:
    """An endless answer, of which a request takes as many tokens as it wants."""

    seed: int
    words: tuple[str, ...] = ()  # where the request prescribes the answer

    def token(self, index: int) -> str:
        if self.words:
            return self.words[index]
        return WORDS[(self.seed + index * (self.seed >> 16 | 1)) & 255]

    def text(self, tokens: int) -> str:
        return "".join([self.token(index) for index in range(tokens)])

    def logprob(self, index: int, rank: int) -> float:
        """Of the ``rank``-th best candidate at a place; falls with the rank."""
        return -0.001 - rank - (self.seed >> (index % 32) & 1023) / 1024

    def candidates(self, index: int, count: int) -> list[tuple[str, float]]:
        """The best tokens at a place and their logprobs; the first one is what was sampled."""
        word = self.token(index)
        place = token_id(word)
        others = [WORDS[(place + 7 * rank) & 255] for rank in range(1, count)]
        return [(w, self.logprob(index, rank)) for rank, w in enumerate([word, *others][:count])]


def token_id(word: str) -> int:
    return WORDS.index(word) if word in WORDS else 0


def answer(
    fingerprint: bytes, prompt: bytes, *, choice: int, words: tuple[str, ...] = ()
) -> Answer:
    digest = hashlib.blake2b(prompt, digest_size=8, key=fingerprint, salt=choice.to_bytes(8, "big"))
    return Answer(int.from_bytes(digest.digest(), "big"), words)
