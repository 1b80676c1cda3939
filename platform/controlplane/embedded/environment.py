"""Which part is told what: everyone the addresses, nobody a secret it has no use for."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass, fields
from urllib.parse import urlsplit, urlunsplit

from controlplane.embedded.home import SECRET_NAMES, Home
from kernel.errors import Invalid
from supervisor.postgres import PostgresUrls
from supervisor.valkey import ValkeyUrls

DATABASE_NAMES = {
    "app": "DATABASE_URL",
    "owner": "TESSERA_DATABASE_OWNER_URL",
    "gateway": "TESSERA_DATABASE_GATEWAY_URL",
    "shipper": "TESSERA_DATABASE_SHIPPER_URL",
}
REDIS_NAMES = ("REDIS_URL", "CELERY_BROKER_URL")
_SENSITIVE = frozenset((*SECRET_NAMES, *DATABASE_NAMES.values(), *REDIS_NAMES))
_PLAIN = frozenset({"PATH", "HOME", "USER", "LOGNAME", "SHELL", "TZ", "TMPDIR", "TERM"})
_PLAIN_PREFIXES = (
    "LANG",
    "LC_",
    "LD_LIBRARY_PATH",
    "NO_COLOR",
    "TESSERA_CACHE_DIR",
    "XDG_",
    "HF_",
    "VLLM_",
    "OMP_",
    "SSL_CERT_",
    "PYTHON",
)


@dataclass(frozen=True, kw_only=True)
class Ports:
    portal: int
    gateway: int
    metrics: int
    gateway_processes: int

    @classmethod
    def named_by(cls, environment: Mapping[str, str]) -> Ports:
        """Raises ``Invalid`` naming the variable."""
        ports = cls(
            portal=_number(environment, "TESSERA_PORTAL_PORT", 8000),
            gateway=_number(environment, "TESSERA_GATEWAY_PORT", 8080),
            metrics=_number(environment, "TESSERA_GATEWAY_METRICS_PORT", 9464),
            gateway_processes=_number(environment, "TESSERA_GATEWAY_PROCESSES", 2),
        )
        ports._require_different()
        return ports

    def by_variable(self) -> dict[str, int]:
        return {
            "TESSERA_PORTAL_PORT": self.portal,
            "TESSERA_GATEWAY_PORT": self.gateway,
            "TESSERA_GATEWAY_METRICS_PORT": self.metrics,
        }

    def _require_different(self) -> None:
        """Portal and gateway share their ports with their own kind, so no bind would refuse it."""
        found: dict[int, str] = {}
        for variable, port in self.by_variable().items():
            if port in found:
                raise Invalid(f"{found[port]} and {variable} are both {port}; make them differ.")
            found[port] = variable


@dataclass(frozen=True, kw_only=True)
class Environments:
    """The whole environment of each kind of part."""

    supervisor: Mapping[str, str]
    control: Mapping[str, str]
    migrate: Mapping[str, str]
    gateway: Mapping[str, str]
    shipper: Mapping[str, str]

    @property
    def everything(self) -> dict[str, str]:
        """For commands that an operator types beside the running stack."""
        added = (set(self.migrate) | set(self.gateway) | set(self.shipper)) - set(self.supervisor)
        whole = {**self.shipper, **self.gateway, **self.migrate}
        return {name: whole[name] for name in sorted(added)}


def environments(
    given: Mapping[str, str],
    *,
    home: Home,
    secrets: Mapping[str, str],
    databases: Mapping[str, str],
    redis: Mapping[str, str],
) -> Environments:
    """From the caller's environment and what this start found out. Pure.

    The control plane keeps everything the caller gave; the data plane only what is its own.
    Engines, which run tenants' models, are children of the supervisor and get its environment.
    """
    plain = {name: value for name, value in given.items() if _is_plain(name)}
    common = {**_addresses(given, home), **_own(given)}
    whole = {**given, **common, **secrets, **redis, "DATABASE_URL": databases["DATABASE_URL"]}
    control = {name: whole[name] for name in whole if name not in _others_databases()}
    owner = DATABASE_NAMES["owner"]
    return Environments(
        supervisor=plain,
        control=control,
        migrate={**control, owner: databases[owner]},
        gateway={
            **plain,
            **common,
            **_some(secrets, set(SECRET_NAMES) - {"SECRET_KEY"}),
            **_some(redis, {"REDIS_URL"}),
            **_some(databases, {DATABASE_NAMES["gateway"]}),
        },
        shipper={**plain, **common, **_some(databases, {DATABASE_NAMES["shipper"]})},
    )


def given_databases(given: Mapping[str, str]) -> dict[str, str] | None:
    """The caller's PostgreSQL; ``None`` where one is to be started.

    Raises ``Invalid`` where a role's URL is missing: no role may stand in for another.
    """
    found = {name: given[name] for name in DATABASE_NAMES.values() if given.get(name)}
    if not found:
        return None
    missing = sorted(set(DATABASE_NAMES.values()) - set(found))
    if missing:
        raise Invalid(
            f"{', '.join(sorted(found))} is set and {', '.join(missing)} is not. Set all four "
            "(one URL per role, see docs/configuration.md), or none to have PostgreSQL started."
        )
    return found


def given_redis(given: Mapping[str, str]) -> dict[str, str] | None:
    """The caller's Redis; ``None`` where one is to be started. Celery gets its database 1."""
    url = given.get("REDIS_URL")
    if not url:
        return None
    return {"REDIS_URL": url, "CELERY_BROKER_URL": given.get("CELERY_BROKER_URL") or _broker(url)}


