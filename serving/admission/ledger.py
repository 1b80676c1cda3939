"""What admission has to be told of accounts, and by whom: PostgreSQL, behind a small protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol


class LedgerUnavailable(Exception):
    """The ledger cannot be asked right now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """An account's credits less what those spent who were not left out, in nano-USD.

    ``last_entry`` is the number of the newest credit in it; none: 0. An account's credits are
    numbered in the order in which they were committed.
    """

    nano: int
    last_entry: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Roster:
    """Writers of the cell: those whose journal is open, and the totals of those asked for whose
    journal is closed.
    """

    living: tuple[str, ...]
    closed: Mapping[str, Mapping[str, int]] = field(default_factory=dict)


class Ledger(Protocol):
    """Both raise ``LedgerUnavailable``, soon rather than late."""

    async def base(self, account: str, announced: Sequence[str]) -> Base:
        """What the account comes to without the spending of the ``announced`` writers."""

    async def roster(self, silent: Sequence[str] = ()) -> Roster:
        """Who is living; and of the ``silent``, who is closed."""
