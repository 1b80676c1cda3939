"""Waits that last: what a client hears meanwhile, and that waiting decides nothing."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

import msgspec
import pytest

from kernel.keys import key_mac, key_new
from serving.contracts import Endpoint
from serving.gateway.access import AccessLog
from serving.gateway.addresses import Proxies
from serving.gateway.api import Api
from serving.gateway.head import Limits
from serving.gateway.http import Door
from serving.gateway.idempotency import Idempotency
from serving.gateway.patience import FIRST_SECONDS, NEXT_SECONDS, Patience
from serving.gateway.principals import Copy
from serving.gateway.tests import raw
from serving.gateway.tests.test_exchange import Admission, Journal, Nowhere, exchange
from serving.gateway.tests.test_where import directory, endpoint, principal
from serving.gateway.where import Fleet
from serving.gateway.who import Who

PEPPER, KEY = b"p" * 32, key_new("live")
CHUNK = (
    b'{"id":"c","object":"chat.completion.chunk","created":1,"model":"a","choices":'
    b'[{"index":0,"delta":{"content":"x"},"finish_reason":null}]}'
)
ANSWER = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)


class Principals(Nowhere):
    async def read(self, mac: bytes) -> Copy | None:
        if mac != key_mac(PEPPER, KEY):
            return None
        return Copy(principal=principal(scopes=("inference",)), read_at=1e9)


class Quiet(Admission):
    def shrink(self, grant: object, input_tokens: int) -> None:
        return


@dataclass
class Engine:
    """Waits until it is told what to do: answer, or fail."""

    answers: bool = True
    told: asyncio.Event = field(default_factory=asyncio.Event)
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    left: asyncio.Event = field(default_factory=asyncio.Event)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"}")
        self.asked.set()
        await self.told.wait()
        if self.answers:
            events = b"data: " + CHUNK + b"\n\ndata: [DONE]\n\n"
            writer.write(ANSWER + b"%x\r\n%b\r\n0\r\n\r\n" % (len(events), events))
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
        self.left.set()


@dataclass
class World:
    folder: Path
    now: float = 0.0
    journal: Journal = field(default_factory=Journal)
    log: io.BytesIO = field(default_factory=io.BytesIO)

    def __post_init__(self) -> None:
        self.patience = Patience(clock=lambda: self.now)

    @asynccontextmanager
    async def serving(self, *engines: Engine) -> AsyncIterator[int]:
        servers = []
        endpoints: list[Endpoint] = []
        for number, engine in enumerate(engines):
            path = self.folder / str(number)
            servers.append(await asyncio.start_unix_server(engine.serve, path))
            shown = endpoint(str(number), "a")
            endpoints.append(msgspec.structs.replace(shown, address=f"unix:{path}"))
        made = directory(*endpoints)
        fleet = Fleet()
        fleet.update(made, 0.0)
        order = replace(
            exchange(self.journal, Quiet()),
            who=Who(cache=Nowhere(), database=Principals(), pepper=PEPPER, wall_clock=lambda: 1e9),
            directory=lambda: made,
            fleet=fleet,
        )
        api = Api(
            exchange=order,
            infer=order.infer,
            idempotency=cast("Idempotency", None),  # nobody sends a key here
            log=AccessLog(self.log),
            origins=frozenset(),
            proxies=Proxies(()),
            patience=self.patience,
        )
        door = Door(api, limits=Limits())
        server = await asyncio.get_running_loop().create_server(door.connection, "127.0.0.1", 0)
        servers.append(server)
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            for engine in engines:
                engine.told.set()
            door.abort_all()
            api.log.flush()
            for each in servers:
                each.close()
            async with asyncio.timeout(5):
                await asyncio.gather(*(e.left.wait() for e in engines if e.asked.is_set()))
            api.exchange.upstream.close()
            await asyncio.sleep(0)

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.patience.sweep()


@pytest.fixture
def world(home: Path) -> World:
    return World(home)


async def ask(
    port: int, *, stream: bool = True
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    body = {"model": "model", "messages": [{"role": "user", "content": "x"}], "stream": stream}
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(raw.request("/v1/chat/completions", body, key=KEY))
    return reader, writer


async def rest_of(reader: asyncio.StreamReader) -> bytes:
    async with asyncio.timeout(5):
        return await reader.readuntil(b"0\r\n\r\n")


async def test_a_long_wait_is_told_and_then_answered(world: World) -> None:
    engine = Engine()
    async with world.serving(engine) as port:
        reader, writer = await ask(port)
        await engine.asked.wait()
        world.wait(FIRST_SECONDS - 1)
        assert len(world.patience) == 1
        world.wait(1)
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 ")
        assert b"text/event-stream" in head
        world.wait(NEXT_SECONDS - 1)
        world.wait(1)
        engine.told.set()
        said = await rest_of(reader)
        assert said.count(b": waiting\n\n") == 2
        assert said.index(b'"content":"x"') < said.index(b"[DONE]")
        world.wait(100)
        assert len(world.patience) == 0
        writer.close()
    assert world.journal.facts[0].finish_reason != "client_gone"


async def test_a_comment_is_no_answer_and_another_engine_may_still_give_one(world: World) -> None:
    first, second = Engine(answers=False), Engine(answers=False)
    async with world.serving(first, second) as port:
        reader, writer = await ask(port)
        await asyncio.wait(
            [asyncio.create_task(e.asked.wait()) for e in (first, second)],
            return_when=asyncio.FIRST_COMPLETED,
        )
        world.wait(FIRST_SECONDS)
        other = second if first.asked.is_set() else first
        other.answers = True
        first.told.set()
        second.told.set()
        said = await rest_of(reader)
        assert said.count(b"HTTP/1.1") == 1
        assert said.index(b": waiting") < said.index(b'"content":"x"') < said.index(b"[DONE]")
        writer.close()


async def test_what_goes_wrong_after_a_wait_is_an_error_event(world: World) -> None:
    engine = Engine(answers=False)
    async with world.serving(engine) as port:
        reader, writer = await ask(port)
        await engine.asked.wait()
        world.wait(FIRST_SECONDS)
        engine.told.set()
        said = await rest_of(reader)
        event = said.rpartition(b"data: ")[2].partition(b"\n\n")[0]
        assert json.loads(event)["error"]["code"] == "engine_failed"
        assert b"[DONE]" not in said
        assert len(world.patience) == 0
        writer.write(b"GET /v1/nothing HTTP/1.1\r\nhost: x\r\n\r\n")
        assert (await reader.readline()).startswith(b"HTTP/1.1 404 ")
        writer.close()
    assert [json.loads(line).get("code") for line in world.log.getvalue().splitlines()] == [
        "engine_failed",
        "unknown_path",
    ]
    assert not world.journal.facts[0].billable


async def test_a_plain_request_is_never_begun_while_it_waits(world: World) -> None:
    engine = Engine(answers=False)
    async with world.serving(engine) as port:
        reader, writer = await ask(port, stream=False)
        await engine.asked.wait()
        world.wait(FIRST_SECONDS * 3)
        engine.told.set()
        assert (await reader.readline()).startswith(b"HTTP/1.1 502 ")
        writer.close()


async def test_who_leaves_while_waiting_is_forgotten(world: World) -> None:
    engine = Engine()
    async with world.serving(engine) as port:
        _, writer = await ask(port)
        await engine.asked.wait()
        world.wait(FIRST_SECONDS)
        writer.close()
        async with asyncio.timeout(5):
            while len(world.patience):  # noqa: ASYNC110 - polled from outside
                await asyncio.sleep(0.001)
