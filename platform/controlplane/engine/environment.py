"""Where the engine's virtual environment is, and whether this machine can run it.

The environment lies in the user's cache under a name that contains the digest of its lock files, so
that another lock is another environment and a checkout that goes back finds its old one again.
"""

from __future__ import annotations

import hashlib
import os
import platform
import sys
from pathlib import Path

from kernel.errors import Unavailable

LOCKS = Path(__file__).resolve().parents[3] / "deploy" / "engine"
PYTHONS = ((3, 11), (3, 14))  # the versions that the lock covers
CPUINFO = Path("/proc/cpuinfo")


class EngineUnavailable(Unavailable):
    """The engine cannot be had on this machine; the message says why and what to do."""

    code = "engine_unavailable"


def cache_folder() -> Path:
    """The per-user cache: ``TESSERA_CACHE_DIR``, else ``$XDG_CACHE_HOME/tessera``."""
    named = os.environ.get("TESSERA_CACHE_DIR")
    if named:
        return Path(named).absolute()
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "tessera"


def environment_folder() -> Path:
    """Where the environment of this lock, Python and machine is or will be."""
    digest = hashlib.sha256(f"{sys.version_info[:2]} {platform.machine()}".encode())
    for lock in sorted(LOCKS.glob("*.txt")):
        digest.update(lock.name.encode() + b"\0" + lock.read_bytes())
    return cache_folder() / f"engine-{digest.hexdigest()[:12]}"


def engine_python() -> Path | None:
    """The Python that runs the engine; ``None`` while it is not installed.

    ``TESSERA_ENGINE_PYTHON`` names an environment that somebody else looks after.
    """
    named = os.environ.get("TESSERA_ENGINE_PYTHON")
    python = Path(named) if named else environment_folder() / "bin" / "python"
    return python if os.access(python, os.X_OK) else None


def require_fit_machine() -> str:
    """Raise ``EngineUnavailable`` where the engine cannot run; else return a note, often empty."""
    refusal = python_refusal(sys.version_info[:2], sys.platform)
    if refusal:
        raise EngineUnavailable(refusal)
    cpuinfo = CPUINFO.read_text() if CPUINFO.exists() else ""
    refusal, note = processor_verdict(platform.machine(), cpuinfo)
    if refusal:
        raise EngineUnavailable(refusal)
    return note


def python_refusal(version: tuple[int, int], system: str) -> str:
    if system != "linux":
        return f"The engine has builds for Linux only; this is {system}. {_WITHOUT_ENGINE}"
    if not PYTHONS[0] <= version <= PYTHONS[1]:
        return (
            f"The engine is locked for Python 3.11 to 3.14; this is {version[0]}.{version[1]}. "
            "Run Tessera with one of those."
        )
    return ""


def processor_verdict(machine: str, cpuinfo: str) -> tuple[str, str]:
    """``(refusal, note)`` for a processor, from the text of ``/proc/cpuinfo``."""
    if machine == "aarch64":
        return "", ""
    if machine != "x86_64":
        return f"The engine has builds for x86-64 and ARM64, not for {machine}.", ""
    flags = _flags(cpuinfo)
    if "avx2" not in flags:
        return f"{_NO_AVX} {_WITHOUT_ENGINE}", ""
    if not {"avx512f", "avx512bw", "avx512vl"} <= flags:
        return "", "This processor has no AVX-512: the engine runs on AVX2, several times slower."
    return "", ""


_NO_AVX = (
    "This processor has neither AVX-512 nor AVX2, which the engine's CPU build needs. "
    "Use a machine or a virtual CPU type that has them (for QEMU: host)."
)
_WITHOUT_ENGINE = "Everything but the engine works here; `make up SIMULATOR=1` starts a stand-in."


def _flags(cpuinfo: str) -> set[str]:
    for line in cpuinfo.splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "flags":
            return set(value.split())
    return set()
