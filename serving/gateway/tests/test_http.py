"""The door: what is let through byte for byte, what is refused, and how connections go on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import pytest

from serving.gateway.errors import GatewayError
from serving.gateway.head import Limits, Request
from serving.gateway.http import Door
from serving.gateway.reply import Reply
from serving.gateway.rhythm import all_of
from serving.gateway.tests.raw import answers

POST = b"POST /x HTTP/1.1\r\nHost: a\r\n"


@dataclass
class Seen:
    """What reached the handler and what the door refused."""

    requests: list[Request] = field(default_factory=list)
    refused: list[GatewayError] = field(default_factory=list)
    cancelled: int = 0
    hold: asyncio.Event | None = None

    async def __call__(self, request: Request, reply: Reply) -> None:
        self.requests.append(request)
        try:
            if self.hold is not None:
                await self.hold.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        reply.send(200, request.path)


@dataclass
class Listening:
    seen: Seen
    door: Door
    port: int

    async def talk(self, data: bytes, *, end: bool = True) -> bytes:
        """Send, say that nothing follows, and read to the end."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(data)
        if not end:
            await asyncio.sleep(0.05)
        received = b""
        try:
            async with asyncio.timeout(5):
                while part := await reader.read(65536):
                    received += part
                    if end and received.count(b"HTTP/1.1") and self._is_kept(received):
                        break
        except ConnectionError:
            pass
        finally:
            writer.close()
        return received

    @staticmethod
    def _is_kept(received: bytes) -> bool:
        return b"connection: close" not in received and received.endswith(b"/last")


@pytest.fixture
async def listening() -> AsyncIterator[Callable[..., asyncio.Future[Listening]]]:
    servers = []

    async def start(**limits: float) -> Listening:
        seen = Seen()
        door = Door(seen, limits=Limits(**limits), on_refused=seen.refused.append)  # type: ignore[arg-type]
        server = await asyncio.get_running_loop().create_server(door.connection, "127.0.0.1", 0)
        servers.append((server, door))
        return Listening(seen, door, server.sockets[0].getsockname()[1])

    yield start  # type: ignore[misc]
    for server, door in servers:
        door.abort_all()
        server.close()
        await server.wait_closed()


SMUGGLING = {
    "length and chunks": POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks and length": POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "two lengths": POST + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\nhi",
    "two different lengths": POST + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nhi",
    "list of lengths": POST + b"Content-Length: 2, 2\r\n\r\nhi",
    "signed length": POST + b"Content-Length: +2\r\n\r\nhi",
    "negative length": POST + b"Content-Length: -2\r\n\r\nhi",
    "space before colon": POST + b"Content-Length : 2\r\n\r\nhi",
    "vertical tab": POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "tab in name": POST + b"Transfer-Encoding\t: chunked\r\n\r\n0\r\n\r\n",
    "almost chunked": POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "chunked first": POST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "gzip, chunked": POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunked twice": POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "bare LF after request line": b"POST /x HTTP/1.1\nHost: a\r\n\r\n",
    "bare LF after header": b"POST /x HTTP/1.1\r\nHost: a\nContent-Length: 0\r\n\r\n",
    "bare LF at the end": POST + b"Content-Length: 0\r\n\n",
    "bare CR": b"POST /x HTTP/1.1\r\nHost: a\rX: b\r\n\r\n",
    "folded header": POST + b"X: b\r\n c\r\n\r\n",
    "LF after chunk size": POST + b"Transfer-Encoding: chunked\r\n\r\n2\nhi\r\n0\r\n\r\n",
    "LF after chunk": POST + b"Transfer-Encoding: chunked\r\n\r\n2\r\nhi\n0\r\n\r\n",
    "LF in chunk extension": POST + b"Transfer-Encoding: chunked\r\n\r\n2;a\nb\r\nhi\r\n0\r\n\r\n",
    "huge chunk size": POST + b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nhi\r\n",
    "trailer": POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX: y\r\n\r\n",
    "absolute form": b"POST http://a/x HTTP/1.1\r\nHost: a\r\n\r\n",
    "asterisk": b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
    "two hosts": POST + b"Host: b\r\n\r\n",
    "no host": b"POST /x HTTP/1.1\r\n\r\n",
    "path in host": b"POST /x HTTP/1.1\r\nHost: x/health?a=\r\n\r\n",
    "fragment in host": b"POST /x HTTP/1.1\r\nHost: a#\r\n\r\n",
    "user in host": b"POST /x HTTP/1.1\r\nHost: a@b\r\n\r\n",
    "two keys": POST + b"Authorization: a\r\nAuthorization: b\r\n\r\n",
    "NUL": POST + b"X: a\0b\r\n\r\n",
    "empty name": POST + b": x\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "upgrade": b"GET /x HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
    "connect": b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n",
}  # fmt: skip


