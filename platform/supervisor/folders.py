"""Folders that only this user may enter, and names for sockets that are short enough."""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from pathlib import Path

from supervisor.errors import FolderUnusable

SOCKET_PATH_BYTES = 107  # the kernel's limit for the address of a Unix socket


def private_folder(path: Path) -> Path:
    """Make ``path`` with mode 0700, or tighten it; refuse one that another user made."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise FolderUnusable(
            f"The folder {path} cannot be made ({error.strerror}); "
            "let TESSERA_HOME name a place in which you may write."
        ) from None
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise FolderUnusable(
            f"{path} is not a folder of user {os.geteuid()}; "
            "remove it, or set TESSERA_HOME to another place."
        )
    if stat.S_IMODE(found.st_mode) != 0o700:
        path.chmod(0o700)
    return path


def socket_folder(preferred: Path, *, longest_name: int) -> Path:
    """A private folder in which a socket with a name of ``longest_name`` bytes can be bound.

    That is ``preferred`` where its path is short enough. Otherwise it is a folder of the same user
    in the system's folder for temporary files, with a name derived from ``preferred``, so that
    every start finds the same one.
    """
    preferred = preferred.absolute()
    if len(os.fsencode(preferred)) + 1 + longest_name <= SOCKET_PATH_BYTES:
        return private_folder(preferred)
    digest = hashlib.sha256(os.fsencode(preferred)).hexdigest()[:10]
    return private_folder(Path(tempfile.gettempdir()) / f"tessera-{os.geteuid()}-{digest}")


def write_private(path: Path, text: str) -> None:
    """Put a file of mode 0600 in place, whole or not at all."""
    new = path.with_name(f".{path.name}.{os.getpid()}")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    new.rename(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make names that appeared in ``folder`` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
