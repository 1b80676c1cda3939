"""The parts that are killed, under the product's own supervisor, and the documents they need."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import redis

from bench.processes import wait_until
from serving.agent.launch import PLACEHOLDER, current_incarnation, socket_path
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
from supervisor.control import ask
from supervisor.parts import Health, Listeners, Part, Stack

CELL, CLUSTER, POOL, CONTEXT = "local", "local", "pool-1", 4096
ENGINES = ("engine-0", "engine-1")
GATEWAYS = ("gateway-0", "gateway-1")
WORKER = "worker"
KILLABLE = (*ENGINES, *GATEWAYS, "shipper", WORKER)
_PUBLISH_SECONDS = 0.05
_NOTICED_SECONDS = 2.0  # a starved engine may generate that long for a client that is gone
_ROUTES_KEY = document_key("routes", CELL)


@dataclass(frozen=True, slots=True)
class Model:
    """A tenant's model, as the documents name it."""

    organization: str
    project: str
    name: str
    deployment: str
    version: str

    @property
    def adapter(self) -> str:
        return f"{self.organization}--{self.deployment}--0123456789ab"


class KilledStack:
    """A running stack. ``home`` needs a short path: Unix sockets lie below it.

    ``servers`` are parts too, and may be killed; without them the environment says where they are.
    """

    def __init__(
        self,
        home: Path,
        models: list[Model],
        *,
        environment: Mapping[str, str] = os.environ,
        servers: tuple[Part, ...] = (),
    ) -> None:
        self.home = home
        self.models = models
        self._environment = environment
        self._servers = servers
        self._killed: dict[str, int] = {}
        self.gateway_pids: list[int] = []  # as the supervisor last said
        self.gateway_deaths: list[float] = []
        self.port = _free_port()
        self.metrics_port = _free_port()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def engine_journals(self) -> list[Path]:
        return [self.home / f"{name}.jsonl" for name in ENGINES]

    @contextmanager
    def running(self) -> Iterator[None]:
        spec = self.home / "stack.json"
        spec.write_text(self._stack().dump())
        stop = threading.Event()
        publisher = threading.Thread(target=self._publish, args=(stop,))
        with (self.home / "supervisor.log").open("ab") as log:
            supervisor = subprocess.Popen(
                [sys.executable, "-m", "supervisor", str(spec)],
                stdout=log,
                stderr=log,
                env=dict(self._environment),
            )
        publisher.start()
        try:
            wait_until(self._is_up, what="the stack", seconds=60)
            yield
        finally:
            stop.set()
            publisher.join()
            supervisor.terminate()
            supervisor.wait(60)

    def kill(self, name: str) -> bool:
        """Whether the part had a process to kill."""
        pid = self._killed[name] = self._part(name)["pid"]
        if pid:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            if name in GATEWAYS:
                self.gateway_deaths.append(time.time())
        return bool(pid)

    def cut_at(self, instant: float) -> float:
        """When the gateway died whose death an engine noticed at ``instant``, if one did."""
        near = [at for at in self.gateway_deaths if at <= instant <= at + _NOTICED_SECONDS]
        return max(near, default=instant)

    def wait_for_next(self, name: str) -> None:
        """Until the supervisor has another process for a killed part, and that can be used."""

        def is_back() -> bool:
            with suppress(TimeoutError):  # the supervisor may have other things to do
                part = self._part(name)
                return bool(part["state"] == "running" and part["pid"] != self._killed[name])
            return False

        wait_until(is_back, what=f"{name} again", seconds=90)

    def wait_for(self, names: tuple[str, ...]) -> None:
        wait_until(
            lambda: all(self._part(name)["state"] == "running" for name in names),
            what=f"{', '.join(names)} again",
            seconds=60,
        )

    def _is_up(self) -> bool:
        with suppress(OSError):
            return all(self._part(part.name)["state"] == "running" for part in self._parts())
        return False

    def _part(self, name: str) -> dict[str, Any]:
        parts = ask(self.home / "run" / "supervisor.sock", {"op": "list"})["parts"]
        self.gateway_pids = [p["pid"] for p in parts if p["name"] in GATEWAYS and p["pid"]]
        return next(part for part in parts if part["name"] == name)

    def _parts(self) -> tuple[Part, ...]:
        return (
            *self._servers,
            *(self._engine(name) for name in ENGINES),
            *(self._gateway(index) for index in range(len(GATEWAYS))),
            self._part_of("shipper", "serving.journal.shipper", ready_seconds=0.2),
            self._part_of(
                WORKER,
                *("celery", "-A", "controlplane.celery", "worker", "-c", "1", "-l", "WARNING"),
                ready_seconds=0.2,
            ),
        )

    def _stack(self) -> Stack:
        return Stack(
            parts=self._parts(),
            run=str(self.home / "run"),
            logs=str(self.home / "logs"),
            listeners=Listeners(
                host="127.0.0.1",
                port=self.port,
                count=len(GATEWAYS),
                metrics_port=self.metrics_port,
            ),
            console=False,
        )

    def _engine(self, name: str) -> Part:
        options = {
            "--uds": str(socket_path(self._run_dir(name), PLACEHOLDER)),
            "--journal": str(self.home / f"{name}.jsonl"),
            "--api-key": engine_api_key(
                bytes.fromhex(self._environment["TESSERA_ENGINE_KEY"]), name
            ),
            "--max-model-len": str(CONTEXT),
            "--first-token-ms": "50",
            "--token-ms": "40",
        }
        flags = ["--journal-progress", "--enable-prompt-tokens-details"]
        names = ["--served-model-name", "base", *(model.adapter for model in self.models)]
        simulator = [sys.executable, "-m", "bench.enginesim", *_flat(options), *flags, *names]
        launch = ("launch", "--run-dir", str(self._run_dir(name)), "--", *simulator)
        return self._part_of(name, "serving.agent", *launch, ready_seconds=0.2)

    def _gateway(self, index: int) -> Part:
        lock = Health(address=f"file:{self.home}/run/gateway-{index}.metrics.json")
        return self._part_of(
            GATEWAYS[index], "serving.gateway", listen_index=index, health=lock, stop_seconds=30
        )

    def _part_of(self, name: str, module: str, *arguments: str, **fields: Any) -> Part:
        argv = (sys.executable, "-m", module, *arguments)
        return Part(name=name, argv=argv, env={"TESSERA_HOME": str(self.home)}, **fields)

    def _run_dir(self, name: str) -> Path:
        return self.home / name

    # What the agents' reports and the watcher do in the product, once more and smaller

    def _publish(self, stop: threading.Event) -> None:
        published: tuple[tuple[str, str], ...] | None = None
        sequence = 0
        with redis.Redis.from_url(self._environment["REDIS_URL"]) as client:
            while not stop.wait(_PUBLISH_SECONDS):
                answering = tuple(self._answering())
                with suppress(redis.RedisError):  # it is killed, too
                    if answering != published or not client.exists(_ROUTES_KEY):
                        sequence += 1
                        self._send(client, self._endpoints(answering), sequence)
                        self._send(client, self._routes(), sequence)
                        published = answering

    def _answering(self) -> Iterator[tuple[str, str]]:
        for name in ENGINES:
            incarnation = current_incarnation(self._run_dir(name))
            if incarnation and _accepts(socket_path(self._run_dir(name), incarnation)):
                yield name, incarnation

    def _endpoints(self, answering: tuple[tuple[str, str], ...]) -> EndpointsDocument:
        adapters = tuple(ResidentAdapter(name=m.adapter, digest="d") for m in self.models)
        return EndpointsDocument(
            cluster=CLUSTER,
            endpoints=tuple(
                Endpoint(
                    pool=POOL,
                    replica=name,
                    incarnation=incarnation,
                    address=f"unix:{socket_path(self._run_dir(name), incarnation)}",
                    slots=256,
                    adapters=adapters,
                )
                for name, incarnation in answering
            ),
        )

    def _routes(self) -> RoutesDocument:
        pool = Pool(
            id=POOL,
            cluster=CLUSTER,
            base="base",
            context_tokens=CONTEXT,
            default_output_tokens=64,
            slots_per_replica=256,
        )
        return RoutesDocument(cell=CELL, pools=(pool,), routes=tuple(map(_route, self.models)))

    def _send(
        self, client: redis.Redis, document: RoutesDocument | EndpointsDocument, sequence: int
    ) -> None:
        key = bytes.fromhex(self._environment["TESSERA_DOCUMENT_KEY"])
        signed = sign(document, key=key, sequence=sequence, issued_at=time.time())
        client.set(document_key(signed.kind, signed.scope), msgspec.json.encode(signed))
        client.xadd(cell_stream(CELL), {"kind": signed.kind, "scope": signed.scope})


def _route(model: Model) -> Route:
    return Route(
        organization=model.organization,
        project=model.project,
        name=model.name,
        deployment=model.deployment,
        created=1_700_000_000,
        price=Price(version="price-1", input=100, cached_input=10, output=400),
        arms=(
            Arm(
                version=model.version,
                adapter=model.adapter,
                digest="d",
                weight=10_000,
                arm="stable",
                pools=(POOL,),
            ),
        ),
    )


def _accepts(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(str(path))
        except OSError:
            return False
    return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _flat(options: dict[str, str]) -> list[str]:
    return [word for pair in options.items() for word in pair]
