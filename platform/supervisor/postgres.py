"""An own PostgreSQL: its data folder, its roles, its command line, and whether it answers.

The server's programs are called directly. It listens on a Unix socket in a folder of mode 0700,
asks everyone for a password (scram-sha-256), and knows four roles besides its superuser, each with
a random password. A data folder appears under its name only when it is whole, roles and database
included.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from urllib.parse import quote

from supervisor.binaries import postgres_binaries
from supervisor.errors import DataDamaged, SetupFailed
from supervisor.folders import private_folder, socket_folder, sync_folder, write_private
from supervisor.footing import (
    Account,
    Footing,
    as_account,
    found_footing,
    new_place,
    programs,
    provide_programs,
)
from supervisor.processes import command_line

SUPERUSER = "tessera_superuser"
ROLES = ("tessera_owner", "tessera_app", "tessera_gateway", "tessera_shipper")
DATABASE = "tessera"
SOCKET_NAME = ".s.PGSQL.5432"
START_SECONDS = 30.0
STOP_SECONDS = 30.0

# How a connection begins (protocol 3.0); a server that takes connections answers R.
_PARAMETERS = b"user\0probe\0database\0postgres\0\0"
STARTUP_MESSAGE = struct.pack("!ii", len(_PARAMETERS) + 8, 3 << 16) + _PARAMETERS

# For one machine that also holds an engine: little memory, few processes, no listener.
SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "60",
    "shared_buffers": "32MB",
    "work_mem": "4MB",
    "maintenance_work_mem": "32MB",
    "max_wal_size": "256MB",
    "min_wal_size": "64MB",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "io_method": "sync",
    "max_worker_processes": "2",
    "max_parallel_workers": "0",
    "max_parallel_workers_per_gather": "0",
    "max_parallel_maintenance_workers": "0",
    "autovacuum_worker_slots": "2",
    "autovacuum_max_workers": "1",
    "max_logical_replication_workers": "0",
    "jit": "off",
    "huge_pages": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",
}
# A server whose data nobody will miss: tests.
THROWAWAY = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off"}


@dataclass(frozen=True)
class PostgresUrls:
    """A libpq URL per role; ``superuser`` is for tests that make databases, not for parts."""

    superuser: str
    owner: str
    app: str
    gateway: str
    shipper: str


@dataclass(frozen=True)
class PostgresServer:
    """A server whose data is ``folder``; its socket lies in ``sockets`` (default: beside the data).

    ``settings`` win over the small defaults above. Where the server runs as an account of its own,
    ``folder`` keeps the passwords, and a link to the data and the socket.
    """

    folder: Path
    sockets: Path | None = None
    settings: dict[str, str] = field(default_factory=dict)
    binaries: Path = field(default_factory=postgres_binaries)
    footing: Footing = field(default_factory=found_footing)

    @property
    def data(self) -> Path:
        data = self.folder.absolute() / "data"
        return data.readlink() if data.is_symlink() else data

    @property
    def socket_folder(self) -> Path:
        if self._account is not None:
            return self.data.parent / "socket"
        preferred = self.sockets or self.folder / "socket"
        # The lock file beside the socket has the longest name.
        return socket_folder(preferred, longest_name=len(SOCKET_NAME) + len(".lock"))

    @property
    def socket_path(self) -> Path:
        return self.socket_folder / SOCKET_NAME

    def prepare(self) -> None:
        """Make the data folder where there is none; refuse one that is not whole."""
        folder = self.folder.absolute()
        if folder.exists():
            self._refuse_damage()
            self._forget_dead_server()
            if self._account is not None:
                provide_programs(self._footing, self.binaries, self.data.parent)
            return
        private_folder(folder.parent)
        new = folder.with_name(f"{folder.name}.new")
        shutil.rmtree(new, ignore_errors=True)
        private_folder(new)
        self._create(new)
        new.rename(folder)
        sync_folder(folder.parent)

    def argv(self) -> tuple[str, ...]:
        """Run the server in the foreground; SIGINT stops it without waiting for its clients."""
        settings = {
            **SETTINGS,
            **self.settings,
            "unix_socket_directories": str(self.socket_folder),
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        program = programs(self.binaries, self.data.parent) / "postgres"
        return (*self._footing.prefix, str(program), "-D", str(self.data), *options)

    def urls(self, database: str = DATABASE) -> PostgresUrls:
        """URLs for ``database``; the server need not run, but must be prepared."""
        passwords = self._passwords()
        host = quote(str(self.socket_folder), safe="")

        def url(role: str) -> str:
            return f"postgresql://{role}:{passwords[role]}@/{database}?host={host}"

        return PostgresUrls(url(SUPERUSER), *(url(role) for role in ROLES))

    def answers(self) -> bool:
        """Whether the server takes connections; it does not while it starts or recovers."""
        return asks_for_password(self.socket_path)

    def sql(self, statements: str, *, database: str = "postgres") -> str:
        """Run statements as superuser with the running server's ``psql``; give back the rows."""
        command = [str(self.binaries / "psql"), "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1"]
        command += ["-h", str(self.socket_folder), "-U", SUPERUSER, "-d", database, "-f", "-"]
        return _run(command, statements, environment={"PGPASSWORD": self._passwords()[SUPERUSER]})

    def create_database(self, name: str, *, template: str = "template1") -> PostgresUrls:
        """A further database of the owner's role, with all that ``template`` holds."""
        self.sql(f'CREATE DATABASE "{name}" OWNER tessera_owner TEMPLATE "{template}";')
        return self.urls(name)

    @contextmanager
    def running(self) -> Iterator[PostgresUrls]:
        """Prepare, run and at the end stop the server, for as long as the ``with`` lasts."""
        self.prepare()
        with (self.folder / "server.log").open("ab") as log:
            process = subprocess.Popen(
                self.argv(), stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        try:
            self._wait_until_it_answers(process)
            yield self.urls()
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(STOP_SECONDS)

    @property
    def _account(self) -> Account | None:
        """Whose the data is where it is not ours; known once it is there."""
        if not (self.folder / "data").is_symlink():
            return None
        owner = self.data.stat()
        return Account(owner.st_uid, owner.st_gid)

    @property
    def _footing(self) -> Footing:
        """What was begun by an account goes on with it, whatever this machine allows by now."""
        account = self._account
        return self.footing if account is None else as_account(account, room=self.footing.room)

    def _passwords(self) -> dict[str, str]:
        passwords: dict[str, str] = json.loads((self.folder / "roles.json").read_text())
        return passwords

    def _refuse_damage(self) -> None:
        whole = (self.data / "PG_VERSION").exists() and (self.folder / "roles.json").exists()
        if not whole:
            raise DataDamaged(
                f"{self.folder} is not a whole PostgreSQL data folder; restore it from a backup, "
                "or move it away to start with an empty database."
            )
        if self.footing.account is not None and self._account is None:
            raise SetupFailed(
                f"{self.folder} was begun by root in a user namespace, and this machine refuses "
                "them now: allow them again, or move the folder away to start with an empty "
                "database."
            )
        found = (self.data / "PG_VERSION").read_text().strip()
        wanted = _run([str(self.binaries / "postgres"), "--version"]).split()[-1].split(".")[0]
        if found != wanted:
            raise DataDamaged(
                f"{self.folder} was written by PostgreSQL {found} and this is PostgreSQL {wanted}; "
                "run pg_upgrade on it, or move it away to start with an empty database."
            )

    def _forget_dead_server(self) -> None:
        """Remove the pid file of a server that was killed.

        Its number may be another process's by now, and PostgreSQL would take that one for itself.
        """
        pid_file = self.data / "postmaster.pid"
        with suppress(FileNotFoundError, ValueError, IndexError):
            pid = int(pid_file.read_text().splitlines()[0])
            if os.fsencode(self.data) not in command_line(pid):
                pid_file.unlink()

    def _create(self, folder: Path) -> None:
        passwords = {role: secrets.token_hex(24) for role in (SUPERUSER, *ROLES)}
        write_private(folder / "roles.json", json.dumps(passwords))
        if self.footing.account is None:
            self._create_cluster(folder, passwords)
            return
        place = new_place(self.footing)
        try:
            provide_programs(self.footing, self.binaries, place)
            self._create_cluster(place, passwords)
        except BaseException:
            shutil.rmtree(place, ignore_errors=True)
            raise
        (folder / "data").symlink_to(place / "data")

    def _create_cluster(self, place: Path, passwords: dict[str, str]) -> None:
        password_file = place / "superuser-password"
        self._write(password_file, passwords[SUPERUSER])
        options = ["-D", str(place / "data"), "-U", SUPERUSER, "--auth=scram-sha-256"]
        options += [f"--pwfile={password_file}", "--no-instructions"]
        options += ["--encoding=UTF8", "--locale-provider=builtin", "--locale=C.UTF-8"]
        _run([*self.footing.prefix, str(programs(self.binaries, place) / "initdb"), *options])
        password_file.unlink()
        self._write(place / "data" / "pg_hba.conf", "local all all scram-sha-256\n")
        self._create_roles(place, passwords)

    def _create_roles(self, place: Path, passwords: dict[str, str]) -> None:
        """Without a server: the single-user backend runs the statements and ends."""
        lines = [
            f"CREATE ROLE {role} LOGIN NOSUPERUSER NOBYPASSRLS NOCREATEROLE NOCREATEDB"
            f" PASSWORD '{passwords[role]}';"
            for role in ROLES
        ]
        lines.append(f"CREATE DATABASE {DATABASE} OWNER tessera_owner;")
        lines.append(f"REVOKE CONNECT, TEMPORARY ON DATABASE {DATABASE} FROM PUBLIC;")
        lines.append(f"GRANT CONNECT ON DATABASE {DATABASE} TO {', '.join(ROLES)};")
        program = programs(self.binaries, place) / "postgres"
        command = [*self.footing.prefix, str(program), "--single", "-D", str(place / "data")]
        command += ["-c", "log_min_messages=error", "postgres"]
        _run(command, "\n".join(lines) + "\n", failure_word="ERROR:")

    def _write(self, path: Path, text: str) -> None:
        """As whoever runs the server: in a folder that is not ours, names may lead elsewhere."""
        _run([*self.footing.prefix, "sh", "-c", 'umask 077; cat > "$1"', "sh", str(path)], text)

    def _wait_until_it_answers(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not self.answers():
            if process.poll() is not None or time.monotonic() > deadline:
                raise SetupFailed(
                    f"PostgreSQL did not start; {self.folder / 'server.log'} ends with:\n"
                    + (self.folder / "server.log").read_text()[-2000:]
                )
            time.sleep(0.02)


def asks_for_password(socket_path: Path) -> bool:
    """Begin a connection as far as the server's first message, without a password."""
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(2)
            connection.connect(str(socket_path))
            connection.sendall(STARTUP_MESSAGE)
            return connection.recv(1) == b"R"
    except OSError:
        return False


def _run(
    command: Sequence[str],
    stdin: str = "",
    *,
    environment: Mapping[str, str] = MappingProxyType({}),
    failure_word: str = "",
) -> str:
    """Run to the end and give back what it printed; ``failure_word`` on stderr is a failure."""
    whole = {**os.environ, "LC_ALL": "C.UTF-8", **environment}
    done = subprocess.run(
        command, input=stdin, capture_output=True, text=True, env=whole, check=False
    )
    if done.returncode or (failure_word and failure_word in done.stderr):
        program = next(word for word in command if "/" in word).rsplit("/", 1)[-1]
        raise SetupFailed(f"{program} failed: {(done.stderr or done.stdout).strip()[-2000:]}")
    return done.stdout
