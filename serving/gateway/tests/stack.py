"""A gateway under test with everything around it: servers, an engine stand-in, keys, documents."""

from __future__ import annotations

import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_OID, uuid4, uuid5

import msgspec
import psycopg
import redis
from psycopg.types.json import Jsonb

from kernel.ids import ulid
from kernel.keys import key_mac, key_new
from serving.admission.keys import admission_prefix
from serving.contracts import (
    Arm,
    Endpoint,
    EndpointsDocument,
    Pool,
    Price,
    ResidentAdapter,
    Route,
    RoutesDocument,
    cell_stream,
    document_key,
    engine_api_key,
    sign,
)
from serving.gateway.tests import raw
from supervisor.postgres import THROWAWAY as FORGETFUL
from supervisor.postgres import PostgresServer
from supervisor.valkey import THROWAWAY as IN_MEMORY
from supervisor.valkey import ValkeyServer

PEPPER, DOCUMENT_KEY, SALT_KEY, ENGINE_KEY = (bytes([n]) * 32 for n in (1, 2, 3, 4))
POOL = "pool-1"
CONTEXT_TOKENS = 4096
PRICE = Price(version="price-1", input=100, cached_input=10, output=400)  # nano-USD a token

# The function that gateways call, over a table of this test's own.
PRINCIPALS = """
CREATE TABLE principals (
    mac bytea PRIMARY KEY, key_id text, organization text, project text, scopes text[],
    models text[], environment text, version bigint, active boolean, expires_at double precision,
    tier text, weight int, billing text, limits jsonb
);
CREATE FUNCTION tessera_principal_2(wanted bytea)
RETURNS TABLE (
    key_id text, organization text, project text, scopes text[], models text[], environment text,
    version bigint, active boolean, expires_at double precision,
    tier text, weight int, billing text, limits jsonb
) LANGUAGE sql STABLE SECURITY DEFINER AS $$
    SELECT key_id, organization, project, scopes, models, environment, version, active, expires_at,
           tier, weight, billing, limits
    FROM principals WHERE mac = wanted
$$;
GRANT EXECUTE ON FUNCTION tessera_principal_2(bytea) TO tessera_gateway;
"""


# Keys of requests, as PostgreSQL keeps them: the product's own functions over tables of this test's.
KEYS = """
CREATE TABLE usage_event (event_id text, billable boolean);
CREATE TABLE idempotency_key (
    key_hash bytea CONSTRAINT idempotency_key_pkey PRIMARY KEY, body_hash bytea, event_id text,
    organization_id uuid, project_id uuid, claimed_at timestamptz DEFAULT now()
);
"""


class NotInTime(AssertionError):
    """What a test waited for did not happen."""


def until(is_so: Callable[[], Any], *, seconds: float = 30.0, what: str = "it") -> Any:
    """What ``is_so`` gives once that is true."""
    deadline = time.monotonic() + seconds
    while not (found := is_so()):
        if time.monotonic() > deadline:
            raise NotInTime(f"{what} did not happen within {seconds} s")
        time.sleep(0.01)
    return found


@dataclass
class Tenant:
    """An organization with one project and, for each name, a model of its own."""

    organization: str
    project: str
    key: str
    key_id: str
    models: tuple[str, ...]

    def adapter(self, name: str) -> str:
        return f"{self.organization}--{name}--0123456789ab"


@dataclass
class Engine:
    """One start of the engine simulator."""

    replica: str
    incarnation: str
    process: subprocess.Popen[bytes]
    address: str
    socket: Path
    journal: Path
    slots: int

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)

    def pause(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def lines(self, at: str | None = None) -> list[dict[str, Any]]:
        """What it wrote into its own journal."""
        if not self.journal.exists():
            return []
        found = [json.loads(line) for line in self.journal.read_text().splitlines()]
        return [line for line in found if at is None or line["at"] == at]

    def order(self, **fault: Any) -> None:
        """Order a fault."""
        self.request("POST", "/sim/faults", json.dumps(fault).encode())

    def request(self, method: str, path: str, body: bytes = b"") -> None:
        """Ask one of its own routes, past the gateway."""
        key = engine_api_key(ENGINE_KEY, self.replica)
        request = (
            f"{method} {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n"
            f"connection: close\r\ncontent-length: {len(body)}\r\n\r\n"
        ).encode() + body
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(self.socket))
            connection.sendall(request)
            answer = connection.recv(65536)
        assert b" 200 " in answer.split(b"\r\n")[0], answer


