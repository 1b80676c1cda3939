"""What can go wrong with an object store elsewhere, and what is said of it."""

from __future__ import annotations

import hashlib
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import chain, repeat
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from pytest_django.fixtures import Settings

from kernel.errors import Unavailable
from serving.artifacts.folders import object_store
from serving.artifacts.names import CONFIG
from serving.artifacts.s3 import ATTEMPTS, LARGEST_WHOLE_BYTES, PART_BYTES, S3Store, s3_client
from serving.artifacts.tests import buckets
from serving.artifacts.tests.buckets import BUCKET, Request, answering, refusal, reply, store_at
from serving.services import artifact_validate, artifacts_sweep
from serving.tests import factories, uploads
from serving.tests.test_agent_api import agent
from serving.tests.test_api import client_of
from tenants.tests.factories import make_organization

DATA = b"weights"
SHA256 = hashlib.sha256(DATA).hexdigest()

Call = Callable[[S3Store, Path], object]
CALLS: dict[str, Call] = {
    "put": lambda store, folder: store.put(SHA256, source(folder)),
    "open": lambda store, _: store.open(SHA256).close(),
    "exists": lambda store, _: store.exists(SHA256),
    "size": lambda store, _: store.size(SHA256),
    "delete": lambda store, _: store.delete(SHA256),
}
every_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)


def source(folder: Path) -> Path:
    path = folder / "source"
    path.write_bytes(DATA)
    return path


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port that nobody listens at, and that nobody else gets meanwhile."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@every_call
def test_a_store_that_is_gone(call: Call, closed_port: int, tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=r"does not answer.*AWS_ENDPOINT_URL_S3"):
        call(store_at(f"http://127.0.0.1:{closed_port}"), tmp_path)


@every_call
def test_a_bucket_that_is_not_there(call: Call, moto: str, tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="AWS_STORAGE_BUCKET_NAME"):
        call(store_at(moto, bucket="another"), tmp_path)


@every_call
def test_a_bucket_that_cannot_be(call: Call, moto: str, tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="AWS_STORAGE_BUCKET_NAME"):
        call(store_at(moto, bucket="no bucket"), tmp_path)


