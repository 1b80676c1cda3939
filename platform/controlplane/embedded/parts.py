"""The parts of one machine, in the order in which they start."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from controlplane.embedded.environment import Environments, Ports
from controlplane.embedded.home import PROJECT, Home
from supervisor.parts import Health, Listeners, Part, Stack
from supervisor.postgres import STARTUP_MESSAGE, PostgresServer
from supervisor.valkey import ValkeyServer

PYTHON = sys.executable
# Threads that answer the portal and the API; each engine agent's long poll occupies one.
WEB_THREADS = 12
WORKER_THREADS = 4
# Celery warns root because of pickled messages; ours are JSON only.
_AS_ROOT = "ignore:You're running the worker with superuser"


@dataclass(frozen=True, kw_only=True)
class Installation:
    """What a start found out. A server that somebody else runs is ``None``."""

    home: Home
    ports: Ports
    environments: Environments
    postgres: PostgresServer | None
    valkey: ValkeyServer | None


def stack(installation: Installation, *, demo: bool, detached: bool) -> Stack:
    """The servers must be prepared: their sockets and passwords are part of the answer."""
    home, ports = installation.home, installation.ports
    environments = installation.environments
    servers = [*_postgres(installation.postgres), *_valkey(installation.valkey)]
    names = tuple(part.name for part in servers)
    parts = [
        *servers,
        _migrate(environments, needs=names),
        *_gateways(environments, ports),
        *_control_plane(environments, ports, home),
        _shipper(environments),
        _announcement(environments, ports, demo=demo, detached=detached),
    ]
    listeners = Listeners(
        host="127.0.0.1",
        port=ports.gateway,
        count=ports.gateway_processes,
        metrics_port=ports.metrics,
    )
    return Stack(
        parts=tuple(parts),
        run=str(home.run),
        logs=str(home.logs),
        listeners=listeners,
        console=not detached,
    )


def _postgres(server: PostgresServer | None) -> list[Part]:
    if server is None:
        return []
    health = Health(
        address=f"unix:{server.socket_path}",
        send=STARTUP_MESSAGE.decode("latin-1"),
        expect="R",
    )
    return [
        Part(
            name="postgres",
            argv=server.argv(),
            health=health,
            stop_signal="SIGINT",
            stop_seconds=20.0,
            advice=(
                f"If its log says that data is damaged: restore {server.folder} from a backup, or "
                "move it away to start with an empty database."
            ),
        )
    ]


def _valkey(server: ValkeyServer | None) -> list[Part]:
    if server is None:
        return []
    health = Health(
        address=f"unix:{server.socket_path}",
        send=f"AUTH {server.password}\r\nPING\r\n",
        expect="+OK\r\n+PONG",
    )
    advice = (
        f"If its log says that data is damaged: `make down`, remove {server.folder} and start "
        "again; nothing is in it that is not made anew."
    )
    return [Part(name="valkey", argv=server.argv(), health=health, quiet=True, advice=advice)]


def _migrate(environments: Environments, *, needs: tuple[str, ...]) -> Part:
    return Part(
        name="migrate",
        argv=_manage("migrate", "--database", "owner", "--skip-checks"),
        env=environments.migrate,
        needs=needs,
        once=True,
    )


def _gateways(environments: Environments, ports: Ports) -> list[Part]:
    return [
        Part(
            name=f"gateway-{index}",
            argv=(PYTHON, "-m", "serving.gateway"),
            env=environments.gateway,
            cwd=str(PROJECT),
            needs=("migrate",),
            health=Health.http(f"tcp:127.0.0.1:{ports.metrics}", "/health"),
            stop_seconds=30.0,
            listen_index=index,
        )
        for index in range(ports.gateway_processes)
    ]


def _control_plane(environments: Environments, ports: Ports, home: Home) -> list[Part]:
    celery = (PYTHON, "-W", _AS_ROOT, "-m", "celery", "--quiet", "-A", "controlplane.celery")
    threads = ("--pool", "threads", "--concurrency", str(WORKER_THREADS))
    quiet = ("--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel", "INFO")
    schedule = ("--schedule", str(home.run / "beat-schedule"), "--pidfile", "")
    return [
        _django("web", _web(ports), environments, health=_web_health(ports)),
        _django("worker", (*celery, "worker", *threads, *quiet), environments),
        _django("beat", (*celery, "beat", *schedule, "--loglevel", "WARNING"), environments),
        _django("watch", _manage("watch", "--skip-checks"), environments),
    ]


def _web(ports: Ports) -> tuple[str, ...]:
    options = {
        "--interface": "wsgi",
        "--host": "127.0.0.1",
        "--port": str(ports.portal),
        "--workers": "1",
        "--blocking-threads": str(WEB_THREADS),
        "--http": "1",
        "--log-level": "error",
    }
    words = [word for option in options.items() for word in option]
    return (PYTHON, "-m", "granian", *words, "--no-ws", "controlplane.wsgi:application")


def _web_health(ports: Ports) -> Health:
    return Health.http(f"tcp:127.0.0.1:{ports.portal}", "/readyz")


def _django(
    name: str,
    argv: tuple[str, ...],
    environments: Environments,
    *,
    health: Health | None = None,
) -> Part:
    return Part(
        name=name,
        argv=argv,
        env=environments.control,
        cwd=str(PROJECT),
        needs=("migrate",),
        health=health,
        stop_seconds=15.0,
    )


def _shipper(environments: Environments) -> Part:
    return Part(
        name="shipper",
        argv=(PYTHON, "-m", "serving.journal.shipper"),
        env=environments.shipper,
        cwd=str(PROJECT),
        needs=("migrate",),
    )


def _announcement(environments: Environments, ports: Ports, *, demo: bool, detached: bool) -> Part:
    """What the person at the terminal is told, once: where things are, and that models answer."""
    gateways = tuple(f"gateway-{index}" for index in range(ports.gateway_processes))
    seed, elsewhere = ["--seed"] * demo, ["--detached"] * detached
    return Part(
        name="announce",
        argv=_manage("announce", *seed, *elsewhere),
        env=environments.control,
        cwd=str(PROJECT),
        needs=("web", "worker", "watch", *gateways),
        once=True,
        bare=True,
    )


def _manage(*words: str) -> tuple[str, ...]:
    return (PYTHON, str(PROJECT / "manage.py"), *words)
