"""Which replica gets a request: a pure choice over what is known, and the fleet it is made from.

A request goes where the longest beginning of its prompt was computed before, while that replica
is not loaded beyond a bound; where nobody knows it, to the home that hashing gives it, so that all
processes agree; else to where the fewest tokens are still to be computed.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Literal

import msgspec

from serving.gateway import prefix
from serving.gateway.ejection import Failure, after_failure
from serving.gateway.replica import Replica, Wish
from serving.gateway.retries import RetryBudget
from serving.gateway.what import Directory, Target

log = logging.getLogger(__name__)

MAX_ATTEMPTS = 3  # replicas that a call is shown to
MAX_ASKED_AGAIN = 1  # of those, more than the first that may have taken it and failed
BOUND = 1.25  # how far above the average a replica's load may be before affinity gives way
_HOME_DEPTH = 2  # home is hashed on the first 512 bytes: what follows is often the user's own

By = Literal["prefix", "home", "load"]


class Choice(msgspec.Struct, frozen=True):
    replica: Replica
    by: By


def choose(
    replicas: Sequence[Replica], wish: Wish, *, now: float, tried: Collection[str] = ()
) -> Choice | None:
    """None when all are ejected or tried. A resting replica counts only when all others rest, too.

    Loads are estimated tokens. A replica may be loaded up to ``BOUND`` x average, plus what it
    saves by knowing the prompt's beginning, or will save the next time: that much is worth
    queueing behind.
    """
    awake = _awake(replicas, now, tried)
    if len(awake) < 2:
        return Choice(awake[0], "load") if awake else None
    allowed = BOUND * sum([replica.tokens for replica in awake]) / len(awake)
    known = _knowing(awake, wish, allowed, now)
    if known is not None:
        return Choice(known, "prefix")
    home = _home(awake, wish)
    if home.has_room and home.load(now) <= allowed + prefix.tokens(len(wish.blocks) - 1):
        return Choice(home, "home")
    return Choice(_least_loaded(awake, wish, now), "load")


def _awake(replicas: Sequence[Replica], now: float, tried: Collection[str]) -> list[Replica]:
    open_ = [replica for replica in replicas if replica.health.reason is None]
    if tried:
        open_ = [replica for replica in open_ if replica.endpoint.incarnation not in tried]
    return [replica for replica in open_ if replica.rests_until <= now] or open_


def _knowing(awake: Sequence[Replica], wish: Wish, allowed: float, now: float) -> Replica | None:
    """Who knows the longest beginning and may take more; of several, the least loaded."""
    best, best_depth, best_load = None, 1, float("inf")
    for replica in awake:
        depth = replica.seen.depth(wish.blocks)
        if depth < best_depth or not replica.has_room:
            continue
        load = replica.load(now)
        is_better = depth > best_depth or load < best_load
        if is_better and load <= allowed + prefix.tokens(depth):
            best, best_depth, best_load = replica, depth, load
    return best


def _home(awake: Sequence[Replica], wish: Wish) -> Replica:
    """By rendezvous hashing, so a replica that comes or goes moves only its own share.

    The ranks are the same in every process, unlike Python's own hashes.
    """
    key = wish.blocks[min(_HOME_DEPTH, len(wish.blocks) - 1)]
    return max(awake, key=lambda replica: _mixed(key ^ replica.seed))


def _mixed(number: int) -> int:
    """Two rounds of SplitMix64: CRC sums alone would give unequal shares."""
    number = number * 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF
    number = (number ^ number >> 32) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
    return number ^ number >> 31


def _least_loaded(awake: Sequence[Replica], wish: Wish, now: float) -> Replica:
    """Where the fewest tokens are to be computed with the request, of its own the uncached ones."""

    def cost(replica: Replica) -> tuple[bool, float]:
        saved = prefix.tokens(replica.seen.depth(wish.blocks))
        return not replica.has_room, replica.load(now) + max(0, wish.prompt_tokens - saved)

    return min(awake, key=cost)


class Fleet:
    """All of the mutable state: one ``Replica`` per incarnation, kept over document changes."""

    def __init__(self) -> None:
        self._replicas: dict[str, Replica] = {}
        self._pools: dict[str, list[Replica]] = {}
        self._holding: dict[tuple[str, str, str], list[Replica]] = {}
        self._budgets: dict[str, RetryBudget] = {}
        self.ejections: Counter[Failure] = Counter()
        self.choices: Counter[By] = Counter()
        self.retries: Counter[bool] = Counter()  # allowed, and refused by a pool's budget

    def update(self, directory: Directory, now: float) -> list[str]:
        """Take a new directory; what is known of a replica stays. Returns incarnations gone.

        Replicas of a pool that was unknown before are not new, only unknown to this process.
        """
        endpoints = [e for group in directory.endpoints.values() for e in group]
        listed = {endpoint.incarnation for endpoint in endpoints}
        gone = [incarnation for incarnation in self._replicas if incarnation not in listed]
        for incarnation in gone:
            del self._replicas[incarnation]
        known = self._pools
        self._pools, self._holding = {}, {}
        for endpoint in endpoints:
            replica = self._replicas.get(endpoint.incarnation)
            if replica is None:
                new_at = now if endpoint.pool in known else float("-inf")
                replica = self._replicas[endpoint.incarnation] = Replica(endpoint, new_at)
            replica.endpoint = endpoint
            self._enter(replica)
        self._budgets = {p: b for p, b in self._budgets.items() if p in self._pools}
        return gone

    def holding(self, target: Target, now: float) -> list[Replica]:
        """Replicas of the target's pool on which its adapter is proven and not withdrawn since."""
        adapter = target.arm.adapter
        replicas = self._holding.get((target.pool.id, adapter, target.arm.digest), ())
        return [replica for replica in replicas if replica.holds(adapter, now)]

    def choose(
        self, target: Target, wish: Wish, *, now: float, tried: Collection[str], asked: int
    ) -> Replica | None:
        """Who is asked next; nobody when none is left, or enough was tried."""
        choice = choose(self.holding(target, now), wish, now=now, tried=tried)
        if choice is None:
            return None
        if not self.may_try(target.pool.id, now, tried=len(tried), asked=asked):
            return None
        self.choices[choice.by] += 1
        return choice.replica

    def may_try(self, pool: str, now: float, *, tried: int, asked: int) -> bool:
        """Whether a call may ask a replica after ``tried`` others failed it, ``asked`` of which had
        taken the request. The first time it always may.

        A request that two engines failed on is not shown to a third: it may be what they fail on.
        """
        budget = self._budgets.get(pool)
        if budget is None:
            budget = self._budgets[pool] = RetryBudget(now)
        if not tried:
            budget.earn()
            return True
        if tried >= MAX_ATTEMPTS or asked > MAX_ASKED_AGAIN:
            return False
        may = budget.spend(now)
        self.retries[may] += 1
        return may

    def failed(self, replica: Replica, failure: Failure, now: float) -> None:
        """Something went wrong with it; enough of that ejects it."""
        if not replica.health.is_open:
            return
        others = [one for one in self._pools.get(replica.endpoint.pool, ()) if one is not replica]
        replica.health = after_failure(
            replica.health,
            failure,
            now=now,
            others_open=sum(one.health.is_open for one in others),
            others=len(others),
        )
        if not replica.health.is_open:
            self.ejections[failure] += 1
            log.warning("replica %s is ejected: %s", replica.endpoint.replica, failure)

    def budgets(self) -> dict[str, float]:
        """What every pool's calls may still retry."""
        return {pool: budget.left for pool, budget in self._budgets.items()}

    def pools(self) -> Iterable[Sequence[Replica]]:
        return self._pools.values()

    def __iter__(self) -> Iterator[Replica]:
        return iter(self._replicas.values())

    def _enter(self, replica: Replica) -> None:
        endpoint = replica.endpoint
        self._pools.setdefault(endpoint.pool, []).append(replica)
        for adapter in endpoint.adapters:
            key = (endpoint.pool, adapter.name, adapter.digest)
            self._holding.setdefault(key, []).append(replica)
