"""The fair queue of one pool in plain Python: what ``lua/queue.lua`` has to decide, step by step."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

TIERS = (1, 2, 3)
ONE_IN = 8
RESERVED = 8
FIRST_AVERAGE = 256.0
SMOOTHING = 0.05
MAY_FILL = {1: 1.0, 2: 0.75, 3: 0.5}


@dataclass(frozen=True)
class Waiter:
    grant: str
    tier: int
    tenant: str
    weight: int
    input_tokens: int
    output_tokens: int
    arrival: int


@dataclass
class Model:
    """Slots, counters and who waits; every method returns the grants it made, in order."""

    slots: int = 0
    bound: int = 1000
    tenant_bound: int = 250
    taken: set[str] = field(default_factory=set)
    waiting: list[Waiter] = field(default_factory=list)  # by arrival
    counters: dict[tuple[int, str], float] = field(default_factory=lambda: defaultdict(float))
    last: dict[int, str] = field(default_factory=dict)
    passed: int = 0
    premium_comes: bool = False
    average: float | None = None
    arrivals: int = 0

    def admit(  # noqa: PLR0917 - as the script is asked
        self, grant: str, slots: int, tier: int, tenant: str, weight: int, tokens: tuple[int, int]
    ) -> tuple[str, list[str]]:
        self.slots = slots
        others = self._dispatch()
        self.arrivals += 1
        waiter = Waiter(grant, tier, tenant, weight, *tokens, self.arrivals)
        self.premium_comes |= tier == 1
        kept = 0 if tier == 1 else self._reserve()
        if len(self.taken) < self.slots - kept and self._may_begin(tier):
            self._lift(tier, tenant)
            self._seat(waiter)
            return "granted", others
        mine = sum((one.tier, one.tenant) == (tier, tenant) for one in self.waiting)
        if len(self.waiting) >= self.bound * MAY_FILL[tier] or mine >= self.tenant_bound:
            return "queue_full", others
        self._lift(tier, tenant)
        self.waiting.append(waiter)
        return "queued", others + (self._dispatch() if tier == 1 else [])

    def settle(self, waiter: Waiter, charged: int, used: tuple[int, int]) -> list[str]:
        self.taken.discard(waiter.grant)
        service = used[0] + 2 * used[1]
        if service != charged:
            self._raise(waiter.tier, waiter.tenant, (service - charged) / waiter.weight)
        if used[1] > 0:
            average = used[1] if self.average is None else self.average
            self.average = float(f"{average + SMOOTHING * (used[1] - average):.3f}")
        return self._dispatch()

    def leave(self, grant: str) -> list[str]:
        self.waiting = [one for one in self.waiting if one.grant != grant]
        self.taken.discard(grant)
        return self._dispatch()

    def pump(self, slots: int) -> list[str]:
        self.slots = slots
        return self._dispatch()

    def charge(self, input_tokens: int, output_tokens: int) -> int:
        average = FIRST_AVERAGE if self.average is None else self.average
        return int(input_tokens + 2 * min(average, output_tokens))

    def _dispatch(self) -> list[str]:
        granted = []
        while self.waiting and (free := self.slots - len(self.taken)) > 0:
            tier = self._tier(is_reserved=free <= self._reserve())
            if tier is None:
                break
            in_tier = [one for one in self.waiting if one.tier == tier]
            tenant = min({one.tenant for one in in_tier}, key=lambda one: self._order(tier, one))
            waiter = next(one for one in in_tier if one.tenant == tenant)
            self.waiting.remove(waiter)
            self._seat(waiter)
            granted.append(waiter.grant)
        return granted

    def _order(self, tier: int, tenant: str) -> tuple[float, str]:
        return self.counters[tier, tenant], tenant

    def _reserve(self) -> int:
        return self.slots // RESERVED if self.premium_comes else 0

    def _may_begin(self, tier: int) -> bool:
        if not self.waiting:
            return True
        if tier > 1 or any(one.tier == 1 for one in self.waiting) or self.passed + 1 >= ONE_IN:
            return False
        self.passed += 1
        return True

    def _tier(self, *, is_reserved: bool) -> int | None:
        top = min(one.tier for one in self.waiting)
        if is_reserved and top > 1:
            return None
        below = [one for one in self.waiting if one.tier > top]
        if not below:
            return top
        self.passed += 1
        if self.passed < ONE_IN:
            return top
        self.passed = 0
        return below[0].tier

    def _seat(self, waiter: Waiter) -> None:
        self.taken.add(waiter.grant)
        service = self.charge(waiter.input_tokens, waiter.output_tokens)
        self._raise(waiter.tier, waiter.tenant, service / waiter.weight)
        self.last[waiter.tier] = waiter.tenant

    def _raise(self, tier: int, tenant: str, by: float) -> None:
        self.counters[tier, tenant] = max(0.0, float(f"{self.counters[tier, tenant] + by:.3f}"))

    def _lift(self, tier: int, tenant: str) -> None:
        waiting = {one.tenant for one in self.waiting if one.tier == tier}
        floor = 0.0
        if waiting:
            floor = min(self.counters[tier, one] for one in waiting)
        elif self.last.get(tier, tenant) != tenant:
            floor = self.counters[tier, self.last[tier]]
        self.counters[tier, tenant] = max(self.counters[tier, tenant], floor)
