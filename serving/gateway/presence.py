"""What each process says of itself in Redis once a second, for operators' page of gateways.

On one machine and in a cluster the control plane reaches this Redis, but not a gateway's disk. A
process that is gone stays there with the time of its last sign; nothing decides by it.
"""

from __future__ import annotations

import asyncio
import logging
import os
from typing import Any

import msgspec

from kernel.clock import Clock, wall
from serving.admission.link import RedisDown, RedisRefused
from serving.gateway.metrics import Snapshot
from serving.gateway.principals import Redis

log = logging.getLogger(__name__)


class Sign(msgspec.Struct, frozen=True, kw_only=True):
    """One process at one time (seconds since the epoch); numbers as ``/metrics`` names them."""

    node: str
    index: int
    writer: str  # of its journal
    pid: int
    started_at: float
    at: float
    counters: dict[str, float]
    gauges: dict[str, float]


def presence_key(cell: str) -> str:
    """A hash: ``<node>/<index>`` -> ``Sign`` as JSON."""
    return f"tessera:gateways:{cell}"


class Presence:
    """Says it on the process's own link, at most once at a time, and forgets what fails."""

    def __init__(  # noqa: PLR0913 - who it speaks for
        self,
        redis: Redis,
        *,
        cell: str,
        node: str,
        index: int,
        writer: str,
        clock: Clock = wall,
    ) -> None:
        self._redis = redis
        self._key = presence_key(cell)
        self._node, self._index, self._writer = node, index, writer
        self._started_at = clock()
        self._last: asyncio.Future[Any] | None = None

    def tell(self, snapshot: Snapshot) -> None:
        if self._last is not None and not self._last.done():
            return
        sign = Sign(
            node=self._node,
            index=self._index,
            writer=self._writer,
            pid=os.getpid(),
            started_at=self._started_at,
            at=snapshot.at,
            counters=snapshot.counters,
            gauges=snapshot.gauges,
        )
        field = f"{self._node}/{self._index}"
        try:
            self._last = self._redis.call("HSET", self._key, field, msgspec.json.encode(sign))
        except RedisDown:
            return
        self._last.add_done_callback(_forget)


def _forget(told: asyncio.Future[Any]) -> None:
    if told.cancelled():
        return
    error = told.exception()
    if error is not None and not isinstance(error, RedisDown | RedisRefused):
        log.warning("presence not told: %s", error)
