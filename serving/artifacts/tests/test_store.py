"""What an object store promises, of each there is."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from django.http import FileResponse

from kernel.errors import NotFound
from serving.artifacts.s3 import LARGEST_WHOLE_BYTES
from serving.artifacts.store import FolderStore, ObjectStore
from serving.artifacts.tests import buckets

ABSENT = "0" * 64
NO_DIGESTS = ["", "a" * 63, "A" * 64, "../" * 21 + "a", f"{'a' * 63}/"]


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    if request.param == "folder":
        return FolderStore(tmp_path / "objects")
    address = request.getfixturevalue("moto")
    buckets.make_bucket(address)
    return buckets.store_at(address)


def kept(store: ObjectStore, folder: Path, data: bytes) -> str:
    """Put these bytes into the store; their digest."""
    source, sha256 = folder / "source", hashlib.sha256(data).hexdigest()
    source.write_bytes(data)
    store.put(sha256, source)
    return sha256


def read(store: ObjectStore, sha256: str) -> bytes:
    with store.open(sha256) as stream:
        return stream.read()


@pytest.mark.parametrize("data", [b"", b"weights", bytes(range(256)) * 40_000])
def test_what_was_put_is_there(store: ObjectStore, tmp_path: Path, data: bytes) -> None:
    sha256 = kept(store, tmp_path, data)
    assert store.exists(sha256)
    assert store.size(sha256) == len(data)
    assert read(store, sha256) == data


def test_a_large_file_is_kept_as_it_is(store: ObjectStore, tmp_path: Path) -> None:
    source = tmp_path / "large"
    with source.open("wb") as file:
        for number in range(LARGEST_WHOLE_BYTES // 4096 + 1):
            file.write(number.to_bytes(4, "big") * 1024)
    with source.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    store.put(sha256, source)
    with store.open(sha256) as stream:
        assert hashlib.file_digest(stream, "sha256").hexdigest() == sha256  # type: ignore[arg-type]
    assert store.size(sha256) == source.stat().st_size


def test_putting_twice_is_as_once(store: ObjectStore, tmp_path: Path) -> None:
    assert kept(store, tmp_path, b"twice") == kept(store, tmp_path, b"twice")
    assert read(store, hashlib.sha256(b"twice").hexdigest()) == b"twice"


def test_what_is_there_is_never_overwritten(store: ObjectStore, tmp_path: Path) -> None:
    sha256 = kept(store, tmp_path, b"first")
    (tmp_path / "other").write_bytes(b"other")
    store.put(sha256, tmp_path / "other")
    assert read(store, sha256) == b"first"


def test_putting_at_the_same_time_is_fine(store: ObjectStore, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"at once")
    sha256 = hashlib.sha256(b"at once").hexdigest()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: store.put(sha256, source), range(8)))
    assert read(store, sha256) == b"at once"


def test_what_is_absent_is_not_found(store: ObjectStore) -> None:
    assert not store.exists(ABSENT)
    with pytest.raises(NotFound):
        store.size(ABSENT)
    with pytest.raises(NotFound):
        store.open(ABSENT)


@pytest.mark.parametrize("name", NO_DIGESTS)
def test_nothing_but_a_digest_names_an_object(store: ObjectStore, name: str) -> None:
    with pytest.raises(NotFound):
        store.open(name)


def test_what_was_deleted_is_gone_and_may_be_deleted_again(
    store: ObjectStore, tmp_path: Path
) -> None:
    sha256 = kept(store, tmp_path, b"for a while")
    store.delete(sha256)
    store.delete(sha256)
    assert not store.exists(sha256)
    assert kept(store, tmp_path, b"for a while") == sha256
    assert read(store, sha256) == b"for a while"


def test_it_is_streamed_as_files_are(store: ObjectStore, tmp_path: Path) -> None:
    data = b"streamed" * 300_000
    with store.open(kept(store, tmp_path, data)) as stream:
        streamed = FileResponse(stream).streaming_content
        assert b"".join(streamed) == data  # type: ignore[arg-type]
