from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from controlplane.embedded.home import Home
from controlplane.embedded.waiting import NewLines, NotStarted, wait_until_announced
from supervisor.lifecycle import Life, State
from supervisor.parts import Part


@contextmanager
def listing(home: Home, *parts: dict[str, Any]) -> Iterator[None]:
    """Somebody at the control socket who always lists these parts."""
    home.prepare()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(home.run / "supervisor.sock"))
        listener.listen()
        threading.Thread(target=_answer, args=(listener, {"parts": parts}), daemon=True).start()
        yield
        listener.shutdown(socket.SHUT_RDWR)


def _answer(listener: socket.socket, answer: dict[str, Any]) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        with connection:
            connection.recv(4096)
            connection.sendall(json.dumps(answer).encode() + b"\n")


def part(name: str, state: State, **changes: Any) -> dict[str, Any]:
    once = name in {"migrate", "announce"}
    return Life(Part(name=name, argv=("x",), once=once), state=state).described() | changes


def told(home: Home) -> list[str]:
    return list(wait_until_announced(home, lambda: True))


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def test_each_part_is_told_as_it_comes_up_and_what_is_announced_as_it_is_said(home: Home) -> None:
    done = part("migrate", State.STOPPED, last_exit="exit 0")
    announced = part("announce", State.STOPPED, last_exit="exit 0")
    with listing(home, done, part("web", State.RUNNING), announced):
        waiting = wait_until_announced(home, lambda: True)
        assert [next(waiting), next(waiting)] == ["migrate is done", "web is up"]
        (home.logs / "announce.log").write_text("Tessera is running.\n")
        assert list(waiting) == ["Tessera is running."]


def test_a_part_that_ends_again_and_again_is_told_with_its_log_and_the_way_out(home: Home) -> None:
    failing = {"restarts": 3, "last_exit": "exit 1", "advice": "Buy a larger disk."}
    with listing(home, part("valkey", State.BACKOFF, **failing)):
        (home.logs / "valkey.log").write_text("no room\n")
        with pytest.raises(NotStarted, match=r"(?s)again \(exit 1\).*no room.*a larger disk\.$"):
            told(home)


@pytest.mark.parametrize("name", ["migrate", "announce"])
def test_a_step_that_fails_ends_the_wait(home: Home, name: str) -> None:
    with (
        listing(home, part(name, State.FAILED, last_exit="exit 1")),
        pytest.raises(NotStarted, match=rf"{name} failed \(exit 1\)"),
    ):
        told(home)


def test_an_engine_that_fails_does_not_end_the_start(home: Home) -> None:
    engine = part("engine-0", State.BACKOFF, restarts=9, ensured=True)
    with listing(home, engine, part("announce", State.STOPPED, last_exit="exit 0")):
        assert told(home) == []


def test_a_supervisor_that_ended_is_noticed(home: Home) -> None:
    home.prepare()
    (home.logs / "console.log").write_text("Port 8080 is taken.\n")
    with pytest.raises(NotStarted, match="Port 8080 is taken"):
        list(wait_until_announced(home, lambda: False))


def test_new_lines_are_given_once_and_whole(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("old\n")
    lines = NewLines(path)
    with path.open("a") as file:
        file.write("one\n\ntw")
        file.flush()
        assert lines.read() == ["one", ""]
        assert lines.read() == []
        file.write("o\n")
    assert lines.read() == ["two"]
