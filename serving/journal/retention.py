"""How long shipped segments stay, and what goes with them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from serving.journal.segment import (
    SegmentFile,
    dead_writer,
    has_lost_bytes,
    is_closed,
    segment_list,
    shipped_list,
    writer_folders,
)

KEEP_SECONDS = 72 * 3600.0
FREE_BYTES = (
    512 * 1024 * 1024
)  # twice what writers leave free: what is shipped goes before they stop
_STAGING_SECONDS = 3600.0


def expire(
    journal: Path,
    *,
    now: float,
    keep_seconds: float = KEEP_SECONDS,
    free_bytes: int = FREE_BYTES,
) -> int:
    """Remove shipped segments whose time is over, sooner while the disk runs full, oldest first.

    Never removes what is not shipped, nor bytes that were lost, nor what closing may still need.
    Returns the number of segments removed.
    """
    removed = 0
    for segment, shipped_at in _oldest_first(journal):
        if now - shipped_at < keep_seconds and _free(journal) >= free_bytes:
            break
        segment.path.unlink(missing_ok=True)
        removed += 1
    _remove_empty(journal, now)
    return removed


def _oldest_first(journal: Path) -> list[tuple[SegmentFile, float]]:
    kept = [
        (segment, segment.path.stat().st_mtime)
        for folder in writer_folders(journal)
        if is_closed(folder) or not has_lost_bytes(folder)
        for segment in shipped_list(folder)
    ]
    return sorted(kept, key=lambda entry: entry[1])


def _remove_empty(journal: Path, now: float) -> None:
    for folder in writer_folders(journal):
        if is_closed(folder) and not segment_list(folder) and not has_lost_bytes(folder):
            shutil.rmtree(folder)
    for folder in _stale_staging(journal, now):
        with dead_writer(folder) as is_dead:
            if is_dead:
                shutil.rmtree(folder)


def _stale_staging(journal: Path, now: float) -> Iterator[Path]:
    """Folders of writers that died before they were complete."""
    for entry in journal.glob(".*"):
        if entry.is_dir() and now - entry.stat().st_mtime > _STAGING_SECONDS:
            yield entry


def _free(journal: Path) -> int:
    disk = os.statvfs(journal)
    return disk.f_bavail * disk.f_frsize
