"""1,000 calls at once from four processes on one prepaid balance: never a nano-USD too much.

Meanwhile Redis is flushed, killed and started empty, failed over, or a process is killed.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import redis

from serving.admission import look
from serving.admission.tests.parts import CELL
from serving.admission.tests.server import Server, server_of
from serving.admission.tests.spender import LEAST

WRITERS = tuple(f"writer-{index}" for index in range(4))
AT_ONCE = 250
CREDIT = 100_000_000  # some 3,000 calls
SECONDS = 60


@dataclass
class Spenders:
    """Four processes, what they have written down, and the file that stands in for PostgreSQL."""

    folder: Path
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    closed: dict[str, dict[str, int]] = field(default_factory=dict)

    def start(self, url: str) -> None:
        self.write()
        for writer in WRITERS:
            with self.journal(writer).open("wb") as out:
                self.processes[writer] = subprocess.Popen(
                    (
                        sys.executable, "-m", "serving.admission.tests.spender",
                        url, str(self.folder / "ledger"), writer, str(AT_ONCE),
                    ),
                    stdout=out,
                )  # fmt: skip

    def write(self) -> None:
        living = [writer for writer in WRITERS if writer not in self.closed]
        found = {"credits": {"org:acme": CREDIT}, "living": living, "closed": self.closed}
        draft = self.folder / "draft"
        draft.write_text(json.dumps(found))
        draft.replace(self.folder / "ledger")

    def journal(self, writer: str) -> Path:
        return self.folder / writer

    def costs(self, writer: str) -> list[int]:
        lines = self.journal(writer).read_text().split("\n")[:-1]
        return [int(line) for line in lines if line != "done"]

    def spent(self) -> int:
        return sum(sum(self.costs(writer)) for writer in WRITERS)

    def kill(self, writer: str) -> None:
        """Kill -9; then its journal is closed, as the shipper would."""
        self.processes[writer].kill()
        self.processes[writer].wait()
        self.closed[writer] = {"org:acme": sum(self.costs(writer))}

    def are_done(self) -> bool:
        return all(
            writer in self.closed or self.journal(writer).read_text().endswith("done\n")
            for writer in WRITERS
        )

    def wait_for(self, nano: int) -> None:
        deadline = time.monotonic() + SECONDS
        while self.spent() < nano:
            assert time.monotonic() < deadline, self.spent()
            time.sleep(0.02)

    def end(self) -> None:
        for process in self.processes.values():
            process.kill()
            process.wait()


@pytest.fixture
def spenders(tmp_path: Path) -> Iterator[Spenders]:
    made = Spenders(tmp_path)
    yield made
    made.end()


@pytest.fixture
def servers(run_dir: Path, tmp_path: Path) -> Iterator[list[Server]]:
    found = [server_of(run_dir / f"{tmp_path.name[-20:]}-{index}") for index in range(2)]
    yield found
    for one in found:
        one.kill()


@pytest.mark.parametrize("fault", ["nothing", "flush", "restart", "failover", "kill"])
def test_a_balance_is_spent_to_the_end_and_not_beyond(
    servers: list[Server], spenders: Spenders, fault: str
) -> None:
    primary, replica = servers
    primary.start()
    if fault == "failover":
        replica.start()
        replica.follow(primary)
    spenders.start(primary.url)
    spenders.wait_for(CREDIT // 4)
    match fault:
        case "flush":
            primary.client.flushall()
        case "restart":
            primary.kill()
            primary.start()
        case "failover":
            replica.client.config_set("replica-serve-stale-data", "yes")
            replica.client.replicaof("127.0.0.1", 1)  # its link is cut: what follows is lost
            spenders.wait_for(CREDIT // 4 + 20 * LEAST)
            primary.kill()
            replica.client.replicaof("NO", "ONE")
            replica.stand_in_for(primary)
        case "kill":
            spenders.kill("writer-3")
            spenders.write()
    deadline = time.monotonic() + SECONDS
    while not spenders.are_done():
        assert spenders.spent() <= CREDIT
        assert time.monotonic() < deadline
        time.sleep(0.1)
    deadline = time.monotonic() + SECONDS
    while (found := account(primary)).held:  # a dead writer's, until the others have closed it
        assert time.monotonic() < deadline, found
        time.sleep(0.1)
    assert 0 <= found.base - found.spent == CREDIT - spenders.spent()


def account(server: Server) -> look.AccountLook:
    client = redis.Redis(
        unix_socket_path=str(server.server.socket_path), password=server.server.password
    )
    answer: Sequence[Any] = client.eval(*look.looking(CELL, ("look_account", "org:acme")))
    return look.account_from(answer[3])
