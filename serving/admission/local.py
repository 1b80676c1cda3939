"""What one process may let in by itself while Redis is away: its share, never more in sum.

A limit of the cell is split evenly. The share starts as full as Redis last said the whole was, so
that going without Redis opens no window. Concurrency and slots are split, too, but at least one.
"""

from __future__ import annotations

from collections import Counter

from serving.admission.prepared import Prepared
from serving.admission.values import AdmissionRequest, Reason, Refusal

MINUTE = 60_000_000
_CONCURRENCY_SECONDS = 1.0


class LocalShare:
    """All of the mutable state: calls under way per pool and subject, and arrival times."""

    def __init__(self, processes: int) -> None:
        self.admitted = 0
        self.refused = 0
        self._processes = processes
        self._per_pool: Counter[str] = Counter()
        self._per_subject: Counter[str] = Counter()
        self._arrivals: dict[str, int] = {}  # of our share of each limit, as GCRA has it
        self._own: dict[str, int] = {}  # the same of what we let pass alone, at the whole limit

    def began(self, pool: str, prepared: Prepared) -> None:
        """A call is under way, whoever let it in."""
        self._per_pool[pool] += 1
        for subject, _ in prepared.concurrency:
            self._per_subject[subject] += 1

    def ended(self, pool: str, prepared: Prepared) -> None:
        self._per_pool[pool] -= 1
        for subject, _ in prepared.concurrency:
            self._per_subject[subject] -= 1

    def take(
        self, request: AdmissionRequest, prepared: Prepared, *, tokens: int, now: int
    ) -> Refusal | None:
        """All or nothing; ``now`` in microseconds. Nothing refused: taken."""
        refusal = self._refusal(request, prepared, tokens, now)
        if refusal is not None:
            self.refused += 1
            return refusal
        for index, (key, limit, is_tokens, _) in enumerate(prepared.limits):
            units = tokens if is_tokens else 1
            self._arrivals[key] = self._after(prepared, index, units, now)
            own = max(self._own.get(key, 0), now)
            self._own[key] = own + min(units, limit) * MINUTE // limit
        self.admitted += 1
        return None

    def returned(self, known: list[Prepared], now: int) -> list[str | int]:
        """Redis is back: {key, arrival time, what passed since}, flat, of each limit in use."""
        arrivals: dict[str, int] = {}
        for prepared in known:
            for (key, *_), arrival in zip(prepared.limits, prepared.arrivals, strict=False):
                if arrival > now:
                    arrivals[key] = max(arrival, arrivals.get(key, 0))
        for key, own in self._own.items():
            if own > now:
                arrivals.setdefault(key, now)
        flat: list[str | int] = []
        for key, arrival in arrivals.items():
            flat += (key, arrival, max(0, self._own.get(key, 0) - now))
        self._arrivals.clear()
        self._own.clear()
        return flat

    def _refusal(
        self, request: AdmissionRequest, prepared: Prepared, tokens: int, now: int
    ) -> Refusal | None:
        share = max(1, request.slots // self._processes) if request.slots else 0
        if self._per_pool[request.pool] >= share:
            return Refusal(reason=Reason.POOL_FULL, retry_after_seconds=1.0)
        for subject, limit in prepared.concurrency:
            if self._per_subject[subject] >= min(limit, max(1, limit // self._processes)):
                return Refusal(
                    reason=Reason.CONCURRENCY,
                    retry_after_seconds=_CONCURRENCY_SECONDS,
                    subject=subject,
                )
        for index, (_, _, is_tokens, subject) in enumerate(prepared.limits):
            after = self._after(prepared, index, tokens if is_tokens else 1, now)
            if after > now + MINUTE:
                return Refusal(
                    reason=Reason.TOKENS_PER_MINUTE if is_tokens else Reason.REQUESTS_PER_MINUTE,
                    retry_after_seconds=(after - now - MINUTE) / 1e6,
                    subject=subject,
                )
        return None

    def _after(self, prepared: Prepared, index: int, units: int, now: int) -> int:
        key, limit, is_tokens, _ = prepared.limits[index]
        if limit == 0:
            return now + 2 * MINUTE
        known = prepared.arrivals[index] if index < len(prepared.arrivals) else 0
        arrival = max(self._arrivals.get(key, known), now)
        whole = MINUTE if is_tokens and units * self._processes >= limit else None
        return arrival + (whole or -(-units * MINUTE * self._processes // limit))
