"""Parts of uploads on disk, until they are whole files. Paths are made of ids only.

<root>/<artifact id>/<file id>.<number>   a part, there only when all of it is
<root>/<artifact id>/<file id>            the whole file, there only when its digest is right
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol
from uuid import UUID

from serving.errors import StorageExhausted

CHUNK_BYTES = 1 << 20


class Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


class Staging:
    def __init__(self, root: Path, artifact_id: UUID) -> None:
        self._folder = root / str(artifact_id)

    def part_write(self, file_id: UUID, number: int, *, size_bytes: int, body: Readable) -> bool:
        """Keep a part, in place of an earlier one of the same number. False where the body is
        longer or shorter than ``size_bytes``: then nothing is kept.
        """
        with self._new() as new:
            if _copy(body, new, size_bytes) != size_bytes or body.read(1):
                return False
            _sync(new)
            Path(new.name).replace(self._part(file_id, number))
        return True

    def assemble(self, file_id: UUID, *, parts: int, sha256: str) -> bool:
        """Make one file of its parts. False, and nothing made, where its digest is another."""
        hashed = hashlib.sha256()
        with self._new() as new:
            for chunk in self._chunks(file_id, range(parts)):
                hashed.update(chunk)
                new.write(chunk)
            if hashed.hexdigest() != sha256:
                return False
            _sync(new)
            Path(new.name).replace(self.whole(file_id))
        return True

    def whole(self, file_id: UUID) -> Path:
        return self._folder / str(file_id)

    def remove(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def _part(self, file_id: UUID, number: int) -> Path:
        return self._folder / f"{file_id}.{number}"

    def _chunks(self, file_id: UUID, numbers: Iterable[int]) -> Iterator[bytes]:
        for number in numbers:
            with self._part(file_id, number).open("rb") as part:
                while chunk := part.read(CHUNK_BYTES):
                    yield chunk

    @contextmanager
    def _new(self) -> Iterator[BinaryIO]:
        """A file under a name of its own, gone afterwards unless it was renamed."""
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self._folder, prefix=".new-", delete=False) as new:
                try:
                    yield new  # type: ignore[misc]
                finally:
                    Path(new.name).unlink(missing_ok=True)
        except OSError as error:
            if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
                raise StorageExhausted from error
            raise


def _copy(body: Readable, out: BinaryIO, size_bytes: int) -> int:
    left = size_bytes
    while left and (chunk := body.read(min(left, CHUNK_BYTES))):
        out.write(chunk)
        left -= len(chunk)
    return size_bytes - left


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())
