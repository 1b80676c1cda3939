"""The socket itself, with metrics given by a function of the test's."""

from __future__ import annotations

import asyncio
import socket
import stat
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from serving.agent import metrics_socket
from serving.agent.errors import EngineUnavailable
from serving.agent.metrics_socket import ASKING, HEAD_BYTES, MetricsSocket, metrics_path
from serving.agent.tests.stand_ins import eventually

GET = b"GET /metrics HTTP/1.1\r\nHost: agent\r\n\r\n"


@pytest.fixture
def path() -> Iterator[Path]:
    """A short one."""
    with TemporaryDirectory(prefix="agent-") as folder:
        yield metrics_path(Path(folder))


@asynccontextmanager
async def serving(path: Path, metrics: Callable[[], Awaitable[bytes]]) -> AsyncIterator[None]:
    """The socket, until the end of the ``with``; it leaves no file behind."""
    task = asyncio.create_task(MetricsSocket(path, metrics).run())
    try:
        await eventually(lambda: task.done() or path.is_socket(), seconds=5)
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert files(path) == {}


def files(path: Path) -> dict[str, int]:
    """What lies beside the socket, itself included, with its mode."""
    return {found.name: stat.S_IMODE(found.stat().st_mode) for found in path.parent.iterdir()}


async def some() -> bytes:
    return b"some 1\n"


async def ask(path: Path, request: bytes = GET) -> tuple[int, bytes]:
    """Status and body; the connection's end ends the body."""
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        writer.write(request)
        async with asyncio.timeout(5):
            head, _, body = (await reader.read(-1)).partition(b"\r\n\r\n")
    finally:
        writer.close()
    assert f"content-length: {len(body)}".encode() in head.lower()
    return int(head.split()[1]), body


async def test_metrics_are_given_whole_on_a_private_socket(path: Path) -> None:
    async def many() -> bytes:
        return b"x" * 3_000_000

    async with serving(path, many):
        assert await ask(path) == (200, await many())
        assert files(path) == {"metrics.sock": 0o600}


@pytest.mark.parametrize(
    "line",
    [b"GET / HTTP/1.1", b"GET /metrics/x HTTP/1.1", b"POST /metrics HTTP/1.1", b"nonsense", b""],
)
async def test_everything_else_is_not_found(path: Path, line: bytes) -> None:
    async with serving(path, some):
        status, body = await ask(path, line + b"\r\n\r\n")
    assert (status, body) == (404, b"Only GET /metrics is answered here.\n")


async def test_a_silent_engine_is_a_503_with_a_sentence(path: Path) -> None:
    async def none() -> bytes:
        raise EngineUnavailable("The engine does not answer /metrics: away")

    async with serving(path, none):
        assert await ask(path) == (503, b"The engine does not answer /metrics: away\n")


async def test_a_head_without_end_is_refused(path: Path) -> None:
    async with serving(path, some):
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b"GET /metrics HTTP/1.1\r\n" + b"x" * HEAD_BYTES)
        async with asyncio.timeout(5):
            assert (await reader.readline()).split()[1] == b"431"
        writer.close()


async def test_whoever_says_nothing_is_left(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_socket, "EXCHANGE_SECONDS", 0.1)
    async with serving(path, some):
        reader, writer = await asyncio.open_unix_connection(path)
        async with asyncio.timeout(5):
            assert await reader.read() == b""
        writer.close()


async def test_too_many_at_once_are_told_so_and_keep_nobody_out_for_long(path: Path) -> None:
    go = asyncio.Event()

    async def later() -> bytes:
        await go.wait()
        return b"late 1\n"

    async with serving(path, later):
        waiting = [asyncio.create_task(ask(path)) for _ in range(ASKING + 1)]
        done, _ = await asyncio.wait(waiting, timeout=5, return_when=asyncio.FIRST_COMPLETED)
        assert [task.result()[0] for task in done] == [503]
        go.set()
        statuses = [status for status, _ in await asyncio.gather(*waiting)]
        assert statuses.count(200) == ASKING
        assert (await ask(path))[0] == 200


async def test_the_socket_of_a_killed_agent_is_replaced(path: Path) -> None:
    for left in (path, path.with_suffix(".new")):
        with socket.socket(socket.AF_UNIX) as killed:
            killed.bind(str(left))
    async with serving(path, some):

        def answers() -> bool:
            with socket.socket(socket.AF_UNIX) as probe:
                return probe.connect_ex(str(path)) == 0

        await eventually(answers, seconds=5)
        assert (await ask(path))[0] == 200


async def test_it_stops_though_somebody_still_waits(path: Path) -> None:
    asked = asyncio.Event()

    async def never() -> bytes:
        asked.set()
        await asyncio.get_running_loop().create_future()
        return b""

    async with serving(path, never):
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(GET)
        await asked.wait()
    async with asyncio.timeout(5):
        assert await reader.read() == b""
    writer.close()
