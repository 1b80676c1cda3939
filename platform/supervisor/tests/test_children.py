"""What happens between fork and exec, in a process of its own, because a fork is for good."""

from __future__ import annotations

import subprocess
import sys

# The hook runs in the child before anything of ours does: the earliest instant for a signal.
SIGNALLED_AT_BIRTH = """
import os, signal, socket, sys
from supervisor.children import reap, spawn
from supervisor.parts import Part

ours, wakes = socket.socketpair()
for one in (ours, wakes):
    one.setblocking(False)
signal.set_wakeup_fd(wakes.fileno())
signal.signal(signal.SIGTERM, lambda *_: None)
os.register_at_fork(after_in_child=lambda: os.kill(os.getpid(), signal.SIGTERM))
child = spawn(Part(name="brief", argv=(sys.executable, "-c", "pass")), environment={})
status = reap(child.pid)
try:
    noted = ours.recv(16)
except BlockingIOError:
    noted = b""
print(os.WTERMSIG(status) == signal.SIGTERM, noted)
"""


def test_a_signal_to_a_child_that_is_not_yet_its_program_is_the_child_s_alone() -> None:
    """It ends the child, and is not noted in the descriptor that wakes the supervisor."""
    told = subprocess.run(
        [sys.executable, "-c", SIGNALLED_AT_BIRTH], capture_output=True, text=True, check=False
    )
    assert told.stdout.strip() == "True b''", told.stderr
