"""Who kills the children when the supervisor is killed with -9: a shell that waits on a pipe.

The kernel ends each child's leader by itself (its parent-death signal). The rest of the leader's
group knows no such signal; the guard is told of each group and kills those left when the pipe
closes. It is a shell because that is the smallest process at hand.
"""

from __future__ import annotations

import os
import subprocess
from contextlib import suppress

_SCRIPT = """
trap '' HUP INT TERM
groups=" "
while read -r change group; do
  case "$change" in
    begun) groups="$groups$group " ;;
    over) case "$groups" in
      *" $group "*) groups="${groups%%" $group "*} ${groups#*" $group "}" ;;
    esac ;;
  esac
done
for group in $groups; do kill -s KILL -- "-$group" 2>/dev/null; done
"""


class Guard:
    """Dies with the last group it looks after; started again when somebody kills it."""

    def __init__(self) -> None:
        self._groups: set[int] = set()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        return self._process.pid if self._process else 0

    def start(self) -> None:
        self._process = subprocess.Popen(
            ["/bin/sh", "-c", _SCRIPT],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            env={},
        )
        for group in self._groups:
            self._tell("begun", group)

    def begun(self, group: int) -> None:
        self._groups.add(group)
        self._tell("begun", group)

    def over(self, group: int) -> None:
        self._groups.discard(group)
        self._tell("over", group)

    def reaped(self) -> None:
        """The supervisor found it dead."""
        self.start()

    def dismiss(self) -> None:
        """Every group is gone."""
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()

    def _tell(self, change: str, group: int) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        # A guard that was killed is replaced as soon as its end is noticed, and told everything.
        with suppress(BrokenPipeError):
            os.write(self._process.stdin.fileno(), f"{change} {group}\n".encode())
