"""What is to run: frozen descriptions, read from JSON and checked before anything starts."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import signal
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from supervisor.errors import SpecInvalid
from supervisor.reading import read

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
LONG_LIVED_SECONDS = 60.0


@dataclass(frozen=True, kw_only=True)
class Health:
    """A part can be used when ``address`` takes a connection and answers ``send`` with ``expect``.

    ``address`` is ``unix:/path`` (the path may hold a ``*``), ``tcp:host:port``, or ``file:/path``,
    for which existing is enough. ``send`` and ``expect`` are bytes written as Latin-1; the answer
    must begin with ``expect``, and where that is empty the connection is enough.
    """

    address: str
    send: str = ""
    expect: str = ""

    @classmethod
    def http(cls, address: str, path: str) -> Self:
        """Healthy when a GET of ``path`` is answered with 200."""
        request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        return cls(address=address, send=request, expect="HTTP/1.1 200")


@dataclass(frozen=True, kw_only=True)
class Part:
    """One thing to keep running, as a session and process group of its own.

    ``needs``          parts that must be ready (or, run ``once``, have succeeded) before it starts
    ``once``           it is run to its end, and not again
    ``health``         without it, a part is ready ``ready_seconds`` after its start
    ``stop_seconds``   what it may take after ``stop_signal`` before the whole group is killed
    ``all_for_one``    when a process of its session that was alive as the part became ready dies,
                       the whole group is killed and started again
    ``listen_index``   it inherits the stack's listening sockets, and this one is its own
    ``bare``           its lines are shown without its name before them
    ``quiet``          its lines go to its log only
    ``advice``         what to do when it ends again and again, as a sentence
    """

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str] = dataclasses.field(default_factory=dict)
    cwd: str | None = None
    needs: tuple[str, ...] = ()
    health: Health | None = None
    ready_seconds: float = 0.0
    once: bool = False
    stop_signal: str = "SIGTERM"
    stop_seconds: float = 10.0
    all_for_one: bool = False
    listen_index: int | None = None
    bare: bool = False
    quiet: bool = False
    advice: str = ""

    @classmethod
    def read(cls, value: object) -> Self:
        """Raises ``SpecInvalid`` naming the field."""
        part = read(cls, value, where="part")
        if not NAME.fullmatch(part.name):
            raise SpecInvalid(f"part.name {part.name!r} must match {NAME.pattern}.")
        if not part.argv:
            raise SpecInvalid(f"part {part.name}: argv is empty.")
        if part.stop_signal not in signal.Signals.__members__:
            raise SpecInvalid(f"part {part.name}: stop_signal {part.stop_signal!r} is no signal.")
        if part.all_for_one and part.health is None and part.ready_seconds == 0:
            return dataclasses.replace(part, ready_seconds=LONG_LIVED_SECONDS)
        return part

    @property
    def spec_hash(self) -> str:
        """The same for the same description, whoever wrote it."""
        canonical = json.dumps(dataclasses.asdict(self), sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]


@dataclass(frozen=True, kw_only=True)
class Listeners:
    """The sockets that the stack owns: ``count`` on one port, one for metrics on the loopback."""

    host: str
    port: int
    count: int
    metrics_port: int


@dataclass(frozen=True, kw_only=True)
class Stack:
    """All of it. ``run`` and ``logs`` are private folders; parts stand after what they need."""

    parts: tuple[Part, ...]
    run: str
    logs: str
    listeners: Listeners | None = None
    console: bool = True

    @classmethod
    def read(cls, value: object) -> Self:
        stack = read(cls, value, where="stack")
        parts = tuple(Part.read(dataclasses.asdict(part)) for part in stack.parts)
        _check_order(parts)
        return dataclasses.replace(stack, parts=parts)

    @classmethod
    def load(cls, path: Path) -> Self:
        try:
            value = json.loads(path.read_text())
        except (OSError, ValueError) as error:
            raise SpecInvalid(f"{path} cannot be read: {error}.") from None
        return cls.read(value)

    def dump(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=1)


def _check_order(parts: Iterable[Part]) -> None:
    """Needs point backwards only; hence there is no circle."""
    seen: set[str] = set()
    for part in parts:
        if part.name in seen:
            raise SpecInvalid(f"part {part.name} is described twice.")
        for name in part.needs:
            if name not in seen:
                raise SpecInvalid(
                    f"part {part.name} needs {name}, which is not described before it."
                )
        seen.add(part.name)
