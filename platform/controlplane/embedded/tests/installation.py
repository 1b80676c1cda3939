"""An installation of its own for a test: the whole stack on free ports, as somebody types it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from controlplane.embedded.home import PROJECT, SECRET_NAMES
from supervisor.processes import descendants, process
from supervisor.tests.test_sockets import free_port

DEADLINE_SECONDS = 90.0


@dataclass
class Installation:
    home: Path
    environment: dict[str, str]
    portal_port: int
    gateway_port: int

    def manage(
        self, *words: str, within_seconds: float = DEADLINE_SECONDS
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*words),
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=within_seconds,
        )

    def command(self, *words: str) -> list[str]:
        return [sys.executable, str(PROJECT / "manage.py"), *words]

    def up(self) -> str:
        done = self.manage("up", "--detach", "--empty", "--simulator")
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def status(self) -> dict[str, dict[str, Any]]:
        done = self.manage("status", "--json")
        return {part["name"]: part for part in json.loads(done.stdout)["parts"]}

    def answers(self) -> bool:
        try:
            url = f"http://127.0.0.1:{self.portal_port}/readyz"
            with urllib.request.urlopen(url, timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def database_url(self) -> str:
        filled: dict[str, str] = json.loads((self.home / "environment.json").read_text())
        return filled["TESSERA_DATABASE_OWNER_URL"]


def new_installation(folder: Path) -> Iterator[Installation]:
    """Nothing runs yet; whatever was started is stopped at the end."""
    ours = {"DATABASE_URL", "REDIS_URL", "CELERY_BROKER_URL", "DJANGO_SETTINGS_MODULE"}
    clean = {
        name: value
        for name, value in os.environ.items()
        if name not in {*SECRET_NAMES, *ours} and not name.startswith("TESSERA_")
    }
    portal, gateway = free_port(), free_port()
    ports = {
        "TESSERA_PORTAL_PORT": str(portal),
        "TESSERA_GATEWAY_PORT": str(gateway),
        "TESSERA_GATEWAY_METRICS_PORT": str(free_port()),
    }
    environment = {**clean, **ports, "TESSERA_HOME": str(folder / "home")}
    made = Installation(folder / "home", environment, portal, gateway)
    yield made
    made.manage("down")


def until(
    condition: Callable[[], object], what: str, *, within_seconds: float = DEADLINE_SECONDS
) -> None:
    deadline = time.monotonic() + within_seconds
    while not condition():
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(0.05)


def tree(pid: int) -> list[int]:
    return [pid, *(one.pid for one in descendants(pid))]


def gone(pids: list[int]) -> bool:
    found = (process(pid) for pid in pids)
    return all(one is None or one.is_zombie for one in found)
