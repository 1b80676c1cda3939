"""As whom PostgreSQL runs. The machine's refusals are arguments; the account and its server real."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from supervisor.binaries import postgres_binaries
from supervisor.errors import FolderUnusable, SetupFailed
from supervisor.footing import (
    Account,
    Footing,
    as_account,
    candidates,
    first_allowed,
    in_namespace,
)
from supervisor.postgres import THROWAWAY, PostgresServer
from supervisor.processes import processes

NOBODY = Account(65_534, 65_534)
STRANGER = Account(54_321, 54_321)
NAMESPACES_REFUSED = "unshare failed: Operation not permitted"

changes_user = pytest.mark.skipif(
    os.geteuid() != 0 or bool(as_account(NOBODY).refusal()),
    reason="only root may run a server as another account",
)


@pytest.fixture
def room() -> Iterator[Path]:
    """A folder that every account may pass through."""
    with tempfile.TemporaryDirectory(prefix="room-") as folder:
        Path(folder).chmod(0o711)
        yield Path(folder) / "tessera"


def server(folder: Path, room: Path) -> PostgresServer:
    return PostgresServer(folder, settings=THROWAWAY, footing=as_account(NOBODY, room=room))


def test_root_prefers_a_namespace_and_takes_an_account_where_that_is_refused() -> None:
    offered = candidates(NOBODY, is_root=True)
    assert first_allowed(offered, lambda _: "") == in_namespace(NOBODY)
    refused = first_allowed(offered, lambda one: "" if one.account else NAMESPACES_REFUSED)
    assert refused == as_account(NOBODY)


def test_a_user_without_an_account_gets_a_namespace_or_a_sentence() -> None:
    offered = candidates(NOBODY, is_root=False)
    assert first_allowed(offered, lambda _: "") == in_namespace(NOBODY)
    with pytest.raises(SetupFailed, match=r"Operation not permitted.*set DATABASE_URL"):
        first_allowed(offered, lambda _: NAMESPACES_REFUSED)


def test_a_namespace_calls_us_by_the_number_of_somebody_that_is_known() -> None:
    assert in_namespace(NOBODY).prefix[-2:] == ("--map-user=65534", "--map-group=65534")


def test_what_the_machine_says_is_the_reason() -> None:
    assert Footing().refusal() == ""
    assert "does-not-exist is missing" in Footing(("does-not-exist",)).refusal()
    assert Footing((sys.executable, "-c", "import sys; sys.exit('no')")).refusal() == "no"


@changes_user
def test_a_server_of_an_account_keeps_its_data_from_everybody_else(
    tmp_path: Path, room: Path
) -> None:
    postgres = server(tmp_path / "postgres", room)
    with postgres.running() as urls:
        with psycopg.connect(urls.owner) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 42 AS value")
        assert _owner_of_running(postgres.data) == NOBODY.uid
        for folder in (postgres.data, postgres.socket_folder, postgres.data.parent):
            found = folder.stat()
            assert (found.st_uid, found.st_mode & 0o777) == (NOBODY.uid, 0o700)
        assert not as_account(STRANGER).may("-x", str(postgres.data.parent))
    roles = (postgres.folder / "roles.json").stat()
    assert (roles.st_uid, roles.st_mode & 0o777) == (os.geteuid(), 0o600)
    assert postgres.data.parent.parent == room


@changes_user
def test_what_an_account_began_it_goes_on_with(tmp_path: Path, room: Path) -> None:
    first = server(tmp_path / "postgres", room)
    with first.running() as urls, psycopg.connect(urls.owner) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS value")
    later = PostgresServer(tmp_path / "postgres", settings=THROWAWAY, footing=in_namespace(NOBODY))
    with later.running() as again, psycopg.connect(again.owner) as connection:
        assert again == urls
        assert connection.execute("SELECT value FROM kept").fetchone() == (42,)
        assert _owner_of_running(later.data) == NOBODY.uid


@changes_user
def test_programs_that_an_account_cannot_reach_are_copied_for_it(
    tmp_path: Path, room: Path
) -> None:
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    package = postgres_binaries().parents[1]
    for folder in (package, package.with_name(f"{package.name}.libs")):
        (private / folder.name).symlink_to(folder)
    postgres = PostgresServer(
        tmp_path / "postgres",
        settings=THROWAWAY,
        binaries=private / package.name / "pginstall" / "bin",
        footing=as_account(NOBODY, room=room),
    )
    for _ in range(2):
        with postgres.running() as urls, psycopg.connect(urls.app) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
    assert str(postgres.data.parent / "programs") in " ".join(postgres.argv())


@changes_user
def test_a_room_that_the_account_cannot_reach_is_refused_and_left_clean(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(FolderUnusable, match="chmod o\\+x"):
        server(tmp_path / "postgres", closed / "room").prepare()
    assert list((closed / "room").iterdir()) == []


@changes_user
def test_a_room_in_which_others_may_write_is_refused(tmp_path: Path, room: Path) -> None:
    room.mkdir()
    room.chmod(0o777)
    with pytest.raises(FolderUnusable, match="must be root's own"):
        server(tmp_path / "postgres", room).prepare()


@changes_user
def test_data_of_a_namespace_is_not_touched_where_namespaces_are_refused_now(
    tmp_path: Path, room: Path
) -> None:
    folder = tmp_path / "postgres"
    (folder / "data").mkdir(parents=True)
    (folder / "data" / "PG_VERSION").write_text("18\n")
    (folder / "roles.json").write_text("{}")
    with pytest.raises(SetupFailed, match="allow them again, or move the folder away"):
        server(folder, room).prepare()


@pytest.mark.skipif(bool(in_namespace(NOBODY).refusal()), reason="user namespaces are refused here")
def test_in_a_namespace_files_stay_our_own(tmp_path: Path) -> None:
    postgres = PostgresServer(
        tmp_path / "postgres", settings=THROWAWAY, footing=in_namespace(NOBODY)
    )
    with postgres.running() as urls, psycopg.connect(urls.app) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
        assert (postgres.data / "PG_VERSION").stat().st_uid == os.geteuid()


def _owner_of_running(data: Path) -> int:
    pid = int((data / "postmaster.pid").read_text().splitlines()[0])
    assert pid in [one.pid for one in processes()]
    return Path(f"/proc/{pid}").stat().st_uid