@every_call
@pytest.mark.parametrize("code", ["InvalidAccessKeyId", "SignatureDoesNotMatch", "AccessDenied"])
def test_keys_that_are_refused(call: Call, code: str, tmp_path: Path) -> None:
    with (
        answering(lambda request: refusal(request, 403, code)) as address,
        pytest.raises(Unavailable, match="AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
    ):
        call(store_at(address), tmp_path)


def test_keys_that_are_not_set(moto: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(Unavailable, match="AWS_ACCESS_KEY_ID"):
        store_at(moto, read_seconds=9.0).exists(SHA256)


def test_a_profile_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "absent")
    with pytest.raises(Unavailable, match="the server's log says how"):
        s3_client(endpoint="http://127.0.0.1:9", region="")


def test_a_bucket_in_another_region() -> None:
    with (
        answering(lambda request: refusal(request, 400, "AuthorizationHeaderMalformed")) as address,
        pytest.raises(Unavailable, match="AWS_REGION"),
    ):
        store_at(address).open(SHA256)


@every_call
def test_a_store_that_fails_is_asked_a_few_times_and_no_more(call: Call, tmp_path: Path) -> None:
    asked = []

    def fail(request: Request) -> None:
        asked.append(request.command)
        refusal(request, 500, "InternalError")

    with answering(fail) as address, pytest.raises(Unavailable, match="The object store failed"):
        call(store_at(address), tmp_path)
    assert len(asked) == ATTEMPTS


def test_a_store_that_fails_once_is_not_heard_of() -> None:
    answers = chain([503], repeat(200))
    with answering(lambda request: reply(request, next(answers))) as address:
        assert store_at(address).exists(SHA256)


@every_call
def test_a_store_that_is_slow_is_not_waited_for(call: Call, tmp_path: Path) -> None:
    over = threading.Event()
    started = time.monotonic()
    with answering(lambda _: over.wait(30)) as address:
        with pytest.raises(Unavailable, match="does not answer"):
            call(store_at(address, read_seconds=0.2), tmp_path)
        over.set()
    assert time.monotonic() - started < 10


def test_an_answer_that_breaks_off() -> None:
    def half(request: Request) -> None:
        reply(request, 200, b"half", length=1000)
        request.close_connection = True

    with (
        answering(half) as address,
        store_at(address).open(SHA256) as stream,
        pytest.raises(Unavailable),
    ):
        stream.read()


def test_an_answer_that_stops() -> None:
    over = threading.Event()

    def stop(request: Request) -> None:
        reply(request, 200, b"half", length=1000)
        over.wait(30)

    with answering(stop) as address:
        stream = store_at(address, read_seconds=0.2).open(SHA256)
        with stream, pytest.raises(Unavailable, match="does not answer"):
            stream.read()
        over.set()


def test_bytes_that_are_not_those_of_the_digest_are_not_kept(tmp_path: Path) -> None:
    """moto keeps whatever it gets, so this store looks at the checksum itself."""
    kept = []

    def check(request: Request) -> None:
        if request.command == "HEAD":
            reply(request, 404 if "objects" in request.path else 200)
            return
        body = buckets.body_of(request)
        if request.headers["x-amz-checksum-sha256"] == buckets.checksum(body):
            kept.append(body)
            reply(request, 200)
        else:
            reply(request, 400, b"<Error><Code>BadDigest</Code></Error>")

    with answering(check) as address:
        store_at(address).put(SHA256, source(tmp_path))
        with pytest.raises(Unavailable):
            store_at(address).put("a" * 64, source(tmp_path))
    assert kept == [DATA]


def test_a_large_file_carries_a_checksum_with_every_part(moto: str, tmp_path: Path) -> None:
    buckets.make_bucket(moto)
    large, sent = tmp_path / "large", []
    with large.open("wb") as file:
        file.truncate(LARGEST_WHOLE_BYTES + 1)

    def note(request: Any, **_: Any) -> None:
        sent.append(request.headers["x-amz-checksum-sha256"].decode())

    client = s3_client(endpoint=moto, region="us-east-1")
    client.meta.events.register("before-send.s3.UploadPart", note)
    S3Store(client, BUCKET).put("b" * 64, large)
    client.meta.events.unregister("before-send.s3.UploadPart", note)
    whole, rest = buckets.checksum(bytes(PART_BYTES)), buckets.checksum(b"\0")
    assert sorted(sent) == sorted([whole] * 4 + [rest])


PEAK = """
import resource, sys
from pathlib import Path
from serving.artifacts.tests.buckets import store_at
store = store_at(sys.argv[1])
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
store.exists("c" * 64)
before = peak()
store.put("c" * 64, Path(sys.argv[2]))
with store.open("c" * 64) as stream:
    while stream.read(4096):
        pass
print((peak() - before) * 1024)
"""


def test_a_large_file_is_never_in_memory_as_a_whole(moto: str, tmp_path: Path) -> None:
    buckets.make_bucket(moto)
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate(2 * LARGEST_WHOLE_BYTES)
    argv = [sys.executable, "-c", PEAK, moto, str(large)]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert int(done.stdout) < LARGEST_WHOLE_BYTES // 2


@pytest.mark.django_db
def test_an_upload_waits_for_a_store_that_is_gone_and_says_so(
    moto: str, closed_port: int, settings: Settings, tmp_path: Path
) -> None:
    buckets.make_bucket(moto)
    uploads.base()
    client = client_of(make_organization("acme"))
    files = uploads.adapter_bytes(tmp_path)
    artifact = uploads.upload(client, files)
    settings.AWS_STORAGE_BUCKET_NAME = BUCKET
    settings.AWS_ENDPOINT_URL_S3 = f"http://127.0.0.1:{closed_port}"
    artifact_validate(UUID(artifact))
    found = uploads.show(client, artifact)
    assert (found["status"], "does not answer" in found["reason"]) == ("validating", True)
    settings.AWS_ENDPOINT_URL_S3 = moto
    artifacts_sweep()
    assert uploads.show(client, artifact)["status"] == "ready"
    digests = [hashlib.sha256(data).hexdigest() for data in files.values()]
    assert all(map(store_at(moto).exists, digests))
    assert client.delete(f"/api/v1/artifacts/{artifact}").status_code == 204
    assert not any(map(store_at(moto).exists, digests))


@pytest.mark.django_db
def test_agents_fetch_through_the_control_plane(
    moto: str, settings: Settings, tmp_path: Path
) -> None:
    buckets.make_bucket(moto)
    settings.AWS_STORAGE_BUCKET_NAME, settings.AWS_ENDPOINT_URL_S3 = BUCKET, moto
    object_store().put(SHA256, source(tmp_path))
    base = factories.base()
    made = factories.artifact(factories.organization(), base, files={CONFIG: DATA})
    factories.deployment(factories.version(made), on=factories.pool(base))
    answer = agent("tiny-0").get(f"/agent/v1/replicas/tiny-0/artifacts/{made.digest}/{CONFIG}")
    assert b"".join(answer.streaming_content) == DATA  # type: ignore[attr-defined]
