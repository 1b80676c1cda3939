"""The adapter cache: whole entries with the right bytes, or none."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from serving.agent.errors import ControlUnavailable, FetchFailed
from serving.agent.fetch import IN_USE_SECONDS, AdapterCache
from serving.agent.tests.stand_ins import FakeControlPlane, in_chunks, wanted_adapter
from serving.contracts import WantedAdapter


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    folder = tmp_path / "stored"
    folder.mkdir()
    (folder / "adapter_config.json").write_text("{}")
    (folder / "adapter_model.safetensors").write_bytes(os.urandom(200_000))
    return folder


class Store(FakeControlPlane):
    """Serves one folder; ``spoil`` changes the bytes on their way."""

    def __init__(self, adapter: WantedAdapter, folder: Path) -> None:
        super().__init__()
        self._folders[adapter.digest] = folder
        self.break_after: int | None = None
        self.spoil = False

    @asynccontextmanager
    async def artifact(self, digest: str, name: str) -> AsyncIterator[AsyncIterator[bytes]]:
        self.downloads += 1
        data = (self._folders[digest] / name).read_bytes()
        yield self._travel(data[:-1] + b"?" if self.spoil else data)

    async def _travel(self, data: bytes) -> AsyncIterator[bytes]:
        sent = 0
        async for chunk in in_chunks(data):
            if self.break_after is not None and sent >= self.break_after:
                raise ControlUnavailable("The control plane cannot be reached: cut.")
            sent += len(chunk)
            yield chunk


@pytest.fixture
def adapter(stored: Path) -> WantedAdapter:
    return wanted_adapter("one", stored)


@pytest.fixture
def store(adapter: WantedAdapter, stored: Path) -> Store:
    return Store(adapter, stored)


@pytest.fixture
def cache(tmp_path: Path) -> AdapterCache:
    return AdapterCache(tmp_path / "cache")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def names(cache: AdapterCache) -> list[str]:
    return sorted(path.name for path in cache.folder.iterdir())


async def test_an_adapter_is_fetched_once(
    cache: AdapterCache, adapter: WantedAdapter, store: Store, stored: Path
) -> None:
    for _ in range(2):
        folder = await cache.ensure(adapter, store)
        assert folder == cache.folder / adapter.digest
        assert contents(folder) == contents(stored)
    assert store.downloads == 2
    assert names(cache) == [adapter.digest]


async def test_wrong_bytes_are_refused_and_leave_nothing(
    cache: AdapterCache, adapter: WantedAdapter, store: Store
) -> None:
    store.spoil = True
    with pytest.raises(FetchFailed, match="SHA-256"):
        await cache.ensure(adapter, store)
    assert names(cache) == []


async def test_a_cut_transfer_leaves_nothing_and_can_be_repeated(
    cache: AdapterCache, adapter: WantedAdapter, store: Store
) -> None:
    store.break_after = 65_536
    with pytest.raises(ControlUnavailable):
        await cache.ensure(adapter, store)
    assert names(cache) == []
    store.break_after = None
    assert (await cache.ensure(adapter, store)).is_dir()


async def test_an_entry_that_was_damaged_on_disk_is_fetched_anew(
    cache: AdapterCache, adapter: WantedAdapter, store: Store
) -> None:
    folder = await cache.ensure(adapter, store)
    (folder / "adapter_model.safetensors").write_bytes(b"half")
    await cache.ensure(adapter, store)
    assert (folder / "adapter_model.safetensors").stat().st_size == 200_000


async def test_two_agents_may_bring_the_same_adapter_at_once(
    cache: AdapterCache, adapter: WantedAdapter, store: Store
) -> None:
    other = AdapterCache(cache.folder)
    one, two = await asyncio.gather(cache.ensure(adapter, store), other.ensure(adapter, store))
    assert one == two
    assert names(cache) == [adapter.digest]


@pytest.mark.parametrize(
    ("digest", "name"),
    [("../../etc", "a.json"), ("a" * 64, "../a.json"), ("a" * 64, "/etc/passwd"), ("a" * 64, ".x")],
)
async def test_names_that_lead_elsewhere_are_refused(
    cache: AdapterCache, store: Store, digest: str, name: str
) -> None:
    with pytest.raises(FetchFailed):
        await cache.ensure(WantedAdapter(name="x", digest=digest, files={name: "0" * 64}), store)
    assert store.downloads == 0


async def test_a_full_disk_is_named_as_such(
    cache: AdapterCache, adapter: WantedAdapter, store: Store
) -> None:
    class FullDisk(Store):
        async def _travel(self, data: bytes) -> AsyncIterator[bytes]:
            yield data[:10]
            raise OSError(errno.ENOSPC, "No space left on device")

    full = FullDisk(adapter, store._folders[adapter.digest])
    with pytest.raises(FetchFailed, match=r"disk .* is full"):
        await cache.ensure(adapter, full)
    assert names(cache) == []


def entry(cache: AdapterCache, number: int, *, age: float, size: int = 1000) -> str:
    digest = f"{number:064x}"
    folder = cache.folder / digest
    folder.mkdir()
    (folder / "file").write_bytes(b"x" * size)
    os.utime(folder, (1_000_000 - age,) * 2)
    return digest


def test_clearing_takes_the_longest_unused_first_and_spares_what_is_in_use(tmp_path: Path) -> None:
    cache = AdapterCache(tmp_path / "cache", limit_bytes=1500, clock=lambda: 1_000_000)
    oldest = entry(cache, 1, age=IN_USE_SECONDS + 200)
    older = entry(cache, 2, age=IN_USE_SECONDS + 100)
    used = [entry(cache, number, age=10) for number in (3, 4)]
    cache.clear()
    assert not (cache.folder / oldest).exists()
    assert not (cache.folder / older).exists()
    assert all((cache.folder / digest).exists() for digest in used)


def test_touching_keeps_an_entry(tmp_path: Path) -> None:
    cache = AdapterCache(tmp_path / "cache", limit_bytes=0, clock=lambda: 1_000_000)
    digest = entry(cache, 1, age=IN_USE_SECONDS + 200)
    cache.touch(digest)
    cache.touch("0" * 64)  # not there: nothing happens
    cache.clear()
    assert (cache.folder / digest).exists()


def test_clearing_removes_what_an_agent_that_died_left_behind(tmp_path: Path) -> None:
    cache = AdapterCache(tmp_path / "cache", clock=lambda: 1_000_000)
    for name, age in ((".incoming-old", 7200), (".incoming-new", 10)):
        (cache.folder / name).mkdir()
        os.utime(cache.folder / name, (1_000_000 - age,) * 2)
    cache.clear()
    assert names(cache) == [".incoming-new"]
