"""A supervisor in a process of its own, as it is in the product, with children made for the test."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from supervisor.control import ask
from supervisor.processes import process

DEADLINE_SECONDS = 20.0


def until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(0.02)


def until_gone(*pids: int) -> None:
    until(lambda: not any(map(is_alive, pids)), f"{pids} are gone")


def is_alive(pid: int) -> bool:
    found = process(pid)
    return found is not None and not found.is_zombie


def python(name: str, code: str, **fields: Any) -> dict[str, Any]:
    """A part that runs ``code``."""
    return {"name": name, "argv": [sys.executable, "-u", "-c", code], **fields}


SLEEPS = "import time\nprint('up', flush=True)\ntime.sleep(1000)"


@dataclass
class RunningStack:
    folder: Path
    process: subprocess.Popen[str]

    def ask(self, **request: Any) -> dict[str, Any]:
        return ask(self.folder / "run" / "supervisor.sock", request)

    def part(self, name: str) -> dict[str, Any]:
        return next((one for one in self.parts() if one["name"] == name), {"state": "absent"})

    def parts(self) -> list[dict[str, Any]]:
        try:
            parts: list[dict[str, Any]] = self.ask(op="list")["parts"]
        except OSError:
            return []
        return parts

    def wait(self, name: str, state: str) -> dict[str, Any]:
        until(lambda: self.part(name)["state"] == state, f"{name} is {state}: {self.parts()}")
        return self.part(name)

    def log(self, name: str) -> str:
        path = self.folder / "logs" / f"{name}.log"
        return path.read_text() if path.exists() else ""

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(DEADLINE_SECONDS)


@contextmanager
def supervised(folder: Path, *parts: dict[str, Any], **fields: Any) -> Iterator[RunningStack]:
    """The stack of ``parts``; at the end it is stopped, and its output stands in ``console.txt``."""
    folder.mkdir(exist_ok=True)
    stack = {"parts": parts, "run": str(folder / "run"), "logs": str(folder / "logs"), **fields}
    (folder / "spec.json").write_text(json.dumps(stack))
    with (folder / "console.txt").open("a") as console:
        started = subprocess.Popen(
            [sys.executable, "-m", "supervisor", str(folder / "spec.json")],
            stdout=console,
            stderr=console,
            stdin=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "PYTHONWARNINGS": "error"},
        )
    running = RunningStack(folder, started)
    try:
        yield running
    finally:
        with contextlib.suppress(ProcessLookupError):
            started.terminate()
        started.wait(DEADLINE_SECONDS)
