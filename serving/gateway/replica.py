"""One start of one engine, and what this process knows of it.

An engine is known by its incarnation, one start of one process, never by host and port alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from zlib import crc32

import msgspec

from serving.contracts import Endpoint
from serving.gateway import prefix
from serving.gateway.ejection import GOOD, Health, after_probe, after_success
from serving.gateway.prefix import Blocks, Seen

REST_SECONDS = 1.0
WITHDRAWN_SECONDS = 10.0
SLOW_START_SECONDS = 30.0
SLOW_START_LEAST = 0.1


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """What the choice of a replica has to know of a request."""

    adapter: str
    blocks: Blocks
    prompt_tokens: int  # an estimate
    output_tokens: int  # at most


@dataclass(slots=True, eq=False)
class Replica:
    """All of the mutable state that one process keeps of one incarnation."""

    endpoint: Endpoint
    new_at: float = float("-inf")  # when it began to take requests
    outstanding: int = 0  # requests under way
    tokens: int = 0  # estimated to be still computed for them
    rests_until: float = 0.0
    health: Health = GOOD
    is_probed: bool = False
    seen: Seen = field(default_factory=Seen)
    withdrawn: dict[str, float] = field(default_factory=dict)  # adapters it denied, until when
    seed: int = 0  # of its rank for any request; the same in every process

    def __post_init__(self) -> None:
        self.seed = crc32(self.endpoint.incarnation.encode())

    def rest(self, now: float) -> None:
        """It is full: leave it alone for a moment, where others can do the work."""
        self.rests_until = now + REST_SECONDS

    def withdraw(self, adapter: str, now: float) -> None:
        """It said it does not have the adapter: not asked for it again for a while."""
        self.withdrawn[adapter] = now + WITHDRAWN_SECONDS

    def holds(self, adapter: str, now: float) -> bool:
        return self.withdrawn.get(adapter, 0.0) <= now

    @property
    def has_room(self) -> bool:
        """As far as this process can tell; others ask it, too."""
        return self.outstanding < self.endpoint.slots

    def load(self, now: float) -> float:
        """Its tokens; counted as more while it is new, so that it begins with few: its caches are
        cold.
        """
        share = (now - self.new_at) / SLOW_START_SECONDS
        return self.tokens / max(share, SLOW_START_LEAST) if share < 1 else self.tokens

    def is_due(self, now: float) -> bool:
        """Whether it is time to probe it."""
        if self.health.is_open or self.is_probed or not self.endpoint.adapters:
            return False
        return now >= self.health.probe_at

    def probed(self, *, succeeded: bool, now: float) -> None:
        self.health = after_probe(self.health, succeeded=succeeded, now=now)
        if succeeded:
            self.new_at = now

    def take(self, wish: Wish) -> Load:
        """Count a request until the load is given back."""
        return Load(self, wish)

    def succeeded(self) -> None:
        """It gave an answer to its end."""
        if self.health.failures:
            self.health = after_success(self.health)


class Load:
    """One request's place in the counts of a replica. ``give_back`` exactly once."""

    __slots__ = ("_replica", "_tokens", "_uncomputed")

    def __init__(self, replica: Replica, wish: Wish) -> None:
        cached = prefix.tokens(replica.seen.depth(wish.blocks))
        replica.seen.add(wish.blocks)
        self._replica = replica
        self._uncomputed = max(0, wish.prompt_tokens - cached)
        self._tokens = self._uncomputed + wish.output_tokens
        replica.outstanding += 1
        replica.tokens += self._tokens

    def prompt_is_done(self) -> None:
        """The first token came: of the prompt nothing is left to compute."""
        self._replica.tokens -= self._uncomputed
        self._tokens -= self._uncomputed
        self._uncomputed = 0

    def give_back(self) -> None:
        self._replica.outstanding -= 1
        self._replica.tokens -= self._tokens
