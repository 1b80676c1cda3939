"""Processes that a benchmark starts: started, waited for, measured and stopped."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

START_SECONDS = 30.0
STOP_SECONDS = 15.0


class NotStarted(Exception):
    """A process that a benchmark needs ended or did not answer in time."""


@contextmanager
def running(  # noqa: PLR0913 - a process has that many sides
    argv: Sequence[str],
    *,
    log: Path,
    ready: Callable[[], bool],
    environment: Mapping[str, str] | None = None,
    keep_fds: Sequence[int] = (),
    cwd: Path | None = None,
    seconds: float = START_SECONDS,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run ``argv`` while the ``with`` lasts; ``log`` takes its output and is quoted on failure."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=None if environment is None else dict(environment),
            pass_fds=keep_fds,
            cwd=cwd,
        )
    try:
        wait_until(
            lambda: _is_up(process, ready, log), what=f"{argv[0]} {argv[-1]}", seconds=seconds
        )
        yield process
    finally:
        stop(process)


def wait_until(condition: Callable[[], bool], *, what: str, seconds: float = START_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise NotStarted(f"{what}: not ready after {seconds:.0f} s")
        time.sleep(0.02)


def stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def cpu_seconds(pids: Sequence[int]) -> float:
    """CPU time of processes so far, all their living threads, to the nanosecond."""
    return sum(_thread_nanoseconds(task) for pid in pids for task in _tasks(pid)) / 1e9


def pss_bytes(pids: Sequence[int]) -> int:
    """Proportional set size: a page that several processes share is divided among them."""
    return sum(_rollup(pid, "Pss:") for pid in pids)


def private_bytes(pids: Sequence[int]) -> int:
    """What would be free if they ended."""
    return sum(_rollup(pid, "Private_Dirty:") + _rollup(pid, "Private_Clean:") for pid in pids)


def _rollup(pid: int, name: str) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024
    return 0


def descendants(pid: int) -> list[int]:
    """A process and all that came from it."""
    found = [pid]
    for task in _tasks(pid):
        children = (task / "children").read_text().split()
        found += [one for child in children for one in descendants(int(child))]
    return found


def _tasks(pid: int) -> list[Path]:
    return list(Path(f"/proc/{pid}/task").iterdir())


def _thread_nanoseconds(task: Path) -> int:
    try:
        return int((task / "schedstat").read_text().split()[0])
    except OSError:  # the thread ended in between
        return 0


def _is_up(process: subprocess.Popen[bytes], ready: Callable[[], bool], log: Path) -> bool:
    if process.poll() is not None:
        tail = log.read_text(errors="replace")[-2000:]
        raise NotStarted(f"{process.args!r} ended with {process.returncode}:\n{tail}")
    return ready()
