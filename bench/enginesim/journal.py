"""What the engine really did, one JSON line at a time: the oracle that usage is checked against.

Each line is one ``write`` to a file opened for appending: it survives the death of this process,
and nobody else's death touches it. ``begin`` stands before any byte of the answer, ``end`` just
before the last ones go out; a ``begin`` without an ``end`` is a request that died with the engine.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec

Ended = Literal["finished", "aborted", "refused", "broken"]


class Line(msgspec.Struct, kw_only=True, omit_defaults=True):
    at: Literal["begin", "token", "end"]
    number: int  # counts requests of one engine process
    process: int
    time: float
    request: str = ""
    path: str = ""
    model: str = ""
    salt: str = ""
    stream: bool = False
    prompt_tokens: int = 0
    cached_tokens: int = 0
    max_tokens: int = 0
    tokens: int = 0  # generated so far, over all choices
    ended: Ended | None = None
    reason: str = ""  # finish reason, or the fault's name


class Journal:
    """Appends lines to a file; without a path it does nothing."""

    def __init__(self, path: Path | None) -> None:
        self._file = (
            None if path is None else os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        )
        self._encode = msgspec.json.Encoder().encode
        self.process = os.getpid()

    @property
    def is_kept(self) -> bool:
        return self._file is not None

    def write(self, line: Line) -> None:
        if self._file is not None:
            os.write(self._file, self._encode(line) + b"\n")

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None


def read(path: Path) -> Iterator[Line]:
    """Every complete line; a torn last one, of a process killed while writing, is left out."""
    with path.open("rb") as file:
        for raw in file:
            if raw.endswith(b"\n"):
                yield msgspec.json.decode(raw, type=Line)


def now() -> float:
    return time.time()
