"""Which replica gets a request: a pure choice over what is known, and the little that is counted.

An engine is known by its incarnation, one start of one process, never by host and port alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field

from serving.contracts import Endpoint
from serving.gateway.what import Directory, Target

BOUND = 1.25  # how far above the average a replica's load may be before affinity gives way
REST_SECONDS = 1.0
WITHDRAWN_SECONDS = 10.0


@dataclass(slots=True, eq=False)
class Replica:
    """One incarnation and what this process knows of it."""

    endpoint: Endpoint
    outstanding: int = 0
    rests_until: float = 0.0
    withdrawn: dict[str, float] = field(default_factory=dict)  # adapters it denied, until when

    def rest(self, now: float) -> None:
        """It could not be reached: leave it alone for a moment."""
        self.rests_until = now + REST_SECONDS

    def withdraw(self, adapter: str, now: float) -> None:
        """It said it does not have the adapter: not asked for it again for a while."""
        self.withdrawn[adapter] = now + WITHDRAWN_SECONDS

    def holds(self, adapter: str, now: float) -> bool:
        return self.withdrawn.get(adapter, 0.0) <= now


def choose(
    replicas: Sequence[Replica], *, affinity: str, now: float, tried: Collection[str] = ()
) -> Replica | None:
    """The affinity's home while it is not loaded beyond ``BOUND`` x average, else the least loaded.

    Home is by rendezvous hashing, so a replica that comes or goes moves only its own share. A
    resting replica is chosen only when all others are tried or rest, too.
    """
    untried = [r for r in replicas if r.endpoint.incarnation not in tried]
    awake = [r for r in untried if r.rests_until <= now] or untried
    if len(awake) < 2:
        return awake[0] if awake else None
    limit = BOUND * (sum(r.outstanding for r in awake) + 1) / len(awake)
    home = max(awake, key=lambda r: _rank(affinity, r))
    if home.outstanding + 1 <= limit:
        return home
    return min(awake, key=lambda r: (r.outstanding, _rank(affinity, r)))


def affinity(salt: str, adapter: str) -> str:
    """What should meet the same replica again: the same tenant's prefixes on the same adapter."""
    return f"{adapter}:{salt}"


class Fleet:
    """All of the mutable state: one ``Replica`` per incarnation, kept over document changes."""

    def __init__(self) -> None:
        self._replicas: dict[str, Replica] = {}
        self._holding: dict[tuple[str, str, str], list[Replica]] = {}

    def update(self, directory: Directory) -> list[str]:
        """Take a new directory; in-flight counts stay. Returns the incarnations that are gone."""
        endpoints = [e for group in directory.endpoints.values() for e in group]
        listed = {endpoint.incarnation for endpoint in endpoints}
        gone = [incarnation for incarnation in self._replicas if incarnation not in listed]
        for incarnation in gone:
            del self._replicas[incarnation]
        self._holding = {}
        for endpoint in endpoints:
            self._enter(endpoint)
        return gone

    def holding(self, target: Target, now: float) -> list[Replica]:
        """Replicas of the target's pool on which its adapter is proven and not withdrawn since."""
        adapter = target.arm.adapter
        replicas = self._holding.get((target.pool.id, adapter, target.arm.digest), ())
        return [replica for replica in replicas if replica.holds(adapter, now)]

    def __iter__(self) -> Iterator[Replica]:
        return iter(self._replicas.values())

    def _enter(self, endpoint: Endpoint) -> None:
        replica = self._replicas.setdefault(endpoint.incarnation, Replica(endpoint))
        replica.endpoint = endpoint
        for adapter in endpoint.adapters:
            key = (endpoint.pool, adapter.name, adapter.digest)
            self._holding.setdefault(key, []).append(replica)


def _rank(affinity: str, replica: Replica) -> bytes:
    text = f"{affinity}:{replica.endpoint.incarnation}"
    return hashlib.blake2b(text.encode(), digest_size=8).digest()
