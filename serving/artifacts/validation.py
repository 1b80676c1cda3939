"""The verdict on uploaded files, from a child process with limits of memory and time."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kernel.errors import Unavailable

WALL_SECONDS = (
    120  # the child's own limit of processor time is shorter; this one is for a stuck disk
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """``rule`` and ``reason`` say what is wrong; ``rank`` is that of an accepted adapter."""

    accepted: bool
    rule: str = ""
    reason: str = ""
    rank: int = 0


def validate_adapter(
    files: Mapping[str, Path],
    *,
    modules: Mapping[str, Sequence[int]],
    base: str,
    max_rank: int,
) -> Verdict:
    """Look into an adapter's files: does it fit ``base``, whose linear modules are ``(out, in)``?

    Blocks for as long as the check takes; call it outside of transactions. A file that exhausts the
    child's limits is refused. Raises ``Unavailable`` where no verdict could be had, for reasons of
    ours.
    """
    question = {
        "files": {name: str(path) for name, path in files.items()},
        "modules": {name: list(shape) for name, shape in modules.items()},
        "base": base,
        "max_rank": max_rank,
    }
    try:
        child = subprocess.run(
            [sys.executable, "-I", "-m", "serving.artifacts.check"],
            input=json.dumps(question).encode(),
            capture_output=True,
            timeout=WALL_SECONDS,
            check=False,
            cwd="/",
            env={},
        )
    except subprocess.TimeoutExpired:
        return _exhausted()
    except OSError as error:
        raise Unavailable("The check could not be started; it is tried again shortly.") from error
    if child.returncode == 0:
        return Verdict(**json.loads(child.stdout))
    if child.returncode < 0 or b"MemoryError" in child.stderr:
        return _exhausted()
    last = child.stderr.decode(errors="replace").strip().rpartition("\n")[2]
    raise Unavailable(f"The check did not come to a verdict ({last[:200]}).")


def _exhausted() -> Verdict:
    return Verdict(
        accepted=False,
        rule="check_limits",
        reason="Checking the files takes more memory or time than is allowed.",
    )
