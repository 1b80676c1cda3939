"""Install the engine: pinned, checked by hash, all or nothing, one installer at a time.

The environment is built under another name and renamed when it works, so whoever finds it finds it
whole. An interrupted build is thrown away by the next one; what was downloaded stays in uv's cache.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from controlplane.engine.environment import (
    LOCKS,
    EngineUnavailable,
    engine_python,
    environment_folder,
    require_fit_machine,
)

CPU_INDEX = "https://download.pytorch.org/whl/cpu"
INDEX_TIMEOUT_SECONDS = 5.0
SPACE_BYTES = {True: 4_000_000_000, False: 9_000_000_000}  # by "is the CPU build", with downloads

Report = Callable[[str], None]


@dataclass(frozen=True)
class Step:
    """One call of uv: what it brings, and its arguments after ``uv pip install``."""

    title: str
    arguments: tuple[str, ...]


def torch_step(*, cpu_build: bool) -> Step:
    if cpu_build:
        return Step(
            "torch 2.13.0, CPU build (about 200 MB)",
            ("--index-url", CPU_INDEX, "-r", str(LOCKS / "torch-cpu.txt")),
        )
    return Step(
        "torch 2.13.0 with its CUDA libraries, as PyPI has it (about 2.7 GB, 4.5 GB on disk)",
        ("-r", str(LOCKS / "torch.txt")),
    )


def other_steps() -> tuple[Step, ...]:
    return (
        Step("what the engine needs (about 450 MB)", ("-r", str(LOCKS / "requirements.txt"))),
        Step("vLLM 0.32.0, CPU build (130 MB)", ("-r", str(LOCKS / "vllm.txt"))),
    )


def install_engine(report: Report = print) -> Path:
    """Return the engine's Python, installing it first where it is missing.

    Raises ``EngineUnavailable`` with a sentence for the user; whatever was there before stays.
    """
    found = engine_python()
    if found:
        return found
    if os.environ.get("TESSERA_ENGINE_PYTHON"):
        raise EngineUnavailable(
            f"TESSERA_ENGINE_PYTHON names {os.environ['TESSERA_ENGINE_PYTHON']}, no program. "
            "Correct it, or unset it to have the engine installed."
        )
    note = require_fit_machine()
    if note:
        report(note)
    folder = environment_folder()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with one_installer(folder.with_suffix(".lock"), report):
        found = engine_python()
        return found or _build(folder, report)


@contextmanager
def one_installer(lock: Path, report: Report) -> Iterator[None]:
    """Hold the lock file; wait, saying so, while another process holds it. A kill releases it."""
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report(f"Another process is at it already (lock {lock}); waiting for it to finish.")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def index_answers(url: str = f"{CPU_INDEX}/torch/") -> bool:
    """Whether the index of CPU builds answers within a short time."""
    request = urllib.request.Request(url, method="HEAD")  # noqa: S310 - a constant https address
    try:
        with urllib.request.urlopen(request, timeout=INDEX_TIMEOUT_SECONDS) as response:  # noqa: S310
            return bool(response.status == 200)
    except (OSError, ValueError):
        return False


def uv_command() -> list[str]:
    """How to call uv: the one that started us, the one on the path, or the installed package."""
    named = os.environ.get("UV") or shutil.which("uv")
    if named:
        return [named]
    beside = Path(sys.executable).with_name("uv")
    if beside.exists():
        return [str(beside)]
    raise EngineUnavailable("uv is not installed. `pip install uv` brings it; then try again.")


def _build(folder: Path, report: Report) -> Path:
    started = time.monotonic()
    building = folder.with_suffix(".building")
    shutil.rmtree(building, ignore_errors=True)
    cpu_build = index_answers()
    _require_space(folder.parent, SPACE_BYTES[cpu_build])
    report(f"Installing the engine in {folder}")
    _run([*uv_command(), "venv", "--quiet", "--python", sys.executable, str(building)])
    _install_torch(building, report, cpu_build=cpu_build)
    for number, step in enumerate(other_steps(), start=2):
        report(f"[{number}/3] {step.title}")
        _install(building, step)
    report("Trying whether it runs here.")
    _run([str(building / "bin" / "python"), "-c", "import vllm.entrypoints.openai.api_server"])
    building.rename(folder)
    seconds = time.monotonic() - started
    report(f"The engine is installed: {folder_bytes(folder) / 1e9:.1f} GB in {seconds:.0f} s.")
    return folder / "bin" / "python"


def _install_torch(building: Path, report: Report, *, cpu_build: bool) -> None:
    if cpu_build:
        step = torch_step(cpu_build=True)
        report(f"[1/3] {step.title}")
        try:
            _install(building, step)
        except EngineUnavailable as error:
            report(f"{error} Taking PyPI's build instead.")
            _require_space(building.parent, SPACE_BYTES[False])
        else:
            return
    step = torch_step(cpu_build=False)
    report(f"[1/3] {step.title}")
    _install(building, step)


def _install(building: Path, step: Step) -> None:
    """Compiling all modules now takes some 20 s and halves the time of every later start."""
    _run(
        [
            *uv_command(), "pip", "install", "--python", str(building / "bin" / "python"),
            "--no-deps", "--require-hashes", "--only-binary", ":all:", "--compile-bytecode",
            *step.arguments,
        ]
    )  # fmt: skip


def _run(command: list[str]) -> None:
    """Run with the terminal, so that progress shows; its own folder keeps project settings out."""
    environment = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    ended = subprocess.run(command, cwd=environment_folder().parent, env=environment, check=False)
    if ended.returncode:
        raise EngineUnavailable(
            f"The engine could not be installed: `{' '.join(command[:3])} ...` ended with status "
            f"{ended.returncode}, its own words are above. Check the network and the free space, "
            "then run `make up` again: what was downloaded is kept."
        )


def _require_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise EngineUnavailable(
            f"The engine needs {needed / 1e9:.0f} GB in {folder}, {free / 1e9:.1f} GB are free. "
            "Make room, or let TESSERA_CACHE_DIR name a folder on a larger disk."
        )


def folder_bytes(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir())
