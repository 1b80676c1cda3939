"""The one usage fact: what was metered, for whom, exactly once.

Everything that is metered travels in this shape, from the place where it is measured to the ledger.
``event_id`` and ``occurred_at`` identify the fact; ``fact_hash`` tells two facts with the same
identity apart.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache

SCHEMA_VERSION = 2
_RATES_SINCE = 2  # the first schema with rates
_DAY_MICROS = 86_400 * 1_000_000


class Completeness(StrEnum):
    """How much of the truth a fact holds."""

    FINAL = "final"  # the engine said how much it was, and the answer ended
    ABORTED = "aborted"  # the client or the engine went; quantities are the last cumulative count
    ESTIMATED = "estimated"  # the writer died; quantities are its last checkpoint
    UNKNOWN = "unknown"  # the writer died before any count; the prompt estimate only


class Kind(StrEnum):
    TOKENS = "tokens"


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageFact:
    """One metered thing. Ids are strings so that the fact is plain data on every wire.

    ``quantities`` per class in whole units; for tokens ``input`` (all prompt tokens),
    ``cached_input`` (the part of ``input`` that came from the prefix cache) and ``output``.
    ``occurred_at`` is microseconds since the epoch: the time of admission.
    """

    event_id: str
    occurred_at: int
    organization: str
    project: str
    key: str
    deployment: str
    version: str
    quantities: Mapping[str, int]
    kind: Kind = Kind.TOKENS
    completeness: Completeness = Completeness.FINAL
    billable: bool = True
    model: str = ""  # the name the customer called, as it was then
    rollout: str | None = None
    arm: str | None = None
    pool: str = ""
    replica: str = ""
    incarnation: str = ""
    cluster: str = ""
    tier: str = "standard"
    finish_reason: str = ""  # why the answer ended, or the error code where it failed
    price_version: str | None = None
    rates: Mapping[str, int] = field(default_factory=dict)  # nano-USD per unit of each class
    schema_version: int = field(default=SCHEMA_VERSION)

    def cost_nano(self) -> int:
        """What the fact costs in nano-USD, by the rates that were fixed at admission."""
        return cost_nano(self.quantities, self.rates) if self.billable else 0

    def fact_hash(self) -> str:
        """SHA-256 over the canonical JSON of all fields of its schema version, hexadecimal."""
        fields = asdict(self)
        if self.schema_version < _RATES_SINCE:
            del fields["rates"]
        text = json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return hashlib.sha256(text.encode("ascii")).hexdigest()


def cost_nano(quantities: Mapping[str, int], rates: Mapping[str, int]) -> int:
    """Nano-USD: every class by its rate; input that came from the cache by the cache's alone."""
    if not rates:
        return 0
    total = 0
    for name, count in quantities.items():
        total += count * rates.get(name, 0)
    return total - quantities.get("cached_input", 0) * rates.get("input", 0)


def balance_account(organization: str) -> str:
    """The account that an organization pays from in advance."""
    return f"org:{organization}"


def organization_account(organization: str, month: str) -> str:
    """The account of what an organization spends in a month; ``month`` as ``usage_month`` says."""
    return f"org:{organization}:{month}"


def project_account(project: str, month: str) -> str:
    """The account that a project's monthly budget bounds."""
    return f"project:{project}:{month}"


def key_account(key: str, month: str) -> str:
    """The account that a key's monthly budget bounds."""
    return f"key:{key}:{month}"


def usage_month(occurred_at: int) -> str:
    """``YYYYMM`` in UTC of an instant in microseconds since the epoch."""
    return _month(occurred_at // _DAY_MICROS)


def accounts_of(fact: UsageFact) -> tuple[str, ...]:
    """Every account that a fact's cost is booked on: the balance, and three monthly ones."""
    month = usage_month(fact.occurred_at)
    return (
        balance_account(fact.organization),
        organization_account(fact.organization, month),
        project_account(fact.project, month),
        key_account(fact.key, month),
    )


@lru_cache(maxsize=64)
def _month(day: int) -> str:
    instant = datetime.fromtimestamp(day * _DAY_MICROS / 1_000_000, UTC)
    return f"{instant.year:04d}{instant.month:02d}"


RecordUsage = Callable[[UsageFact], None]
