"""Real children under a real supervisor."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from supervisor.errors import SupervisorError
from supervisor.tests.stacks import (
    SLEEPS,
    RunningStack,
    is_alive,
    python,
    supervised,
    until,
    until_gone,
)

FORKS = """
import os, sys, time
from pathlib import Path
child = os.fork()
if child == 0:
    time.sleep(1000)
Path(sys.argv[1] + '.new').write_text(str(child))
os.rename(sys.argv[1] + '.new', sys.argv[1])
time.sleep(1000)
"""
STRAYS = """
import os, sys, time
from pathlib import Path
child = os.fork()
if child == 0:
    os.setsid()
    time.sleep(1000)
Path(sys.argv[1] + '.new').write_text(str(child))
os.rename(sys.argv[1] + '.new', sys.argv[1])
time.sleep(1000)
"""


def with_child(name: str, code: str, told: Path, **fields: object) -> dict[str, object]:
    part = python(name, code, health={"address": f"file:{told}"}, **fields)
    part["argv"].append(str(told))
    return part


def test_parts_start_in_order_and_stop_in_reverse(tmp_path: Path) -> None:
    said = (
        "import signal, sys, time\n"
        "def stop(*_):\n    print('stopped', time.monotonic()); sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, stop)\n"
        "print('started', time.monotonic())\n"
        "time.sleep(1000)"
    )
    ready = {"ready_seconds": 0.3}
    with supervised(
        tmp_path, python("first", said, **ready), python("second", said, needs=["first"], **ready)
    ) as stack:
        stack.wait("second", "running")
        assert stack.end() == 0
    times = {
        name: [float(line.split()[1]) for line in stack.log(name).splitlines()]
        for name in ("first", "second")
    }
    assert times["first"][0] < times["second"][0]
    assert times["second"][1] < times["first"][1]


def test_a_crashed_child_comes_back_after_a_pause_and_says_why(tmp_path: Path) -> None:
    with supervised(tmp_path, python("web", SLEEPS)) as stack:
        first = stack.wait("web", "running")
        os.kill(first["pid"], signal.SIGKILL)
        until(lambda: stack.part("web").get("restarts") == 1, "it was started again")
        second = stack.wait("web", "running")
        assert second["pid"] != first["pid"]
        assert second["last_exit"] == "killed by SIGKILL"
    assert "web ended (killed by SIGKILL); starting it again in 0.1 s." in stack.log("supervisor")


def test_one_that_keeps_crashing_is_tried_less_and_less_often(tmp_path: Path) -> None:
    with supervised(tmp_path, python("web", "raise SystemExit(3)")) as stack:
        until(lambda: stack.part("web").get("restarts", 0) >= 3, "it was tried four times")
    assert "That is 3 times in a row; see" in stack.log("supervisor")


def test_a_leader_that_dies_takes_its_group_along(tmp_path: Path) -> None:
    told = tmp_path / "child"
    with supervised(tmp_path, with_child("engine", FORKS, told)) as stack:
        leader = stack.wait("engine", "running")["pid"]
        child = int(told.read_text())
        os.kill(leader, signal.SIGKILL)
        until(lambda: not is_alive(child), "the child went with its leader")


def test_all_for_one_restarts_everything_when_a_member_dies(tmp_path: Path) -> None:
    told = tmp_path / "child"
    with supervised(tmp_path, with_child("engine", FORKS, told, all_for_one=True)) as stack:
        leader = stack.wait("engine", "running")["pid"]
        os.kill(int(told.read_text()), signal.SIGKILL)
        until(lambda: not is_alive(leader), "the leader went with its member")
        until(lambda: stack.part("engine").get("restarts") == 1, "it was started again")
    assert "engine lost its process" in stack.log("supervisor")


def test_without_all_for_one_a_member_may_come_and_go(tmp_path: Path) -> None:
    told = tmp_path / "child"
    with supervised(tmp_path, with_child("web", FORKS, told)) as stack:
        leader = stack.wait("web", "running")["pid"]
        child = int(told.read_text())
        os.kill(child, signal.SIGKILL)
        until(lambda: not is_alive(child), "the child is gone")
        assert stack.part("web")["pid"] == leader


@pytest.mark.parametrize("code", [FORKS, STRAYS])
def test_stopping_leaves_nothing_behind(tmp_path: Path, code: str) -> None:
    told = tmp_path / "child"
    with supervised(tmp_path, with_child("web", code, told)) as stack:
        leader = stack.wait("web", "running")["pid"]
        guard = stack.ask(op="list")["guard"]
        assert stack.end(signal.SIGINT) == 0
    until_gone(leader, int(told.read_text()), guard)
    assert not (tmp_path / "run" / "supervisor.sock").exists()


def test_a_killed_supervisor_leaves_nothing_behind(tmp_path: Path) -> None:
    told = tmp_path / "child"
    with supervised(tmp_path, with_child("engine", FORKS, told)) as stack:
        leader = stack.wait("engine", "running")["pid"]
        guard = stack.ask(op="list")["guard"]
        stack.kill()
        until_gone(leader, int(told.read_text()), guard)


def test_what_outlived_supervisor_and_guard_is_ended_by_the_next_start(tmp_path: Path) -> None:
    told = tmp_path / "child"
    part = with_child("engine", FORKS, told)
    with supervised(tmp_path, part) as stack:
        stack.wait("engine", "running")
        child = int(told.read_text())
        guard = stack.ask(op="list")["guard"]
        # Both killed before either can act.
        os.kill(stack.process.pid, signal.SIGSTOP)
        os.kill(guard, signal.SIGKILL)
        stack.kill()
        assert is_alive(child)
    told.unlink()
    with supervised(tmp_path, part) as again:
        again.wait("engine", "running")
        assert not is_alive(child)
    assert "Ended engine, left over" in (tmp_path / "console.txt").read_text()


def test_a_killed_guard_is_replaced(tmp_path: Path) -> None:
    told = tmp_path / "child"
    with supervised(tmp_path, with_child("engine", FORKS, told)) as stack:
        stack.wait("engine", "running")
        guard = stack.ask(op="list")["guard"]
        os.kill(guard, signal.SIGKILL)
        until(lambda: stack.ask(op="list")["guard"] != guard, "there is a new guard")
        stack.kill()
        until(lambda: not is_alive(int(told.read_text())), "the new guard did its work")


def test_one_that_ignores_the_signal_is_killed_within_its_bound(tmp_path: Path) -> None:
    deaf = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + SLEEPS
    with supervised(tmp_path, python("deaf", deaf, stop_seconds=0.5)) as stack:
        stack.wait("deaf", "running")
        until(lambda: "up" in stack.log("deaf"), "it is deaf by now")
        begun = time.monotonic()
        assert stack.end() == 0
        assert 0.4 < time.monotonic() - begun < 5


def test_a_second_signal_does_not_wait(tmp_path: Path) -> None:
    deaf = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + SLEEPS
    with supervised(tmp_path, python("deaf", deaf, stop_seconds=100.0)) as stack:
        stack.wait("deaf", "running")
        until(lambda: "up" in stack.log("deaf"), "it is deaf by now")
        stack.process.send_signal(signal.SIGINT)
        until(lambda: stack.part("deaf")["state"] == "stopping", "it was told to stop")
        assert stack.end(signal.SIGINT) == 0


def test_a_second_supervisor_on_the_same_folder_is_refused(tmp_path: Path) -> None:
    with supervised(tmp_path, python("web", SLEEPS)) as stack:
        pid = stack.wait("web", "running")["pid"]
        with supervised(tmp_path, python("web", SLEEPS)) as second:
            assert second.process.wait(20) == 1
        assert "This stack is running already" in (tmp_path / "console.txt").read_text()
        assert stack.part("web")["pid"] == pid


def test_the_failure_of_a_needed_step_stops_everything(tmp_path: Path) -> None:
    with supervised(
        tmp_path,
        python("database", SLEEPS),
        python("migrate", "raise SystemExit('no such table')", once=True, needs=["database"]),
        python("web", SLEEPS, needs=["migrate"]),
    ) as stack:
        assert stack.process.wait(20) == 1
    console = (tmp_path / "console.txt").read_text()
    assert "no such table" in console
    assert "Nothing can go on without migrate." in console


def test_a_program_that_cannot_be_run_says_so(tmp_path: Path) -> None:
    with supervised(tmp_path, {"name": "web", "argv": ["/no/such/program"]}) as stack:
        until(lambda: "/no/such/program cannot be run" in stack.log("web"), "it says so")
        assert stack.part("web")["state"] in {"backoff", "starting", "running"}


def test_ensured_parts_come_change_and_go(tmp_path: Path) -> None:
    with supervised(tmp_path, python("web", SLEEPS)) as stack:
        stack.wait("web", "running")
        engine = python("engine", SLEEPS, env={"A": "1"})
        stack.ask(op="ensure", part=engine)
        first = stack.wait("engine", "running")
        stack.ask(op="ensure", part=engine)
        assert stack.wait("engine", "running")["pid"] == first["pid"]

        stack.ask(op="ensure", part={**engine, "env": {"A": "2"}})
        until(lambda: stack.part("engine").get("spec_hash") != first["spec_hash"], "it is replaced")
        second = stack.wait("engine", "running")
        assert not is_alive(first["pid"])

        stack.ask(op="remove", name="engine")
        until(lambda: stack.part("engine")["state"] == "absent", "it is gone")
        assert not is_alive(second["pid"])


@pytest.mark.parametrize(
    ("request_", "sentence"),
    [
        ({"op": "remove", "name": "web"}, "cannot be removed"),
        ({"op": "ensure", "part": {"name": "web", "argv": ["x"]}}, "choose another name"),
        ({"op": "ensure", "part": {"name": "x"}}, "part.argv is missing"),
        ({"op": "ensure", "part": {"name": "x", "argv": ["x"], "once": True}}, "own parts"),
        ({"op": "dance"}, "A request has an op"),
        ({}, "A request has an op"),
    ],
)
def test_a_bad_command_is_answered_with_a_sentence(
    tmp_path: Path, request_: dict[str, object], sentence: str
) -> None:
    with supervised(tmp_path, python("web", SLEEPS)) as stack:
        stack.wait("web", "running")
        with pytest.raises(SupervisorError, match=sentence):
            stack.ask(**request_)
        assert stack.part("web")["state"] == "running"


def test_garbage_on_the_control_socket_harms_nobody(tmp_path: Path) -> None:
    with supervised(tmp_path, python("web", SLEEPS)) as stack:
        stack.wait("web", "running")
        path = tmp_path / "run" / "supervisor.sock"
        assert path.stat().st_mode & 0o777 == 0o600
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(path))
            connection.sendall(b"\xff\x00not json\n[1]\n")
            answers = connection.makefile("rb")
            assert b"not JSON" in answers.readline()
            assert b"A request has an op" in answers.readline()
            answers.close()
        assert stack.part("web")["state"] == "running"


def test_the_supervisor_stays_small(tmp_path: Path) -> None:
    with supervised(tmp_path, python("web", SLEEPS)) as stack:
        stack.wait("web", "running")
        status = Path(f"/proc/{stack.process.pid}/status").read_text()
    resident = next(line for line in status.splitlines() if line.startswith("VmRSS"))
    assert int(resident.split()[1]) < 40_000


def test_usage_and_a_missing_file_are_one_line() -> None:
    for arguments in ([], ["/no/such/spec.json"]):
        done = subprocess.run(
            [sys.executable, "-m", "supervisor", *arguments],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode in {1, 2}
        assert len(done.stderr.splitlines()) == 1


def test_a_quiet_part_is_heard_in_its_log_and_its_end_is_told(tmp_path: Path) -> None:
    talks = (
        "import time\nprint('a thousand lines', flush=True)\ntime.sleep(0.2)\nraise SystemExit(3)"
    )
    quiet = python("engine", talks, quiet=True, advice="Buy a larger one.")
    with supervised(tmp_path / "stack", quiet) as stack:
        until(lambda: "Buy a larger one." in console(stack), "the advice is given")
        assert "a thousand lines" in stack.log("engine")
    assert "a thousand lines" not in console(stack)
    assert f"starting it again in 0.1 s. See {stack.folder / 'logs' / 'engine.log'}." in console(
        stack
    )


def test_the_supervisor_s_own_log_says_when(tmp_path: Path) -> None:
    with supervised(tmp_path / "stack", python("one", SLEEPS)) as stack:
        stack.wait("one", "running")
    assert re.search(
        r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d Stopped\.$", stack.log("supervisor"), re.MULTILINE
    )


def console(stack: RunningStack) -> str:
    return (stack.folder / "console.txt").read_text()
