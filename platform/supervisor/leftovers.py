"""One stack per data folder, and nothing left of the one before.

The lock belongs to the living supervisor and goes with it, however it ends. The record beside it
names the children by pid, start time and boot, so that the next supervisor can end those which
outlived the last one.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TextIO

from supervisor.errors import StackRunning
from supervisor.processes import boot_id, kill_session, process, session_members

LOCK_NAME = "supervisor.lock"
RECORD_NAME = "children.json"
GONE_SECONDS = 5.0
LOCK_SECONDS = 0.5  # whoever only looks holds it for a moment


@dataclass(frozen=True)
class Recorded:
    name: str
    pid: int
    start_ticks: int


def claim(run: Path) -> TextIO:
    """Take the lock of this run folder, for as long as the returned file stays open.

    Raises ``StackRunning`` while another supervisor has it.
    """
    file = (run / LOCK_NAME).open("a+")
    (run / LOCK_NAME).chmod(0o600)
    deadline = time.monotonic() + LOCK_SECONDS
    while not _try_lock(file):
        if time.monotonic() > deadline:
            file.close()
            raise StackRunning(
                f"This stack is running already (process {_holder(run)}); `make status` shows it, "
                "`make down` stops it."
            )
        time.sleep(0.05)
    file.seek(0)
    file.truncate()
    file.write(f"{os.getpid()}\n")
    file.flush()
    return file


def running_supervisor(run: Path) -> int | None:
    """The pid of the supervisor that holds this run folder."""
    try:
        with (run / LOCK_NAME).open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return None
    except BlockingIOError:
        return _holder(run)
    return None


def record(run: Path, children: list[Recorded]) -> None:
    """Written at every start and end; a torn file is only the loss of this help."""
    text = json.dumps({"boot": boot_id(), "children": [asdict(child) for child in children]})
    new = run / f".{RECORD_NAME}"
    new.write_text(text)
    new.replace(run / RECORD_NAME)


def end_leftovers(run: Path) -> list[str]:
    """Kill what the last supervisor's children left; gives their names. Call it under the lock."""
    ended = [child for child in _recorded(run) if _is_ours(child)]
    for child in ended:
        kill_session(child.pid)
    deadline = time.monotonic() + GONE_SECONDS
    while any(session_members(child.pid) for child in ended) and time.monotonic() < deadline:
        time.sleep(0.02)
    return [child.name for child in ended]


def _try_lock(file: TextIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _recorded(run: Path) -> list[Recorded]:
    try:
        found = json.loads((run / RECORD_NAME).read_text())
        if found["boot"] != boot_id():
            return []
        return [Recorded(**child) for child in found["children"]]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return []


def _is_ours(child: Recorded) -> bool:
    leader = process(child.pid)
    if leader is not None:
        return leader.start_ticks == child.start_ticks
    # The leader is gone; while its session lives, the kernel gives the number to nobody else.
    return bool(session_members(child.pid))


def _holder(run: Path) -> int:
    text = (run / LOCK_NAME).read_text().strip()
    return int(text) if text.isdigit() else 0
