"""One real PostgreSQL and one real Redis for the whole test session, started when the first test
asks for them.

Tests run as the application's role, so row-level security binds them as it binds the product.
``DATABASE_URL`` and ``REDIS_URL`` in the environment are used instead of starting servers; the
database's name must begin with ``test_``, because tests empty it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
import redis
from django.conf import settings
from django.core.management import call_command
from django.test import TransactionTestCase
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from pytest_django import DjangoDbBlocker

from controlplane.celery import app as celery_app
from controlplane.settings.databases import database
from supervisor.postgres import THROWAWAY as FORGETFUL
from supervisor.postgres import PostgresServer
from supervisor.valkey import THROWAWAY as IN_MEMORY
from supervisor.valkey import ValkeyServer

pytest_plugins = ["controlplane.engine.tests.fixtures"]

TEST_DATABASE = "test_tessera"


ENGINE_TEST_SECONDS = (
    600  # a real engine loads within a minute alone, and within many beside others
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whoever asks for a real engine has time for its start."""
    for item in items:
        if "real_engine_python" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.timeout(ENGINE_TEST_SECONDS))


@pytest.fixture(scope="session")
def run_dir() -> Iterator[Path]:
    """This session's folder: servers' data, sockets, ``TESSERA_HOME``. Removed at the end."""
    folder = settings.TEST_RUN_DIR
    folder.mkdir(mode=0o700, exist_ok=True)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres(run_dir: Path) -> Iterator[str]:
    """The URL of the owner's role on a database of this session's own."""
    if given := os.environ.get("DATABASE_URL"):
        name = str(conninfo_to_dict(given)["dbname"])
        if not name.startswith("test_"):
            pytest.exit(
                f"DATABASE_URL names {name!r}; tests empty their database: call it test_..."
            )
        yield os.environ["TESSERA_DATABASE_OWNER_URL"]
        return
    server = PostgresServer(run_dir / "postgres", settings=FORGETFUL)
    with server.running():
        urls = server.create_database(TEST_DATABASE)
        settings.DATABASES["default"].update(database(urls.app, variable="DATABASE_URL"))
        settings.DATABASES["owner"].update(database(urls.owner, variable="DATABASE_URL"))
        environment = {
            "DATABASE_URL": urls.app,
            "TESSERA_DATABASE_OWNER_URL": urls.owner,
            "TESSERA_DATABASE_GATEWAY_URL": urls.gateway,
            "TESSERA_DATABASE_SHIPPER_URL": urls.shipper,
        }
        with _environment(environment):
            yield urls.owner


@pytest.fixture(scope="session")
def redis_url(run_dir: Path) -> Iterator[str]:
    """The URL of a Redis of this session's own."""
    if given := os.environ.get("REDIS_URL"):
        yield given
        return
    with ValkeyServer(run_dir / "valkey", settings=IN_MEMORY).running() as urls:
        settings.REDIS_URL = urls.redis
        settings.CELERY_BROKER_URL = urls.broker
        celery_app.conf["broker_url"] = urls.broker
        settings.CACHES["default"]["LOCATION"] = urls.redis
        with _environment({"REDIS_URL": urls.redis, "CELERY_BROKER_URL": urls.broker}):
            yield urls.redis


@pytest.fixture
def redis_client(redis_url: str) -> Iterator[redis.Redis]:
    """A client of an emptied Redis."""
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()
        yield client


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Processes that tests start find the same servers."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in values.items():
            patch.setenv(name, value)
        yield


@pytest.fixture(scope="session")
def django_db_setup(
    django_test_environment: None,  # noqa: ARG001 - settings are the tests' by now
    django_db_blocker: DjangoDbBlocker,
    postgres: str,
    redis_url: str,  # noqa: ARG001 - services push to it once they commit
) -> Iterator[None]:
    """Migrate as the owner; empty the tables through the owner after tests that commit."""
    with django_db_blocker.unblock():
        call_command("migrate", database="owner", verbosity=0)
    kept = _tables_with_rows(postgres)
    with pytest.MonkeyPatch.context() as patch:
        # The application's role may not truncate, and Django would try with that.
        patch.setattr(
            TransactionTestCase, "_fixture_teardown", lambda _case: _empty_tables(postgres, kept)
        )
        yield


def _tables_with_rows(owner_url: str) -> frozenset[str]:
    """What migrations filled (plans, permissions, their own record) stays for the whole session."""
    with psycopg.connect(owner_url) as connection:
        return frozenset(name for name in _tables(connection) if _has_rows(connection, name))


def _empty_tables(owner_url: str, kept: frozenset[str]) -> None:
    with psycopg.connect(owner_url, options="-c lock_timeout=20s") as connection:
        names = [name for name in _tables(connection) if name not in kept]
        filled = [name for name in names if _has_rows(connection, name)]
        if not filled:
            return
        # Append-only tables refuse even their owner, also when CASCADE reaches them while empty.
        for name in names:
            connection.execute(_statement("ALTER TABLE {} DISABLE TRIGGER USER", name))
        identifiers = sql.SQL(", ").join(map(sql.Identifier, filled))
        connection.execute(sql.SQL("TRUNCATE {} CASCADE").format(identifiers))
        for name in names:
            connection.execute(_statement("ALTER TABLE {} ENABLE TRIGGER USER", name))


def _tables(connection: psycopg.Connection) -> list[str]:
    rows = connection.execute(
        "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace"
        " AND relkind IN ('r', 'p') AND NOT relispartition ORDER BY relname"
    )
    return [name for (name,) in rows]


def _has_rows(connection: psycopg.Connection, table: str) -> bool:
    connection.execute("SELECT set_config('app.platform', 'on', true)")
    row = connection.execute(_statement("SELECT EXISTS (SELECT FROM {})", table)).fetchone()
    return bool(row and row[0])


def _statement(text: str, table: str) -> sql.Composed:
    return sql.SQL(text).format(sql.Identifier(table))
