"""Facts and journals for tests."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

from kernel.clock import micros, wall
from kernel.ids import ulid
from kernel.usage import Completeness, UsageFact
from serving.journal.record import Record, RecordKind, scan
from serving.journal.recovery import fact_of
from serving.journal.segment import segment_list
from serving.journal.writer import JournalFull, JournalWriter, Limits

ORGANIZATION = str(UUID(int=1))
SMALL = Limits(segment_bytes=8192, free_bytes=0)


def draft(**fields: Any) -> UsageFact:
    """What a gateway knows before it asks the engine."""
    values: dict[str, Any] = {
        "event_id": ulid(),
        "occurred_at": micros(wall()),
        "organization": ORGANIZATION,
        "project": str(UUID(int=2)),
        "key": str(UUID(int=3)),
        "deployment": str(UUID(int=4)),
        "version": str(UUID(int=5)),
        "quantities": {"input": 120, "cached_input": 0, "output": 0},
        "completeness": Completeness.UNKNOWN,
        "model": "support",
        "pool": "pool-1",
        "cluster": "local",
    }
    return UsageFact(**{**values, **fields})


def settled(intent: UsageFact, **fields: Any) -> UsageFact:
    """What it knows afterwards."""
    values: dict[str, Any] = {
        "quantities": {"input": 100, "cached_input": 16, "output": 55},
        "completeness": Completeness.FINAL,
        "finish_reason": "stop",
        "replica": "replica-1",
        "incarnation": "incarnation-1",
    }
    return replace(intent, **{**values, **fields})


def write_settled(writer: JournalWriter, count: int = 1, **fields: Any) -> list[UsageFact]:
    facts = []
    for _ in range(count):
        intent = draft(**fields)
        writer.intent(intent)
        facts.append(settled(intent))
        writer.settle(facts[-1])
    return facts


def open_until_refused(writer: JournalWriter) -> tuple[list[UsageFact], JournalFull]:
    opened: list[UsageFact] = []
    while True:
        intent = draft()
        try:
            writer.intent(intent)
        except JournalFull as refusal:
            return opened, refusal
        opened.append(intent)


def folder_of(journal: Path, writer: JournalWriter) -> Path:
    return journal / writer.writer_id


def records_of(folder: Path) -> list[Record]:
    return [
        record
        for segment in segment_list(folder)
        for record in scan(segment.path.read_bytes()).records
    ]


def settles_of(folder: Path) -> list[UsageFact]:
    return [fact_of(r) for r in records_of(folder) if r.kind == RecordKind.SETTLE]
