"""The real server from the wheel, in folders of the test's own."""

from __future__ import annotations

import os
from pathlib import Path

import psycopg
import pytest

from supervisor.errors import DataDamaged
from supervisor.folders import SOCKET_PATH_BYTES
from supervisor.postgres import THROWAWAY, PostgresServer


def server(folder: Path) -> PostgresServer:
    return PostgresServer(folder, settings=THROWAWAY)


def test_every_role_signs_in_with_its_password_and_none_may_bypass_row_security(
    tmp_path: Path,
) -> None:
    postgres = server(tmp_path / "postgres")
    with postgres.running() as urls:
        for role in ("owner", "app", "gateway", "shipper"):
            with psycopg.connect(getattr(urls, role)) as connection:
                row = connection.execute(
                    "SELECT current_user, rolsuper OR rolbypassrls OR rolcreaterole OR rolcreatedb"
                    " FROM pg_roles WHERE rolname = current_user"
                ).fetchone()
                assert row == (f"tessera_{role}", False)
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(urls.app.replace("@", "x@", 1))


def test_nothing_listens_beyond_a_private_folder(tmp_path: Path) -> None:
    postgres = server(tmp_path / "postgres")
    with postgres.running() as urls, psycopg.connect(urls.superuser) as connection:
        assert connection.execute("SHOW listen_addresses").fetchone() == ("",)
        assert postgres.socket_folder.stat().st_mode & 0o777 == 0o700
        assert (postgres.folder / "data").stat().st_mode & 0o777 == 0o700
        assert (postgres.folder / "roles.json").stat().st_mode & 0o777 == 0o600


def test_data_and_passwords_outlive_a_restart_and_a_kill(tmp_path: Path) -> None:
    postgres = server(tmp_path / "postgres")
    with postgres.running() as urls, psycopg.connect(urls.owner) as connection:
        connection.execute("CREATE TABLE kept (value int)")
        connection.execute("INSERT INTO kept VALUES (42)")
    with postgres.running() as again, psycopg.connect(again.owner) as connection:
        assert again == urls
        assert connection.execute("SELECT value FROM kept").fetchone() == (42,)


def test_a_folder_too_deep_for_a_socket_still_works(tmp_path: Path) -> None:
    postgres = server(tmp_path / ("deep" * 30) / "postgres")
    with postgres.running() as urls, psycopg.connect(urls.app) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    assert len(str(postgres.socket_path)) <= SOCKET_PATH_BYTES
    assert postgres.socket_folder.stat().st_mode & 0o777 == 0o700


def test_an_interrupted_creation_is_begun_anew(tmp_path: Path) -> None:
    half = tmp_path / "postgres.new" / "data"
    half.mkdir(parents=True)
    (half / "PG_VERSION").write_text("18\n")
    with server(tmp_path / "postgres").running() as urls, psycopg.connect(urls.app) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    assert not (tmp_path / "postgres.new").exists()


def test_a_killed_server_s_number_may_be_another_process_s_by_now(tmp_path: Path) -> None:
    postgres = server(tmp_path / "postgres")
    postgres.prepare()
    pid_file = postgres.data / "postmaster.pid"
    pid_file.write_text(f"{os.getppid()}\n{postgres.data}\n")
    with postgres.running() as urls, psycopg.connect(urls.app) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
        running = pid_file.read_text()
        postgres.prepare()
        assert pid_file.read_text() == running


@pytest.mark.parametrize(
    ("missing", "sentence"),
    [
        ("data/PG_VERSION", "restore it from a backup, or move it away"),
        ("roles.json", "restore it from a backup, or move it away"),
    ],
)
def test_a_damaged_folder_is_refused_with_the_way_out(
    tmp_path: Path, missing: str, sentence: str
) -> None:
    folder = tmp_path / "postgres"
    (folder / "data").mkdir(parents=True)
    for name in {"data/PG_VERSION", "roles.json"} - {missing}:
        (folder / name).write_text("18\n")
    with pytest.raises(DataDamaged, match=sentence):
        server(folder).prepare()


def test_another_version_s_data_is_refused_by_number(tmp_path: Path) -> None:
    folder = tmp_path / "postgres"
    (folder / "data").mkdir(parents=True)
    (folder / "data" / "PG_VERSION").write_text("15\n")
    (folder / "roles.json").write_text("{}")
    with pytest.raises(DataDamaged, match="written by PostgreSQL 15 and this is PostgreSQL 18"):
        server(folder).prepare()


def test_a_further_database_copies_a_template(tmp_path: Path) -> None:
    postgres = server(tmp_path / "postgres")
    with postgres.running() as urls:
        with psycopg.connect(urls.owner) as connection:
            connection.execute("CREATE TABLE seen AS SELECT 7 AS value")
        copy = postgres.create_database("copy", template="tessera")
        with psycopg.connect(copy.owner) as connection:
            assert connection.execute("SELECT value FROM seen").fetchone() == (7,)
