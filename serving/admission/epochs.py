"""This process in Redis' epoch: announced in it, accounts loaded, the dead accounted for.

Decision 0202 says why. One task announces; whoever needs money waits for it, a bounded time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

from serving.admission.batch import Answer, Batch, Operation, Redis
from serving.admission.held import Holdings
from serving.admission.keys import money_pattern, money_prefix
from serving.admission.ledger import Ledger, LedgerUnavailable
from serving.admission.link import RedisDown, RedisRefused

log = logging.getLogger(__name__)
_T = TypeVar("_T")

NEEDS, STALE = 3, 4
_CHUNK = 500
_PAUSE_SECONDS = 0.2  # between two looks at what we wait for
_RETRY_SECONDS = 0.02


class Epochs:
    """All of the mutable state: which epoch is complete, and what is under way towards it."""

    def __init__(
        self, batch: Batch, redis: Redis, holdings: Holdings, *, prefix: str, writer: str
    ) -> None:
        self.ledger: Ledger | None = None
        self._batch = batch
        self._redis = redis
        self._holdings = holdings
        self._prefix = prefix
        self._writer = writer
        self._is_in_roster = False
        self._complete = ""  # the epoch that we know to be complete
        self._changed = asyncio.Event()  # set, and replaced, whenever we are one step further
        self._announcing: asyncio.Task[None] | None = None
        self._loading: dict[str, asyncio.Task[bool]] = {}
        self._tasks: set[asyncio.Task[Any]] = set()

    @property
    def is_complete(self) -> bool:
        return bool(self._complete) and self._complete == self._batch.announced

    def begin(self) -> None:
        """We are not announced: make it so, unless somebody is at it."""
        if self.ledger is not None and self._announcing is None:
            self._announcing = self._start(self._announce(self.ledger))
            self._announcing.add_done_callback(self._announced)

    def cancel(self) -> None:
        for task in self._tasks:
            task.cancel()

    async def ready(self, answer: Answer, until: float) -> bool:
        """Whether to ask again after 'stale' or 'needs'; ``until`` on the loop's clock."""
        if self.ledger is None:
            return False
        try:
            async with asyncio.timeout_at(until):
                if answer[0] == STALE or not self.is_complete:
                    await self._until_complete()
                if answer[0] == NEEDS:
                    return await self._load(self.ledger, answer[1].decode())
        except TimeoutError:
            return False
        return True

    def load_soon(self, accounts: Sequence[str]) -> None:
        """Nobody waits for these accounts, but the next call should find them."""
        if self.ledger is not None and self.is_complete:
            for account in accounts:
                _ = self._loader(self.ledger, account)

    def look_after_silent(self) -> None:
        if self.is_complete:
            _ = self._start(self.close_silent())

    async def close_silent(self) -> None:
        """Writers of this epoch that are silent and whose journals are closed are accounted for."""
        if self.ledger is None or not self.is_complete:
            return
        try:
            *_, silent = await self._batch.ask(["announced"])
            if not silent:
                return
            roster = await self.ledger.roster([name.decode() for name in silent])
            for name, totals in roster.closed.items():
                await self.close_writer(name, totals)
        except (RedisDown, LedgerUnavailable) as error:
            log.debug("silent writers are looked at again later: %s", error)

    async def close_writer(self, writer: str, totals: Any) -> None:
        """The writer's journal is closed: its totals are final, its holds go."""
        flat = [value for item in totals.items() for value in item]
        chunks = _chunked(flat, 2 * _CHUNK) or [[]]
        for index, chunk in enumerate(chunks):
            is_last = int(index == len(chunks) - 1)
            await self._batch.ask(["close_writer", writer, chunk, is_last])

    async def _announce(self, ledger: Ledger) -> None:
        is_said = False
        while not self._batch.announced:
            try:
                if await self._entered(ledger):
                    await self._announce_once()
            except LedgerUnavailable:
                if not is_said:
                    log.warning("not in the roster yet: the ledger is away; prepaid calls wait")
                is_said = True
            except RedisDown:
                return  # its return begins anew
            if not self._batch.announced:
                await asyncio.sleep(_PAUSE_SECONDS)
        self._step()
        await self._complete_epoch(ledger)
        await self._remove_old()

    async def _entered(self, ledger: Ledger) -> bool:
        """Nothing is held before the roster says that we may hold something."""
        if not self._is_in_roster:
            self._is_in_roster = self._writer in (await ledger.roster()).living
        return self._is_in_roster

    async def _announce_once(self) -> None:
        """Totals may travel one by one: they only grow. Holds go in one breath with the end, and
        with what was spent since the totals went: a settlement before the end is not heard.
        """
        await self._batch.ask(["beat"])
        epoch, generation = self._batch.seen, self._batch.generation
        for chunk in _chunked(self._holdings.totals(), 2 * _CHUNK):
            await self._batch.ask(["announce_totals", chunk, epoch])
        operations: list[Operation] = [
            ["announce_totals", chunk, epoch]
            for chunk in _chunked(self._holdings.totals_changed(), 2 * _CHUNK)
        ]
        operations += [
            ["announce_holds", chunk, epoch] for chunk in _chunked(self._holdings.holds(), _CHUNK)
        ]
        if generation != self._batch.generation:
            raise RedisDown("another connection")
        answer = await self._batch.ask_in_one([*operations, ["announce", epoch]])
        if answer[0] == 1:
            self._batch.announced_in(epoch, generation)

    async def _complete_epoch(self, ledger: Ledger) -> None:
        while epoch := self._batch.announced:
            try:
                living = (await ledger.roster()).living
                answer = await self._batch.ask(["complete", list(living)])
            except LedgerUnavailable:
                answer = [0]
            except RedisDown:
                return
            if answer[0] == 1:
                self._complete = epoch
                self._step()
                return
            await asyncio.sleep(_PAUSE_SECONDS)

    async def _until_complete(self) -> None:
        while not self.is_complete:
            if self._announcing is None:
                await self._beat()
            await self._changed.wait()

    async def _beat(self) -> None:
        """Any call tells which epoch it is, and begins the rest."""
        try:
            await self._batch.ask(["beat"])
        except RedisDown:
            await asyncio.sleep(_PAUSE_SECONDS)
        if self._announcing is None and not self.is_complete:
            self.begin()

    async def _load(self, ledger: Ledger, account: str) -> bool:
        return await asyncio.shield(self._loader(ledger, account))

    def _loader(self, ledger: Ledger, account: str) -> asyncio.Task[bool]:
        """However many wait for an account, it is read once."""
        task = self._loading.get(account)
        if task is None:
            task = self._loading[account] = self._start(self._load_once(ledger, account))
            task.add_done_callback(lambda _: self._loading.pop(account, None))
        return task

    async def _load_once(self, ledger: Ledger, account: str) -> bool:
        """Read until nobody came or went between the reading and the writing."""
        try:
            while self.is_complete:
                _, version, names, _ = await self._batch.ask(["announced"])
                base = await ledger.base(account, [name.decode() for name in names])
                answer = await self._batch.ask(
                    ["load", account, version.decode(), base.nano, base.last_entry]
                )
                if answer[0] == 1:
                    return True
                await asyncio.sleep(_RETRY_SECONDS)
        except (LedgerUnavailable, RedisDown) as error:
            log.warning("account not loaded: %s", error)
        return False

    async def _remove_old(self) -> None:
        """Keys of epochs that are over: nobody reads them any more."""
        keep = money_prefix(self._prefix, self._batch.announced).encode()
        cursor: bytes = b"0"
        try:
            while True:
                cursor, keys = await self._redis.call(
                    "SCAN", cursor, "MATCH", money_pattern(self._prefix), "COUNT", 1000
                )
                old = [key for key in keys if not key.startswith(keep)]
                if old and self._batch.announced:
                    await self._redis.call("UNLINK", *old)
                if cursor == b"0":
                    return
                await asyncio.sleep(0)
        except (RedisDown, RedisRefused) as error:
            log.debug("old epochs stay for now: %s", error)

    def _announced(self, task: asyncio.Task[None]) -> None:
        self._announcing = None
        self._step()

    def _step(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _start(self, work: Coroutine[Any, Any, _T]) -> asyncio.Task[_T]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _chunked(values: list[_T], size: int) -> list[list[_T]]:
    return [values[start : start + size] for start in range(0, len(values), size)]