@dataclass
class Servers:
    """PostgreSQL and Redis of a test session, or of one test that takes them down."""

    folder: Path
    database_owner: str
    database_gateway: str
    redis_url: str

    def client(self) -> redis.Redis:
        return redis.Redis.from_url(self.redis_url)


@contextmanager
def servers(folder: Path) -> Iterator[Servers]:
    postgres = PostgresServer(folder / "postgres", settings=FORGETFUL)
    valkey = ValkeyServer(folder / "valkey", settings=IN_MEMORY)
    with postgres.running(), valkey.running() as urls:
        made = prepare_database(postgres)
        yield Servers(folder, made[0], made[1], urls.redis)


def prepare_database(server: PostgresServer) -> tuple[str, str]:
    """URLs of owner and gateway on a database that has the function."""
    urls = server.create_database(f"test_{ulid().lower()}")
    with psycopg.connect(urls.owner, autocommit=True) as connection:
        connection.execute(PRINCIPALS)
        _make_keys(connection)
    return urls.owner, urls.gateway


def _make_keys(connection: psycopg.Connection) -> None:
    made = importlib.import_module("billing.migrations.0005_idempotency_keys")
    connection.execute(KEYS)
    for function in (made.CLAIM, made.RELEASE):
        connection.execute(function)
    for name in made.SIGNATURES:
        connection.execute(f"GRANT EXECUTE ON FUNCTION {name} TO tessera_gateway")


