"""A09-A11 and F29: slow, idle, many and ambiguous connections; headers that lie; no descriptors left.

Over raw sockets; the engine's own journal is the witness.
"""

from __future__ import annotations

import resource
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from kernel.keys import key_new
from serving.gateway.principals import Limits
from serving.gateway.tests import raw
from serving.gateway.tests.attacks import CHAT, HELLO, cpu_seconds, rss_bytes
from serving.gateway.tests.stack import Stack, until
from serving.gateway.tests.test_http import SMUGGLING
from serving.gateway.tests.test_streams import streamed


@contextmanager
def many(port: int, count: int) -> Iterator[list[socket.socket]]:
    with ExitStack() as opened:
        yield [opened.enter_context(raw.connected(port)) for _ in range(count)]


def test_slow_heads_and_bodies_end_while_others_are_served(bare: Stack) -> None:
    """A09"""
    tenant = bare.tenant("support")
    bare.engine()
    bare.serve(TESSERA_GATEWAY_HEAD_SECONDS="1", TESSERA_GATEWAY_BODY_SECONDS="1")
    whole = raw.request(CHAT, HELLO, key=tenant.key)
    with raw.connected(bare.port) as head, raw.connected(bare.port) as body:
        head.sendall(whole[:40])
        body.sendall(whole[:-5])
        started = time.monotonic()
        assert raw.ask(bare.port, whole).status == 200
        assert raw.read_answer(head).status == raw.read_answer(body).status == 408
        assert time.monotonic() - started < 10


def test_500_idle_connections_cost_little_and_leave_room(shared: Stack) -> None:
    """A09"""
    key = shared.tenants[0].key
    raw.ask(shared.port, raw.request(CHAT, HELLO, key=key))
    pid = shared.gateways[0].pid
    before = rss_bytes(pid)
    with many(shared.port, 500):
        until(lambda: shared.gauge(0, "tessera_gateway_connections") >= 500)
        assert raw.ask(shared.port, raw.request(CHAT, HELLO, key=key)).status == 200
        assert rss_bytes(pid) - before < 500 * 20_000


def test_one_address_takes_no_more_than_its_share_of_connections(bare: Stack) -> None:
    """A09: refused with a delay, before a byte is read; the others of that address go on."""
    tenant = bare.tenant("support")
    bare.engine()
    bare.serve(TESSERA_GATEWAY_CONNECTIONS_PER_ADDRESS="20")
    with many(bare.port, 20) as opened:
        until(lambda: bare.gauge(0, "tessera_gateway_connections") == 20)
        with raw.connected(bare.port) as one_more:
            answer = raw.read_answer(one_more)
        assert (answer.status, answer.code) == (503, "connections")
        assert answer.headers["retry-after"] == "1"
        opened[0].sendall(raw.request(CHAT, HELLO, key=tenant.key))
        assert raw.read_answer(opened[0]).status == 200
    until(lambda: bare.gauge(0, "tessera_gateway_connections") == 0)
    assert raw.ask(bare.port, raw.request(CHAT, HELLO, key=tenant.key)).status == 200


def test_a_stream_that_nobody_reads_is_cut_and_gives_everything_back(bare: Stack) -> None:
    """A09"""
    tenant = bare.tenant("support")
    engine = bare.engine()
    bare.serve(TESSERA_GATEWAY_STALL_SECONDS="1")
    with socket.socket() as reader:
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        reader.connect(("127.0.0.1", bare.port))
        reader.sendall(streamed(tenant, 4000, n=8))
        until(lambda: engine.lines("begin"))
        ended = until(lambda: engine.lines("end"), seconds=15, what="the cut")
        assert ended[0]["ended"] == "aborted"
    until(lambda: bare.slots_held() == 0)


