"""A Valkey that a test may kill, freeze, start again empty, and fail over."""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import redis

from supervisor.valkey import THROWAWAY, ValkeyServer

_SECONDS = 30
_PASSWORD = "of-both"


@dataclass
class Server:
    server: ValkeyServer
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return self.server.urls().redis

    @property
    def client(self) -> redis.Redis:
        return redis.Redis.from_url(self.url)

    def start(self) -> None:
        self.server.prepare()
        with (self.server.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(self.server.argv(), stdout=log, stderr=log)
        _until(self.server.answers)

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait()

    def follow(self, primary: Server) -> None:
        """Become its replica, and wait until everything is there."""
        self.client.config_set("masterauth", _PASSWORD)
        self.client.replicaof("127.0.0.1", int(primary.server.settings["port"]))
        _until(lambda: self.client.info("replication")["master_link_status"] == "up")

    def stand_in_for(self, primary: Server) -> None:
        """Answer where it answered."""
        self.server.socket_path.replace(primary.server.socket_path)


def server_of(folder: Path) -> Server:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = ValkeyServer(folder, settings={**THROWAWAY, "port": str(port)})
    server.prepare()
    (folder / "password").write_text(_PASSWORD)
    return Server(server)


def _until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _SECONDS
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)
