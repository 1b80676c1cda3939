from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from serving.admission.link import Address, RedisDown, RedisLink, RedisRefused, address_from


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://h:7000/3", ("h", 7000, "", False, "", "", 3)),
        ("redis://", ("127.0.0.1", 6379, "", False, "", "", 0)),
        ("rediss://u:p%40w@h", ("h", 6379, "", True, "u", "p@w", 0)),
        ("unix:///a/b%20c.sock?password=x&db=2", ("127.0.0.1", 6379, "/a/b c.sock", False, "", "x", 2)),
        ("redis+socket://:pw@/run/s.sock?virtual_host=1", ("127.0.0.1", 6379, "/run/s.sock", False, "", "pw", 1)),
    ],
)  # fmt: skip
def test_urls_are_read_as_the_usual_clients_read_them(
    url: str, expected: tuple[object, ...]
) -> None:
    names = ("host", "port", "path", "is_tls", "username", "password", "database")
    assert address_from(url) == Address(**dict(zip(names, expected, strict=True)))  # type: ignore[arg-type]


def test_other_urls_are_refused() -> None:
    with pytest.raises(ValueError, match="http"):
        address_from("http://x")


class Server:
    """A Redis of a few lines: says OK, or what it was told to."""

    def __init__(self) -> None:
        self.answer = b"+OK\r\n"
        self.connections = 0
        self.writers: list[asyncio.StreamWriter] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.writers.append(writer)
        try:
            while data := await reader.read(65536):
                writer.write(self.answer * data.count(b"*"))
        except ConnectionError:
            pass
        finally:
            writer.close()


@pytest.fixture
async def server() -> AsyncIterator[tuple[Server, RedisLink]]:
    made = Server()
    listening = await asyncio.start_server(made, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    link = RedisLink(f"redis://127.0.0.1:{port}", timeout_seconds=0.1)
    running = asyncio.create_task(link.run())
    await link.wait_up()
    yield made, link
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    listening.close()
    await listening.wait_closed()


async def test_a_silent_server_costs_one_wait_and_then_none(
    server: tuple[Server, RedisLink],
) -> None:
    made, link = server
    made.answer = b""
    started = time.monotonic()
    with pytest.raises(RedisDown):
        await link.call("PING")
    assert time.monotonic() - started < 0.5
    started = time.monotonic()
    with pytest.raises(RedisDown):
        await link.call("PING")
    assert time.monotonic() - started < 0.05
    made.answer = b"+OK\r\n"
    async with asyncio.timeout(5):
        await link.wait_up()
    assert await link.call("PING") == b"OK"


async def test_errors_are_told_from_outages(server: tuple[Server, RedisLink]) -> None:
    made, link = server
    made.answer = b"-READONLY You can't write\r\n"
    with pytest.raises(RedisRefused, match="READONLY"):
        await link.call("SET", "a", 1)
    assert link.is_up


@pytest.mark.parametrize("answer", [b"nonsense\r\n", b"+OK\r\n+OK\r\n+OK\r\n"])
async def test_answers_that_fit_no_question_end_the_connection(
    server: tuple[Server, RedisLink], answer: bytes
) -> None:
    made, link = server
    made.answer = answer
    futures = [link.call("PING")]
    await asyncio.gather(*futures, return_exceptions=True)
    await asyncio.sleep(0.01)
    made.answer = b"+OK\r\n"
    async with asyncio.timeout(5):
        await link.wait_up()
        while made.connections < 2:  # noqa: ASYNC110 - polled from outside
            await asyncio.sleep(0.01)


async def test_a_lost_connection_fails_what_waits_and_comes_back(
    server: tuple[Server, RedisLink],
) -> None:
    made, link = server
    made.answer = b""
    waiting = [link.call("PING") for _ in range(3)]
    made.writers[0].close()
    failures = await asyncio.gather(*waiting, return_exceptions=True)
    assert all(isinstance(failure, RedisDown) for failure in failures)
    made.answer = b"+OK\r\n"
    async with asyncio.timeout(5):
        await link.wait_up()
