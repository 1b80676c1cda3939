"""A settled record as a row, or why it cannot be one. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

import msgspec

from kernel.clock import from_micros
from kernel.usage import UsageFact, accounts_of
from serving.journal.record import Record, RecordKind
from serving.journal.recovery import check_readable, fact_of

_BIGINT_MAX = 2**63 - 1
_MAX_NANO = 2**53 - 1
_COUNTED_CLASSES = ("input", "cached_input", "output")


class QuarantineReason(StrEnum):
    CONFLICT = "conflict"  # another fact has the same identity
    SHAPE = "shape"  # no row can hold it
    DATABASE = "database"  # the database refused it


@dataclass(frozen=True, slots=True)
class UsageRow:
    """One row of ``usage_event``, and the fact's text in case the row is not taken."""

    event_id: str
    occurred_at: datetime
    fact_hash: str
    columns: tuple[object, ...]
    text: str
    organization: UUID
    cost_nano: int
    accounts: tuple[str, ...]

    @property
    def key(self) -> tuple[datetime, str]:
        return (self.occurred_at, self.event_id)


@dataclass(frozen=True, slots=True)
class QuarantineRow:
    """A fact that stands aside until a person has looked at it."""

    reason: QuarantineReason
    detail: str
    fact_hash: str
    text: str
    event_id: str = ""
    occurred_at: datetime | None = None


COLUMNS: tuple[tuple[str, str], ...] = (
    ("event_id", "text"),
    ("occurred_at", "timestamptz"),
    ("fact_hash", "text"),
    ("organization_id", "uuid"),
    ("project_id", "uuid"),
    ("key_id", "uuid"),
    ("deployment_id", "uuid"),
    ("version_id", "uuid"),
    ("input_tokens", "bigint"),
    ("cached_input_tokens", "bigint"),
    ("output_tokens", "bigint"),
    ("other_quantities", "jsonb"),
    ("kind", "text"),
    ("completeness", "text"),
    ("billable", "boolean"),
    ("model", "text"),
    ("rollout", "text"),
    ("arm", "text"),
    ("pool", "text"),
    ("replica", "text"),
    ("incarnation", "text"),
    ("cluster", "text"),
    ("tier", "text"),
    ("finish_reason", "text"),
    ("price_version", "text"),
    ("schema_version", "integer"),
    ("cost_nano", "bigint"),
)
"""Name and PostgreSQL type, in the order of ``UsageRow.columns``."""


def batch_rows(
    records: Iterable[Record],
) -> tuple[tuple[UsageRow, ...], tuple[QuarantineRow, ...]]:
    """What the settled ones among the records come to. Raises ``UpgradeNeeded``."""
    rows: list[UsageRow] = []
    refused: list[QuarantineRow] = []
    for record in records:
        check_readable(record)
        if record.kind == RecordKind.SETTLE:
            row = row_of(record)
            if isinstance(row, UsageRow):
                rows.append(row)
            else:
                refused.append(row)
    return tuple(rows), tuple(refused)


def row_of(record: Record) -> UsageRow | QuarantineRow:
    """Raises ``UpgradeNeeded`` for a record of a later release."""
    try:
        fact = fact_of(record)
    except msgspec.DecodeError as error:
        return _misshapen(record.payload, str(error))
    try:
        return _row(fact, record.payload.decode())
    except (ValueError, OverflowError, OSError) as error:
        return _misshapen(record.payload, str(error), event_id=fact.event_id)


def quarantined(row: UsageRow, reason: QuarantineReason, detail: str) -> QuarantineRow:
    return QuarantineRow(reason, detail, row.fact_hash, row.text, row.event_id, row.occurred_at)


def without_repeats(rows: list[UsageRow]) -> tuple[list[UsageRow], list[QuarantineRow], int]:
    """The first row of every identity, what contradicts it, and how many merely repeat it."""
    first: dict[tuple[datetime, str], UsageRow] = {}
    conflicts: list[QuarantineRow] = []
    repeats = 0
    for row in rows:
        known = first.setdefault(row.key, row)
        if known is row:
            continue
        if known.fact_hash == row.fact_hash:
            repeats += 1
        else:
            conflicts.append(conflict(row, known.fact_hash))
    return list(first.values()), conflicts, repeats


def conflict(row: UsageRow, known_hash: str) -> QuarantineRow:
    detail = f"Another fact with hash {known_hash} has the same identity."
    return quarantined(row, QuarantineReason.CONFLICT, detail)


def spending(rows: Iterable[UsageRow]) -> list[tuple[str, UUID, int]]:
    """What rows come to: account, whose it is, and nano-USD; in the order of the accounts."""
    sums: dict[str, tuple[UUID, int]] = {}
    for row in rows:
        if row.cost_nano:
            for account in row.accounts:
                owner, nano = sums.get(account, (row.organization, 0))
                sums[account] = (owner, nano + row.cost_nano)
    return [(account, *sums[account]) for account in sorted(sums)]


def _row(fact: UsageFact, text: str) -> UsageRow:
    for name, quantity in fact.quantities.items():
        if not 0 <= quantity <= _BIGINT_MAX:
            raise ValueError(f"Quantity {name!r} is {quantity}.")
    if "\0" in "".join(_texts(fact)) or not fact.event_id:
        raise ValueError("A text holds a NUL character, or the event id is empty.")
    cost_nano = fact.cost_nano()
    if not 0 <= cost_nano <= _MAX_NANO:
        raise ValueError(f"The cost is {cost_nano} nano-USD.")
    fact_hash = fact.fact_hash()
    occurred_at = from_micros(fact.occurred_at)
    columns = (
        fact.event_id,
        occurred_at,
        fact_hash,
        UUID(fact.organization),
        UUID(fact.project),
        UUID(fact.key),
        UUID(fact.deployment),
        UUID(fact.version),
        *(fact.quantities.get(name, 0) for name in _COUNTED_CLASSES),
        _other_quantities(fact),
        fact.kind.value,
        fact.completeness.value,
        fact.billable,
        fact.model,
        fact.rollout,
        fact.arm,
        fact.pool,
        fact.replica,
        fact.incarnation,
        fact.cluster,
        fact.tier,
        fact.finish_reason,
        fact.price_version,
        fact.schema_version,
        cost_nano,
    )
    return UsageRow(
        event_id=fact.event_id,
        occurred_at=occurred_at,
        fact_hash=fact_hash,
        columns=columns,
        text=text,
        organization=UUID(fact.organization),
        cost_nano=cost_nano,
        accounts=accounts_of(fact),
    )


def _texts(fact: UsageFact) -> tuple[str, ...]:
    return (
        fact.event_id,
        fact.model,
        fact.rollout or "",
        fact.arm or "",
        fact.pool,
        fact.replica,
        fact.incarnation,
        fact.cluster,
        fact.tier,
        fact.finish_reason,
        fact.price_version or "",
        *fact.quantities,
    )


def _other_quantities(fact: UsageFact) -> str:
    return json.dumps(
        {name: count for name, count in fact.quantities.items() if name not in _COUNTED_CLASSES}
    )


def _misshapen(payload: bytes, detail: str, *, event_id: str = "") -> QuarantineRow:
    return QuarantineRow(
        QuarantineReason.SHAPE,
        detail,
        hashlib.sha256(payload).hexdigest(),
        payload.decode(errors="backslashreplace").replace("\0", "\\u0000"),
        event_id.replace("\0", ""),
    )
