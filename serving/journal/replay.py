"""Shipping again what is still on disk. What the store has already changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from serving.journal.reading import Reading, read_finished
from serving.journal.rows import batch_rows
from serving.journal.segment import SegmentFile, segment_list, writer_folders
from serving.journal.store import Batch, Position, PostgresStore, Sighting, UsageStore, Written


@dataclass(frozen=True, slots=True)
class Replayed:
    """What a replay came to, in facts."""

    segments: int = 0
    new: int = 0
    known: int = 0
    quarantined: int = 0


def replay(
    journal: Path,
    store: UsageStore,
    *,
    writer: str = "",
    on_segment: Callable[[SegmentFile, Replayed], None] = lambda _segment, _so_far: None,
) -> Replayed:
    """Every segment of every writer, or of one, shipped and not, from its beginning.

    Moves no position, closes nothing and may run beside the shipper. ``on_segment`` hears of every
    segment that is done, and what it all came to so far. Raises ``StoreUnavailable`` and
    ``UpgradeNeeded``; running it again is always right.
    """
    total = Replayed()
    for folder in writer_folders(journal):
        if writer in {"", folder.name}:
            for segment in segment_list(folder):
                with suppress(FileNotFoundError):  # its time was over while we looked
                    total = _replay_segment(folder.name, segment, store, total)
                    on_segment(segment, total)
    return total


class NothingWritten:
    """A store for a dry run: asks which facts are missing, and writes none."""

    def __init__(self, store: PostgresStore) -> None:
        self._store = store

    def positions(self) -> dict[str, Position]:
        return self._store.positions()

    def write(self, batch: Batch) -> Written:
        return self._store.compare(batch)

    def saw(self, sightings: Sequence[Sighting]) -> None:
        """A dry run sees nobody."""


def _replay_segment(
    writer: str, segment: SegmentFile, store: UsageStore, total: Replayed
) -> Replayed:
    new, known, quarantined = total.new, total.known, total.quarantined
    reading = Reading((), (), 0)
    while not reading.complete:
        # A living writer's half-written end is no record yet, and the shipper's business.
        reading = read_finished(segment.where(), reading.end)
        rows, refused = batch_rows(reading.records)
        if rows or refused:
            written = store.write(Batch(writer, None, rows, refused))
            new += written.new
            known += written.known
            quarantined += len(written.quarantined)
    return Replayed(total.segments + 1, new, known, quarantined)
