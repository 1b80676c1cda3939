"""What a gateway's journals say, read as the shipper would."""

from __future__ import annotations

from pathlib import Path

from kernel.usage import UsageFact
from serving.journal.record import Record, RecordKind, decode_checkpoint, decode_fact, scan


def facts(home: Path) -> list[UsageFact]:
    """Everything settled, in order."""
    return [decode_fact(r.payload) for r in _records(home) if r.kind == RecordKind.SETTLE]


def intents(home: Path) -> list[UsageFact]:
    return [decode_fact(r.payload) for r in _records(home) if r.kind == RecordKind.INTENT]


def checkpoints(home: Path) -> list[tuple[str, dict[str, int]]]:
    return [decode_checkpoint(r.payload) for r in _records(home) if r.kind == RecordKind.CHECKPOINT]


def _records(home: Path) -> list[Record]:
    paths = sorted((home / "journal").glob("*/*.seg"))
    return [record for path in paths for record in scan(path.read_bytes()).records]
