"""One gateway process: put together, run, drain, close."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Coroutine, Sequence
from typing import IO, Any

from kernel.clock import monotonic, wall
from serving.admission.client import RENEW_SECONDS, Admission
from serving.admission.link import RedisLink
from serving.admission.values import Grant
from serving.gateway import routing_metrics
from serving.gateway.access import AccessLog
from serving.gateway.addresses import Proxies
from serving.gateway.answerbook import AnswerBook
from serving.gateway.answers import OpenStreams
from serving.gateway.api import Api
from serving.gateway.database import Database
from serving.gateway.documents import Documents
from serving.gateway.errors import Busy, Unauthorized
from serving.gateway.exchange import Exchange
from serving.gateway.failed_keys import FailedKeys
from serving.gateway.head import Limits
from serving.gateway.held import Infer, Strict
from serving.gateway.http import Door
from serving.gateway.idempotency import Idempotency, PostgresLedger
from serving.gateway.listening import Listeners
from serving.gateway.metrics import Metrics, read_snapshot, snapshot_path, write_snapshot
from serving.gateway.patience import Patience
from serving.gateway.presence import Presence
from serving.gateway.principals import PrincipalCache, PrincipalDatabase
from serving.gateway.probing import Prober
from serving.gateway.rhythm import in_pieces
from serving.gateway.settings import Settings
from serving.gateway.settle import OpenAccounts
from serving.gateway.status import Status
from serving.gateway.treasury import Treasury
from serving.gateway.upstream import Timeouts, Upstream
from serving.gateway.what import Directory
from serving.gateway.where import Fleet
from serving.gateway.who import Who
from serving.journal.writer import JournalWriter, SyncMode
from serving.journal.writer import Limits as JournalLimits

log = logging.getLogger(__name__)

REDIS_SECONDS = 0.1
ANSWERS_SECONDS = 0.5  # a kept answer may be a megabyte; on a link of its own, nothing waits for it
_PUSH_SECONDS = 5.0  # an XREAD that blocks for one second and is still silent then is lost
_TICK_SECONDS = 1.0
_CHECKPOINT_SECONDS = 0.8  # the rest of the second is for tokens on their way and for a busy loop
_LOG_SECONDS = 0.1
_KEEP_ALIVE_GRACE_SECONDS = 2.0
_LAST_WORDS_SECONDS = 1.0
_DRAIN_STEP_SECONDS = 0.02


class Gateway:
    """The parts of one process. ``start``, then ``drain``, then ``close``; each once."""

    def __init__(  # noqa: PLR0913 - what a process is given from outside
        self,
        settings: Settings,
        *,
        sockets: list[socket.socket],
        index: int,
        metrics_socket: socket.socket | None,
        out: IO[bytes],
        fleet: Fleet,
    ) -> None:
        self._settings = settings
        self._index = index
        self._metrics_socket = metrics_socket
        self._tasks: set[asyncio.Task[Any]] = set()
        self._status_server: asyncio.Server | None = None
        self.failed = asyncio.Event()
        settings.run.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._snapshot_path = snapshot_path(settings.run, index)
        self._metrics = Metrics(read_snapshot(self._snapshot_path))
        self._log = AccessLog(out)
        self._accounts = OpenAccounts()
        self._streams = OpenStreams()
        self._patience = Patience()
        self._fleet = fleet
        self._upstream = Upstream(engine_key=settings.engine_key)
        self._prober = Prober(self._fleet, self._upstream, quiet_seconds=settings.quiet_seconds)
        self._redis = RedisLink(settings.redis_url, timeout_seconds=REDIS_SECONDS)
        self._push = RedisLink(settings.redis_url, timeout_seconds=_PUSH_SECONDS)
        self._database = PrincipalDatabase(settings.database_url)
        self._answers = RedisLink(settings.cache_redis_url, timeout_seconds=ANSWERS_SECONDS)
        self._keys = Database(settings.database_url)
        self._who = Who(
            cache=PrincipalCache(self._redis, key=settings.document_key),
            database=self._database,
            pepper=settings.key_pepper,
            on_revoked=self._end_streams,
            failed_keys=FailedKeys(settings.failed_keys_per_minute),
        )
        self._documents = Documents(
            redis=self._push,
            key=settings.document_key,
            cell=settings.cell,
            folder=settings.documents,
            on_change=self._directory_changed,
            on_revoked=self._who.revoke,
        )
        self._journal = JournalWriter.open(
            settings.journal, node=settings.node, limits=JournalLimits(sync=settings.journal_sync)
        )
        self._presence = Presence(
            self._redis,
            cell=settings.cell,
            node=settings.node,
            index=index,
            writer=self._journal.writer_id,
        )
        self._treasury = Treasury(
            self._keys, writer=self._journal.writer_id, cell=settings.cell, node=settings.node
        )
        self._grants = RedisLink(settings.redis_url, timeout_seconds=_PUSH_SECONDS)
        self._admission = Admission(
            self._redis,
            cell=settings.cell,
            processes=settings.processes,
            writer=self._journal.writer_id,
            ledger=self._treasury,
            push=self._grants,
            on_lapsed=self._lapsed,
        )
        api = self._api()
        self._door = Door(
            api,
            limits=_limits(settings),
            on_refused=api.door_refused,
            is_proxy=api.proxies.trusts,
        )
        self._listeners = Listeners(sockets, index, run=settings.run, factory=self._door.connection)

    async def start(self) -> None:
        """Serve. What is known from disk is served at once; Redis and PostgreSQL may be down."""
        self._documents.load()
        self._begin(self._redis.run(on_up=self._write_snapshot))
        self._begin(self._push.run())
        self._begin(self._grants.run())
        self._begin(self._admission.run())
        self._begin(self._treasury.run(self._admission.credit))
        self._begin(self._answers.run())
        self._begin(self._documents.run())
        self._begin(self._journal.run())
        self._begin(self._tick())
        self._begin(self._checkpoint())
        self._begin(self._prober.run())
        self._begin(self._flush_log())
        await self._listeners.open()
        self._begin(self._listeners.watch())
        if self._metrics_socket is not None:
            status = Status(run=self._settings.run, is_ready=self._is_ready)
            door = Door(status, limits=Limits(body_bytes=0, connections=64))
            self._status_server = await asyncio.get_running_loop().create_server(
                door.connection, sock=self._metrics_socket
            )

    async def drain(self) -> None:
        """Accept no more, finish what is open within the limit, end what is left with an error."""
        deadline = monotonic() + self._settings.drain_seconds
        self._listeners.close()
        self._door.drain()
        await self._until(lambda: not self._door.connections, by=_KEEP_ALIVE_GRACE_SECONDS)
        self._door.close_idle()
        await self._until(lambda: not self._door.busy, by=deadline - monotonic())
        self._streams.end_all(Busy("This gateway is shutting down.", code="shutting_down"))
        await self._until(lambda: not self._door.busy, by=_LAST_WORDS_SECONDS)
        self._door.abort_all()
        await asyncio.sleep(0)

    async def close(self) -> None:
        """Give back what is held and make the journal durable."""
        await self._who.settle_reads()
        await self._idempotency.settled()
        try:
            async with asyncio.timeout(_LAST_WORDS_SECONDS):
                await self._admission.flush()
        except TimeoutError:
            log.warning("slots are left to their leases: redis did not answer")
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._status_server is not None:
            self._status_server.close()
        self._upstream.close()
        await self._database.close()
        await self._keys.close()
        self._write_snapshot()
        self._log.flush()
        self._journal.close()

    @staticmethod
    async def _until(is_done: Callable[[], bool], *, by: float) -> None:
        deadline = monotonic() + by
        while not is_done() and monotonic() < deadline:  # noqa: ASYNC110 - what is awaited has no event
            await asyncio.sleep(_DRAIN_STEP_SECONDS)

    def _api(self) -> Api:
        settings = self._settings
        exchange = Exchange(
            who=self._who,
            directory=lambda: self._documents.directory,
            admission=self._admission,
            journal=self._journal,
            fleet=self._fleet,
            upstream=self._upstream,
            accounts=self._accounts,
            streams=self._streams,
            metrics=self._metrics,
            salt_key=settings.salt_key,
            queue_seconds=settings.queue_seconds,
            timeouts=Timeouts(
                first_token=settings.first_token_seconds,
                answer=settings.answer_seconds,
                idle=settings.idle_seconds,
            ),
        )
        infer = self._infer(exchange)
        self._idempotency = Idempotency(
            infer,
            book=AnswerBook(self._answers, secret=settings.salt_key),
            ledger=PostgresLedger(self._keys),
            count=lambda outcome: self._metrics.count(
                "tessera_gateway_idempotent_total", "outcome", outcome
            ),
        )
        return Api(
            exchange=exchange,
            infer=infer,
            idempotency=self._idempotency,
            log=self._log,
            origins=settings.portal_origins,
            proxies=Proxies(settings.trusted_proxies),
            patience=self._patience,
        )

    def _infer(self, exchange: Exchange) -> Infer:
        if self._settings.journal_sync is SyncMode.STRICT:
            return Strict(exchange.infer, durable=self._journal.durable).infer
        return exchange.infer

    def _directory_changed(self, directory: Directory) -> None:
        for incarnation in self._fleet.update(directory, monotonic()):
            self._upstream.forget(incarnation)
        for pool in directory.pools:
            self._admission.offer(pool, directory.slots(pool))
        self._write_snapshot()

    def _lapsed(self, grants: Sequence[Grant]) -> None:
        """This process was stopped for longer than its leases: others have its slots by now."""
        if grants:
            self._streams.end_all(Busy("This gateway was stopped for a while.", code="lease_lost"))

    def _end_streams(self, key_id: str) -> None:
        self._streams.end(key_id, Unauthorized())

    def _is_ready(self) -> bool:
        return self._documents.routes_sequence > 0

    async def _tick(self) -> None:
        """What has a rhythm: time limits, revocations, leases, metrics."""
        renew_at = monotonic() + RENEW_SECONDS
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            await in_pieces(self._door.sweep())
            self._patience.sweep()
            await in_pieces(self._upstream.sweep())
            self._check_open_streams()
            if monotonic() >= renew_at:
                renew_at = monotonic() + RENEW_SECONDS
                await self._idempotency.renew()
            self._write_snapshot()

    async def _checkpoint(self) -> None:
        """Beside the tick, which may wait for Redis: a cut stream is short by a second at most."""
        while True:
            await asyncio.sleep(_CHECKPOINT_SECONDS)
            await in_pieces(self._accounts.checkpoint())

    async def _flush_log(self) -> None:
        while True:
            await asyncio.sleep(_LOG_SECONDS)
            self._log.flush()

    def _check_open_streams(self) -> None:
        for known in self._streams.callers():
            self._who.refresh(known)
            if self._who.is_revoked(known):
                self._end_streams(known.principal.key_id)

    def _write_snapshot(self) -> None:
        metrics = self._metrics
        metrics.total("tessera_gateway_principal_reads_total", self._who.database_reads)
        metrics.total("tessera_gateway_failed_keys_refused_total", self._who.failed_keys.refused)
        metrics.total("tessera_gateway_local_admissions_total", self._admission.local_admissions)
        metrics.total("tessera_gateway_local_refusals_total", self._admission.local_refusals)
        metrics.gauge("tessera_gateway_connections", len(self._door.connections))
        metrics.gauge("tessera_gateway_streams", len(self._streams))
        metrics.gauge("tessera_gateway_slots_held", self._admission.held)
        metrics.gauge("tessera_gateway_waiting", self._admission.waiting)
        metrics.gauge("tessera_gateway_money_ready", self._admission.is_money_ready)
        metrics.total("tessera_gateway_soft_unchecked_total", self._admission.soft_unchecked)
        metrics.gauge("tessera_gateway_upstream_connections", self._upstream.open_connections)
        routing_metrics.tell(metrics, self._fleet, self._prober)
        metrics.gauge("tessera_gateway_redis_up", self._redis.is_up)
        metrics.gauge("tessera_gateway_database_up", self._who.database_up)
        metrics.gauge("tessera_gateway_routes_sequence", self._documents.routes_sequence)
        snapshot = metrics.snapshot(wall())
        self._presence.tell(snapshot)
        try:
            write_snapshot(self._snapshot_path, snapshot)
        except OSError as error:
            log.warning("metrics not written: %s", error.strerror)

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        """A background task; its failure ends the process, which the supervisor starts again."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            return
        error = task.exception()
        if error is not None:
            log.critical("a background task failed", exc_info=error)
            self.failed.set()


def _limits(settings: Settings) -> Limits:
    return Limits(
        connections_per_address=settings.connections_per_address,
        body_bytes=settings.body_bytes,
        head_seconds=settings.head_seconds,
        body_seconds=settings.body_seconds,
        stall_seconds=settings.stall_seconds,
    )