def own_databases(urls: PostgresUrls) -> dict[str, str]:
    return {
        DATABASE_NAMES[field.name]: getattr(urls, field.name)
        for field in fields(urls)
        if field.name in DATABASE_NAMES
    }


def own_redis(urls: ValkeyUrls) -> dict[str, str]:
    return {"REDIS_URL": urls.redis, "CELERY_BROKER_URL": urls.broker}


def _broker(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme in {"redis", "rediss"}:
        return urlunsplit(parts._replace(path="/1"))
    raise Invalid(
        "REDIS_URL names a socket; set CELERY_BROKER_URL too, such as "
        "redis+socket://:password@/path/to/redis.sock?virtual_host=1."
    )


def _addresses(given: Mapping[str, str], home: Home) -> dict[str, str]:
    ports = Ports.named_by(given)
    portal = given.get("TESSERA_PORTAL_URL") or f"http://127.0.0.1:{ports.portal}"
    defaults = {
        "TESSERA_CELL": "local",
        "TESSERA_NODE": socket.gethostname(),
        "TESSERA_PORTAL_PORT": str(ports.portal),
        "TESSERA_GATEWAY_PORT": str(ports.gateway),
        "TESSERA_GATEWAY_METRICS_PORT": str(ports.metrics),
        "TESSERA_GATEWAY_PROCESSES": str(ports.gateway_processes),
        "TESSERA_PORTAL_URL": portal,
        "TESSERA_GATEWAY_URL": f"http://127.0.0.1:{ports.gateway}",
        "TESSERA_CONTROL_URL": f"http://127.0.0.1:{ports.portal}",
        # People type localhost; to a browser that is another origin than 127.0.0.1.
        "TESSERA_PORTAL_ORIGINS": f"{portal},http://localhost:{ports.portal}",
        "DJANGO_SETTINGS_MODULE": "controlplane.settings.prod",
    }
    named = {name: given.get(name) or value for name, value in defaults.items()}
    return {
        **named,
        "TESSERA_HOME": str(home.folder),
        "TESSERA_RUN": str(home.run),
        "TESSERA_SUPERVISOR_SOCKET": str(home.run / "supervisor.sock"),
    }


def _own(given: Mapping[str, str]) -> dict[str, str]:
    """Settings of ours that the caller chose, such as time limits; no secret is among them."""
    taken = ("TESSERA_HOME", "TESSERA_RUN", "TESSERA_SUPERVISOR_SOCKET")
    return {
        name: value
        for name, value in given.items()
        if name.startswith("TESSERA_") and value and name not in _SENSITIVE and name not in taken
    }


def _others_databases() -> set[str]:
    return {name for role, name in DATABASE_NAMES.items() if role != "app"}


def _is_plain(name: str) -> bool:
    return name in _PLAIN or name.startswith(_PLAIN_PREFIXES) or name.lower().endswith("_proxy")


def _some(values: Mapping[str, str], names: set[str]) -> dict[str, str]:
    return {name: value for name, value in values.items() if name in names}


def _number(environment: Mapping[str, str], name: str, default: int) -> int:
    text = environment.get(name, "").strip() or str(default)
    if not text.isdigit() or not 0 < int(text) < 65_536:
        raise Invalid(f"{name} must be a number from 1 to 65535, not {text!r}.")
    return int(text)
