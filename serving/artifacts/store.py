"""Where files lie that were checked: immutable, named by their SHA-256, shared by all that have the
same bytes.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from pathlib import Path
from typing import BinaryIO, Protocol

from kernel.errors import NotFound
from serving.errors import StorageExhausted

NO_SUCH_OBJECT = "There is no such object."


class ObjectStore(Protocol):
    """``Unavailable`` wherever the store cannot do what it is asked."""

    def put(self, sha256: str, source: Path) -> None:
        """Keep the bytes of ``source`` under their digest; once it returns they survive a power
        cut.

        The caller has computed the digest from these very bytes. Putting the same object twice is
        fine.
        """

    def open(self, sha256: str) -> BinaryIO:
        """The object's bytes; ``NotFound`` where there is none."""

    def exists(self, sha256: str) -> bool: ...

    def size(self, sha256: str) -> int:
        """Its length in bytes; ``NotFound`` where there is none."""

    def delete(self, sha256: str) -> None:
        """Forget the object. Whoever calls this knows that nothing refers to it; absent is fine."""


class FolderStore:
    """An object store in a folder: ``<first 2>/<sha256>``, written aside and renamed when whole."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def put(self, sha256: str, source: Path) -> None:
        target = self._path(sha256)
        if target.exists():
            return
        try:
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _copy_whole(source, target)
        except OSError as error:
            if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
                raise StorageExhausted from error
            raise

    def open(self, sha256: str) -> BinaryIO:
        try:
            return self._path(sha256).open("rb")
        except FileNotFoundError as error:
            raise NotFound(NO_SUCH_OBJECT) from error

    def exists(self, sha256: str) -> bool:
        return self._path(sha256).is_file()

    def size(self, sha256: str) -> int:
        try:
            return self._path(sha256).stat().st_size
        except FileNotFoundError as error:
            raise NotFound(NO_SUCH_OBJECT) from error

    def delete(self, sha256: str) -> None:
        self._path(sha256).unlink(missing_ok=True)

    def _path(self, sha256: str) -> Path:
        return self._root / object_name(sha256)


def object_name(sha256: str) -> str:
    """``<first 2>/<sha256>``; ``NotFound`` where that is no digest."""
    if len(sha256) != 64 or not set(sha256) <= set("0123456789abcdef"):
        raise NotFound(NO_SUCH_OBJECT)
    return f"{sha256[:2]}/{sha256}"


def _copy_whole(source: Path, target: Path) -> None:
    descriptor, name = tempfile.mkstemp(prefix=".new-", dir=target.parent)
    try:
        with os.fdopen(descriptor, "wb") as out, source.open("rb") as data:
            shutil.copyfileobj(data, out, 1 << 20)
            out.flush()
            os.fsync(out.fileno())
            os.fchmod(out.fileno(), 0o400)
        Path(name).replace(target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    _sync_folder(target.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
