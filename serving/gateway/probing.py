"""Looks after replicas: finds those that stall, and asks the ejected ones until they answer.

A probe is a completion of one token that nobody is billed for, so an engine that is dead behind a
living HTTP server fails it. While a probe is under way the replica is half open: customers'
requests wait for its outcome elsewhere. When probes fail, requests that wait there for their first
byte are given up, and may be tried elsewhere.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter

import msgspec

from kernel.clock import Clock, monotonic
from serving.contracts import Endpoint
from serving.gateway.answers import PlainAnswer
from serving.gateway.connection import UpstreamError
from serving.gateway.ejection import Failure
from serving.gateway.replica import Replica
from serving.gateway.upstream import Upstream
from serving.gateway.watchdog import stalled
from serving.gateway.where import Fleet

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.25
PROBE_SECONDS = 5.0
HOPELESS_PROBES = 3  # after so many in a row, whole answers are not waited for either
_WATCH_SECONDS = 1.0


class Prober:
    """All of the mutable state: what probes gave, and when it was last looked for stalls."""

    def __init__(
        self, fleet: Fleet, upstream: Upstream, *, quiet_seconds: float, clock: Clock = monotonic
    ) -> None:
        self.outcomes: Counter[bool] = Counter()
        self._fleet = fleet
        self._upstream = upstream
        self._quiet_seconds = quiet_seconds
        self._clock = clock
        self._watched_at = 0.0

    async def run(self) -> None:
        async with asyncio.TaskGroup() as probes:
            while True:
                await asyncio.sleep(LOOK_SECONDS)
                now = self._clock()
                self.watch(now)
                for replica in self.due(now):
                    probes.create_task(self.probe(replica))

    def watch(self, now: float) -> None:
        """Eject what stalls."""
        if now - self._watched_at < _WATCH_SECONDS:
            return
        self._watched_at = now
        signs = self._upstream.signs()
        for pool in self._fleet.pools():
            replicas = {replica.endpoint.incarnation: replica for replica in pool}
            for name in stalled(tuple(replicas), signs, now=now, quiet_seconds=self._quiet_seconds):
                self._fleet.failed(replicas[name], Failure.STALLED, now)

    def due(self, now: float) -> list[Replica]:
        """Ejected replicas whose next probe is due; from here on it counts as under way."""
        found = [replica for replica in self._fleet if replica.is_due(now)]
        for replica in found:
            replica.is_probed = True
        return found

    async def probe(self, replica: Replica) -> None:
        try:
            succeeded = await self._answers(replica)
        finally:
            replica.is_probed = False
        self.outcomes[succeeded] += 1
        replica.probed(succeeded=succeeded, now=self._clock())
        if succeeded:
            log.warning("replica %s is back", replica.endpoint.replica)
        else:
            self._upstream.give_up(
                replica.endpoint.incarnation,
                also_whole=replica.health.probes >= HOPELESS_PROBES,
            )

    async def _answers(self, replica: Replica) -> bool:
        endpoint = replica.endpoint
        adapters = endpoint.adapters
        adapter = adapters[replica.health.probes % len(adapters)].name
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                return await self._ask(endpoint, adapter)
        except (UpstreamError, TimeoutError):
            return False

    async def _ask(self, endpoint: Endpoint, adapter: str) -> bool:
        body = msgspec.json.encode(
            {"model": adapter, "cache_salt": "probe", "prompt": "1", "max_tokens": 1}
        )
        request = self._upstream.request(endpoint, "/v1/completions", body, request_id="probe")
        connection = await self._upstream.connect(endpoint)
        answer = PlainAnswer()
        try:
            connection.send(
                request,
                answer,
                is_stream=False,
                first_seconds=PROBE_SECONDS,
                idle_seconds=PROBE_SECONDS,
            )
            await answer.finished
        finally:
            self._upstream.release(connection)
        return answer.status == 200
