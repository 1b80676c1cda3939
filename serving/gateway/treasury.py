"""Money as PostgreSQL has it, for admission: who may hold it, what an account comes to, and news.

The functions it calls are in ``billing/migrations/0006_balances.py``; decision 0202 says why the
sums are right. Nothing here waits longer than ``Database`` does, and an outage changes nothing:
accounts that are loaded go on by what admission knows.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, LiteralString, Protocol

import psycopg

from kernel.usage import balance_account
from serving.admission.ledger import Base, LedgerUnavailable, Roster
from serving.gateway.database import SourceDown

log = logging.getLogger(__name__)

NEWS_SECONDS = 2.0
_LONGEST_PAUSE_SECONDS = 15.0

_ENTER: LiteralString = "SELECT tessera_roster_enter(%s, %s, %s)"
_LIVING: LiteralString = "SELECT coalesce(array_agg(writer), '{}') FROM tessera_roster(%s)"
_TOTALS: LiteralString = (
    "SELECT coalesce(jsonb_agg(jsonb_build_array(writer, account, nano)), '[]')"
    " FROM tessera_closed_totals(%s)"
)
_BASE: LiteralString = "SELECT nano, last_entry FROM tessera_account_base(%s, %s)"
_FIRST: LiteralString = "SELECT tessera_balance_old_entry()"
_ENTRIES: LiteralString = (
    "SELECT coalesce(jsonb_agg(jsonb_build_array(entry, organization, previous, nano)"
    " ORDER BY entry), '[]') FROM tessera_balance_entries(%s)"
)

# An entry of nothing says that spending arrived late: as what follows no entry that there is, it
# makes admission read the account again.
_READ_AGAIN = -1

Row = tuple[Any, ...]


class Source(Protocol):
    """The first row of a short statement. Raises ``SourceDown`` and ``UndefinedFunction``."""

    async def fetch(self, query: LiteralString, parameters: Sequence[object]) -> Row | None: ...


class Credited(Protocol):
    """Told of an entry of a balance; False where nobody could be told, and it is told again."""

    def __call__(
        self, account: str, *, previous: int, entry: int, nano: int
    ) -> Awaitable[bool]: ...


class Treasury:
    """One process's view. All of the mutable state: whether it is entered, and the last news."""

    def __init__(self, source: Source, *, writer: str, cell: str, node: str) -> None:
        self._source = source
        self._writer = writer
        self._cell = cell
        self._node = node
        self._is_entered = False
        self._told: int | None = None  # the last entry that admission was told of

    async def base(self, account: str, announced: Sequence[str]) -> Base:
        """What the account comes to without the spending of the ``announced`` writers."""
        nano, last_entry = await self._ask(_BASE, (account, list(announced)))
        return Base(nano=nano, last_entry=last_entry)

    async def roster(self, silent: Sequence[str] = ()) -> Roster:
        """The writers of the cell whose journals are open, ourselves among them once we are
        entered; and the totals of those of the ``silent`` whose journals are closed.
        """
        await self._enter()
        (living,) = await self._ask(_LIVING, (self._cell,))
        closed: dict[str, dict[str, int]] = {}
        if silent:
            (rows,) = await self._ask(_TOTALS, (list(silent),))
            for writer, account, nano in rows:
                totals = closed.setdefault(writer, {})
                if account is not None:
                    totals[account] = nano
        return Roster(living=tuple(living), closed=closed)

    async def run(
        self,
        credited: Credited,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """Tell of new entries every two seconds, until cancelled; less often while it fails."""
        failures = 0
        while True:
            try:
                failures = 0 if await self.tell_news(credited) else failures + 1
            except LedgerUnavailable as error:
                failures += 1
                log.debug("no news of balances: %s", error)
            await sleep(pause_seconds(failures, jitter=jitter()))

    async def tell_news(self, credited: Credited) -> bool:
        """Whether every new entry was told. Saying one twice is harmless.

        A process begins with those of the last day, which may have come while no process ran.
        """
        if self._told is None:
            (self._told,) = await self._ask(_FIRST, ())
        while True:
            (entries,) = await self._ask(_ENTRIES, (self._told,))
            for entry, organization, previous, nano in entries:
                account = balance_account(organization)
                before = previous if nano else _READ_AGAIN
                if not await credited(account, previous=before, entry=entry, nano=nano):
                    return False
                self._told = entry
            if not entries:
                return True

    async def _enter(self) -> None:
        """Into the roster, once. Who was written off stays out, and holds no prepaid money."""
        if not self._is_entered:
            (may_hold,) = await self._ask(_ENTER, (self._writer, self._cell, self._node))
            self._is_entered = True
            if not may_hold:
                log.error("the journal %s is closed: no prepaid money is held here", self._writer)

    async def _ask(self, query: LiteralString, parameters: Sequence[object]) -> Row:
        try:
            row = await self._source.fetch(query, parameters)
        except SourceDown as error:
            raise LedgerUnavailable(str(error)) from error
        except psycopg.errors.UndefinedFunction as error:
            raise LedgerUnavailable("the database is a release behind") from error
        if row is None:
            raise LedgerUnavailable("no answer")
        return row


def pause_seconds(failures: int, *, jitter: float) -> float:
    """How long to leave PostgreSQL alone; ``jitter`` (0 to 1) spreads the processes."""
    longest = min(_LONGEST_PAUSE_SECONDS, NEWS_SECONDS * 2.0 ** min(failures, 10))
    return longest * (0.5 + jitter / 2)
