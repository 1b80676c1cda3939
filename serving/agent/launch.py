"""Become the engine: give this start an incarnation, write it where the agent looks, then exec."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import NoReturn

from kernel.ids import ulid

PLACEHOLDER = "{incarnation}"
ENGINE_SOCKETS = "[0-9]*.sock"  # incarnations begin with a digit; other sockets lie beside them
LONGEST_SOCKET_PATH = 107  # bytes; the kernel's limit for a Unix socket's name
LONGEST_OWN_NAME = 37  # of the sockets that vLLM makes for itself: a slash and a UUID


def launch(run_dir: Path, command: list[str]) -> NoReturn:
    """Replace this process by ``command``, with ``{incarnation}`` filled in. Never returns."""
    os.umask(0o077)  # the engine's socket is for its owner only
    run_dir.mkdir(parents=True, exist_ok=True)
    run_dir.chmod(0o700)
    incarnation = ulid()
    require_room_for(socket_path(run_dir, incarnation))
    for old in run_dir.glob(ENGINE_SOCKETS):
        old.unlink(missing_ok=True)
    os.environ["TMPDIR"] = str(fresh_temporary_folder(run_dir))
    announce(run_dir, incarnation)
    arguments = [argument.replace(PLACEHOLDER, incarnation) for argument in command]
    try:
        os.execvp(arguments[0], arguments)  # noqa: S606 - a list of arguments, no shell
    except OSError as error:
        sys.exit(f"The engine cannot be started: {arguments[0]}: {error.strerror}.")


def fresh_temporary_folder(run_dir: Path) -> Path:
    """The engine's processes talk over sockets that they leave behind: here, until the next start.

    Where the path has no room for those, the system's folder stays in use.
    """
    folder = run_dir / "tmp"
    if len(os.fsencode(folder)) + LONGEST_OWN_NAME > LONGEST_SOCKET_PATH:
        return Path(tempfile.gettempdir())
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    return folder


def socket_path(run_dir: Path, incarnation: str) -> Path:
    return run_dir / f"{incarnation}.sock"


def require_room_for(socket: Path) -> None:
    """End with a sentence where the folder lies too deep for a Unix socket of that name."""
    too_long = len(os.fsencode(socket)) - LONGEST_SOCKET_PATH
    if too_long > 0:
        sys.exit(
            f"The name of {socket.parent} is {too_long} bytes too long for a Unix socket in that "
            "folder. Let TESSERA_HOME name a folder with a shorter path."
        )


def announce(run_dir: Path, incarnation: str) -> None:
    """Write the incarnation such that a reader sees the old one or the new one, never half."""
    temporary = run_dir / f".incarnation-{os.getpid()}"
    temporary.write_text(incarnation)
    temporary.rename(run_dir / "incarnation")


def current_incarnation(run_dir: Path) -> str:
    """The incarnation that was announced last, or nothing before the first start."""
    try:
        return (run_dir / "incarnation").read_text().strip()
    except FileNotFoundError:
        return ""
