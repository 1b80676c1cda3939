"""What a node's shipper does: facts go to the store once each, journals of the dead are closed."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path

from kernel.clock import Clock, monotonic, wall
from kernel.usage import Completeness
from serving.journal.health import Health, health_write
from serving.journal.reading import (
    Lost,
    Reading,
    first_written_at,
    read_finished,
    read_living,
    written_bytes,
)
from serving.journal.recovery import UpgradeNeeded, close_journal
from serving.journal.retention import expire
from serving.journal.rows import batch_rows
from serving.journal.segment import (
    SegmentFile,
    dead_writer,
    is_closed,
    mark_shipped,
    save_lost,
    unshipped_list,
    writer_folders,
)
from serving.journal.store import (
    Batch,
    Position,
    Sighting,
    StoreUnavailable,
    UsageStore,
    Written,
)

log = logging.getLogger(__name__)

_DAMAGE_PATIENCE_SECONDS = 5.0
_TELL_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Doubt:
    """Where a living writer's journal cannot be read on, and since when."""

    position: Position
    since: float


class Shipper:
    """Moves what is in the journals to the store.

    All of the mutable state: how far each writer is read (``_reached``: what the store says, ahead
    of it only over records that are no facts), whether that must be asked again, where reading is
    in doubt, when operators were last told, and the health counters.
    """

    def __init__(
        self, journal: Path, store: UsageStore, *, clock: Clock = wall, steady: Clock = monotonic
    ) -> None:
        self.health = Health(pid=os.getpid())
        self._journal = journal
        self._store = store
        self._clock = clock
        self._steady = steady
        self._reached: dict[str, Position] = {}
        self._must_ask = True
        self._doubts: dict[str, Doubt] = {}
        self._told_at = -_TELL_SECONDS

    def ship(self) -> None:
        """One pass: close what died, ship what is new.

        Raises ``StoreUnavailable``; the next pass repeats what is missing.
        """
        held: dict[str, str] = {}
        folders = [folder for folder in writer_folders(self._journal) if _has_work(folder)]
        living = {folder.name for folder in folders if not self._is_dead(folder, held)}
        self.health.living_writers = len(living)
        try:
            self._ask_positions()
            for folder in folders:
                self._ship_writer(folder, held)
            self._tell(folders, living, held)
        except StoreUnavailable as error:
            self._must_ask = True
            self.health.database_error = str(error)
            raise
        self.health.database_error = ""
        self.health.held_writers = held

    def heartbeat(self) -> None:
        """Say that we live, and what is still to do."""
        unshipped = [self._unshipped(folder) for folder in writer_folders(self._journal)]
        written = [written_at for _, written_at in unshipped if written_at is not None]
        now = self._clock()
        self.health.at = now
        self.health.unshipped_bytes = sum(size for size, _ in unshipped)
        self.health.oldest_unshipped_seconds = (
            max(0.0, now - min(written) / 1_000_000) if written else 0.0
        )
        health_write(self._journal, self.health)

    def expire(self) -> None:
        """Remove what has been shipped long enough ago."""
        self.health.removed_segments += expire(self._journal, now=self._clock())

    def _ask_positions(self) -> None:
        if self._must_ask:
            self._reached = self._store.positions()
            self._must_ask = False

    def _tell(self, folders: list[Path], living: set[str], held: dict[str, str]) -> None:
        """Every ten seconds: operators see which writers are here, on whichever node that is."""
        now = self._steady()
        if not folders or now - self._told_at < _TELL_SECONDS:
            return
        self._told_at = now
        names = [folder.name for folder in folders]
        self._store.saw([Sighting(name, name in living, held.get(name, "")) for name in names])

    def _is_dead(self, folder: Path, held: dict[str, str]) -> bool:
        if is_closed(folder):
            return True
        with dead_writer(folder) as is_dead:
            if is_dead:
                self._close(folder, held)
            return is_dead

    def _close(self, folder: Path, held: dict[str, str]) -> None:
        try:
            closed = close_journal(folder, clock=self._clock)
        except UpgradeNeeded as error:
            self._hold(folder, error, held)
            return
        except OSError:
            log.exception("journal of a dead writer cannot be closed yet: %s", folder.name)
            return
        unknown = sum(fact.completeness == Completeness.UNKNOWN for fact in closed.facts)
        estimated = len(closed.facts) - unknown
        self.health.unknown_facts += unknown
        self.health.estimated_facts += estimated
        self.health.torn_bytes += closed.torn_bytes
        self.health.unreadable_records += closed.unreadable_records
        log.info("closed %s: %d facts estimated, %d unknown", folder.name, estimated, unknown)

    def _ship_writer(self, folder: Path, held: dict[str, str]) -> None:
        # Asked before the listing: a closed writer has no segment that the listing lacks.
        closed = is_closed(folder)
        segments = unshipped_list(folder)
        try:
            for segment in segments:
                is_last = segment is segments[-1]
                if is_last and not closed:
                    self._ship_living(folder, segment)
                else:
                    self._ship_finished(folder, segment, closes=is_last)
        except UpgradeNeeded as error:
            self._hold(folder, error, held)

    def _ship_finished(self, folder: Path, segment: SegmentFile, *, closes: bool) -> None:
        complete = False
        while not complete:
            start = self._start(folder, segment)
            reading = read_finished(segment.path, start)
            self._take(folder, segment, reading, closes=closes and reading.complete)
            complete = reading.complete
        mark_shipped(segment, at=self._clock())

    def _ship_living(self, folder: Path, segment: SegmentFile) -> None:
        start = self._start(folder, segment)
        while True:
            position = Position(segment.number, start)
            past_damage = self._has_waited(folder, position)
            reading = read_living(segment.path, start, past_damage=past_damage)
            self._take(folder, segment, reading, closes=False)
            if reading.doubtful:
                self._doubt(folder, Position(segment.number, reading.end))
            if reading.end == start:
                return
            start = reading.end

    def _take(self, folder: Path, segment: SegmentFile, reading: Reading, *, closes: bool) -> None:
        """Have one stretch of a journal in the store, what is lost of it on the side."""
        rows, refused = batch_rows(reading.records)
        for lost in reading.lost:
            self._save(folder, segment, lost)
        position = Position(segment.number, reading.end)
        if rows or refused or closes:
            self._count(self._store.write(Batch(folder.name, position, rows, refused, closes)))
        self._reached[folder.name] = position

    def _start(self, folder: Path, segment: SegmentFile) -> int:
        reached = self._reached.get(folder.name)
        if reached is None or reached.segment < segment.number:
            return 0
        return reached.offset if reached.segment == segment.number else segment.path.stat().st_size

    def _doubt(self, folder: Path, position: Position) -> None:
        known = self._doubts.get(folder.name)
        if known is None or known.position != position:
            self._doubts[folder.name] = Doubt(position, self._steady())

    def _has_waited(self, folder: Path, position: Position) -> bool:
        doubt = self._doubts.get(folder.name)
        return (
            doubt is not None
            and doubt.position == position
            and self._steady() - doubt.since >= _DAMAGE_PATIENCE_SECONDS
        )

    def _save(self, folder: Path, segment: SegmentFile, lost: Lost) -> None:
        if save_lost(folder, segment.number, lost.start, lost.data, suffix=".damaged"):
            self.health.damaged_bytes += len(lost.data)
            log.error(
                "%d bytes of %s at %d cannot be read; kept beside it",
                len(lost.data),
                segment.path,
                lost.start,
            )

    def _count(self, written: Written) -> None:
        self.health.shipped_facts += written.new
        self.health.repeated_facts += written.known
        self.health.quarantined_facts += len(written.quarantined)
        for row in written.quarantined:
            log.error("usage quarantined (%s): %s %r", row.reason, row.detail, row.text)

    def _hold(self, folder: Path, error: UpgradeNeeded, held: dict[str, str]) -> None:
        held[folder.name] = str(error)
        if folder.name not in self.health.held_writers:
            log.error("journal %s waits: %s", folder.name, error)

    def _unshipped(self, folder: Path) -> tuple[int, int | None]:
        """Bytes that are not in the store, and when the oldest of them were written."""
        size, oldest = 0, None
        for segment in unshipped_list(folder):
            start = self._start(folder, segment)
            waiting = max(0, written_bytes(segment.path) - start)
            size += waiting
            if waiting and oldest is None:
                oldest = first_written_at(segment.path, start)
        return size, oldest


def _has_work(folder: Path) -> bool:
    return not is_closed(folder) or bool(unshipped_list(folder))
