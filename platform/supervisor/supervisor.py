"""The loop: wait for something to happen, decide what is due, do it.

Mutable state: ``_lives`` (what is known of each part), ``_running`` (each child's descriptors),
``_probes`` (questions under way), and whether we are stopping.
"""

from __future__ import annotations

import os
import selectors
import shutil
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from supervisor import children, lifecycle, processes
from supervisor.control import ControlServer
from supervisor.errors import SpecInvalid, SupervisorError
from supervisor.guard import Guard
from supervisor.leftovers import Recorded, record
from supervisor.lifecycle import Life, State, Step
from supervisor.logs import Console, EventLog, PartLog
from supervisor.parts import Part, Stack
from supervisor.probes import Probe
from supervisor.sockets import OwnedSockets

SOCKET_NAME = "supervisor.sock"
WORRYING_FAILURES = 3
FULL_DISK_BYTES = 50_000_000
_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass
class _Running:
    """A child's descriptors. ``members`` are watched processes of its session."""

    child: children.Child
    members: list[int] = field(default_factory=list)


class Supervisor:
    """Keeps the parts of ``stack`` running until it is told to stop. One per process, main thread.

    The caller holds the lock of the run folder.
    """

    def __init__(self, stack: Stack, *, sockets: OwnedSockets | None, console: Console) -> None:
        self._run_folder, self._log_folder = Path(stack.run), Path(stack.logs)
        self._sockets, self._console = sockets, console
        self._events = EventLog(folder=self._log_folder, console=console)
        self._lives = {part.name: Life(part) for part in stack.parts}
        self._running: dict[str, _Running] = {}
        self._probes: dict[str, Probe] = {}
        self._logs: dict[str, PartLog] = {}
        self._selector = selectors.DefaultSelector()
        self._guard = Guard()
        self._stop_requests = 0
        self._failed = False

    def run(self) -> int:
        """Serve until everything has stopped; gives the exit status for the process."""
        children.adopt_orphans()
        self._catch_signals()
        self._guard.start()
        control = ControlServer(self._run_folder / SOCKET_NAME, self._control, self._selector)
        try:
            while not self._is_over():
                self._turn()
        finally:
            control.close()
            self._leave_nothing()
        return 1 if self._failed else 0

    def stop(self) -> None:
        """Stop in order; asked a second time, kill."""
        self._stop_requests += 1
        if self._stop_requests == 1:
            self._events.say("Stopping everything; once more kills what is left.")
        else:
            self._kill_everything()

    def _turn(self) -> None:
        now = time.monotonic()
        steps = lifecycle.decide(self._lives, now=now, stopping=self._is_stopping)
        for step, life in steps:
            self._steps[step](self, life)
        self._expire_probes(now)
        pause = 0.0 if steps else lifecycle.sleep_seconds(self._lives, now=now)
        for key, _ in self._selector.select(pause):
            key.data()
        self._notice_ended()

    # --- carrying out what was decided

    def _start(self, life: Life) -> None:
        part = life.part
        environment = {**os.environ, **part.env}
        inherited: tuple[int, ...] = ()
        if part.listen_index is not None and self._sockets is not None:
            environment |= self._sockets.environment(part.listen_index)
            inherited = self._sockets.descriptors()
        child = children.spawn(part, environment=environment, inherited=inherited)
        self._guard.begun(child.pid)
        self._running[part.name] = _Running(child)
        self._selector.register(
            child.output, selectors.EVENT_READ, lambda: self._read(part.name, child.output)
        )
        life.begin(pid=child.pid, now=time.monotonic(), at=time.time())
        self._record()

    def _probe(self, life: Life) -> None:
        assert life.part.health is not None
        now = time.monotonic()
        life.probe_sent(now)
        probe = Probe(
            life.part.health,
            lambda healthy: self._probed(life, healthy=healthy),
            selector=self._selector,
            deadline=now + lifecycle.PROBE_TIMEOUT_SECONDS,
        )
        self._probes[life.part.name] = probe
        probe.begin()

    def _ready(self, life: Life) -> None:
        life.ready(time.monotonic())
        if life.part.health is not None:
            seconds = time.monotonic() - life.started
            self._events.say(f"{life.part.name} is ready after {seconds:.1f} s.")
        if life.part.all_for_one:
            self._watch_members(life)

    def _signal(self, life: Life) -> None:
        children.signal_leader(life.pid, life.part.stop_signal)
        life.signal_sent(time.monotonic())

    def _kill(self, life: Life) -> None:
        self._events.say(
            f"{life.part.name} did not stop within {life.part.stop_seconds:.0f} s; killing it."
        )
        processes.kill_session(life.pid)
        life.kill_at = time.monotonic() + lifecycle.KILL_AGAIN_SECONDS

    def _end(self, life: Life) -> None:
        if self._is_stopping:
            life.state = State.STOPPED
        elif life.successor is not None:
            self._lives[life.part.name] = Life(life.successor, ensured=True)
        else:
            del self._lives[life.part.name]

    _steps: dict[Step, Callable[[Supervisor, Life], None]] = {
        Step.START: _start,
        Step.PROBE: _probe,
        Step.READY: _ready,
        Step.SIGNAL: _signal,
        Step.KILL: _kill,
        Step.END: _end,
    }

    # --- what happens by itself

    def _read(self, name: str, output: int) -> None:
        try:
            data = os.read(output, 65_536)
        except BlockingIOError:
            return
        if data:
            self._log(name).feed(data)
        else:
            self._selector.unregister(output)
            os.close(output)

    def _probed(self, life: Life, *, healthy: bool) -> None:
        self._probes.pop(life.part.name, None)
        if life.state is State.RUNNING and healthy is not life.healthy:
            now_is = "answers again" if healthy else "does not answer its health check"
            self._events.say(f"{life.part.name} {now_is}.")
        life.probed(healthy=healthy, now=time.monotonic())

    def _expire_probes(self, now: float) -> None:
        for probe in [one for one in self._probes.values() if now >= one.deadline]:
            probe.expire()

    def _notice_ended(self) -> None:
        while (pid := children.next_ended()) is not None:
            life = next((one for one in self._lives.values() if one.pid == pid), None)
            if life is not None:
                self._ended(life)
            elif pid == self._guard.pid:
                children.reap(pid)
                self._guard.reaped()
            else:
                children.reap(pid)

    def _ended(self, life: Life) -> None:
        """The leader has exited and holds its pid until the rest of its session is killed."""
        name, told_to = life.part.name, life.state is State.STOPPING
        processes.kill_session(life.pid)
        self._guard.over(life.pid)
        life.exited(children.reap(life.pid), time.monotonic())
        running = self._running.pop(name)
        for member in running.members:
            self._selector.unregister(member)
            os.close(member)
        if probe := self._probes.pop(name, None):
            probe.expire()
            life.healthy = None
        self._read_rest(name, running.child.output)
        self._record()
        if not told_to:
            self._report(life)

    def _read_rest(self, name: str, output: int) -> None:
        """What it said last comes before the sentence about its end."""
        with suppress(OSError):
            while data := os.read(output, 65_536):
                self._log(name).feed(data)
        self._log(name).finish_line()

    def _report(self, life: Life) -> None:
        name = life.part.name
        if life.state is State.FAILED:
            self._events.say(f"{name} failed ({life.last_exit}); see {self._log(name).path}.")
            self._give_up_if_needed(name)
        elif life.state is State.BACKOFF:
            pause = life.retry_at - time.monotonic()
            again = f"{name} ended ({life.last_exit}); starting it again in {pause:.1f} s."
            self._events.say(again + self._worry(life))

    def _worry(self, life: Life) -> str:
        if shutil.disk_usage(self._log_folder).free < FULL_DISK_BYTES:
            return f" The disk that holds {self._log_folder} is full: free some space."
        if life.failures >= WORRYING_FAILURES:
            again = (
                f" That is {life.failures} times in a row; see {self._log(life.part.name).path}."
            )
            return f"{again} {life.part.advice}".rstrip()
        return f" See {self._log(life.part.name).path}." if life.part.quiet else ""

    def _give_up_if_needed(self, name: str) -> None:
        waiting = [one.part for one in self._lives.values() if name in one.part.needs]
        if not all(part.once for part in waiting):
            self._events.say(f"Nothing can go on without {name}.")
            self._failed = True
            self._stop_requests = self._stop_requests or 1

    def _watch_members(self, life: Life) -> None:
        running = self._running[life.part.name]
        for member in processes.session_members(life.pid):
            if member.pid == life.pid:
                continue
            with suppress(ProcessLookupError):
                descriptor = os.pidfd_open(member.pid)
                running.members.append(descriptor)
                died = self._member_died(life, member.pid, life.pid)
                self._selector.register(descriptor, selectors.EVENT_READ, died)

    def _member_died(self, life: Life, pid: int, leader: int) -> Callable[[], None]:
        def act() -> None:
            if life.pid == leader and life.state is State.RUNNING:
                self._events.say(f"{life.part.name} lost its process {pid}; ending all of it.")
                processes.kill_session(leader)

        return act

    # --- commands from outside

    def _control(self, request: object) -> dict[str, Any]:
        match request:
            case {"op": "list"}:
                return self._listed()
            case {"op": "ensure", "part": part}:
                return self._ensure(Part.read(part))
            case {"op": "remove", "name": str(name)}:
                return self._remove(name)
            case {"op": "stop"}:
                self.stop()
                return {"stopping": True}
        raise SupervisorError(
            "A request has an op: ensure with part, remove with name, list, stop."
        )

    def _listed(self) -> dict[str, Any]:
        parts = [life.described() for life in self._lives.values()]
        return {"parts": parts, "pid": os.getpid(), "guard": self._guard.pid}

    def _ensure(self, part: Part) -> dict[str, Any]:
        if self._is_stopping:
            raise SupervisorError("Everything is being stopped; nothing new is started.")
        if part.once or part.needs or part.listen_index is not None:
            raise SpecInvalid(f"part {part.name}: only the stack's own parts have once and needs.")
        life = self._lives.get(part.name)
        if life is None:
            life = self._lives[part.name] = Life(part, ensured=True)
            self._events.say(f"{part.name} is started; its log is {self._log(part.name).path}.")
        elif not life.ensured:
            raise SupervisorError(
                f"{part.name} is a part of the stack itself; choose another name."
            )
        elif life.leaving or life.part.spec_hash != part.spec_hash:
            life.leaving, life.successor = True, part
        return {"part": life.described()}

    def _remove(self, name: str) -> dict[str, Any]:
        life = self._lives.get(name)
        if life is not None and not life.ensured:
            raise SupervisorError(f"{name} is a part of the stack itself and cannot be removed.")
        if life is not None:
            life.leaving, life.successor = True, None
        return {"removed": name}

    # --- the ends

    @property
    def _is_stopping(self) -> bool:
        return self._stop_requests > 0

    def _is_over(self) -> bool:
        return self._is_stopping and not any(one.state.has_process for one in self._lives.values())

    def _kill_everything(self) -> None:
        for life in self._lives.values():
            if life.state.has_process:
                processes.kill_session(life.pid)

    def _leave_nothing(self) -> None:
        """Whatever escaped its session was adopted by us, and is ours to end."""
        self._kill_everything()
        for stray in processes.descendants(os.getpid()):
            if stray.pid != self._guard.pid:
                with suppress(ProcessLookupError):
                    os.kill(stray.pid, signal.SIGKILL)
        self._guard.dismiss()
        with suppress(ChildProcessError):
            while True:
                os.wait()
        record(self._run_folder, [])
        for log in self._logs.values():
            log.close()
        if self._sockets is not None:
            self._sockets.close()
        self._events.say("Stopped.")

    def _catch_signals(self) -> None:
        ours, kernels = socket.socketpair()
        for end in (ours, kernels):
            end.settimeout(0)
        signal.set_wakeup_fd(kernels.fileno(), warn_on_full_buffer=False)
        self._wakeup = (ours, kernels)
        self._selector.register(ours, selectors.EVENT_READ, self._woken)
        signal.signal(signal.SIGCHLD, _nothing)
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        for number in _STOP_SIGNALS:
            signal.signal(number, _nothing)

    def _woken(self) -> None:
        with suppress(BlockingIOError):
            numbers = self._wakeup[0].recv(256)
            for _ in (number for number in numbers if number in _STOP_SIGNALS):
                self.stop()

    def _log(self, name: str) -> PartLog:
        if name not in self._logs:
            part = self._lives[name].part
            console = Console(None) if part.quiet else self._console
            self._logs[name] = PartLog(
                name, folder=self._log_folder, console=console, bare=part.bare
            )
        return self._logs[name]

    def _record(self) -> None:
        living = [
            Recorded(name, one.child.pid, one.child.start_ticks)
            for name, one in self._running.items()
        ]
        with suppress(OSError):  # a full disk costs this help, not the stack
            record(self._run_folder, living)


def _nothing(number: int, frame: object) -> None:
    """A handler must exist for the signal's number to be written to the wake-up socket."""
