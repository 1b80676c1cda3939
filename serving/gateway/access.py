"""One structured line per request: who, what, how it went. Never a key, a prompt or an answer."""

from __future__ import annotations

from typing import IO

import msgspec

FLUSH_LINES = 256


class Line(msgspec.Struct, omit_defaults=True):
    """What is known of one request; the fields fill up as it goes down."""

    request_id: str
    method: str
    path: str
    peer: str
    at: float
    status: int = 0
    code: str = ""
    key_id: str = ""
    organization: str = ""
    project: str = ""
    model: str = ""
    replica: str = ""
    is_stream: bool = False
    attempts: int = 0
    first_byte_ms: float = 0.0
    total_ms: float = 0.0
    input: int = 0
    output: int = 0
    ending: str = ""
    billable: bool = False


class AccessLog:
    """Lines are gathered and written together, by size or when ``flush`` is called."""

    def __init__(self, out: IO[bytes]) -> None:
        self._out = out
        self._lines: list[bytes] = []
        self._encode = msgspec.json.Encoder().encode

    def add(self, line: Line) -> None:
        self._lines.append(self._encode(line))
        if len(self._lines) >= FLUSH_LINES:
            self.flush()

    def flush(self) -> None:
        """A log that cannot be written never fails a request."""
        if not self._lines:
            return
        lines, self._lines = self._lines, []
        try:
            self._out.write(b"\n".join(lines) + b"\n")
            self._out.flush()
        except OSError:
            return
