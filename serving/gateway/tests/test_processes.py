"""Several processes on one port: drain, death, siblings, leases, sums."""

from __future__ import annotations

import json
import signal
import socket
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from serving.gateway.tests import raw
from serving.gateway.tests.journals import facts
from serving.gateway.tests.stack import Stack, Tenant, until
from serving.journal.segment import writer_folders
from serving.journal.shipping import Shipper
from serving.journal.tests.facts import settles_of
from serving.journal.tests.stores import MemoryStore

CHAT = "/v1/chat/completions"


HURRIED = {"x-stainless-read-timeout": "1"}  # a client that does not wait for a slot


def question(
    tenant: Tenant, headers: dict[str, str] | None = None, *, tokens: int = 2, stream: bool = False
) -> bytes:
    body = {
        "model": "support",
        "messages": [{"role": "user", "content": "hi"}],
        "max_tokens": tokens,
        "stream": stream,
        "ignore_eos": True,
    }
    return raw.request(CHAT, body, key=tenant.key, headers=headers)


@pytest.fixture
def twins(bare: Stack) -> Stack:
    """Two processes, two sockets on one port."""
    bare.tenant("support")
    bare.engine("--token-ms", "20")
    bare.serve(2)
    return bare


@contextmanager
def load(made: Stack, *, keep_alive: bool) -> Iterator[list[str]]:
    """Requests without pause from four clients; gives the failures, empty as long as all is well."""
    failures: list[str] = []
    stop = threading.Event()

    def client() -> None:
        while not stop.is_set():
            with raw.connected(made.port) as connection:
                for _ in range(20 if keep_alive else 1):
                    try:
                        connection.sendall(question(made.tenants[0]))
                        answer = raw.read_answer(connection)
                    except (OSError, ValueError, IndexError) as error:
                        failures.append(repr(error))
                        break
                    if answer.status != 200:
                        failures.append(f"{answer.status} {answer.body[:200]!r}")
                    if stop.is_set() or answer.headers.get("connection") == "close":
                        break

    threads = [threading.Thread(target=client) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        time.sleep(0.3)
        yield failures
    finally:
        stop.set()
        for thread in threads:
            thread.join()


@pytest.mark.parametrize("keep_alive", [True, False])
def test_a_rolling_restart_under_load_fails_no_request(twins: Stack, *, keep_alive: bool) -> None:
    """F02, and a rolling upgrade: each process is replaced by a new one on the sockets that outlive
    both. What the one before wrote (journals, facts, documents) is readable one version back; that
    is held where it is read.
    """
    with load(twins, keep_alive=keep_alive) as failures:
        for index in (0, 1):
            old = twins.gateways[index]
            old.send_signal(signal.SIGTERM)
            assert old.wait(15) == 0
            new = twins.start(index)
            until(lambda: twins.accepts(new), what="the new process")  # noqa: B023
            time.sleep(0.3)
    assert failures == []
    settled = facts(twins.home)
    assert settled
    assert {fact.completeness for fact in settled} == {"final"}


def test_an_open_stream_is_finished_before_the_process_ends(twins: Stack) -> None:
    with raw.connected(twins.port) as connection:
        connection.sendall(question(twins.tenants[0], tokens=60, stream=True))
        data = connection.recv(65536)
        for process in twins.gateways:
            process.send_signal(signal.SIGTERM)
        data += raw.read_all_until(connection, b"0\r\n\r\n")
    assert b"[DONE]" in data
    assert [process.wait(10) for process in twins.gateways] == [0, 0]


def test_what_outlasts_the_drain_ends_with_an_error_event(bare: Stack) -> None:
    tenant = bare.tenant("support")
    bare.engine("--token-ms", "100")
    bare.serve(TESSERA_GATEWAY_DRAIN_SECONDS="1")
    with raw.connected(bare.port) as connection:
        connection.sendall(question(tenant, tokens=500, stream=True))
        connection.recv(65536)
        bare.gateways[0].send_signal(signal.SIGTERM)
        rest = raw.read_all_until(connection, b"0\r\n\r\n")
    assert b'"code":"shutting_down"' in rest
    assert bare.gateways[0].wait(10) == 0
    fact = facts(bare.home)[0]
    assert (fact.completeness, fact.finish_reason) == ("aborted", "shutting_down")
    assert bare.slots_held() == 0


def test_a_sibling_serves_the_queue_of_a_killed_process_and_gives_it_back(twins: Stack) -> None:
    until(lambda: twins.accepts(twins.gateways[0]) and twins.accepts(twins.gateways[1]))
    time.sleep(0.3)  # three looks of a sibling
    log = twins.home / "gateway-1.log"
    before = log.read_text().count("accepting for sibling 0")
    twins.gateways[0].kill()
    twins.gateways[0].wait()
    started = time.monotonic()
    statuses = [raw.ask(twins.port, question(twins.tenants[0])).status for _ in range(40)]
    assert statuses == [200] * 40
    assert time.monotonic() - started < 10
    assert log.read_text().count("accepting for sibling 0") == before + 1
    twins.start(0)
    until(lambda: log.read_text().count("sibling 0 is back") == before + 1)
    assert raw.ask(twins.port, question(twins.tenants[0])).status == 200


def test_a_killed_process_takes_its_own_streams_and_nothing_else(twins: Stack) -> None:
    """F01: siblings' streams go on, the port is served again within three seconds, and every stream
    is booked once.
    """
    until(lambda: all(twins.accepts(process) for process in twins.gateways))
    connections = [socket.create_connection(("127.0.0.1", twins.port), 10) for _ in range(12)]
    for connection in connections:
        connection.sendall(question(twins.tenants[0], tokens=100, stream=True))
        assert connection.recv(65536)
    twins.gateways[0].kill()
    killed_at = time.monotonic()
    twins.gateways[0].wait()
    while time.monotonic() - killed_at < 10:
        try:
            statuses = [raw.ask(twins.port, question(twins.tenants[0])).status for _ in range(4)]
        except (OSError, AssertionError, ValueError, IndexError):
            continue
        if statuses == [200] * 4:
            break
    assert time.monotonic() - killed_at <= 3.0
    ends = [_rest(connection) for connection in connections]
    whole = sum(b"[DONE]" in end for end in ends)
    assert 0 < whole < 12, "both processes had some"
    until(lambda: len(_closed_streams(twins)) >= 12, what="the dead process' journal closed")
    assert sorted(_closed_streams(twins)) == ["cut"] * (12 - whole) + ["final"] * whole


def _rest(connection: socket.socket) -> bytes:
    """What still comes; a killed process' connection is reset."""
    data = b""
    try:
        while b"0\r\n\r\n" not in data and (part := connection.recv(65536)):
            data += part
    except OSError:
        pass
    connection.close()
    return data


def _closed_streams(made: Stack) -> list[str]:
    """How each of the long calls ended, once a shipper has looked at the journals."""
    journal = made.home / "journal"
    Shipper(journal, MemoryStore()).ship()
    settled = [fact for folder in writer_folders(journal) for fact in settles_of(folder)]
    long = [f for f in settled if f.quantities["output"] > 2 or f.completeness != "final"]
    return ["final" if fact.completeness == "final" else "cut" for fact in long]


CLOCK = """
import time
from pathlib import Path
_time, _jump = time.time, Path(__file__).with_name("jump")
time.time = lambda: _time() + float(_jump.read_text())
"""


@pytest.mark.parametrize("seconds", [600.0, 86_400.0], ids=["ten-minutes", "a-day"])
def test_a_process_whose_clock_jumps_serves_on_and_dates_as_redis_does(
    bare: Stack, tmp_path: Path, *, seconds: float
) -> None:
    """F28: forwards, back, and backwards, while it serves."""
    (tmp_path / "sitecustomize.py").write_text(CLOCK)
    jump, made_ready = tmp_path / "jump", tmp_path / "next"
    jump.write_text("0")
    tenant = bare.tenant("support")
    bare.engine()
    bare.serve(1, PYTHONPATH=str(tmp_path))
    started, statuses = time.time(), []
    for offset in (seconds, 0.0, -seconds, 0.0):
        made_ready.write_text(str(offset))
        made_ready.rename(jump)
        over_at = time.monotonic() + 1.2
        while time.monotonic() < over_at:
            statuses.append(raw.ask(bare.port, question(tenant)).status)
    assert set(statuses) == {200}
    dates = [fact.occurred_at / 1e6 for fact in facts(bare.home)]
    assert len(dates) == len(statuses)
    assert started - 1 <= min(dates)
    assert max(dates) <= time.time() + 1


def test_slots_of_a_killed_process_lapse_with_their_lease(bare: Stack) -> None:
    tenant = bare.tenant("support")
    bare.engine("--token-ms", "200", slots=1)
    bare.serve()
    with raw.connected(bare.port) as connection:
        connection.sendall(question(tenant, tokens=400, stream=True))
        connection.recv(65536)
        bare.gateways[0].kill()
        bare.gateways[0].wait()
    assert bare.slots_held() == 1
    new = bare.start()
    until(lambda: bare.accepts(new))
    assert raw.ask(bare.port, question(tenant, HURRIED)).status == 503
    assert 0 < bare.longest_lease_seconds() <= 30
    bare.end_leases()
    assert raw.ask(bare.port, question(tenant)).status == 200


def test_a_second_process_of_the_same_index_does_not_start(bare: Stack) -> None:
    bare.tenant("support")
    bare.serve()
    second = bare.start(0)
    assert second.wait(30) == 1
    assert "Another gateway process holds" in (bare.home / "gateway-0.log").read_text()


def test_metrics_are_the_sum_over_processes_and_survive_a_restart(twins: Stack) -> None:
    for _ in range(30):
        raw.ask(twins.port, question(twins.tenants[0]))
    counted = 'tessera_gateway_requests_total{route="chat",status="200"} 30\n'
    until(lambda: counted in metrics(twins))
    text = metrics(twins)
    assert "tessera_gateway_processes 2\n" in text
    assert 'tessera_gateway_tokens_total{class="output"} 60\n' in text
    for process in twins.gateways[:2]:
        process.kill()
        process.wait()
    for index in (0, 1):
        twins.start(index)
    until(lambda: "tessera_gateway_processes 2\n" in metrics(twins))
    assert counted in metrics(twins)


def test_health_and_readiness_answer_on_their_own_listener(twins: Stack) -> None:
    for path, status in (("/health", "ok"), ("/ready", "ready")):
        with urllib.request.urlopen(twins.metrics_url + path) as answer:
            assert json.load(answer) == {"status": status}
    assert raw.ask(twins.port, raw.request("/metrics", method="GET")).status == 404


def metrics(made: Stack) -> str:
    with urllib.request.urlopen(made.metrics_url + "/metrics", timeout=10) as answer:
        return str(answer.read().decode())
