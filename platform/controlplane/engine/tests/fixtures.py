"""Fixtures for tests that need a real engine; the root conftest makes them known everywhere."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from controlplane.engine.base import DemoBase, demo_base
from controlplane.engine.environment import cache_folder, engine_python
from controlplane.engine.install import one_installer
from serving.agent.tests.engine_process import EngineProcess

ROOT = Path(__file__).resolve().parents[4]
MAKE_TINY_MODEL = ROOT / "serving" / "agent" / "tests" / "make_tiny_model.py"


@pytest.fixture(scope="session")
def real_engine_python() -> Path:
    """The Python that runs the engine; tests that need it are skipped where it is not installed."""
    python = engine_python()
    if python is None:
        pytest.skip("the engine is not installed: manage.py engine_install brings it")
    return python


@pytest.fixture(scope="session")
def tiny_base(real_engine_python: Path) -> Path:
    """A folder with a random two-layer Llama, made once per version of the script that makes it."""
    digest = hashlib.sha256(MAKE_TINY_MODEL.read_bytes()).hexdigest()[:12]
    folder = cache_folder() / f"tiny-{digest}"
    with one_installer(folder.with_suffix(".lock"), print):
        if not folder.is_dir():
            building = folder.with_suffix(".building")
            shutil.rmtree(building, ignore_errors=True)
            subprocess.run([real_engine_python, MAKE_TINY_MODEL, building], check=True)
            building.rename(folder)
    return folder


@pytest.fixture(scope="session")
def smollm2_base(real_engine_python: Path) -> DemoBase:
    """The demo's real base model."""
    return demo_base()


@pytest.fixture(scope="session")
def tiny_engine(real_engine_python: Path, tiny_base: Path) -> Iterator[EngineProcess]:
    """A real engine that serves the tiny model, one for all tests of the session.

    Adapters that a test loads should have names of that test's own.
    """
    with running_engine(real_engine_python, tiny_base, "tiny") as engine:
        yield engine


@pytest.fixture(scope="session")
def smollm2_engine(real_engine_python: Path, smollm2_base: DemoBase) -> Iterator[EngineProcess]:
    """A real engine that serves the demo's base model."""
    with running_engine(real_engine_python, smollm2_base.folder, smollm2_base.name) as engine:
        yield engine


@contextmanager
def running_engine(python: Path, model: Path, base: str) -> Iterator[EngineProcess]:
    """Started, ready, and killed with all its processes at the end."""
    with tempfile.TemporaryDirectory(prefix="engine-") as folder:  # short: it holds a socket
        engine = EngineProcess(python=python, model=model, run_dir=Path(folder), base=base)
        engine.start()
        try:
            engine.wait_ready()
            yield engine
        finally:
            engine.kill()
