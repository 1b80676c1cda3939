from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from serving.admission.link import RedisLink
from serving.contracts import cell_stream, document_key
from serving.gateway.documents import Documents
from serving.gateway.tests.stack import DOCUMENT_KEY, POOL, Servers, Stack
from serving.gateway.what import Directory


class Heard:
    def __init__(self, link: RedisLink, folder: Path, cell: str) -> None:
        self.directories: list[Directory] = []
        self.revoked: list[str] = []
        self.documents = Documents(
            redis=link, key=DOCUMENT_KEY, cell=cell, folder=folder,
            on_change=self.directories.append, on_revoked=self.revoked.append,
        )  # fmt: skip

    @property
    def slots(self) -> int:
        return self.documents.directory.slots(POOL)


@pytest.fixture
async def link(gateway_servers: Servers) -> AsyncIterator[RedisLink]:
    made = RedisLink(gateway_servers.redis_url, timeout_seconds=5.0)
    running = asyncio.create_task(made.run())
    await made.wait_up()
    yield made
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


@pytest.fixture
def two_engines(bare: Stack) -> Stack:
    bare.tenant("support")
    bare.engine()
    bare.engine()
    return bare


async def test_documents_are_read_kept_on_disk_and_loaded_without_redis(
    two_engines: Stack, link: RedisLink, tmp_path: Path
) -> None:
    two_engines.publish()
    heard = Heard(link, tmp_path, two_engines.cell)
    await heard.documents.refresh()
    assert heard.slots == 128
    later = Heard(RedisLink("unix:///nowhere", timeout_seconds=1.0), tmp_path, two_engines.cell)
    later.documents.load()
    assert later.slots == 128
    assert later.documents.routes_sequence == 1


async def test_pushes_are_followed_and_nothing_is_lost_between(
    two_engines: Stack, link: RedisLink, tmp_path: Path
) -> None:
    two_engines.publish()
    heard = Heard(link, tmp_path, two_engines.cell)
    following = asyncio.create_task(heard.documents.run())
    await _until(lambda: heard.slots == 128)
    two_engines.publish(engines=two_engines.engines[:1])
    await _until(lambda: heard.slots == 64, seconds=1.0)
    for number in range(20):
        two_engines.push_revocation(f"key-{number}")
    await _until(lambda: len(heard.revoked) == 20)
    following.cancel()


async def test_an_unannounced_change_is_found_anyway(
    two_engines: Stack, link: RedisLink, tmp_path: Path
) -> None:
    two_engines.publish()
    heard = Heard(link, tmp_path, two_engines.cell)
    following = asyncio.create_task(heard.documents.run())
    await _until(lambda: heard.slots == 128)
    two_engines.publish(engines=[], announce=False)
    await _until(lambda: heard.slots == 0)
    following.cancel()


async def test_older_forged_and_misplaced_documents_are_refused(
    two_engines: Stack, link: RedisLink, tmp_path: Path
) -> None:
    two_engines.publish()
    first = await link.call("GET", document_key("endpoints", two_engines.cell))
    two_engines.publish(engines=[])
    heard = Heard(link, tmp_path, two_engines.cell)
    await heard.documents.refresh()
    assert heard.slots == 0
    assert not heard.documents.take(first, "endpoints", two_engines.cell)
    routes = await link.call("GET", document_key("routes", two_engines.cell))
    assert not heard.documents.take(routes, "endpoints", two_engines.cell)
    forged = msgspec.json.decode(first)
    forged["sequence"] = 99
    assert not heard.documents.take(msgspec.json.encode(forged), "endpoints", two_engines.cell)
    assert not heard.documents.take(b"{}", "endpoints", two_engines.cell)
    assert heard.slots == 0


async def test_an_unknown_push_is_ignored(
    two_engines: Stack, link: RedisLink, tmp_path: Path
) -> None:
    two_engines.publish()
    heard = Heard(link, tmp_path, two_engines.cell)
    following = asyncio.create_task(heard.documents.run())
    await _until(lambda: heard.slots == 128)
    with two_engines.servers.client() as client:
        client.xadd(cell_stream(two_engines.cell), {"kind": "from the next release"})
    two_engines.push_revocation("key")
    await _until(lambda: heard.revoked == ["key"])
    following.cancel()


async def _until(is_so: object, *, seconds: float = 5.0) -> None:
    assert callable(is_so)
    async with asyncio.timeout(seconds):
        while not is_so():  # noqa: ASYNC110 - polled from outside
            await asyncio.sleep(0.005)
