"""Where the parts' lines go: a file for each, turned over by size, and the terminal if any."""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, TextIO

FILE_BYTES = 5_000_000
OLD_FILES = 2
LINE_BYTES = 16_384
_COLOURS = (36, 32, 33, 35, 34, 96, 92, 93, 95, 94)
_OWN_NAME = "tessera"


class LogFile:
    """``name.log``, then ``name.log.1`` and so on. A full disk costs lines, never the caller."""

    def __init__(self, path: Path, *, size: int = FILE_BYTES) -> None:
        self._path, self._size = path, size
        self._file: BinaryIO | None = None

    def write(self, data: bytes) -> None:
        with suppress(OSError):
            file = self._opened()
            file.write(data)
            if file.tell() >= self._size:
                self.close()
                self._turn_over()

    def close(self) -> None:
        if self._file is not None:
            with suppress(OSError):
                self._file.close()
            self._file = None

    def _opened(self) -> BinaryIO:
        if self._file is None:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            self._file = os.fdopen(descriptor, "ab", buffering=0)
        return self._file

    def _turn_over(self) -> None:
        names = [self._path.with_name(f"{self._path.name}.{n}") for n in range(1, OLD_FILES + 1)]
        newer = [self._path, *names[:-1]]
        for source, target in reversed(list(zip(newer, names, strict=True))):
            with suppress(FileNotFoundError):
                source.replace(target)


class Console:
    """The terminal: a name before each line, coloured where it is a terminal and nobody objects.

    ``None`` as stream, or a terminal that went away, shows nothing.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self._colours: dict[str, int] = {}
        self._is_coloured = stream is not None and stream.isatty() and "NO_COLOR" not in os.environ

    @classmethod
    def of_this_process(cls) -> Console:
        return cls(sys.stdout)

    def show(self, name: str, line: str, *, bare: bool = False) -> None:
        if self._stream is None:
            return
        try:
            self._stream.write(f"{line}\n" if bare else f"{self._prefix(name)} {line}\n")
            self._stream.flush()
        except (OSError, ValueError):
            self._stream = None

    def _prefix(self, name: str) -> str:
        text = f"{name:<12}|"
        if not self._is_coloured:
            return text
        colour = self._colours.setdefault(name, _COLOURS[len(self._colours) % len(_COLOURS)])
        return f"\x1b[{colour}m{text}\x1b[0m"


class PartLog:
    """One part's lines, cut where they end."""

    def __init__(self, name: str, *, folder: Path, console: Console, bare: bool = False) -> None:
        self.path = folder / f"{name}.log"
        self._name, self._console, self._bare = name, console, bare
        self._file = LogFile(self.path)
        self._begun = b""

    def feed(self, data: bytes) -> None:
        self._file.write(data)
        *lines, self._begun = (self._begun + data).split(b"\n")
        if len(self._begun) > LINE_BYTES:
            lines, self._begun = [*lines, self._begun], b""
        for line in lines:
            self._show(line)

    def finish_line(self) -> None:
        """Show a last line that did not end."""
        if self._begun:
            self._show(self._begun)
            self._begun = b""

    def close(self) -> None:
        self.finish_line()
        self._file.close()

    def _show(self, line: bytes) -> None:
        text = line.decode(errors="replace").rstrip("\r")
        self._console.show(self._name, text, bare=self._bare)


class EventLog:
    """What the supervisor itself has to say."""

    def __init__(self, *, folder: Path, console: Console) -> None:
        self._file = LogFile(folder / "supervisor.log")
        self._console = console

    def say(self, sentence: str) -> None:
        at = time.strftime("%Y-%m-%d %H:%M:%S")
        self._file.write(f"{at} {sentence}\n".encode())
        self._console.show(_OWN_NAME, sentence)


def last_lines(path: Path, count: int) -> list[str]:
    """The end of a log, for somebody who asks why."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 64 * 1024))
            return file.read().decode(errors="replace").splitlines()[-count:]
    except FileNotFoundError:
        return []
