"""What the kernel tells about processes, from /proc. A process is named by pid and start time:
a pid alone may be another's by now."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
_STATE, _PARENT, _GROUP, _SESSION, _START_TICKS = 0, 1, 2, 3, 19


@dataclass(frozen=True)
class Process:
    pid: int
    parent: int
    group: int
    session: int
    start_ticks: int
    is_zombie: bool


def process(pid: int) -> Process | None:
    """``None`` when there is none by that number."""
    try:
        text = (PROC / str(pid) / "stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name in parentheses may hold anything; what follows the last one is plain numbers.
    fields = text.rpartition(")")[2].split()
    return Process(
        pid=pid,
        parent=int(fields[_PARENT]),
        group=int(fields[_GROUP]),
        session=int(fields[_SESSION]),
        start_ticks=int(fields[_START_TICKS]),
        is_zombie=fields[_STATE] in {"Z", "X"},
    )


def command_line(pid: int) -> list[bytes]:
    """Program and arguments; empty when there is no such process."""
    try:
        return (PROC / str(pid) / "cmdline").read_bytes().split(b"\0")
    except (FileNotFoundError, ProcessLookupError):
        return []


def processes() -> list[Process]:
    """Every process there is, except zombies."""
    found = (process(int(entry)) for entry in os.listdir(PROC) if entry.isdigit())  # noqa: PTH208
    return [one for one in found if one is not None and not one.is_zombie]


def session_members(session: int) -> list[Process]:
    return [one for one in processes() if one.session == session]


def descendants(pid: int) -> list[Process]:
    """Children, their children, and so on; whoever left the session is among them."""
    everyone = processes()
    found: list[Process] = []
    parents = {pid}
    while parents:
        children = [one for one in everyone if one.parent in parents]
        found += children
        parents = {one.pid for one in children}
    return found


def kill_session(session: int) -> None:
    """Kill what began as one child: its group at once, then strays with groups of their own."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(session, signal.SIGKILL)
    for member in session_members(session):
        with suppress(ProcessLookupError, PermissionError):
            os.kill(member.pid, signal.SIGKILL)


def boot_id() -> str:
    """Start times count from the boot; another boot, another count."""
    return (PROC / "sys/kernel/random/boot_id").read_text().strip()


def memory_bytes(pid: int) -> int:
    """Proportional set size: shared pages count in equal parts for those who share them."""
    try:
        lines = (PROC / str(pid) / "smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
