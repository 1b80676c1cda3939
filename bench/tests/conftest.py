"""One simulator per module that asks for it, on a Unix socket with a short path."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.engines import Simulator, simulator

SECRET = bytes(32)
OPTIONS = ("--max-model-len", "1024", "--max-lora-rank", "16", "--tokens", "6")


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="sim-") as name:
        yield Path(name)


@pytest.fixture(scope="module")
def engine(folder: Path) -> Iterator[Simulator]:
    """A simulator that answers at once and keeps a journal."""
    journal = ("--journal", str(folder / "journal.jsonl"))
    with simulator(
        folder / "engine", replica="r", engine_key=SECRET, arguments=[*OPTIONS, *journal]
    ) as running:
        yield running
        running.call("DELETE", "/sim/faults")