@pytest.mark.parametrize("data", SMUGGLING.values(), ids=SMUGGLING.keys())
async def test_ambiguous_requests_are_refused_and_nothing_behind_them_is_read(
    listening: Callable[..., asyncio.Future[Listening]], data: bytes
) -> None:
    at = await listening()
    received = await at.talk(data + b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")
    assert answers(received) == [400]
    assert b"connection: close" in received
    assert all(request.path != b"/smuggled" for request in at.seen.requests)
    assert len(at.seen.refused) == 1


async def test_every_cut_of_a_smuggling_corpus_into_two_packets_is_refused_as_well(
    listening: Callable[..., asyncio.Future[Listening]],
) -> None:
    at = await listening()
    data = SMUGGLING["length and chunks"]
    for cut in range(1, len(data) - 8, 7):
        reader, writer = await asyncio.open_connection("127.0.0.1", at.port)
        writer.write(data[:cut])
        await asyncio.sleep(0.002)
        writer.write(data[cut:])
        assert answers(await reader.read(65536)) == [400]
        writer.close()
    assert at.seen.requests == []


async def test_pipelined_requests_are_answered_in_order_one_at_a_time(
    listening: Callable[..., asyncio.Future[Listening]],
) -> None:
    at = await listening()
    data = b"".join(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % n for n in range(5))
    received = await at.talk(data + b"GET /last HTTP/1.1\r\nHost: a\r\n\r\n")
    assert answers(received) == [200] * 6
    assert [r.path for r in at.seen.requests] == [b"/0", b"/1", b"/2", b"/3", b"/4", b"/last"]


async def test_a_flood_of_pipelined_requests_is_cut(
    listening: Callable[..., asyncio.Future[Listening]],
) -> None:
    at = await listening()
    received = await at.talk(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n" * 1000)
    assert len(at.seen.requests) < 30
    assert b"pipelined" in received


async def test_garbage_behind_a_good_request_does_not_spoil_its_answer(
    listening: Callable[..., asyncio.Future[Listening]],
) -> None:
    at = await listening()
    received = await at.talk(b"GET /good HTTP/1.1\r\nHost: a\r\n\r\n\x00\x01garbage\r\n\r\n")
    assert answers(received) == [200, 400]


async def test_a_request_that_says_close_is_the_last(
    listening: Callable[..., asyncio.Future[Listening]],
) -> None:
    at = await listening()
    one = b"GET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    received = await at.talk(one + b"GET /y HTTP/1.1\r\nHost: a\r\n\r\n")
    assert answers(received) == [200]
    assert len(at.seen.requests) == 1


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET /x HTTP/1.0\r\nHost: a\r\n\r\n", 505),
        (b"GET /x HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 40_000 + b"\r\n\r\n", 431),
        (b"GET /" + b"a" * 40_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 431),
        (b"GET /x HTTP/1.1\r\nHost: a\r\n" + b"".join(b"X%d: a\r\n" % n for n in range(200)), 431),
        (POST + b"Content-Length: 99999999999\r\n\r\n", 413),
        (POST + b"Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\nhi", 415),
    ],
)
async def test_limits_have_their_own_answers(
    listening: Callable[..., asyncio.Future[Listening]], data: bytes, status: int
) -> None:
    at = await listening()
    assert answers(await at.talk(data)) == [status]
    assert at.seen.requests == []


async def test_chunked_bodies_arrive_whole(
    listening: Callable[..., asyncio.Future[Listening]],
) -> None:
    at = await listening()
    data = (
        POST.replace(b"/x", b"/last")
        + b"Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"
    )
    await at.talk(data)
    assert at.seen.requests[0].body == b"hello"


async def test_a_client_that_waits_for_permission_gets_it(
    listening: Callable[..., asyncio.Future[Listening]],
) -> None:
    at = await listening()
    reader, writer = await asyncio.open_connection("127.0.0.1", at.port)
    writer.write(POST + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n")
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(b"hi")
    assert answers(await reader.read(4096)) == [200]
    writer.close()


async def test_a_head_request_gets_a_head(
    listening: Callable[..., asyncio.Future[Listening]],
) -> None:
    at = await listening()
    reader, writer = await asyncio.open_connection("127.0.0.1", at.port)
    writer.write(b"HEAD /x HTTP/1.1\r\nHost: a\r\n\r\nGET /y HTTP/1.1\r\nHost: a\r\n\r\n")
    first = await reader.readuntil(b"\r\n\r\n")
    assert b"content-length: 2" in first
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
    writer.close()


async def test_a_client_that_leaves_cancels_its_request(
    listening: Callable[..., asyncio.Future[Listening]],
) -> None:
    at = await listening()
    at.seen.hold = asyncio.Event()
    _, writer = await asyncio.open_connection("127.0.0.1", at.port)
    writer.write(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n")
    await _until(lambda: bool(at.seen.requests))
    writer.close()
    await _until(lambda: at.seen.cancelled == 1)


async def test_what_is_slow_to_come_is_told_so_and_what_idles_is_closed(
    listening: Callable[..., asyncio.Future[Listening]],
) -> None:
    at = await listening(head_seconds=0.05, body_seconds=0.05, idle_seconds=0.05)
    for data, status in (
        (b"GET /x HT", [408]),
        (POST + b"Content-Length: 5\r\n\r\nh", [408]),
        (b"", []),
    ):
        reader, writer = await asyncio.open_connection("127.0.0.1", at.port)
        writer.write(data)
        await asyncio.sleep(0.1)
        all_of(at.door.sweep())
        assert answers(await reader.read(65536)) == status
        writer.close()


async def test_a_draining_door_answers_and_closes(
    listening: Callable[..., asyncio.Future[Listening]],
) -> None:
    at = await listening()
    at.door.drain()
    received = await at.talk(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n")
    assert b"connection: close" in received


async def test_connections_beyond_the_limit_are_refused(
    listening: Callable[..., asyncio.Future[Listening]],
) -> None:
    at = await listening(connections=1)
    _, first = await asyncio.open_connection("127.0.0.1", at.port)
    await _until(lambda: len(at.door.connections) == 1)
    assert answers(await at.talk(b"")) == [503]
    first.close()


async def test_one_address_cannot_take_all_places(
    listening: Callable[..., asyncio.Future[Listening]],
) -> None:
    at = await listening(connections_per_address=2)
    streams = [await asyncio.open_connection("127.0.0.1", at.port) for _ in range(2)]
    await _until(lambda: len(at.door.connections) == 2)
    assert answers(await at.talk(b"")) == [503]
    streams.pop()[1].close()
    await _until(lambda: at.door.by_address["127.0.0.1"] == 1)
    assert answers(await at.talk(b"GET /last HTTP/1.1\r\nHost: a\r\n\r\n")) == [200]
    at.door.is_proxy = lambda address: address == "127.0.0.1"
    streams += [await asyncio.open_connection("127.0.0.1", at.port) for _ in range(3)]
    assert answers(await at.talk(b"GET /last HTTP/1.1\r\nHost: a\r\n\r\n")) == [200]
    for _, writer in streams:
        writer.close()
    await _until(lambda: not at.door.by_address)


async def test_bodies_on_their_way_have_a_limit_together(
    listening: Callable[..., asyncio.Future[Listening]],
) -> None:
    at = await listening(held_bytes=100_000)
    head = POST.replace(b"/x", b"/last") + b"Content-Length: 60000\r\n\r\n"
    reader, first = await asyncio.open_connection("127.0.0.1", at.port)
    first.write(head + b"a" * 59_999)
    await _until(lambda: at.door.held_bytes == 59_999)
    assert answers(await at.talk(head + b"a" * 50_000)) == [503]
    await _until(lambda: at.door.held_bytes == 59_999)
    first.write(b"a")
    assert b"/last" in await reader.readuntil(b"/last")
    assert at.door.held_bytes == 0
    at.seen.hold = asyncio.Event()
    first.write((head + b"a" * 60_000) * 2)
    await _until(lambda: at.door.held_bytes == 60_000)
    at.seen.hold.set()
    await _until(lambda: at.door.held_bytes == 0)
    first.write(head + b"a" * 10)
    await _until(lambda: at.door.held_bytes == 10)
    first.close()
    await _until(lambda: at.door.held_bytes == 0)


async def _until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not is_so():  # noqa: ASYNC110 - polled from outside
            await asyncio.sleep(0.005)
