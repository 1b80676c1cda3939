"""``TESSERA_HOME``: where everything of one installation lies, and the secrets it was given."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from kernel.errors import DomainError
from supervisor.folders import private_folder, socket_folder, write_private
from supervisor.leftovers import running_supervisor

PROJECT = Path(__file__).resolve().parents[3]
SECRET_NAMES = (
    "SECRET_KEY",
    "TESSERA_KEY_PEPPER",
    "TESSERA_DOCUMENT_KEY",
    "TESSERA_SALT_KEY",
    "TESSERA_ENGINE_KEY",
)
# What may follow the run folder's own path in the path of an engine's socket.
LONGEST_SOCKET_NAME = 56
# The commands that start a stack where none runs.
_STARTING = frozenset({"up", "demo"})
# The commands that touch no data, and hence need no installation.
_LOOKING = frozenset({"down", "status", "engine_install"})
_FOLDERS = ("run", "logs", "journal", "objects", "documents")


class HomeDamaged(DomainError):
    """A file of the installation cannot be read; the message says which, and the way out."""

    code = "home_damaged"
    status = 500


@dataclass(frozen=True)
class Home:
    """Paths only; nothing is made or read before a method says so."""

    folder: Path

    @classmethod
    def named_by(cls, environment: Mapping[str, str]) -> Home:
        return cls(Path(environment.get("TESSERA_HOME") or PROJECT / ".tessera").absolute())

    @property
    def run(self) -> Path:
        """For sockets and tokens; elsewhere where the installation lies too deep for a socket."""
        return socket_folder(self.folder / "run", longest_name=LONGEST_SOCKET_NAME)

    @property
    def logs(self) -> Path:
        return self.folder / "logs"

    @property
    def demo(self) -> Path:
        """Logins and keys of the demo organizations."""
        return self.folder / "demo.json"

    @property
    def environment(self) -> Path:
        """What the last start filled in, for other commands of this installation."""
        return self.folder / "environment.json"

    def prepare(self) -> None:
        """Make the folders, each for this user only."""
        private_folder(self.folder)
        for name in _FOLDERS:
            private_folder(self.folder / name)

    def secrets(self) -> dict[str, str]:
        """This installation's secrets, made at random the first time."""
        path = self.folder / "secrets.json"
        if not path.exists():
            made = {name: secrets.token_hex(32) for name in SECRET_NAMES}
            write_private(path, json.dumps(made, indent=1))
        way_out = "restore it from a backup: keys and documents depend on it"
        found = read_texts(path, way_out)
        missing = [name for name in SECRET_NAMES if not found.get(name)]
        if missing:
            raise HomeDamaged(f"{path} has no {', '.join(missing)}; {way_out}.")
        return found


def read_texts(path: Path, way_out: str) -> dict[str, str]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise HomeDamaged(f"{path} cannot be read ({error}); {way_out}.") from None
    if not isinstance(found, dict):
        raise HomeDamaged(f"{path} is not a JSON object; {way_out}.")
    return {str(name): str(value) for name, value in found.items()}


def fill_environment(command: str) -> None:
    """Before Django reads its settings: what is not set comes from the installation in its home.

    Commands that start a stack make its installation, while none runs; every other command uses
    the one that is there. What the environment says always wins.
    """
    home = Home.named_by(os.environ)
    if command in _STARTING and running_supervisor(home.run) is None:
        home.prepare()
        found = home.secrets()
    elif home.environment.exists():
        found = read_texts(home.environment, "delete it; `make up` writes it again")
    elif command in _LOOKING:
        found = {"DJANGO_SETTINGS_MODULE": "controlplane.settings.dev"}
    else:
        found = {}
    for name, value in found.items():
        os.environ.setdefault(name, value)
