"""Gateway processes on sockets that outlive them, and the documents that lead them."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from http.client import HTTPConnection, HTTPException
from uuid import NAMESPACE_OID, UUID, uuid5

import msgspec
import redis

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
    sign,
)
from serving.gateway.listening import is_locked, lock_path
from supervisor.parts import Listeners
from supervisor.sockets import open_sockets

from .backing import CELL, ROOT, Backing, Tenant
from .engines import BASE, Simulator
from .processes import running, wait_until

CLUSTER = "local"
POOL = "pool"
VERSION = str(UUID(int=5))
DIGEST = "d" * 64
CONTEXT_TOKENS = 32_768


@dataclass(frozen=True, slots=True)
class Gateways:
    address: str
    pids: tuple[int, ...]


@contextmanager
def gateways(
    backing: Backing, *, processes: int, program: Sequence[str] = ("serving.gateway",)
) -> Iterator[Gateways]:
    """``processes`` of them on one port, all accepting, with the documents that are published.

    ``program`` is a module that runs a gateway, and its arguments.
    """
    run = backing.home / "run"
    run.mkdir(mode=0o700, exist_ok=True)
    with ExitStack() as stack:
        sockets = open_sockets(Listeners(host="127.0.0.1", port=0, count=processes, metrics_port=0))
        stack.callback(sockets.close)
        metrics_port: int = sockets.metrics.getsockname()[1]
        pids = []
        for index in range(processes):
            process = stack.enter_context(
                running(
                    [sys.executable, "-m", *program],
                    log=backing.folder / f"gateway-{index}.log",
                    ready=partial(is_locked, lock_path(run, index)),
                    environment=backing.environment
                    | sockets.environment(index)
                    | {"TESSERA_GATEWAY_PROCESSES": str(processes)},
                    keep_fds=sockets.descriptors(),
                    cwd=ROOT,
                )
            )
            pids.append(process.pid)
        wait_until(lambda: _is_ready(metrics_port), what="gateway with documents")
        port = sockets.gateways[0].getsockname()[1]
        yield Gateways(f"http://127.0.0.1:{port}", tuple(pids))


def publish(
    backing: Backing, simulators: Sequence[Simulator], *, models: Sequence[str], slots: int
) -> None:
    """Sign both documents and push them: every model of the tenant is on every simulator.

    A model's adapter carries the model's name.
    """
    key = backing.secret("TESSERA_DOCUMENT_KEY")
    documents = (
        (CELL, _routes(backing, models, slots)),
        (CLUSTER, _endpoints(simulators, models, slots)),
    )
    with redis.Redis.from_url(backing.environment["REDIS_URL"]) as server:
        for scope, document in documents:
            signed = sign(document, key=key, sequence=time.time_ns(), issued_at=time.time())
            server.set(document_key(signed.kind, scope), msgspec.json.encode(signed))
            server.xadd(cell_stream(CELL), {"kind": signed.kind, "scope": scope})


def _routes(backing: Backing, models: Sequence[str], slots: int) -> RoutesDocument:
    pool = Pool(
        id=POOL,
        cluster=CLUSTER,
        base=BASE,
        context_tokens=CONTEXT_TOKENS,
        default_output_tokens=256,
        slots_per_replica=slots,
    )
    return RoutesDocument(
        cell=CELL,
        pools=(pool,),
        routes=tuple(_route(tenant, name) for tenant in backing.tenants for name in models),
    )


def _route(tenant: Tenant, model: str) -> Route:
    arm = Arm(
        version=VERSION, adapter=model, digest=DIGEST, weight=10_000, arm="stable", pools=(POOL,)
    )
    return Route(
        organization=tenant.organization,
        project=tenant.project,
        name=model,
        deployment=str(uuid5(NAMESPACE_OID, model)),  # usage is booked on ids
        created=0,
        arms=(arm,),
        price=Price(version="price-1", input=100, cached_input=10, output=400),
    )


def _endpoints(
    simulators: Sequence[Simulator], models: Sequence[str], slots: int
) -> EndpointsDocument:
    adapters = tuple(ResidentAdapter(name=model, digest=DIGEST) for model in models)
    return EndpointsDocument(
        cluster=CLUSTER,
        endpoints=tuple(
            Endpoint(
                pool=POOL,
                replica=one.replica,
                incarnation=f"{one.replica}-{one.pid}",
                address=one.address,
                slots=slots,
                adapters=adapters,
            )
            for one in simulators
        ),
    )


def _is_ready(metrics_port: int) -> bool:
    connection = HTTPConnection("127.0.0.1", metrics_port, timeout=2)
    try:
        connection.request("GET", "/ready")
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()
