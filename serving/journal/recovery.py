"""Closing the journal of a dead writer: what it left open is settled, in its own journal, once.

Deciding is pure and at the top; touching the disk is below, under the dead writer's lock.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from kernel.clock import Clock, micros
from kernel.errors import Unavailable
from kernel.usage import SCHEMA_VERSION, Completeness, UsageFact
from serving.journal.record import (
    READABLE_VERSIONS,
    Record,
    RecordKind,
    decode_checkpoint,
    decode_fact,
    encode_fact,
    frame,
    scan,
)
from serving.journal.segment import (
    SegmentFile,
    has_lost_bytes,
    mark_closed,
    save_lost,
    segment_create,
    segment_list,
    truncate,
    unshipped_list,
)

log = logging.getLogger(__name__)

WRITER_LOST = "writer_lost"


class UpgradeNeeded(Unavailable):
    """A record of a later release: not to be skipped, so it waits for a shipper that reads it."""

    code = "journal_upgrade_needed"


@dataclass(frozen=True, slots=True)
class Closing:
    """What settles a dead writer's open intents, and the intact records that made no sense."""

    facts: tuple[UsageFact, ...]
    unreadable: tuple[Record, ...]


@dataclass(frozen=True, slots=True)
class Closed:
    """What closing a journal came to."""

    facts: tuple[UsageFact, ...]
    torn_bytes: int
    unreadable_records: int


def check_readable(record: Record) -> None:
    """Raises ``UpgradeNeeded`` for a record that only a later release understands."""
    if record.version not in READABLE_VERSIONS:
        raise UpgradeNeeded(
            f"Journal format {record.version} is newer than this shipper: upgrade it."
        )


def fact_of(record: Record) -> UsageFact:
    """Raises ``UpgradeNeeded``, and ``msgspec.DecodeError`` for a record that holds no fact."""
    check_readable(record)
    fact = decode_fact(record.payload)
    if fact.schema_version > SCHEMA_VERSION:
        raise UpgradeNeeded(
            f"Usage schema {fact.schema_version} is newer than this shipper: upgrade it."
        )
    return fact


def settle_open(records: Iterable[Record]) -> Closing:
    """The facts that settle every intent left open, in the order of the intents."""
    opened: dict[str, UsageFact] = {}
    counted: dict[str, dict[str, int]] = {}
    unreadable: list[Record] = []
    for record in records:
        check_readable(record)
        try:
            _fold(record, opened, counted)
        except msgspec.DecodeError:
            unreadable.append(record)
    facts = tuple(_closing(fact, counted.get(event_id)) for event_id, fact in opened.items())
    return Closing(facts, tuple(unreadable))


def close_journal(folder: Path, *, clock: Clock) -> Closed:
    """Cut the torn tail and settle what is open; the writer's lock must be held.

    Repeating it after a crash at any point leaves the same facts. Raises ``UpgradeNeeded``.
    """
    segments = segment_list(folder)
    torn_bytes = _cut_tail(folder, segments[-1]) if segments else 0
    closing = settle_open(_records(_to_fold(folder, segments)))
    for record in closing.unreadable:
        log.error("record not understood", extra={"writer": folder.name, "payload": record.payload})
    if closing.facts:
        _append_closing(folder, segments[-1].number + 1, closing.facts, at=micros(clock()))
    mark_closed(folder)
    return Closed(closing.facts, torn_bytes, len(closing.unreadable))


def _fold(record: Record, opened: dict[str, UsageFact], counted: dict[str, dict[str, int]]) -> None:
    match record.kind:
        case RecordKind.INTENT:
            fact = fact_of(record)
            opened[fact.event_id] = fact
        case RecordKind.CHECKPOINT:
            event_id, quantities = decode_checkpoint(record.payload)
            counted[event_id] = quantities
        case RecordKind.SETTLE:
            opened.pop(fact_of(record).event_id, None)


def _closing(intent: UsageFact, counted: dict[str, int] | None) -> UsageFact:
    if counted is None:
        return replace(intent, completeness=Completeness.UNKNOWN, finish_reason=WRITER_LOST)
    return replace(
        intent,
        quantities={**intent.quantities, **counted},
        completeness=Completeness.ESTIMATED,
        finish_reason=WRITER_LOST,
    )


def _cut_tail(folder: Path, last: SegmentFile) -> int:
    """Save and cut what follows the last whole record. The number of bytes that were no zeros."""
    data = last.path.read_bytes()
    found = scan(data)
    torn = b"" if found.tail is None else data[found.tail.start : found.tail.end]
    if torn:
        save_lost(folder, last.number, found.end, torn, suffix=".torn")
        log.warning("torn tail cut", extra={"segment": str(last.path), "bytes": len(torn)})
    truncate(last.path, found.end)
    return len(torn)


def _to_fold(folder: Path, segments: list[SegmentFile]) -> list[SegmentFile]:
    """Each segment begins with what is open, so those not shipped yet tell all there is to close.

    Unless bytes were lost: they may have held a settle, whose intent then stands further back.
    """
    if has_lost_bytes(folder):
        return segments
    return unshipped_list(folder)


def _records(segments: list[SegmentFile]) -> Iterator[Record]:
    for segment in segments:
        yield from scan(segment.path.read_bytes()).records


def _append_closing(folder: Path, number: int, facts: tuple[UsageFact, ...], *, at: int) -> None:
    head = b"".join(frame(RecordKind.SETTLE, encode_fact(fact), written_at=at) for fact in facts)
    segment_create(folder, number, capacity=len(head), head=head).finish()
