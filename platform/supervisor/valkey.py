"""An own Valkey as the Redis server: its data, its command line, and whether it answers.

It listens on a Unix socket in a folder of mode 0700, asks for a random password, keeps an
append-only file, and refuses writes rather than dropping keys when memory runs out.
"""

from __future__ import annotations

import secrets
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from supervisor.binaries import valkey_binary
from supervisor.errors import SetupFailed
from supervisor.folders import private_folder, socket_folder, write_private

SOCKET_NAME = "valkey.sock"
START_SECONDS = 30.0
STOP_SECONDS = 30.0

SETTINGS = {
    "port": "0",
    "unixsocketperm": "700",
    "appendonly": "yes",
    "appendfsync": "everysec",
    "save": "",
    "maxmemory-policy": "noeviction",
    "daemonize": "no",
    "databases": "4",
    "loglevel": "warning",
}
# A server whose data nobody will miss: tests.
THROWAWAY = {"appendonly": "no"}


@dataclass(frozen=True)
class ValkeyUrls:
    """``redis`` is database 0 for redis-py, ``broker`` database 1 as Celery spells it."""

    redis: str
    broker: str


@dataclass(frozen=True)
class ValkeyServer:
    """A server whose data is ``folder``; its socket lies in ``sockets`` (default: inside it)."""

    folder: Path
    sockets: Path | None = None
    settings: dict[str, str] = field(default_factory=dict)
    binary: Path = field(default_factory=valkey_binary)

    @property
    def socket_path(self) -> Path:
        preferred = self.sockets or self.folder / "socket"
        return socket_folder(preferred, longest_name=len(SOCKET_NAME)) / SOCKET_NAME

    @property
    def password(self) -> str:
        return (self.folder / "password").read_text()

    def prepare(self) -> None:
        """Make folder, password and configuration; the data itself is the server's own business."""
        private_folder(self.folder)
        if not (self.folder / "password").exists():
            write_private(self.folder / "password", secrets.token_hex(24))
        write_private(self.folder / "valkey.conf", self._configuration())

    def argv(self) -> tuple[str, ...]:
        """The command that runs the server in the foreground; the password is in its file."""
        return (str(self.binary), str(self.folder.absolute() / "valkey.conf"))

    def urls(self) -> ValkeyUrls:
        path = quote(str(self.socket_path))
        return ValkeyUrls(
            redis=f"unix://{path}?password={self.password}&db=0",
            broker=f"redis+socket://:{self.password}@{path}?virtual_host=1",
        )

    def answers(self) -> bool:
        """Whether the server answers with its data loaded."""
        return says_pong(self.socket_path, self.password)

    @contextmanager
    def running(self) -> Iterator[ValkeyUrls]:
        """Prepare, run and at the end stop the server, for as long as the ``with`` lasts."""
        self.prepare()
        with (self.folder / "server.log").open("ab") as log:
            process = subprocess.Popen(
                self.argv(), stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        try:
            self._wait_until_it_answers(process)
            yield self.urls()
        finally:
            process.terminate()
            process.wait(STOP_SECONDS)

    def _configuration(self) -> str:
        settings = {
            **SETTINGS,
            **self.settings,
            "dir": str(self.folder.absolute()),
            "unixsocket": str(self.socket_path),
            "requirepass": self.password,
        }
        return "".join(f"{name} {_quoted(value)}\n" for name, value in settings.items())

    def _wait_until_it_answers(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not self.answers():
            if process.poll() is not None or time.monotonic() > deadline:
                raise SetupFailed(
                    f"Valkey did not start; {self.folder / 'server.log'} ends with:\n"
                    + (self.folder / "server.log").read_text()[-2000:]
                )
            time.sleep(0.02)


def says_pong(socket_path: Path, password: str) -> bool:
    """Sign in and ask PING; a server that is still loading its data says no."""
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(2)
            connection.connect(str(socket_path))
            connection.sendall(f"AUTH {password}\r\nPING\r\nQUIT\r\n".encode())
            with connection.makefile("rb") as answers:
                return b"+PONG" in answers.read()
    except OSError:
        return False


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
