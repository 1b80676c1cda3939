"""What runs, how it is, and what it costs."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from controlplane.embedded.home import Home
from supervisor.control import ask
from supervisor.processes import descendants, memory_bytes
from supervisor.supervisor import SOCKET_NAME


@dataclass(frozen=True, kw_only=True)
class Row:
    """One part. ``memory_bytes`` is the proportional set size of it and all that it started."""

    name: str
    state: str
    healthy: bool | None
    pid: int | None
    memory_bytes: int
    restarts: int
    up_seconds: float | None
    last_exit: str | None
    is_engine: bool

    @property
    def is_well(self) -> bool:
        if self.state == "stopped":
            return self.last_exit == "exit 0"
        return self.state == "running" and self.healthy is not False


def rows(home: Home) -> list[Row]:
    """Raises ``OSError`` where no stack runs in this home."""
    answer = ask(home.run / SOCKET_NAME, {"op": "list"})
    own = _row({"name": "supervisor", "state": "running", "pid": answer["pid"]}, alone=True)
    guard = _row({"name": "guard", "state": "running", "pid": answer["guard"]}, alone=True)
    return [own, guard, *(_row(part) for part in answer["parts"])]


def table(found: Iterable[Row]) -> str:
    """For people: a line per part, and the sums."""
    found = list(found)
    lines = [_line("part", "state", "health", "pid", "memory", "restarts", "up")]
    lines += [_row_line(row) for row in found]
    engines = sum(row.memory_bytes for row in found if row.is_engine)
    rest = sum(row.memory_bytes for row in found if not row.is_engine)
    lines.append("")
    lines.append(f"{_megabytes(rest)} without engines, {_megabytes(engines)} for engines (PSS)")
    return "\n".join(lines)


def _row(part: dict[str, Any], *, alone: bool = False) -> Row:
    pid, started_at = part["pid"], part.get("started_at")
    running = pid is not None
    return Row(
        name=part["name"],
        state=part["state"],
        healthy=part.get("healthy"),
        pid=pid,
        memory_bytes=_memory(pid, alone=alone) if running else 0,
        restarts=part.get("restarts", 0),
        up_seconds=round(time.time() - started_at, 1) if running and started_at else None,
        last_exit=part.get("last_exit"),
        is_engine=part.get("ensured", False),
    )


def _memory(pid: int, *, alone: bool) -> int:
    others = [] if alone else [one.pid for one in descendants(pid)]
    return sum(memory_bytes(one) for one in (pid, *others))


def _row_line(row: Row) -> str:
    answers = row.healthy if row.state == "running" else None
    health = {True: "ok", False: "failing", None: "-"}[answers]
    state = "done" if row.state == "stopped" and row.is_well else row.state
    if row.state in {"backoff", "failed"} and row.last_exit:
        state = f"{state} ({row.last_exit})"
    return _line(
        row.name,
        state,
        health,
        str(row.pid or "-"),
        _megabytes(row.memory_bytes) if row.pid else "-",
        str(row.restarts),
        _duration(row.up_seconds),
    )


def _line(*cells: str) -> str:
    name, state, health, pid, memory, restarts, up = cells
    return (
        f"{name:<40} {state:<24} {health:<8} {pid:>8} {memory:>9} {restarts:>9} {up:>9}"
    ).rstrip()


def _megabytes(count: int) -> str:
    return f"{count / 1_000_000:.0f} MB"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
