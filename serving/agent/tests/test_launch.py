"""Becoming the engine: a new incarnation, announced whole, under the reader's eyes only."""

from __future__ import annotations

import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from serving.agent.launch import announce, current_incarnation, socket_path

SHOW = "import sys; print(sys.argv[1])"


def launched(run_dir: Path, *command: str) -> subprocess.CompletedProcess[str]:
    start = [sys.executable, "-m", "serving.agent", "launch", "--run-dir", str(run_dir), "--"]
    return subprocess.run([*start, *command], capture_output=True, text=True, check=False)


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    return tmp_path / "run"


def test_every_start_has_an_incarnation_of_its_own(run_dir: Path) -> None:
    seen = []
    for _ in range(2):
        ended = launched(run_dir, sys.executable, "-c", SHOW, "{incarnation}.sock")
        assert ended.returncode == 0, ended.stderr
        assert ended.stdout.strip() == f"{current_incarnation(run_dir)}.sock"
        seen.append(current_incarnation(run_dir))
    assert seen[0] != seen[1]


def test_the_run_folder_is_private_and_old_sockets_go(run_dir: Path) -> None:
    run_dir.mkdir(mode=0o755)
    (run_dir / "01OLD.sock").touch()
    (run_dir / "metrics.sock").touch()
    launched(run_dir, sys.executable, "-c", "pass")
    assert stat.S_IMODE(run_dir.stat().st_mode) == 0o700
    assert [path.name for path in run_dir.glob("*.sock")] == ["metrics.sock"]


def test_temporary_files_lie_in_the_run_folder_until_the_next_start(run_dir: Path) -> None:
    leave = "import os, tempfile; print(tempfile.mkstemp()[1])"
    first = Path(launched(run_dir, sys.executable, "-c", leave).stdout.strip())
    assert first.parent == run_dir / "tmp"
    assert stat.S_IMODE(first.parent.stat().st_mode) == 0o700
    launched(run_dir, sys.executable, "-c", "pass")
    assert not first.exists()


def test_temporary_files_lie_elsewhere_where_a_socket_s_name_would_be_too_long() -> None:
    show = "import tempfile; print(tempfile.gettempdir())"
    with tempfile.TemporaryDirectory() as folder:
        as_deep_as_may_be = Path(folder) / ("x" * (74 - len(folder)))
        ended = launched(as_deep_as_may_be, sys.executable, "-c", show)
    assert ended.stdout.strip() == tempfile.gettempdir()


def test_a_command_that_is_not_there_is_said_so(run_dir: Path) -> None:
    ended = launched(run_dir, "/nowhere/python")
    assert ended.returncode == 1
    assert "/nowhere/python: No such file or directory" in ended.stderr


def test_a_folder_too_deep_for_a_socket_is_refused_with_a_way_out(run_dir: Path) -> None:
    ended = launched(run_dir / ("x" * 100), sys.executable, "-c", "pass")
    assert ended.returncode == 1
    assert "bytes too long for a Unix socket" in ended.stderr
    assert "TESSERA_HOME" in ended.stderr


def test_the_launched_process_is_the_same_process(run_dir: Path) -> None:
    """The supervisor that starts it holds the engine itself, not a parent of it."""
    show = "import os; print(os.getpid())"
    start = [sys.executable, "-m", "serving.agent", "launch", "--run-dir", str(run_dir), "--"]
    with subprocess.Popen([*start, sys.executable, "-c", show], stdout=subprocess.PIPE) as process:
        output, _ = process.communicate()
    assert int(output) == process.pid


def test_before_the_first_start_there_is_no_incarnation(tmp_path: Path) -> None:
    assert current_incarnation(tmp_path) == ""
    announce(tmp_path, "01ABC")
    assert current_incarnation(tmp_path) == "01ABC"
    assert [path.name for path in tmp_path.iterdir()] == ["incarnation"]
    assert socket_path(tmp_path, "01ABC").name == "01ABC.sock"
