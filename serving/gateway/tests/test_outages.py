"""Redis, PostgreSQL and the control plane away: what goes on, what is refused, how it comes back."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from kernel.keys import key_new
from serving.gateway.tests import raw
from serving.gateway.tests.stack import Servers, Stack, prepare_database, stack, until
from supervisor.postgres import THROWAWAY as FORGETFUL
from supervisor.postgres import PostgresServer
from supervisor.valkey import THROWAWAY as IN_MEMORY
from supervisor.valkey import ValkeyServer

CHAT = "/v1/chat/completions"


@dataclass
class Mortal:
    """A server that a test kills, stops and starts again, empty or not."""

    server: PostgresServer | ValkeyServer
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.process = subprocess.Popen(
            self.server.argv(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        until(self.server.answers, what="the server's start")

    def kill(self) -> None:
        """With all its children; a socket file may stay behind."""
        if self.process is not None:
            subprocess.run(["pkill", "-KILL", "-P", str(self.process.pid)], check=False)
            self.process.kill()
            self.process.wait(10)
            self.process = None

    def freeze(self) -> None:
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGCONT)


@dataclass
class Outage:
    stack: Stack
    postgres: Mortal
    redis: Mortal

    def postgres_processes(self) -> list[int]:
        """The server and its backends."""
        found = [self.postgres.process.pid] if self.postgres.process else []
        for parent in found:
            listed = subprocess.run(
                ["pgrep", "-P", str(parent)], capture_output=True, text=True, check=False
            )
            found.extend(int(line) for line in listed.stdout.split())
        return found

    def ask(self, key: str = "", *, tokens: int = 2) -> raw.Answer:
        tenant = self.stack.tenants[0]
        body = {
            "model": "support",
            "messages": [{"role": "user", "content": "hi"}],
            "max_tokens": tokens,
        }
        return raw.ask(self.stack.port, raw.request(CHAT, body, key=key or tenant.key))


@pytest.fixture
def outage(home: Path) -> Iterator[Outage]:
    with tempfile.TemporaryDirectory(prefix="tessera-") as folder:
        postgres = PostgresServer(Path(folder) / "postgres", settings=FORGETFUL)
        valkey = ValkeyServer(Path(folder) / "valkey", settings=IN_MEMORY)
        postgres.prepare()
        valkey.prepare()
        database, redis = Mortal(postgres), Mortal(valkey)
        try:
            database.start()
            redis.start()
            owner, gateway = prepare_database(postgres)
            servers = Servers(Path(folder), owner, gateway, valkey.urls().redis)
            with stack(servers, home) as made:
                made.tenant("support")
                made.engine(slots=4)
                made.serve()
                yield Outage(made, database, redis)
        finally:
            database.kill()
            redis.kill()


def test_redis_killed_serving_goes_on_with_the_last_documents_on_a_local_share(
    outage: Outage,
) -> None:
    assert outage.ask().status == 200
    outage.redis.kill()
    assert [outage.ask().status for _ in range(5)] == [200] * 5
    until(lambda: outage.stack.counter("tessera_gateway_local_admissions_total") >= 4)
    outage.redis.start()
    until(lambda: outage.stack.gauge(0, "tessera_gateway_redis_up") == 1)
    assert outage.ask().status == 200
    until(lambda: outage.stack.slots_held() == 0)


def test_streams_open_over_a_redis_restart_are_counted_again(outage: Outage) -> None:
    engine = outage.stack.engines[0]
    engine.order(kind="slow", token_ms=300)
    with raw.connected(outage.stack.port) as connection:
        body = {
            "model": "support", "prompt": "hi", "max_tokens": 60, "stream": True, "ignore_eos": True,
        }  # fmt: skip
        key = outage.stack.tenants[0].key
        connection.sendall(raw.request("/v1/completions", body, key=key))
        connection.recv(65536)
        outage.redis.kill()
        outage.redis.start()
        until(lambda: outage.stack.slots_held() == 1, seconds=15, what="the lease's renewal")


def test_a_frozen_redis_costs_one_short_wait_and_no_more(outage: Outage) -> None:
    assert outage.ask().status == 200
    outage.redis.freeze()
    try:
        waits = []
        for _ in range(6):
            started = time.monotonic()
            assert outage.ask().status == 200
            waits.append(time.monotonic() - started)
        assert max(waits) < 0.6
        assert sum(wait > 0.09 for wait in waits) <= 2
    finally:
        outage.redis.thaw()
    until(lambda: outage.stack.gauge(0, "tessera_gateway_redis_up") == 1)


def test_a_redis_that_refuses_writes_or_forgot_the_script_fails_no_request(outage: Outage) -> None:
    with outage.stack.servers.client() as client:
        client.script_flush()
        assert outage.ask().status == 200
        client.config_set("maxmemory", "1")
        assert outage.ask().status == 200
        client.config_set("maxmemory", "0")
        assert outage.ask().status == 200
    until(lambda: outage.stack.slots_held() == 0)


def test_postgresql_killed_known_keys_go_on_and_unknown_ones_are_told_to_come_back(
    outage: Outage,
) -> None:
    assert outage.ask().status == 200
    outage.postgres.kill()
    deadline = time.monotonic() + 7  # beyond what a principal may age while PostgreSQL is up
    while time.monotonic() < deadline:
        assert outage.ask().status == 200
        time.sleep(0.2)
    answer = outage.ask(key_new("live"))
    assert (answer.status, answer.code) == (503, "keys_unavailable")
    assert int(answer.headers["retry-after"]) >= 1
    outage.postgres.start()
    until(lambda: outage.ask(key_new("live")).status == 401, what="PostgreSQL's return")


def test_a_frozen_postgresql_is_a_postgresql_that_is_down(outage: Outage) -> None:
    assert outage.ask().status == 200
    for child in outage.postgres_processes():
        os.kill(child, signal.SIGSTOP)
    try:
        deadline = time.monotonic() + 7
        while time.monotonic() < deadline:
            started = time.monotonic()
            assert outage.ask().status == 200
            assert time.monotonic() - started < 2.5
            time.sleep(0.2)
    finally:
        for child in outage.postgres_processes():
            os.kill(child, signal.SIGCONT)


def test_everything_away_known_keys_go_on_and_a_restarted_gateway_says_what_it_lacks(
    outage: Outage,
) -> None:
    assert outage.ask().status == 200
    outage.redis.kill()
    outage.postgres.kill()
    deadline = time.monotonic() + 7
    while time.monotonic() < deadline:
        assert outage.ask().status == 200
        time.sleep(0.3)
    outage.stack.gateways[0].kill()
    outage.stack.gateways[0].wait()
    outage.stack.start()
    answer = outage.ask()
    assert (answer.status, answer.code) == (503, "keys_unavailable")
    outage.redis.start()
    outage.postgres.start()
    until(lambda: outage.ask().status == 200, what="recovery")


def test_a_forged_or_older_document_in_redis_changes_nothing(outage: Outage) -> None:
    made = outage.stack
    assert outage.ask().status == 200
    with made.servers.client() as client:
        keys = list(client.keys("tessera:doc:*"))
        kept = {key: client.get(key) for key in keys}
        made.publish(engines=[])
        until(lambda: outage.ask().status == 503, what="the new document")
        for key, raw_document in kept.items():
            client.set(key, raw_document or b"")
        made.announce()
        time.sleep(0.5)
        assert outage.ask().status == 503
        for key in keys:
            client.set(key, b'{"kind":"routes"}')
        made.announce()
        time.sleep(0.3)
        assert outage.ask().status == 503
    made.publish()
    until(lambda: outage.ask().status == 200)
