"""Following a stack that starts, or stops, in the background."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from controlplane.embedded.home import Home
from kernel.errors import Unavailable
from supervisor.control import ask
from supervisor.errors import SupervisorError
from supervisor.leftovers import running_supervisor
from supervisor.logs import last_lines
from supervisor.supervisor import SOCKET_NAME

START_SECONDS = 180.0
STOP_SECONDS = 120.0
POLL_SECONDS = 0.1
WORRYING_RESTARTS = 3
LOG_LINES = 8

Part = dict[str, Any]


class NotStarted(Unavailable):
    code = "not_started"


class NotStopped(Unavailable):
    code = "not_stopped"


def listed(home: Home) -> list[Part]:
    """The parts of the running stack; empty where none runs or it is just beginning."""
    with suppress(OSError, SupervisorError):
        parts: list[Part] = ask(home.run / SOCKET_NAME, {"op": "list"})["parts"]
        return parts
    return []


def wait_until_announced(home: Home, is_alive: Callable[[], bool]) -> Iterator[str]:
    """Yield a line for each part that becomes ready, and the announcement's as they are made.

    Raises ``NotStarted``, with the end of the log that explains it.
    """
    deadline = time.monotonic() + START_SECONDS
    announced, told = NewLines(home.logs / "announce.log"), set[str]()
    while True:
        alive, parts = is_alive(), {part["name"]: part for part in listed(home)}
        new = [name for name in parts if _is_up(parts[name]) and name not in told]
        told.update(new)
        yield from (_told(parts[name]) for name in new if name != "announce")
        yield from announced.read()
        if "announce" in new:
            return
        if not alive:
            raise NotStarted(_explained("It ended while starting.", home.logs / "console.log"))
        _refuse_trouble(home, parts, late=time.monotonic() > deadline)
        time.sleep(POLL_SECONDS)


class NewLines:
    """What is written to the end of a file from now on, in whole lines."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen = path.stat().st_size if path.exists() else 0

    def read(self) -> list[str]:
        try:
            with self._path.open("rb") as file:
                file.seek(self._seen)
                whole, end, _ = file.read().rpartition(b"\n")
        except FileNotFoundError:
            return []
        self._seen += len(whole) + len(end)
        return (whole + end).decode(errors="replace").splitlines()


def stop(home: Home) -> bool:
    """Stop the stack and wait for its end; false where none was running."""
    pid = running_supervisor(home.run)
    if pid is None:
        return False
    try:
        ask(home.run / SOCKET_NAME, {"op": "stop"})
    except (OSError, SupervisorError):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + STOP_SECONDS
    while running_supervisor(home.run) is not None:
        if time.monotonic() > deadline:
            raise NotStopped(
                f"Process {pid} did not stop within {STOP_SECONDS:.0f} s; "
                f"`kill -9 {pid}` ends it and all of its parts, and loses nothing acknowledged."
            )
        time.sleep(POLL_SECONDS)
    return True


def _is_up(part: Part) -> bool:
    if part["once"]:
        return bool(part["state"] == "stopped")
    return bool(part["state"] == "running")


def _told(part: Part) -> str:
    return f"{part['name']} is {'done' if part['once'] else 'up'}"


def _refuse_trouble(home: Home, parts: dict[str, Part], *, late: bool) -> None:
    """Engines come and go by themselves; how they are is said of the models."""
    for name, part in parts.items():
        log = home.logs / f"{name}.log"
        if part["state"] == "failed":
            raise NotStarted(_explained(f"{name} failed ({part['last_exit']}).", log))
        if part["ensured"]:
            continue
        if part["restarts"] >= WORRYING_RESTARTS and part["state"] == "backoff":
            sentence = f"{name} ends again and again ({part['last_exit']})."
            raise NotStarted(_explained(sentence, log, advice=part["advice"]))
        if late and not _is_up(part) and part["state"] != "waiting" and name != "announce":
            seconds = f"{START_SECONDS:.0f} s"
            raise NotStarted(_explained(f"{name} is not ready after {seconds}.", log))


def _explained(sentence: str, log: Path, *, advice: str = "") -> str:
    lines = [f"{sentence} The end of {log}:", *(f"  {one}" for one in last_lines(log, LOG_LINES))]
    return "\n".join([*lines, *filter(None, [advice])])
