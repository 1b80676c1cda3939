"""The whole stack, as somebody types it. The engine is left out: it is not what is tested here."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from controlplane.embedded.tests.installation import (
    DEADLINE_SECONDS,
    Installation,
    gone,
    new_installation,
    tree,
    until,
)
from supervisor.sockets import require_free

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]

IDLE_BYTES = 700_000_000


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[Installation]:
    yield from new_installation(tmp_path)


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
    assert installation.manage("down").stdout.splitlines()[-1] == "Stopped."
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
    installation.environment["TESSERA_GATEWAY_PORT"] = str(installation.portal_port)
    assert "TESSERA_PORTAL_PORT and TESSERA_GATEWAY_PORT are both" in refusal(installation)

    installation.environment["TESSERA_GATEWAY_PORT"] = str(installation.gateway_port)
    (installation.home / "postgres" / "data").mkdir(parents=True)
    assert "is not a whole PostgreSQL data folder" in refusal(installation)


def refusal(installation: Installation) -> str:
    """What `up` says when it does not start."""
    done = installation.manage("up", "--empty", "--simulator")
    assert done.returncode == 1
    (sentence,) = done.stderr.splitlines()
    return sentence
