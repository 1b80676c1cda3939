"""Starting a part as a child that cannot outlive us, and ending it with all that it started."""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import NoReturn

from supervisor.parts import Part
from supervisor.processes import process

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_CANNOT_RUN = 127
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Child:
    """A started part. ``output`` is the end of the pipe that carries its stdout and stderr."""

    pid: int
    start_ticks: int
    output: int


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent dies."""
    if _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def spawn(part: Part, *, environment: Mapping[str, str], inherited: Iterable[int] = ()) -> Child:
    """Start ``part`` in a session of its own; ``inherited`` descriptors keep their numbers.

    A program that cannot be run is a child that says so and exits with 127. The supervisor has one
    thread only, which is what makes a plain fork safe.
    """
    reading, writing = os.pipe()
    parent = os.getpid()
    # Until the child has handlers of its own, a signal to it would be noted in the descriptor that
    # wakes the supervisor, which would take it for one of its own and stop everything.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    pid = os.fork()
    if pid == 0:
        _become(part, environment, inherited, writing, parent, before)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    os.close(writing)
    os.set_blocking(reading, False)
    found = process(pid)
    return Child(pid=pid, start_ticks=found.start_ticks if found else 0, output=reading)


def signal_leader(pid: int, name: str) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.Signals[name])


def next_ended() -> int | None:
    """A child that has exited. It still holds its pid, which therefore cannot be another's."""
    with suppress(ChildProcessError):
        found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        return found.si_pid if found else None
    return None


def reap(pid: int) -> int:
    """Let go of an exited child's pid. Gives its wait status."""
    return os.waitpid(pid, 0)[1]


def _become(  # noqa: PLR0913, PLR0917 - all that a child is made of
    part: Part,
    environment: Mapping[str, str],
    inherited: Iterable[int],
    output: int,
    parent: int,
    mask: Iterable[int],
) -> NoReturn:
    """In the child: everything between fork and exec. Nothing may return into the supervisor."""
    try:
        os.setsid()
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(_CANNOT_RUN)
        _restore_signals(mask)
        _lay_descriptors(output, inherited)
        if part.cwd:
            os.chdir(part.cwd)
        os.execvpe(part.argv[0], list(part.argv), dict(environment))  # noqa: S606
    except BaseException as error:
        os.write(2, f"{part.argv[0]} cannot be run: {error}\n".encode())
    finally:
        os._exit(_CANNOT_RUN)


def _restore_signals(mask: Iterable[int]) -> None:
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _lay_descriptors(output: int, inherited: Iterable[int]) -> None:
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    for descriptor in inherited:
        os.set_inheritable(descriptor, True)  # noqa: FBT003