def test_an_organization_has_no_more_open_than_its_share(bare: Stack) -> None:
    """A09: beyond it 429, and room again as soon as one of them goes."""
    tenant, other = bare.tenant("support"), bare.tenant("legal")
    share = Limits(scope="organization", id=tenant.organization, concurrency=2)
    key = key_new("live")
    bare.enter_key(key, tenant, key_id="limited", limits=(share,))
    limited = replace(tenant, key=key)
    bare.engine("--token-ms", "50")
    bare.serve()
    with ExitStack() as opened:
        for _ in range(2):
            stream = opened.enter_context(raw.connected(bare.port))
            stream.sendall(streamed(limited, 2000))
            raw.read_all_until(stream, b'"content":')
        refused = raw.ask(bare.port, raw.request(CHAT, HELLO, key=key))
        assert (refused.status, refused.code) == (429, "concurrency")
        assert refused.headers["x-should-retry"] == "true"
        hello = {**HELLO, "model": "legal"}
        assert raw.ask(bare.port, raw.request(CHAT, hello, key=other.key)).status == 200
    until(lambda: raw.ask(bare.port, raw.request(CHAT, HELLO, key=key)).status == 200)


@pytest.mark.parametrize("data", SMUGGLING.values(), ids=SMUGGLING.keys())
def test_nothing_smuggled_reaches_an_engine(shared: Stack, data: bytes) -> None:
    """A10: one 400, then the connection ends; what came behind was never a request."""
    begun = shared.engines[0].lines("begin")
    behind = raw.request(CHAT, HELLO, key=shared.tenants[0].key)
    with raw.connected(shared.port) as connection:
        connection.sendall(data.replace(b"/x", CHAT.encode()) + behind)
        connection.shutdown(socket.SHUT_WR)
        received = raw.read_all(connection)
    assert raw.answers(received) == [400]
    assert shared.engines[0].lines("begin") == begun


def test_client_headers_are_never_believed(served: Stack) -> None:
    """A11"""
    key, path = served.tenants[0].key, CHAT
    for headers in (
        {"x-forwarded-for": "9.9.9.9", "x-org-id": served.tenants[1].organization},
        {"x-user": "root", "x-request-id": "req_mine"},
        {"x-request-id": "a" * 10_000},
    ):
        answer = raw.ask(served.port, raw.request(path, HELLO, key=key, headers=headers))
        assert answer.status == 200
        assert answer.headers["x-request-id"].startswith("req_")
        assert answer.headers["x-request-id"] != "req_mine"
    lines = until(lambda: (found := served.access_lines()) and len(found) >= 3 and found)
    assert [line["peer"] for line in lines] == ["127.0.0.1"] * 3
    assert {line["organization"] for line in lines} == {served.tenants[0].organization}


def test_a_line_break_in_a_header_makes_no_second_log_line(served: Stack) -> None:
    """A11"""
    data = raw.request("/v1/x\t", b"", key="k", headers={"x-request-id": "a\r\n b"})
    assert raw.ask(served.port, data).status == 400
    raw.ask(served.port, raw.request('/v1/"}{"', b"", method="GET"))
    lines = until(lambda: (found := served.access_lines()) and len(found) >= 2 and found)
    assert len(lines) == 2


def test_a_gateway_without_descriptors_sheds_without_spinning_and_recovers(bare: Stack) -> None:
    """F29"""
    tenant = bare.tenant("support")
    bare.engine()
    bare.serve()
    data = raw.request(CHAT, HELLO, key=tenant.key)
    pid = bare.gateways[0].pid
    health = int(bare.metrics_socket.getsockname()[1])
    with raw.connected(bare.port) as served, raw.connected(health) as asked:
        served.sendall(data)
        assert raw.read_answer(served).status == 200
        _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        in_use = len(list(Path(f"/proc/{pid}/fd").iterdir()))
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (in_use + 10, hard))
        with many(bare.port, 40):
            served.sendall(data)
            assert raw.read_answer(served).status == 200
            before, started = cpu_seconds(pid), time.monotonic()
            until(lambda: time.monotonic() - started > 1.0)
            assert cpu_seconds(pid) - before < 0.5
            asked.sendall(raw.request("/ready", method="GET"))
            assert raw.read_answer(asked).status == 200
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (hard, hard))
    until(lambda: raw.ask(bare.port, data).status == 200)
    assert bare.gateways[0].poll() is None
