"""Bring ordered adapters onto this machine: checked while they arrive, whole or not at all.

The cache is a folder of folders named by artifact digest. Several agents of one machine may share
it: an entry appears by a rename, and its modification time says when an agent last needed it, so
that clearing never takes one that is in use.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import math
import os
import re
import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, suppress
from pathlib import Path
from typing import Protocol

from kernel.clock import Clock, wall
from kernel.ids import ulid
from serving.agent.errors import FetchFailed
from serving.contracts import WantedAdapter

DEFAULT_CACHE_BYTES = 20_000_000_000
IN_USE_SECONDS = 900.0  # an agent touches what it needs far more often
ABANDONED_SECONDS = 3600.0
CHUNK_BYTES = 1 << 20

_DIGEST = re.compile(r"[0-9a-f]{64}")
_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")


class Source(Protocol):
    """Where the bytes of an artifact's files come from."""

    def artifact(
        self, digest: str, name: str
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]: ...


class AdapterCache:
    """Adapters on this machine's disk, bounded by ``limit_bytes`` as far as those in use allow."""

    def __init__(
        self, folder: Path, *, limit_bytes: int = DEFAULT_CACHE_BYTES, clock: Clock = wall
    ) -> None:
        self.folder = folder
        self._limit_bytes = limit_bytes
        self._clock = clock
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    async def ensure(self, adapter: WantedAdapter, source: Source) -> Path:
        """The adapter's folder, complete and with the right bytes, fetched if it must be.

        Raises ``FetchFailed`` when what arrives is not what was ordered, or does not fit the disk;
        whatever the source raises passes through. Neither leaves anything behind under the digest.
        """
        require_sane(adapter)
        entry = self.folder / adapter.digest
        if await asyncio.to_thread(_holds, entry, adapter.files):
            self.touch(adapter.digest)
            return entry
        incoming = self.folder / f".incoming-{ulid()}"
        try:
            incoming.mkdir(mode=0o700)
            for name, sha256 in adapter.files.items():
                await self._receive(incoming / name, adapter.digest, sha256, source)
            await asyncio.to_thread(_install, incoming, entry)
        except OSError as error:
            raise FetchFailed(_disk_words(error, self.folder)) from error
        finally:
            await asyncio.to_thread(shutil.rmtree, incoming, ignore_errors=True)
        await asyncio.to_thread(self.clear)
        return entry

    def touch(self, digest: str) -> None:
        """Say that the entry is needed; nothing happens when it is not there."""
        now = self._clock()
        with suppress(FileNotFoundError):
            os.utime(self.folder / digest, (now, now))

    def clear(self) -> None:
        """Remove entries, least recently needed first, until the cache is within its limit."""
        now = self._clock()
        entries = []
        for path in self.folder.iterdir():
            age = now - _modified(path)
            if path.name.startswith("."):
                if age > ABANDONED_SECONDS:
                    shutil.rmtree(path, ignore_errors=True)
                continue
            entries.append((age, path, _folder_bytes(path)))
        excess = sum(size for _, _, size in entries) - self._limit_bytes
        for age, path, size in sorted(entries, reverse=True):
            if excess <= 0 or age < IN_USE_SECONDS:
                return
            _discard(path)
            excess -= size

    async def _receive(self, path: Path, digest: str, sha256: str, source: Source) -> None:
        hashed = hashlib.sha256()
        with path.open("wb") as file:
            async with source.artifact(digest, path.name) as chunks:
                async for chunk in chunks:
                    hashed.update(chunk)
                    await asyncio.to_thread(file.write, chunk)
            await asyncio.to_thread(_sync, file.fileno())
        if hashed.hexdigest() != sha256:
            raise FetchFailed(
                f"{path.name} arrived with SHA-256 {hashed.hexdigest()[:12]}..., ordered was "
                f"{sha256[:12]}...: it was damaged on the way or in the store."
            )


def require_sane(adapter: WantedAdapter) -> None:
    """Refuse names that could lead out of the cache, whoever sent them."""
    if not _DIGEST.fullmatch(adapter.digest) or not adapter.files:
        raise FetchFailed("The order names no proper artifact digest or no files.")
    for name, sha256 in adapter.files.items():
        if not _FILE_NAME.fullmatch(name) or not _DIGEST.fullmatch(sha256):
            raise FetchFailed(f"The order names a file that cannot be: {name[:64]!r}.")


def _holds(entry: Path, files: Mapping[str, str]) -> bool:
    """Whether every file is there with the right bytes; a damaged entry is thrown away."""
    if not entry.is_dir():
        return False
    if all(_sha256(entry / name) == sha256 for name, sha256 in files.items()):
        return True
    _discard(entry)
    return False


def _sha256(path: Path) -> str:
    hashed = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                hashed.update(chunk)
    except OSError:
        return ""
    return hashed.hexdigest()


def _install(incoming: Path, entry: Path) -> None:
    """Put a complete folder in its place; another agent may have been first with the same."""
    try:
        incoming.rename(entry)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
    _sync_folder(entry.parent)


def _discard(entry: Path) -> None:
    """Remove an entry such that no half of it is ever found under its digest."""
    leaving = entry.with_name(f".leaving-{ulid()}")
    try:
        entry.rename(leaving)
    except FileNotFoundError:
        return
    shutil.rmtree(leaving, ignore_errors=True)


def _sync(descriptor: int) -> None:
    os.fsync(descriptor)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _modified(path: Path) -> float:
    """When an entry was last needed; one that another agent just removed is of no age."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return math.inf


def _folder_bytes(folder: Path) -> int:
    try:
        return sum(path.stat().st_size for path in folder.iterdir())
    except FileNotFoundError:
        return 0


def _disk_words(error: OSError, folder: Path) -> str:
    if error.errno == errno.ENOSPC:
        return f"The disk of the engine's machine is full ({folder}): make room there."
    return f"The adapter could not be written to {folder}: {error.strerror}."