@dataclass
class Stack:
    """Everything that one test changes: tenants, engines, documents, gateway processes."""

    servers: Servers
    home: Path
    engines: list[Engine] = field(default_factory=list)
    tenants: list[Tenant] = field(default_factory=list)
    gateways: list[subprocess.Popen[bytes]] = field(default_factory=list)
    sockets: list[socket.socket] = field(default_factory=list)
    sequence: int = 0
    cell: str = field(default_factory=lambda: f"cell-{uuid4().hex[:8]}")

    @property
    def slots_key(self) -> str:
        return f"{admission_prefix(self.cell)}slots:{POOL}"

    def tenant(self, *models: str, **changes: Any) -> Tenant:
        tenant = Tenant(
            organization=uuid4().hex,
            project=uuid4().hex,
            key=key_new("live"),
            key_id=f"key-{uuid4().hex[:8]}",
            models=models or ("support",),
        )
        self.tenants.append(tenant)
        self.enter_key(tenant.key, tenant, key_id=tenant.key_id, **changes)
        return tenant

    def enter_key(self, key: str, tenant: Tenant, **changes: Any) -> None:
        row = {
            "mac": key_mac(PEPPER, key),
            "organization": tenant.organization,
            "project": tenant.project,
            "scopes": ["inference"],
            "models": [],
            "environment": "live",
            "version": 1,
            "active": True,
            "expires_at": None,
            "tier": "standard",
            "weight": 1,
            "billing": "postpaid",
            "limits": (),
            **changes,
        }
        row["limits"] = Jsonb(msgspec.to_builtins(row["limits"]))
        columns = ", ".join(row)
        places = ", ".join(f"%({name})s" for name in row)
        with psycopg.connect(self.servers.database_owner, autocommit=True) as connection:
            connection.execute(f"INSERT INTO principals ({columns}) VALUES ({places})", row)

    def change_key(self, key_id: str, change: str) -> None:
        with psycopg.connect(self.servers.database_owner, autocommit=True) as connection:
            connection.execute(
                f"UPDATE principals SET {change}, version = version + 1 WHERE key_id = %s",
                (key_id,),
            )

    def push_revocation(self, key_id: str) -> None:
        with self.servers.client() as client:
            client.xadd(cell_stream(self.cell), {"kind": "revoked", "key_id": key_id})

    def engine(
        self,
        *arguments: str,
        replica: str = "",
        slots: int = 64,
        names: tuple[str, ...] | None = None,
    ) -> Engine:
        """A simulator that holds every tenant's adapters, or the names given."""
        replica = replica or f"replica-{len(self.engines)}"
        incarnation = ulid()
        path = self.home / f"{incarnation}.sock"
        journal = self.home / f"{incarnation}.jsonl"
        if names is None:
            names = tuple(t.adapter(name) for t in self.tenants for name in t.models)
        process = subprocess.Popen(
            [
                sys.executable, "-m", "bench.enginesim", "--uds", str(path),
                "--journal", str(journal), "--served-model-name", "base", *names,
                "--api-key", engine_api_key(ENGINE_KEY, replica),
                "--max-model-len", str(CONTEXT_TOKENS), "--enable-prompt-tokens-details",
                *arguments,
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        until(path.exists, what="the simulator's socket")
        engine = Engine(replica, incarnation, process, f"unix:{path}", path, journal, slots)
        self.engines.append(engine)
        return engine

    def publish(self, *, engines: Sequence[Engine] | None = None, announce: bool = True) -> None:
        """Sign and store both documents, and push."""
        self.sequence += 1
        shown = list(self.engines if engines is None else engines)
        with self.servers.client() as client:
            for document in (self.endpoints(shown), self.routes()):
                signed = sign(
                    document, key=DOCUMENT_KEY, sequence=self.sequence, issued_at=time.time()
                )
                client.set(document_key(signed.kind, signed.scope), msgspec.json.encode(signed))
                if announce:
                    entry: dict[Any, Any] = {"kind": signed.kind, "scope": signed.scope}
                    client.xadd(cell_stream(self.cell), entry)

    def announce(self) -> None:
        """Say that documents changed, whether they did or not."""
        with self.servers.client() as client:
            client.xadd(cell_stream(self.cell), {"kind": "routes", "scope": self.cell})

    def accepts(self, process: subprocess.Popen[bytes]) -> bool:
        """Whether a process holds a lock, hence accepts."""
        held = Path("/proc/locks").read_text().split()
        return str(process.pid) in held

    def routes(self) -> RoutesDocument:
        pool = Pool(
            id=POOL,
            cluster=self.cell,
            base="base",
            context_tokens=CONTEXT_TOKENS,
            default_output_tokens=256,
            slots_per_replica=64,
        )
        routes = tuple(_route(tenant, name) for tenant in self.tenants for name in tenant.models)
        return RoutesDocument(cell=self.cell, pools=(pool,), routes=routes)

    def endpoints(self, engines: Sequence[Engine]) -> EndpointsDocument:
        adapters = tuple(
            ResidentAdapter(name=t.adapter(name), digest=f"digest-{name}")
            for t in self.tenants
            for name in t.models
        )
        return EndpointsDocument(
            cluster=self.cell,
            endpoints=tuple(
                Endpoint(
                    pool=POOL,
                    replica=engine.replica,
                    incarnation=engine.incarnation,
                    address=engine.address,
                    slots=engine.slots,
                    adapters=adapters,
                )
                for engine in engines
            ),
        )

    def environment(self, **changes: str) -> dict[str, str]:
        return {
            **os.environ,
            "REDIS_URL": self.servers.redis_url,
            "TESSERA_DATABASE_GATEWAY_URL": self.servers.database_gateway,
            "TESSERA_HOME": str(self.home),
            "TESSERA_CELL": self.cell,
            "TESSERA_NODE": "node",
            "TESSERA_KEY_PEPPER": PEPPER.hex(),
            "TESSERA_DOCUMENT_KEY": DOCUMENT_KEY.hex(),
            "TESSERA_SALT_KEY": SALT_KEY.hex(),
            "TESSERA_ENGINE_KEY": ENGINE_KEY.hex(),
            "TESSERA_PORTAL_ORIGINS": "http://portal.test",
            "TESSERA_GATEWAY_PROCESSES": str(max(1, len(self.sockets))),
            **changes,
        }

    def listen(self, processes: int = 1) -> None:
        """The sockets, as the supervisor would hold them: one per process, and one for metrics."""
        first = socket.create_server(("127.0.0.1", 0), reuse_port=True, backlog=2048)
        self.sockets = [first]
        for _ in range(processes - 1):
            self.sockets.append(
                socket.create_server(first.getsockname(), reuse_port=True, backlog=2048)
            )
        self.metrics_socket = socket.create_server(("127.0.0.1", 0))

    def start(self, index: int = 0, **changes: str) -> subprocess.Popen[bytes]:
        """A gateway process on the sockets of ``listen``."""
        descriptors = [s.fileno() for s in (*self.sockets, self.metrics_socket)]
        with (
            (self.home / f"access-{index}.jsonl").open("ab") as access,
            (self.home / f"gateway-{index}.log").open("ab") as errors,
        ):
            process = subprocess.Popen(
                [sys.executable, "-m", "serving.gateway"],
                env=self.environment(
                    TESSERA_LISTEN_FDS=",".join(map(str, descriptors[:-1])),
                    TESSERA_LISTEN_INDEX=str(index),
                    TESSERA_METRICS_FD=str(descriptors[-1]),
                    **changes,
                ),
                pass_fds=descriptors,
                stdout=access,
                stderr=errors,
            )
        self.gateways.append(process)
        return process

    def serve(
        self, processes: int = 1, *, engines: Sequence[Engine] | None = None, **changes: str
    ) -> None:
        """Publish and start, and wait until every process knows its routes and Redis."""
        self.publish(engines=engines)
        self.listen(processes)
        for index in range(processes):
            self.start(index, **changes)
        until(lambda: self.is_serving(processes), seconds=30, what="a gateway that serves")

    def is_serving(self, processes: int) -> bool:
        if any(process.poll() is not None for process in self.gateways[-processes:]):
            raise AssertionError((self.home / "gateway-0.log").read_text())
        ready = [self.gauge(i, "tessera_gateway_redis_up") for i in range(processes)]
        routes = [self.gauge(i, "tessera_gateway_routes_sequence") for i in range(processes)]
        return all(ready) and all(sequence >= self.sequence for sequence in routes)

    def gauge(self, index: int, name: str) -> float:
        path = self.home / "run" / f"gateway-{index}.metrics.json"
        if not path.exists():
            return 0.0
        return float(json.loads(path.read_bytes())["gauges"].get(name, 0.0))

    def slots_held(self) -> int:
        """As Redis has it."""
        with self.servers.client() as client:
            return int(client.zcard(self.slots_key))

    def longest_lease_seconds(self) -> float:
        with self.servers.client() as client:
            found = client.zrange(self.slots_key, -1, -1, withscores=True)
            seconds, micros = client.time()
            return float(found[0][1] / 1000 - seconds - micros / 1e6)

    def end_leases(self) -> None:
        """As if their time had passed."""
        with self.servers.client() as client:
            for grant in client.zrange(self.slots_key, 0, -1):
                client.zadd(self.slots_key, {grant: 1})

    def rss_bytes(self) -> int:
        text = Path(f"/proc/{self.gateways[0].pid}/status").read_text()
        line = next(line for line in text.splitlines() if line.startswith("VmRSS"))
        return int(line.split()[1]) * 1024

    def asked_first(self, tenant: Tenant) -> Engine:
        """The engine that a lone request of the tenant's goes to."""
        body = {"model": tenant.models[0], "prompt": "x", "max_tokens": 1}
        data = raw.request("/v1/completions", body, key=tenant.key)
        assert raw.ask(self.port, data).status == 200
        return next(engine for engine in self.engines if engine.lines("begin"))

    def counter(self, name: str) -> float:
        """Over all processes, as the last snapshots have it."""
        total = 0.0
        for path in (self.home / "run").glob("gateway-*.metrics.json"):
            counters = json.loads(path.read_bytes())["counters"]
            total += sum(v for full, v in counters.items() if full.partition("{")[0] == name)
        return total

    def labelled(self, full: str) -> float:
        """The first process's counter with exactly these labels, as its last snapshot has it."""
        path = self.home / "run" / "gateway-0.metrics.json"
        return float(json.loads(path.read_bytes())["counters"].get(full, 0.0))

    @property
    def port(self) -> int:
        return int(self.sockets[0].getsockname()[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def metrics_url(self) -> str:
        return f"http://127.0.0.1:{self.metrics_socket.getsockname()[1]}"

    def access_lines(self, index: int = 0) -> list[dict[str, Any]]:
        path = self.home / f"access-{index}.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()]

    def close(self) -> None:
        for process in self.gateways:
            if process.poll() is None:
                process.kill()
            process.wait(10)
        for engine in self.engines:
            engine.process.kill()
            engine.process.wait(10)
        for listening in self.sockets:
            listening.close()
        if self.sockets:
            self.metrics_socket.close()


@contextmanager
def stack(servers: Servers, home: Path) -> Iterator[Stack]:
    made = Stack(servers, home)
    try:
        yield made
    finally:
        made.close()


def _route(tenant: Tenant, name: str) -> Route:
    return Route(
        organization=tenant.organization,
        project=tenant.project,
        name=name,
        deployment=str(uuid5(NAMESPACE_OID, f"deployment-{name}")),
        created=1_700_000_000,
        price=PRICE,
        arms=(
            Arm(
                version=str(uuid5(NAMESPACE_OID, f"version-{name}")),
                adapter=tenant.adapter(name),
                digest=f"digest-{name}",
                weight=10_000,
                arm="stable",
                pools=(POOL,),
            ),
        ),
    )
