"""Stores for tests: one that keeps rows in memory, and switches that make it fail."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

from serving.journal.rows import QuarantineRow, UsageRow, conflict, without_repeats
from serving.journal.store import Batch, Position, Sighting, StoreUnavailable, Written


class MemoryStore:
    """All of a batch or nothing, as PostgreSQL does it. ``before`` and ``after`` may raise."""

    def __init__(self) -> None:
        self.rows: dict[tuple[datetime, str], UsageRow] = {}
        self.quarantine: dict[str, QuarantineRow] = {}
        self.reached: dict[str, Position] = {}
        self.closed: set[str] = set()
        self.sightings: list[tuple[Sighting, ...]] = []
        self.before: Callable[[], None] = lambda: None
        self.after: Callable[[], None] = lambda: None

    def positions(self) -> dict[str, Position]:
        self.before()
        return dict(self.reached)

    def write(self, batch: Batch) -> Written:
        self.before()
        written = self._write(batch)
        self.after()
        return written

    def saw(self, sightings: Sequence[Sighting]) -> None:
        self.before()
        self.sightings.append(tuple(sightings))

    def _write(self, batch: Batch) -> Written:
        rows, conflicts, repeats = without_repeats(list(batch.rows))
        new = 0
        for row in rows:
            known = self.rows.setdefault(row.key, row)
            if known is row:
                new += 1
            elif known.fact_hash == row.fact_hash:
                repeats += 1
            else:
                conflicts.append(conflict(row, known.fact_hash))
        aside = [*batch.refused, *conflicts]
        self.quarantine.update({row.fact_hash: row for row in aside})
        if batch.position is not None:
            self.reached[batch.writer] = batch.position
        if batch.closed:
            self.closed.add(batch.writer)
        return Written(new, repeats, tuple(aside))

    @property
    def event_ids(self) -> list[str]:
        return sorted(row.event_id for row in self.rows.values())


def unavailable() -> None:
    raise StoreUnavailable("the database is away")
