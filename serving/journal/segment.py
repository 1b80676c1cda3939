"""Segments and writers as files.

    <journal>/shipper.lock              held by the node's one shipper
    <journal>/shipper.json              the shipper's health, rewritten every second
    <journal>/<writer>/lock             held while the writer lives
    <journal>/<writer>/0000000002.seg   records not all shipped yet; the highest is being written
    <journal>/<writer>/shipped/         segments that are only kept for replay
    <journal>/<writer>/*.torn *.damaged what could not be read, named by segment and offset
    <journal>/<writer>/closed           the writer died and every intent of its is settled

A folder or segment appears under its final name only when it is complete, so that whoever lists
sees no half-made thing.
A writer never goes back to segment n once n + 1 is there.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_SUFFIX = ".seg"
_SHIPPED = "shipped"
LOST_SUFFIXES = frozenset({".torn", ".damaged"})
_LOCK = "lock"
_CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class SegmentFile:
    """A segment as it lies in a writer's folder."""

    path: Path
    number: int

    @property
    def is_shipped(self) -> bool:
        return self.path.parent.name == _SHIPPED

    def where(self) -> Path:
        """The path now: it may have been shipped since it was listed."""
        return self.path if self.path.exists() else self.path.parent / _SHIPPED / self.path.name


class AppendSegment:
    """A segment being written: space reserved up to ``capacity``, filled up to ``used``."""

    __slots__ = ("capacity", "fd", "number", "path", "used")

    def __init__(self, path: Path, number: int, capacity: int) -> None:
        self.path = path
        self.number = number
        self.capacity = capacity
        self.used = 0
        self.fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            _reserve(self.fd, capacity)
        except OSError:
            self.discard()
            raise

    @property
    def room(self) -> int:
        return self.capacity - self.used

    def append(self, data: bytes) -> None:
        """Written when this returns: survives the death of the process, not yet a power cut."""
        done = os.pwrite(self.fd, data, self.used)
        while done < len(data):
            done += os.pwrite(self.fd, data[done:], self.used + done)
        self.used += done

    def finish(self) -> None:
        """Give back what was reserved and not used, make durable, close."""
        try:
            os.ftruncate(self.fd, self.used)
            os.fdatasync(self.fd)
        finally:
            os.close(self.fd)
            self.fd = -1  # a late append fails rather than write into whatever opens next

    def discard(self) -> None:
        os.close(self.fd)
        self.path.unlink(missing_ok=True)


def segment_path(folder: Path, number: int) -> Path:
    return folder / f"{number:010d}{_SUFFIX}"


def segment_create(folder: Path, number: int, *, capacity: int, head: bytes = b"") -> AppendSegment:
    """A new segment that starts with ``head``; it is there wholly or not at all.

    Raises ``OSError`` when the space cannot be had.
    """
    staging = folder / f".{number:010d}"
    staging.unlink(missing_ok=True)
    segment = AppendSegment(staging, number, capacity)
    try:
        segment.append(head)
        segment.path = staging.rename(segment_path(folder, number))
    except OSError:
        segment.discard()
        raise
    return segment


def segment_list(folder: Path) -> list[SegmentFile]:
    """A writer's segments, shipped and not, oldest first."""
    # In this order: one that is shipped meanwhile is found twice rather than not at all.
    found = {segment.number: segment for segment in unshipped_list(folder)}
    found |= {segment.number: segment for segment in shipped_list(folder)}
    return [found[number] for number in sorted(found)]


def unshipped_list(folder: Path) -> list[SegmentFile]:
    """Those not wholly shipped yet, oldest first. Never many, however much is kept."""
    segments = (SegmentFile(path, int(path.stem)) for path in folder.glob(f"[0-9]*{_SUFFIX}"))
    return sorted(segments, key=lambda segment: segment.number)


def shipped_list(folder: Path) -> list[SegmentFile]:
    return unshipped_list(folder / _SHIPPED)


def writer_folders(journal: Path) -> list[Path]:
    """Every writer that has ever been complete enough to write, oldest name first."""
    if not journal.is_dir():
        return []
    return sorted(
        entry for entry in journal.iterdir() if entry.is_dir() and not entry.name.startswith(".")
    )


def unshipped_bytes(journal: Path) -> int:
    """The disk space of all segments that are not wholly shipped yet."""
    total = 0
    for folder in writer_folders(journal):
        total += sum(_size(segment.path) for segment in unshipped_list(folder))
    return total


def sync_folder(folder: Path) -> None:
    """Make created, renamed and removed names durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def lock_acquire(path: Path) -> int | None:
    """The descriptor that holds the lock until it is closed, or nothing while another holds it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def writer_lock(folder: Path) -> Path:
    return folder / _LOCK


def shipper_lock(journal: Path) -> Path:
    return journal / "shipper.lock"


@contextmanager
def dead_writer(folder: Path) -> Iterator[bool]:
    """Whether the writer is dead; if it is, its lock is held inside, so it stays ours alone."""
    descriptor = lock_acquire(writer_lock(folder))
    try:
        yield descriptor is not None
    finally:
        if descriptor is not None:
            os.close(descriptor)


def save_lost(folder: Path, number: int, start: int, data: bytes, *, suffix: str) -> bool:
    """Keep bytes that are no record for a person to look at. False when they were kept before."""
    path = folder / f"{number:010d}-{start:010d}{suffix}"
    if path.exists():
        return False
    staging = path.with_suffix(".saving")
    staging.write_bytes(data)
    with staging.open("rb") as file:
        os.fsync(file.fileno())
    staging.rename(path)
    sync_folder(folder)
    return True


def has_lost_bytes(folder: Path) -> bool:
    return any(entry.suffix in LOST_SUFFIXES for entry in folder.iterdir())


def truncate(path: Path, size: int) -> None:
    """Cut a segment, durably."""
    with path.open("r+b") as file:
        file.truncate(size)
        os.fsync(file.fileno())


def mark_shipped(segment: SegmentFile, *, at: float) -> None:
    """From now on the segment is only kept for replay; ``at`` is where its keeping time starts."""
    os.utime(segment.path, (at, at))
    folder = segment.path.parent / _SHIPPED
    folder.mkdir(mode=0o700, exist_ok=True)
    segment.path.rename(folder / segment.path.name)


def is_closed(folder: Path) -> bool:
    return (folder / _CLOSED).exists()


def mark_closed(folder: Path) -> None:
    (folder / _CLOSED).touch(mode=0o600)
    sync_folder(folder)


def _reserve(descriptor: int, size: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)
        return
    # Elsewhere the only way to own blocks is to write them.
    block = bytes(1024 * 1024)
    for start in range(0, size, len(block)):
        os.pwrite(descriptor, block[: size - start], start)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # shipped, hence renamed, while we looked
        return 0
