"""Probes of ejected replicas, with the time as an argument."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from serving.gateway.ejection import Failure
from serving.gateway.probing import Prober
from serving.gateway.replica import Replica
from serving.gateway.tests.test_where import directory, endpoint
from serving.gateway.upstream import Upstream
from serving.gateway.where import Fleet

WELL = b'{"choices":[{"text":"1"}]}'


class World:
    """An engine that answers as it is told, a replica that was ejected at 100.0, and a prober."""

    def __init__(self) -> None:
        self.now = 100.0
        self.status = 200
        self.asked: list[Any] = []
        self.writers: list[asyncio.StreamWriter] = []
        self.fleet = Fleet()
        self.upstream = Upstream(engine_key=b"k" * 32)
        self.prober = Prober(self.fleet, self.upstream, quiet_seconds=10, clock=lambda: self.now)

    async def start(self) -> None:
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        port = self.server.sockets[0].getsockname()[1]
        there = msgspec.structs.replace(endpoint("a", "a", "b"), address=f"http://127.0.0.1:{port}")
        self.fleet.update(directory(there, endpoint("z", "a")), 0.0)
        self.replica: Replica = next(iter(self.fleet))
        self.fleet.failed(self.replica, Failure.SILENT, self.now)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        head = await reader.readuntil(b"\r\n\r\n")
        size = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        self.asked.append(json.loads(await reader.readexactly(size)))
        writer.write(
            b"HTTP/1.1 %d X\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
            % (self.status, len(WELL), WELL)
        )

    async def look(self, at: float) -> None:
        """What the prober does at an instant, to its end."""
        self.now = at
        for replica in self.prober.due(at):
            await self.prober.probe(replica)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    await made.start()
    yield made
    made.upstream.close()
    made.server.close()
    await made.server.wait_closed()
    for writer in made.writers:
        writer.transport.abort()
    await asyncio.sleep(0.01)  # the loop closes them


async def test_a_probe_is_one_token_of_a_resident_adapter_and_its_answer_opens(
    world: World,
) -> None:
    await world.look(100.4)
    assert world.asked == []
    await world.look(100.5)
    [asked] = world.asked
    assert (asked["model"], asked["max_tokens"]) == ("a", 1)
    assert world.replica.health.is_open
    assert world.replica.new_at == 100.5, "and begins slowly"
    assert world.prober.outcomes == {True: 1}
    await world.look(200.0)
    assert len(world.asked) == 1


async def test_an_error_is_no_answer_and_the_next_probe_takes_another_adapter(
    world: World,
) -> None:
    world.status = 500
    for at in (100.5, 101.4, 101.5, 103.4, 103.5):
        await world.look(at)
    assert [asked["model"] for asked in world.asked] == ["a", "b", "a"]
    assert not world.replica.health.is_open
    assert world.prober.outcomes == {False: 3}


async def test_nobody_there_is_a_failed_probe(world: World) -> None:
    world.server.close()
    await world.server.wait_closed()
    await world.look(100.5)
    assert world.prober.outcomes == {False: 1}


async def test_one_probe_at_a_time(world: World) -> None:
    assert world.prober.due(100.5) == [world.replica]
    assert world.prober.due(100.5) == []
