"""A limit on failed keys per client address, asked before any lookup.

Kept in this process: nothing is shared, so the limit holds per process, and nothing outside is
needed to refuse. A failure takes a token from its address' bucket. Failures that need no lookup (a
wrong checksum, a key refused a moment ago) may only take the upper half: one program with one bad
key behind a shared address never keeps a neighbour's new key from being looked up.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from kernel.clock import Clock, monotonic
from serving.gateway.addresses import neighbourhood
from serving.gateway.errors import TooManyFailedKeys

ADDRESS_LIMIT = 10_000
KEY_LIMIT = 10_000
REMEMBER_SECONDS = 5.0


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float


class FailedKeys:
    """All of the mutable state: a bucket per address that failed, and the keys refused lately.

    Both are bounded; the address that failed longest ago is forgotten first, and begins anew.
    """

    def __init__(self, per_minute: float, *, clock: Clock = monotonic) -> None:
        self.refused = 0
        self._burst = max(2.0, per_minute)
        self._per_second = per_minute / 60
        self._clock = clock
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()
        self._lately: OrderedDict[bytes, float] = OrderedDict()

    def check(self, address: str, mac: bytes | None) -> None:
        """Raises ``TooManyFailedKeys``. ``mac``: of a key worth a lookup; none for nonsense."""
        bucket = self._buckets.get(neighbourhood(address))
        if bucket is None:
            return
        self._fill(bucket)
        needed = 1.0 if self._is_worth_a_lookup(mac) else self._burst / 2 + 1
        if bucket.tokens < needed:
            self.refused += 1
            raise TooManyFailedKeys(retry_after_seconds=(needed - bucket.tokens) / self._per_second)

    def failed(self, address: str, mac: bytes | None) -> None:
        """The key was refused: its address pays."""
        name = neighbourhood(address)
        bucket = self._buckets.setdefault(name, _Bucket(self._burst, self._clock()))
        self._fill(bucket)
        bucket.tokens = max(0.0, bucket.tokens - 1)
        self._buckets.move_to_end(name)
        if mac is not None:
            self._lately[mac] = self._clock() + REMEMBER_SECONDS
            self._lately.move_to_end(mac)
        while len(self._buckets) > ADDRESS_LIMIT:
            self._buckets.popitem(last=False)
        while len(self._lately) > KEY_LIMIT:
            self._lately.popitem(last=False)

    def _is_worth_a_lookup(self, mac: bytes | None) -> bool:
        return mac is not None and self._lately.get(mac, 0.0) <= self._clock()

    def _fill(self, bucket: _Bucket) -> None:
        now = self._clock()
        bucket.tokens = min(self._burst, bucket.tokens + (now - bucket.at) * self._per_second)
        bucket.at = now
