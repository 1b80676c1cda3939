"""Reading a segment on from where one got to, while its writer may still be writing it."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

from serving.journal.record import HEADER_BYTES, Gap, Record, scan

CHUNK_BYTES = 1024 * 1024
_PAGE_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Lost:
    """Bytes that are no record, with where they lie in their segment."""

    start: int
    end: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Reading:
    """The next records of a segment. ``end`` is where to read on; offsets are the segment's.

    ``complete`` says that the segment holds nothing more and never will, ``doubtful`` that behind
    ``end`` lies something that is no record, yet.
    """

    records: tuple[Record, ...]
    lost: tuple[Lost, ...]
    end: int
    complete: bool = False
    doubtful: bool = False


def read_finished(path: Path, start: int) -> Reading:
    """For a segment that nobody writes any more: whatever is not a record is lost."""
    data = _read(path, start, CHUNK_BYTES)
    found = scan(data)
    is_rest = len(data) < CHUNK_BYTES
    if not is_rest and not found.records:  # damage longer than a chunk: look behind all of it
        data = path.read_bytes()[start:]
        found = scan(data)
        is_rest = True
    gaps = found.gaps
    if is_rest and found.tail is not None:
        gaps = (*gaps, found.tail)
    end = start + (len(data) if is_rest else found.end)
    return Reading(_moved(found.records, start), _lost(data, gaps, start), end, complete=is_rest)


def read_living(path: Path, start: int, *, past_damage: bool) -> Reading:
    """For the segment being written: stops before what may be a record half written.

    A read that races with the writer may see the start of one record and the whole of the next,
    so the caller says when it has waited long enough to call that damage.
    """
    if not any(_read(path, start, HEADER_BYTES)):
        return Reading((), (), start)
    data = _read(path, start, CHUNK_BYTES)
    found = scan(data)
    if found.gaps and not past_damage:
        return _until(found.records, found.gaps[0], start)
    lost = _lost(data, found.gaps, start)
    return Reading(_moved(found.records, start), lost, start + found.end)


def first_written_at(path: Path, start: int) -> int | None:
    """When the next record was written, in microseconds, if there is one to read."""
    records = scan(_read(path, start, CHUNK_BYTES)).records
    return records[0].written_at if records else None


def written_bytes(path: Path) -> int:
    """How far a segment is filled; what lies behind is reserved space, all zeros."""
    low, high = 0, -(-path.stat().st_size // _PAGE_BYTES)
    while low < high:
        middle = (low + high) // 2
        if any(_read(path, middle * _PAGE_BYTES, _PAGE_BYTES)):
            low = middle + 1
        else:
            high = middle
    if low == 0:
        return 0
    last = (low - 1) * _PAGE_BYTES
    return last + len(_read(path, last, _PAGE_BYTES).rstrip(b"\0"))


def _read(path: Path, start: int, size: int) -> bytes:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return os.pread(descriptor, size, start)
    finally:
        os.close(descriptor)


def _until(records: tuple[Record, ...], gap: Gap, start: int) -> Reading:
    before = tuple(record for record in records if record.end <= gap.start)
    return Reading(_moved(before, start), (), start + gap.start, doubtful=True)


def _moved(records: tuple[Record, ...], by: int) -> tuple[Record, ...]:
    return tuple(
        replace(record, start=record.start + by, end=record.end + by) for record in records
    )


def _lost(data: bytes, gaps: tuple[Gap, ...], by: int) -> tuple[Lost, ...]:
    return tuple(Lost(gap.start + by, gap.end + by, data[gap.start : gap.end]) for gap in gaps)
