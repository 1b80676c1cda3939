"""What is asked of admission and what it answers. Frozen, plain; money is integer nano-USD.

Structs, as several are made for every call: a frozen dataclass takes four times as long to make.
"""

from __future__ import annotations

import asyncio
from enum import StrEnum
from typing import Literal

from msgspec import Struct

Tier = Literal["premium", "standard", "free"]


class Reason(StrEnum):
    """Why nothing was taken. The first group is the tenant's own limits, the second is ours."""

    REQUESTS_PER_MINUTE = "requests_per_minute"
    TOKENS_PER_MINUTE = "tokens_per_minute"
    CONCURRENCY = "concurrency"
    INSUFFICIENT_BALANCE = "insufficient_balance"  # an organization's prepaid balance
    BUDGET_EXCEEDED = "budget_exceeded"  # a monthly budget

    POOL_FULL = "pool_full"  # without Redis: our own share of the slots is used up
    QUEUE_FULL = "queue_full"
    QUEUE_TIMEOUT = "queue_timeout"
    BALANCE_UNAVAILABLE = "balance_unavailable"  # prepaid while the cell's holds are not all known


class Money(Struct, frozen=True, kw_only=True):
    """One account that a call's cost is held on; ``account`` as ``kernel.usage`` names it.

    Available is what PostgreSQL says of the account (credits less spending), plus ``budget_nano``,
    less what is spent in this epoch and not yet in PostgreSQL, less open holds. ``is_hard``: never
    below zero, and the hold is clamped to what is left. Soft: may start while any is left.
    """

    account: str
    budget_nano: int
    is_hard: bool


class Subject(Struct, frozen=True, kw_only=True):
    """One bearer of limits: an organization, a project or a key. None: not limited here."""

    id: str  # "org:<id>", "project:<id>", "key:<id>"
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrency: int | None = None
    money: Money | None = None


class Demand(Struct, frozen=True, kw_only=True):
    """The upper bound of what a call may use, and the price of it.

    ``input_tokens`` at most; ``output_tokens`` is the limit of each of ``choices`` answers.
    ``input_nano`` and ``output_nano`` per token; the dearer of input and cached input.
    """

    input_tokens: int
    output_tokens: int
    choices: int
    input_nano: int
    output_nano: int


class AdmissionRequest(Struct, frozen=True, kw_only=True):
    """One call that wants to start. ``grant_id`` is unique for ever: it names what is then held.

    ``slots`` is what the pool's ready replicas offer together, now; none while it is scaled to
    zero, and the call then waits. ``wait_seconds`` 0: refused rather than queued.
    """

    grant_id: str
    pool: str
    slots: int
    demand: Demand
    subjects: tuple[Subject, ...]
    tenant: str  # whose share of the pool it counts against
    tier: Tier = "standard"
    weight: int = 1
    wait_seconds: float = 0.0
    body_bytes: int = 0  # what is kept in memory while it waits


class Allowance(Struct, frozen=True, kw_only=True):
    """What is left of the tightest of the limits that were met, for the answer's headers.

    Seconds until the limit is whole again.
    """

    limit_requests: int | None = None
    remaining_requests: int | None = None
    reset_requests_seconds: float | None = None
    limit_tokens: int | None = None
    remaining_tokens: int | None = None
    reset_tokens_seconds: float | None = None


NO_LIMITS = Allowance()


class Grant(Struct, frozen=True, kw_only=True):
    """A slot of a pool and the holds of one call: ours until settled.

    The slot and concurrency are lost when the lease runs out; money never is. ``output_tokens`` is
    the limit per answer that the balance covers, at most what was asked.
    """

    grant_id: str
    pool: str
    at: int  # microseconds since the epoch, by Redis' clock
    output_tokens: int
    allowance: Allowance = NO_LIMITS
    is_local: bool = False  # admitted on this process's own share, without Redis


class Refusal(Struct, frozen=True, kw_only=True):
    """Nothing was taken. ``subject`` is the id of the subject whose limit it was, if one's."""

    reason: Reason
    retry_after_seconds: float
    subject: str = ""
    allowance: Allowance = NO_LIMITS


class Queued(Struct, frozen=True, kw_only=True):
    """Limits and money are held, the slot is waited for.

    ``granted`` gives the ``Grant``, or a ``Refusal`` when the wait came to nothing (its time is
    over, or Redis was lost). Whoever stops waiting cancels it: what was held is then given back.
    """

    grant_id: str
    position: int  # calls of the pool that wait, this one included
    granted: asyncio.Future[Grant | Refusal]


class Used(Struct, frozen=True, kw_only=True):
    """What a settled call came to: tokens for limits and fairness, nano-USD for accounts.

    ``accounts`` are all that the cost is booked on (``kernel.usage.accounts_of``), limited or not;
    none: those that the call was held on.
    """

    input_tokens: int
    output_tokens: int
    cost_nano: int
    accounts: tuple[str, ...] = ()
