"""A gateway process's own journal: what it is about to meter, how far it got, what it came to."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from kernel.clock import Clock, micros, monotonic, wall
from kernel.errors import Unavailable
from kernel.ids import ulid
from kernel.usage import UsageFact
from serving.journal.record import RecordKind, encode_checkpoint, encode_fact, frame
from serving.journal.segment import (
    AppendSegment,
    lock_acquire,
    segment_create,
    segment_path,
    sync_folder,
    unshipped_bytes,
    writer_lock,
)

log = logging.getLogger(__name__)

_SETTLE_MARGIN = 512  # a settle is its intent plus counts, a finish reason and where it ran
_FIRST_SEGMENT = 1
_MEASURE_SECONDS = 1.0


class JournalFull(Unavailable):
    """No new call may start: what it will use could not be written down."""

    code = "journal_full"
    default_message = "Usage cannot be recorded right now; try again shortly."


class SyncMode(StrEnum):
    """What a power cut may take; a killed process loses nothing in either."""

    INTERVAL = "interval"  # the records of the last ``sync_seconds``
    STRICT = "strict"  # no settle of an answer whose last byte was sent


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """``unshipped_bytes`` bounds the node's journal; ``free_bytes`` of the disk stay free."""

    segment_bytes: int = 16 * 1024 * 1024
    unshipped_bytes: int = 8 * 1024 * 1024 * 1024
    free_bytes: int = 256 * 1024 * 1024
    sync_seconds: float = 0.2
    sync: SyncMode = SyncMode.INTERVAL


DEFAULT_LIMITS = Limits()


