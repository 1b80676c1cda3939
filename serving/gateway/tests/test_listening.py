from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from serving.gateway.listening import is_locked, lock_path

HOLD = """
import fcntl, os, sys
descriptor = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
fcntl.lockf(descriptor, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


def test_a_lock_is_seen_while_its_process_lives_and_asking_takes_nothing(tmp_path: Path) -> None:
    path = lock_path(tmp_path, 0)
    assert not is_locked(path)
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        assert is_locked(path)
        assert is_locked(path)
        process.kill()
        process.wait()
        assert not is_locked(path)
