"""Engines as they should not be: every one of them is bounded, and no connection is used again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import msgspec
import pytest

from serving.contracts import Endpoint
from serving.gateway.answers import PlainAnswer
from serving.gateway.connection import (
    Cut,
    EngineConnection,
    Garbage,
    Late,
    NotReached,
    Silent,
    UpstreamError,
)
from serving.gateway.rhythm import all_of
from serving.gateway.upstream import PATHS, Upstream

GOOD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
Engine = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Engines:
    """Starts engines of one test and asks them."""

    def __init__(self) -> None:
        self.upstream = Upstream(engine_key=b"k" * 32)
        self.servers: list[asyncio.Server] = []
        self.requests: list[bytes] = []

    async def start(self, *answers: bytes, close: bool = False) -> Endpoint:
        """An engine that gives these answers, one per request, and then says nothing."""

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                for answer in answers:
                    self.requests.append(await _read_request(reader))
                    writer.write(answer)
                    await writer.drain()
                if not close:
                    await reader.read()
            except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                pass  # the gateway left, or the test is over
            finally:
                writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        self.servers.append(server)
        port = server.sockets[0].getsockname()[1]
        return Endpoint(
            pool="p", replica="r", incarnation=f"i{len(self.servers)}",
            address=f"http://127.0.0.1:{port}", slots=1, adapters=(),
        )  # fmt: skip

    async def ask(
        self,
        endpoint: Endpoint,
        *,
        first_seconds: float = 5,
        idle_seconds: float = 5,
        is_stream: bool = False,
    ) -> tuple[PlainAnswer, EngineConnection]:
        connection = await self.upstream.connection(endpoint)
        request = self.upstream.request(endpoint, "/v1/completions", b"{}", request_id="req_1")
        answer = PlainAnswer(limit=1_000_000)
        connection.send(
            request,
            answer,
            is_stream=is_stream,
            first_seconds=first_seconds,
            idle_seconds=idle_seconds,
        )
        try:
            await answer.finished
        finally:
            self.upstream.release(connection)
        return answer, connection

    async def failure(self, endpoint: Endpoint) -> UpstreamError:
        with pytest.raises(UpstreamError) as caught:
            await self.ask(endpoint)
        return caught.value


@pytest.fixture
async def engines() -> AsyncIterator[Engines]:
    made = Engines()
    yield made
    made.upstream.close()
    for server in made.servers:
        server.close()
        await server.wait_closed()


async def test_a_connection_whose_answer_was_read_whole_is_used_again(engines: Engines) -> None:
    endpoint = await engines.start(GOOD, GOOD)
    first, one = await engines.ask(endpoint)
    second, two = await engines.ask(endpoint)
    assert (first.content, second.content) == (b"{}", b"{}")
    assert one is two
    assert engines.upstream.opened == 1


async def test_the_engines_own_key_and_nothing_of_the_clients_goes_along(engines: Engines) -> None:
    endpoint = await engines.start(GOOD)
    await engines.ask(endpoint)
    [request] = engines.requests
    assert b"authorization: Bearer " in request
    assert b"x-request-id: req_1\r\n" in request
    assert request.count(b"\r\n") == 7


async def test_only_two_paths_are_ever_asked(engines: Engines) -> None:
    endpoint = await engines.start(GOOD)
    assert {"/v1/completions", "/v1/chat/completions"} == PATHS
    with pytest.raises(AssertionError):
        engines.upstream.request(endpoint, "/metrics", b"", request_id="x")


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\n" + b"x: " + b"a" * 100_000,
        b"HTTP/1.1 200 OK\r\n" + b"x: a\r\n" * 500,
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 5000000\r\n\r\n"
        + b"a" * 2_000_000,
        b"SSH-2.0-OpenSSH\r\n",
        b"\x00" * 100,
    ],
    ids=range(10),
)
async def test_answers_that_are_none_are_garbage_and_end_the_connection(
    engines: Engines, answer: bytes
) -> None:
    endpoint = await engines.start(answer)
    assert isinstance(await engines.failure(endpoint), Garbage)
    await _until(lambda: engines.upstream.open_connections == 0)


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\n", GOOD[:-1]])
async def test_an_answer_that_ends_too_soon_is_cut(engines: Engines, answer: bytes) -> None:
    endpoint = await engines.start(answer, close=True)
    assert isinstance(await engines.failure(endpoint), Cut)


async def test_what_follows_an_answer_unasked_ends_the_connection(engines: Engines) -> None:
    endpoint = await engines.start(GOOD)
    _, connection = await engines.ask(endpoint)
    assert connection.is_usable
    with pytest.raises(UpstreamError):  # two answers to one request
        await engines.ask(await engines.start(GOOD + GOOD))


async def test_silence_ends_an_exchange_before_and_within_an_answer(engines: Engines) -> None:
    for answer in (b"", GOOD[:-1]):
        endpoint = await engines.start(answer)
        asking = asyncio.create_task(engines.ask(endpoint, first_seconds=0.05, idle_seconds=0.05))
        await asyncio.sleep(0.15)
        all_of(engines.upstream.sweep())
        with pytest.raises(Silent):
            await asking


async def test_who_waits_too_long_while_others_are_answered_is_late_and_accuses_nobody(
    engines: Engines,
) -> None:
    """A whole answer that takes ten minutes says nothing against an engine that serves others."""
    endpoint = await engines.start(b"")
    other = msgspec.structs.replace(await engines.start(GOOD), incarnation=endpoint.incarnation)
    asking = asyncio.create_task(engines.ask(endpoint, first_seconds=0.05))
    await _until(lambda: len(engines.requests) == 1)
    await engines.ask(other)
    await asyncio.sleep(0.1)
    all_of(engines.upstream.sweep())
    with pytest.raises(Late):
        await asking


async def test_a_head_is_no_piece_of_an_answer(engines: Engines) -> None:
    """vLLM sends it before there is a token: the limit of the first token holds beyond it."""
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n"
    endpoint = await engines.start(head)
    asking = asyncio.create_task(
        engines.ask(endpoint, first_seconds=0.05, idle_seconds=60, is_stream=True)
    )
    await _until(lambda: bool(engines.requests))
    await asyncio.sleep(0.15)
    assert engines.upstream.signs()[endpoint.incarnation].heard_at == float("-inf")
    all_of(engines.upstream.sweep())
    with pytest.raises(Silent):
        await asking


def has_begun(engines: Engines, endpoint: Endpoint) -> bool:
    all_of(engines.upstream.sweep())
    signs = engines.upstream.signs().get(endpoint.incarnation)
    return signs is not None and signs.next_since is not None


async def test_signs_tell_who_owes_what_since_when(engines: Engines) -> None:
    begun, silent = await engines.start(GOOD[:-1]), await engines.start(b"")
    plain = await engines.start(b"")
    before = asyncio.get_running_loop().time()
    asking = [
        asyncio.create_task(engines.ask(one, is_stream=one is not plain))
        for one in (begun, silent, plain)
    ]
    signs = engines.upstream.signs
    await _until(lambda: len(engines.requests) == 3 and has_begun(engines, begun))
    found = signs()
    assert found[begun.incarnation].heard_at == found[begun.incarnation].next_since
    assert (
        before <= (found[silent.incarnation].first_since or 0) <= found[begun.incarnation].heard_at
    )
    assert found[plain.incarnation].first_since is None, "a whole answer says nothing until its end"
    for task in asking:
        task.cancel()
    await asyncio.gather(*asking, return_exceptions=True)
    all_of(engines.upstream.sweep())
    assert all(s.first_since is s.next_since is None for s in signs().values())


async def test_only_what_has_not_begun_is_given_up_and_whole_answers_when_asked(
    engines: Engines,
) -> None:
    begun, silent = await engines.start(GOOD[:-1], b""), await engines.start(b"")
    reading = asyncio.create_task(engines.ask(begun, is_stream=True))
    await _until(lambda: has_begun(engines, begun))
    waiting = asyncio.create_task(engines.ask(silent, is_stream=True))
    plain = asyncio.create_task(engines.ask(silent))
    await _until(lambda: len(engines.requests) == 3)
    for endpoint in (begun, silent):
        engines.upstream.give_up(endpoint.incarnation, also_whole=False)
    with pytest.raises(Silent):
        await waiting
    assert not reading.done()
    assert not plain.done()
    engines.upstream.give_up(silent.incarnation, also_whole=True)
    with pytest.raises(Silent):
        await plain
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)


async def test_nobody_there_is_told_apart_from_a_failure(engines: Engines) -> None:
    endpoint = await engines.start(GOOD)
    engines.servers[0].close()
    await engines.servers[0].wait_closed()
    with pytest.raises(NotReached):
        await engines.upstream.connection(endpoint)


async def test_a_half_read_connection_is_never_used_again(engines: Engines) -> None:
    endpoint = await engines.start(GOOD[:-1], GOOD)
    asking = asyncio.create_task(engines.ask(endpoint))
    await _until(lambda: len(engines.requests) == 1)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    answer, _ = await engines.ask(await engines.start(GOOD))
    assert answer.content == b"{}"
    assert engines.upstream.opened == 2
    await _until(lambda: engines.upstream.open_connections == 1)


async def _read_request(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    await reader.readexactly(2)
    return head


async def _until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not is_so():  # noqa: ASYNC110 - polled from outside
            await asyncio.sleep(0.005)