class JournalWriter:
    """Appends records; each is written when the call returns, so that kill -9 loses none of them.

    What a power cut may lose is the last ``sync_seconds``, in ``strict`` mode nothing that
    ``durable`` was awaited for. A settle of an open intent always finds
    room: its space is kept free from the intent on. Every segment begins with the intents open at
    that moment, so that the last segment alone tells what a dead writer left open.

    All of the mutable state: the segment being written, the frames of open intents and of their
    last checkpoints (``_open``, ``_counted``), the finished segments that wait to be synced, and
    who waits for the next sync (``_waiting``) with the task that serves them (``_group``).
    Calls come from one thread; only ``_sync`` runs in another, and touches the segments'
    descriptors and ``_refusal`` alone.
    """

    def __init__(
        self, folder: Path, lock: int, segment: AppendSegment, limits: Limits, clock: Clock
    ) -> None:
        self.writer_id = folder.name
        self.checkpoints_dropped = 0
        self._folder = folder
        self._lock = lock
        self._segment = segment
        self._limits = limits
        self._clock = clock
        self._open: dict[str, bytes] = {}
        self._counted: dict[str, bytes] = {}
        self._reserved = 0
        self._refusal = ""
        self._finished: deque[AppendSegment] = deque()
        self._syncing = threading.Lock()
        self._synced = (0, 0)
        self._waiting: list[asyncio.Future[None]] = []
        self._group: asyncio.Task[None] | None = None
        self._measured_at = -_MEASURE_SECONDS

    @classmethod
    def open(
        cls, folder: Path, *, node: str, limits: Limits = DEFAULT_LIMITS, clock: Clock = wall
    ) -> JournalWriter:
        """Begin a journal of our own below ``folder``.

        Raises ``JournalFull`` when there is no room for one.
        """
        writer_id = f"{_safe(node)}_{_boot_id()}_{ulid()}"
        staging = folder / f".{writer_id}"
        staging.mkdir(mode=0o700, parents=True)
        lock = lock_acquire(writer_lock(staging))
        assert lock is not None, "the folder is ours alone until it is renamed"
        try:
            segment = segment_create(staging, _FIRST_SEGMENT, capacity=limits.segment_bytes)
        except OSError as error:
            os.close(lock)
            writer_lock(staging).unlink()
            staging.rmdir()
            raise JournalFull(f"No journal can be begun in {folder}: {error.strerror}.") from error
        home = staging.rename(folder / writer_id)
        segment.path = segment_path(home, _FIRST_SEGMENT)
        sync_folder(home)
        sync_folder(folder)
        writer = cls(home, lock, segment, limits, clock)
        writer._measure()
        return writer

    @property
    def open_intents(self) -> int:
        return len(self._open)

    def intent(self, draft: UsageFact) -> None:
        """Before bytes go upstream. ``draft`` is what a death without a checkpoint books.

        Raises ``JournalFull``; then nothing may be asked of an engine.
        """
        if self._refusal:
            raise JournalFull(rule=self._refusal)
        if draft.event_id in self._open:
            raise ValueError(f"Event {draft.event_id} is open already.")
        data = self._frame(RecordKind.INTENT, encode_fact(draft))
        reserve = len(data) + _SETTLE_MARGIN
        if self._segment.room < len(data) + reserve + self._reserved:
            self._rotate(len(data) + reserve)
        self._append(data)
        self._open[draft.event_id] = data
        self._reserved += reserve

    def checkpoint(self, event_id: str, quantities: Mapping[str, int]) -> None:
        """The cumulative count so far; ignored once the event is settled.

        Dropped and counted while the journal is full: it only improves what a death books.
        """
        if event_id not in self._open:
            return
        data = self._frame(RecordKind.CHECKPOINT, encode_checkpoint(event_id, quantities))
        try:
            self._append_checkpoint(data)
        except JournalFull:
            self.checkpoints_dropped += 1
            return
        self._counted[event_id] = data

    def settle(self, fact: UsageFact) -> None:
        """Before the last byte goes to the client; once for every intent, whatever became of it.

        Raises ``KeyError`` for an event that is not open.
        """
        data = self._frame(RecordKind.SETTLE, encode_fact(fact))
        opened = self._open[fact.event_id]
        self._append(data)
        del self._open[fact.event_id]
        self._counted.pop(fact.event_id, None)
        self._reserved -= len(opened) + _SETTLE_MARGIN

    async def durable(self) -> None:
        """In ``strict`` mode: everything appended so far is on the disk when this returns.

        One sync serves all who came before it started. Raises ``JournalFull`` when the disk fails:
        then the last byte must not be sent. In ``interval`` mode it returns at once.
        """
        if self._limits.sync is not SyncMode.STRICT:
            return
        loop = asyncio.get_running_loop()
        waiter = loop.create_future()
        self._waiting.append(waiter)
        if self._group is None:
            self._group = loop.create_task(self._sync_groups())
        await waiter

    async def run(self) -> None:
        """Sync every ``sync_seconds`` off the request path, until cancelled."""
        while True:
            await asyncio.sleep(self._limits.sync_seconds)
            await asyncio.to_thread(self._sync)

    def close(self) -> None:
        """Make everything durable and let the shipper have it, intents still open included."""
        self._finished.append(self._segment)
        with self._syncing:
            self._finish_segments()
        os.close(self._lock)

    def _frame(self, kind: RecordKind, payload: bytes) -> bytes:
        return frame(kind, payload, written_at=micros(self._clock()))

    def _append_checkpoint(self, data: bytes) -> None:
        if self._segment.room < len(data) + self._reserved:
            if self._refusal:
                raise JournalFull(rule=self._refusal)
            self._rotate(len(data))
        self._append(data)

    def _append(self, data: bytes) -> None:
        try:
            self._segment.append(data)
        except OSError as error:
            self._refusal = "journal_disk"
            log.exception("journal append failed", extra={"writer": self.writer_id})
            raise JournalFull(rule="journal_disk") from error

    def _rotate(self, needed: int) -> None:
        head = b"".join((*self._open.values(), *self._counted.values()))
        # Twice what is known to come, or a flood of open intents would rotate at every call.
        capacity = max(self._limits.segment_bytes, 2 * (len(head) + self._reserved + needed))
        try:
            fresh = segment_create(
                self._folder, self._segment.number + 1, capacity=capacity, head=head
            )
        except OSError as error:
            self._refusal = "journal_space"
            raise JournalFull(rule="journal_space") from error
        self._finished.append(self._segment)
        self._segment = fresh

    async def _sync_groups(self) -> None:
        """Whoever comes while one sync runs is served by the next: it may have missed them."""
        while self._waiting:
            served, self._waiting = self._waiting, []
            is_synced = await asyncio.to_thread(self._sync)
            for waiter in served:
                if waiter.done():  # its client has left
                    continue
                if is_synced:
                    waiter.set_result(None)
                else:
                    waiter.set_exception(JournalFull(rule="journal_disk"))
        self._group = None

    def _sync(self) -> bool:
        """Whether everything appended before the call is on the disk now."""
        with self._syncing:
            try:
                self._sync_appended()
                self._measure()
            except OSError:
                self._refusal = "journal_disk"
                log.exception("journal sync failed", extra={"writer": self.writer_id})
                return False
            return True

    def _finish_segments(self) -> None:
        while self._finished:
            self._finished.popleft().finish()
            sync_folder(self._folder)

    def _sync_appended(self) -> None:
        segment = self._segment  # before finishing: a rotation may come in between
        self._finish_segments()
        reached = (segment.number, segment.used)
        if segment.fd >= 0 and reached != self._synced:
            os.fdatasync(segment.fd)
            self._synced = reached

    def _measure(self) -> None:
        now = monotonic()
        if now - self._measured_at < _MEASURE_SECONDS:
            return
        self._measured_at = now
        disk = os.statvfs(self._folder)
        if disk.f_bavail * disk.f_frsize < self._limits.free_bytes:
            self._refusal = "journal_free_space"
        elif unshipped_bytes(self._folder.parent) > self._limits.unshipped_bytes:
            self._refusal = "journal_bound"
        else:
            self._refusal = ""


def _safe(node: str) -> str:
    return re.sub(r"[^A-Za-z0-9.-]", "-", node)[:63] or "node"


def _boot_id() -> str:
    """Tells a process of before a reboot from one of after it, where the system says so."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text()[:8]
    except OSError:
        return "00000000"
