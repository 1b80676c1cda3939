from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from threading import Event

import psycopg
import pytest
from django.utils import timezone
from redis import Redis

from controlplane.following import follow
from controlplane.watching import watch
from serving.contracts import RoutesDocument, document_key, open_document
from serving.controller.tests.fakes import FakeRuntime
from serving.models import Pool
from serving.services import deployment_create
from serving.tests import factories
from tenants.access import Caller

pytestmark = pytest.mark.django_db(transaction=True)
DEADLINE_SECONDS = 20.0


@contextmanager
def watcher() -> Iterator[subprocess.Popen[bytes]]:
    """``manage.py watch`` as it runs in the product."""
    project = Path(__file__).resolve().parents[3]
    environment = os.environ | {"DJANGO_SETTINGS_MODULE": "controlplane.settings.prod"}
    command = [sys.executable, str(project / "manage.py"), "watch", "--skip-checks"]
    process = subprocess.Popen(command, env=environment, cwd=project)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE_SECONDS) == 0


def names(client: Redis) -> set[str]:
    raw = client.get(document_key("routes", "local"))
    if not isinstance(raw, bytes):
        return set()
    document = open_document(raw, key=bytes.fromhex(os.environ["TESSERA_DOCUMENT_KEY"]))[1]
    assert isinstance(document, RoutesDocument)
    return {route.name for route in document.routes}


def until_named(client: Redis, *expected: str) -> float:
    """Seconds until the routes document has exactly these names."""
    started = time.monotonic()
    while names(client) != set(expected):
        assert time.monotonic() - started < DEADLINE_SECONDS, names(client)
        time.sleep(0.01)
    return time.monotonic() - started


def test_a_change_reaches_the_documents_within_moments(redis_client: Redis) -> None:
    base, owner = factories.base(), factories.organization()
    factories.deployment(
        factories.version(factories.artifact(owner, base)), on=factories.pool(base)
    )
    with watcher():
        until_named(redis_client, "support")
        version = factories.version(factories.artifact(owner, base), name="legal")
        deployment_create(
            owner.id, caller=Caller.system("test"), slug="legal", version_id=version.id
        )
        # 0.2 s is the aim; polling alone would need up to 2 s. Machines under test are busy.
        assert until_named(redis_client, "legal", "support") < 1.0


def test_another_watcher_takes_over(redis_client: Redis) -> None:
    base = factories.base()
    pool = factories.pool(base)
    with watcher() as first:
        factories.deployed("acme", on=pool)
        until_named(redis_client, "support")
        with watcher():
            first.kill()
            first.wait()
            redis_client.flushall()
            until_named(redis_client, "support")
        first.returncode = 0  # killed on purpose


def test_a_database_that_went_away_is_waited_for(redis_client: Redis) -> None:
    base = factories.base()
    with watcher():
        pool = factories.pool(base)
        factories.deployed("acme", on=pool)
        until_named(redis_client, "support")
        with psycopg.connect(os.environ["DATABASE_URL"]) as other:
            ended = other.execute(
                "SELECT pg_terminate_backend(l.pid) FROM pg_locks l WHERE l.locktype = 'advisory'"
            ).fetchall()
        assert ended == [(True,)]
        redis_client.flushall()
        until_named(redis_client, "support")


class Changing(FakeRuntime):
    """Reports changes of these replicas; ``between`` is called before the first."""

    def __init__(self, *replicas: str, between: Callable[[], object]) -> None:
        super().__init__()
        self._replicas, self._between = replicas, between

    def watch(self, stop: Event) -> Iterator[str]:
        self._between()
        yield from self._replicas


def settled() -> None:
    Pool.objects.update(look_at=timezone.now() + timedelta(hours=1))


def due() -> set[str]:
    return {pool.base.slug for pool in Pool.objects.filter(look_at__lte=timezone.now())}


def test_a_change_in_a_cluster_becomes_a_hint() -> None:
    for slug in ("tiny", "other"):
        factories.pool(factories.base(slug))
    follow(Changing("tiny-0", "nobody", between=settled), Event())
    assert due() == {"tiny"}


def test_whoever_begins_to_follow_has_everything_looked_at() -> None:
    for slug in ("tiny", "other"):
        factories.pool(factories.base(slug))
    settled()
    follow(Changing(between=lambda: None), Event())
    assert due() == {"tiny", "other"}


def test_nothing_is_published_after_the_end() -> None:
    stop = Event()
    stop.set()

    class Unused:
        def publish(self) -> int:
            raise AssertionError

    watch(Unused(), cell="local", stop=stop)  # type: ignore[arg-type]
