"""As whom PostgreSQL runs. It refuses root, and its set-up refuses a user whom no account names.

an ordinary user            as itself
root                        as itself, in a namespace that gives it an ordinary user's number
root, namespaces refused    as an account without rights, with its data where that may reach
a user without an account   in a namespace, or not at all

In a namespace, files stay root's own: nothing is given to another account, no mode is loosened.
"""

from __future__ import annotations

import filecmp
import os
import pwd
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from supervisor.errors import FolderUnusable, SetupFailed

ROOM = Path("/var/lib/tessera")
ACCOUNTS = ("tessera", "nobody")  # in this order; one that nobody else uses is the better one


@dataclass(frozen=True)
class Account:
    uid: int
    gid: int


@dataclass(frozen=True)
class Footing:
    """``prefix`` stands before each of the server's commands.

    With an ``account`` its data is that account's, in a folder of its own below ``room``.
    """

    prefix: tuple[str, ...] = ()
    account: Account | None = None
    room: Path = ROOM

    def refusal(self) -> str:
        """Why this machine does not allow it; empty where it does."""
        try:
            tried = subprocess.run([*self.prefix, "true"], capture_output=True, check=False)
        except FileNotFoundError:
            return f"the program {self.prefix[0]} is missing"
        return tried.stderr.decode(errors="replace").strip() if tried.returncode else ""

    def may(self, *test: str) -> bool:
        """Whether ``test`` says so to whoever runs the server."""
        tried = subprocess.run([*self.prefix, "test", *test], capture_output=True, check=False)
        return tried.returncode == 0


def in_namespace(stranger: Account) -> Footing:
    """Ourselves, called by the number of somebody whom an account names: initdb looks it up."""
    return Footing(
        ("unshare", "--user", f"--map-user={stranger.uid}", f"--map-group={stranger.gid}")
    )


def as_account(account: Account, *, room: Path = ROOM) -> Footing:
    """The kernel forgets the parent-death signal with the change of user; setpriv asks again."""
    ids = (f"--reuid={account.uid}", f"--regid={account.gid}", "--clear-groups")
    return Footing(("setpriv", *ids, "--no-new-privs", "--pdeathsig=KILL"), account, room)


@cache
def found_footing() -> Footing:
    """The first that this user and this machine allow. Raises ``SetupFailed`` where none does."""
    uid = os.geteuid()
    if uid != 0 and _is_named(uid):
        return Footing()
    return first_allowed(candidates(_stranger(), is_root=uid == 0))


def candidates(stranger: Account, *, is_root: bool) -> tuple[Footing, ...]:
    """For those who cannot run it as themselves, in the order of preference."""
    namespace = in_namespace(stranger)
    return (namespace, as_account(stranger)) if is_root else (namespace,)


def first_allowed(
    footings: Iterable[Footing], refusal: Callable[[Footing], str] = Footing.refusal
) -> Footing:
    reasons = []
    for footing in footings:
        reason = refusal(footing)
        if not reason:
            return footing
        reasons.append(reason)
    raise SetupFailed(
        "PostgreSQL runs neither as root nor as a user without an account, and nobody else can be "
        f"had here ({'; '.join(reasons)}). Run as an ordinary user, or set DATABASE_URL to a "
        "PostgreSQL of your own."
    )


def new_place(footing: Footing) -> Path:
    """A folder of the account's own with room for data and sockets; nobody else may enter it."""
    assert footing.account is not None
    _require_room(footing.room)
    place = Path(tempfile.mkdtemp(prefix="postgres-", dir=footing.room))
    for folder in (place / "socket", place):
        folder.mkdir(mode=0o700, exist_ok=True)
        os.chown(folder, footing.account.uid, footing.account.gid)
    if footing.may("-w", str(place)):
        return place
    shutil.rmtree(place)
    raise FolderUnusable(
        f"User {footing.account.uid}, as whom PostgreSQL is to run, cannot reach {footing.room}: "
        "let others pass through the folders above it (chmod o+x), or set DATABASE_URL to a "
        "PostgreSQL of your own."
    )


def provide_programs(footing: Footing, installed: Path, place: Path) -> None:
    """A copy of the programs in ``place`` where the account cannot reach the installed ones."""
    copied = _copied(installed, place)
    if footing.may("-r", str(installed / "postgres")):
        shutil.rmtree(place / "programs", ignore_errors=True)
    elif not copied.exists() or not filecmp.cmp(copied / "postgres", installed / "postgres"):
        shutil.rmtree(place / "programs", ignore_errors=True)
        _copy_package(installed.parents[1], place / "programs")


def programs(installed: Path, place: Path) -> Path:
    """The folder of the programs that a server whose data is in ``place`` runs."""
    copied = _copied(installed, place)
    return copied if copied.exists() else installed


def _copied(installed: Path, place: Path) -> Path:
    return place / "programs" / installed.relative_to(installed.parents[2])


def _copy_package(package: Path, target: Path) -> None:
    """With the libraries that the wheel lays beside its package, where the programs look."""
    unneeded = shutil.ignore_patterns("include", "__pycache__")
    for folder in (package, package.with_name(f"{package.name}.libs")):
        if folder.exists():
            shutil.copytree(folder, target / folder.name, ignore=unneeded)
    for path in (target, *target.rglob("*")):
        mode = path.stat().st_mode
        path.chmod(mode | (0o055 if path.is_dir() or mode & 0o100 else 0o044))


def _require_room(room: Path) -> None:
    try:
        if not room.exists():
            room.mkdir()
            room.chmod(0o711)  # passed through, not listed
    except OSError as error:
        raise FolderUnusable(
            f"PostgreSQL's data would lie in {room}, which cannot be made ({error.strerror}). "
            "Set DATABASE_URL to a PostgreSQL of your own."
        ) from None
    found = room.lstat()
    ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()
    if not ours or stat.S_IMODE(found.st_mode) & 0o022:
        raise FolderUnusable(f"{room} must be root's own, and nobody else's to write in.")


def _is_named(uid: int) -> bool:
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True


def _stranger() -> Account:
    accounts = {entry.pw_name: entry for entry in pwd.getpwall() if entry.pw_uid != 0}
    names = [name for name in (*ACCOUNTS, *accounts) if name in accounts]
    if not names:
        raise SetupFailed(
            "PostgreSQL cannot be set up: /etc/passwd names nobody but root. Add an account "
            "(useradd --system tessera), or set DATABASE_URL to a PostgreSQL of your own."
        )
    found = accounts[names[0]]
    return Account(found.pw_uid, found.pw_gid)
