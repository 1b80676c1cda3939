"""The whole stack, as somebody types it. The engine is left out: it is not what is tested here."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest

from controlplane.embedded.home import PROJECT, SECRET_NAMES
from supervisor.processes import descendants, process
from supervisor.sockets import require_free
from supervisor.tests.test_sockets import free_port

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]

DEADLINE_SECONDS = 90.0
IDLE_BYTES = 700_000_000


@dataclass
class Installation:
    home: Path
    environment: dict[str, str]
    portal_port: int
    gateway_port: int

    def manage(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*words),
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=DEADLINE_SECONDS,
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


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[Installation]:
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
    environment = {**clean, **ports, "TESSERA_HOME": str(tmp_path / "home")}
    made = Installation(tmp_path / "home", environment, portal, gateway)
    yield made
    made.manage("down")


def until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(0.05)


def tree(pid: int) -> list[int]:
    return [pid, *(one.pid for one in descendants(pid))]


def gone(pids: list[int]) -> bool:
    found = (process(pid) for pid in pids)
    return all(one is None or one.is_zombie for one in found)


def test_up_status_and_down(installation: Installation) -> None:
    said = installation.up()
    assert f"http://127.0.0.1:{installation.portal_port}" in said
    assert installation.answers()

    parts = installation.status()
    for name in ("postgres", "valkey", "web", "worker", "beat", "watch", "shipper", "gateway-1"):
        assert parts[name]["state"] == "running", parts[name]
        assert parts[name]["restarts"] == 0
    assert sum(part["memory_bytes"] for part in parts.values()) <= IDLE_BYTES

    again = installation.manage("up", "--detach", "--empty", "--simulator")
    assert again.returncode == 1
    assert "This stack is running already" in again.stderr

    everything = tree(parts["supervisor"]["pid"])
    assert installation.manage("down").stdout.strip() == "Stopped."
    assert gone(everything)
    assert installation.manage("down").stdout.strip() == "Nothing is running."
    assert installation.manage("status").returncode == 3
    for port in (installation.portal_port, installation.gateway_port):
        require_free("127.0.0.1", port)


def test_data_outlives_a_kill_of_everything_at_once(installation: Installation) -> None:
    installation.up()
    with psycopg.connect(installation.database_url()) as connection:
        connection.execute("CREATE TABLE acknowledged AS SELECT 42 AS value")
    everything = tree(installation.status()["supervisor"]["pid"])
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for pid in everything:
            os.kill(pid, number)
    until(lambda: gone(everything), "everything was killed")

    installation.up()
    with psycopg.connect(installation.database_url()) as connection:
        assert connection.execute("SELECT value FROM acknowledged").fetchone() == (42,)
    assert installation.answers()


def test_in_the_foreground_ctrl_c_leaves_nothing(installation: Installation) -> None:
    console = installation.home.with_name("console.txt")
    with console.open("w") as output:
        started = subprocess.Popen(
            installation.command("up", "--empty", "--simulator"),
            env=installation.environment,
            stdout=output,
            stderr=output,
        )
    try:
        until(lambda: "Tessera is running." in console.read_text(), console.read_text())
        everything = tree(started.pid)
        assert b"supervisor" in Path(f"/proc/{started.pid}/cmdline").read_bytes()
        started.send_signal(signal.SIGINT)
        assert started.wait(DEADLINE_SECONDS) == 0
    finally:
        started.kill()
        started.wait()
    assert gone(everything)


def test_what_is_wrong_is_one_sentence(installation: Installation) -> None:
    installation.environment["TESSERA_PORTAL_PORT"] = "no"
    assert refusal(installation) == "TESSERA_PORTAL_PORT must be a whole number, not 'no'."

    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        installation.environment["TESSERA_PORTAL_PORT"] = str(taken)
        assert f"Port {taken} on 127.0.0.1 is taken by another program." in refusal(installation)

    installation.environment["TESSERA_PORTAL_PORT"] = str(installation.portal_port)
    (installation.home / "postgres" / "data").mkdir(parents=True)
    assert "is not a whole PostgreSQL data folder" in refusal(installation)


def refusal(installation: Installation) -> str:
    """What `up` says when it does not start."""
    done = installation.manage("up", "--empty", "--simulator")
    assert done.returncode == 1
    (sentence,) = done.stderr.splitlines()
    return sentence
