"""What a gateway stands on, all of it real: PostgreSQL with our migrations, Valkey, one tenant,
secrets.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from supervisor.postgres import PostgresServer, PostgresUrls
from supervisor.valkey import ValkeyServer, ValkeyUrls

ROOT = Path(__file__).parent.parent
SECRETS = (
    "SECRET_KEY",
    "TESSERA_KEY_PEPPER",
    "TESSERA_DOCUMENT_KEY",
    "TESSERA_SALT_KEY",
    "TESSERA_ENGINE_KEY",
)
CELL = "local"


@dataclass(frozen=True, slots=True)
class Tenant:
    organization: str
    project: str
    key: str


@dataclass(frozen=True, slots=True)
class Backing:
    """``environment`` is what every part of ours is started with."""

    folder: Path
    environment: dict[str, str]
    tenants: tuple[Tenant, ...]

    @property
    def tenant(self) -> Tenant:
        """The only one, where there is one."""
        return self.tenants[0]

    @property
    def home(self) -> Path:
        return Path(self.environment["TESSERA_HOME"])

    def secret(self, name: str) -> bytes:
        return bytes.fromhex(self.environment[name])


@contextmanager
def backing(folder: Path, *, tiers: Sequence[str] = ("standard",)) -> Iterator[Backing]:
    """Servers of their own in ``folder`` and a tenant per tier, until the ``with`` ends."""
    postgres, valkey = PostgresServer(folder / "postgres"), ValkeyServer(folder / "valkey")
    with postgres.running() as databases, valkey.running() as redis:
        environment = _environment(folder, databases, redis)
        _python(["manage.py", "migrate", "--skip-checks", "--database", "owner"], environment)
        made = json.loads(_python(["-m", "bench.tenant", *tiers], environment))
        yield Backing(folder, environment, tuple(Tenant(**tenant) for tenant in made))


def _environment(folder: Path, databases: PostgresUrls, redis: ValkeyUrls) -> dict[str, str]:
    home = folder / "home"
    home.mkdir(mode=0o700)
    return {
        **os.environ,
        **{name: secrets.token_hex(32) for name in SECRETS},
        "DJANGO_SETTINGS_MODULE": "controlplane.settings.prod",
        "DATABASE_URL": databases.app,
        "TESSERA_DATABASE_OWNER_URL": databases.owner,
        "TESSERA_DATABASE_GATEWAY_URL": databases.gateway,
        "TESSERA_DATABASE_SHIPPER_URL": databases.shipper,
        "REDIS_URL": redis.redis,
        "CELERY_BROKER_URL": redis.broker,
        "TESSERA_HOME": str(home),
        "TESSERA_CELL": CELL,
        "TESSERA_NODE": "bench",
    }


def _python(arguments: list[str], environment: dict[str, str]) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments)} failed:\n{done.stderr[-3000:]}")
    return done.stdout
