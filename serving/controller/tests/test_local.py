"""The local runtime on a real supervisor: its parts are what was rendered, and engines live on."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event, Thread
from uuid import UUID

import pytest
from django.test import Client
from pytest_django.live_server_helper import LiveServer

from controlplane.publishing import documents
from kernel.errors import Unavailable
from serving.contracts import EndpointsDocument, engine_api_key
from serving.controller.local import LocalRuntime, LocalSettings
from serving.controller.plan import make_plan
from serving.controller.reconcile import pool_reconcile
from serving.controller.runtime import Item, ItemState, ObservedItem, Role
from serving.controller.spec import CPU, AdapterSpec, EngineSpec
from serving.errors import EngineNotInstalled
from serving.models import Deployment, EngineReplica, Pool
from serving.tests import uploads
from serving.tests.test_api import client_of, deploy, ready_artifact, version_of
from supervisor.tests.stacks import RunningStack, is_alive, supervised, until
from tenants.scope import platform_scope
from tenants.tests.factories import make_organization

SECRET = bytes.fromhex("44" * 32)  # as in the test settings
SPEC = EngineSpec(
    pool="pool",
    engine="vllm",
    model_name="tiny",
    model_folder="/models/tiny",
    model_digest="0" * 64,
    context_tokens=2048,
    profile=CPU,
    adapters=(AdapterSpec(name="a", digest="1"),),
    replicas=("tiny-0",),
)


def runtime(
    folder: Path,
    *,
    run: Path | None = None,
    control_url: str = "http://127.0.0.1:9",
    engine_python: Path | None = None,
    simulator: bool = True,
) -> LocalRuntime:
    return LocalRuntime(
        LocalSettings(
            supervisor_socket=folder / "run" / "supervisor.sock",
            home=folder,
            run=run or folder / "run",
            control_url=control_url,
            engine_secret=SECRET,
            engine_python=engine_python,
            simulator=simulator,
        )
    )


@contextmanager
def running_stack() -> Iterator[RunningStack]:
    """In a folder with a short name: engines' sockets lie in it."""
    with TemporaryDirectory(prefix="s-") as name, supervised(Path(name)) as running:
        until(lambda: _answers(running), "the supervisor answers")
        yield running


def _answers(stack: RunningStack) -> bool:
    with suppress(OSError):
        return bool(stack.ask(op="list")["pid"])
    return False


@pytest.fixture
def stack() -> Iterator[RunningStack]:
    with running_stack() as running:
        yield running


def rendered(local: LocalRuntime, spec: EngineSpec = SPEC) -> dict[str, Item]:
    return {item.key: item for item in local.render(spec)}


def carry_out(local: LocalRuntime, spec: EngineSpec = SPEC) -> int:
    """Plan and apply once; how much there was to do."""
    plan = make_plan(local.render(spec), local.observe(), local.difference)
    local.apply(plan)
    return len(plan.reasons)


def observed(local: LocalRuntime, role: Role) -> ObservedItem | None:
    return next((item for item in local.observe() if item.role is role), None)


def engine_pid(stack: RunningStack) -> int:
    part = next(one for one in stack.parts() if one["name"].startswith("engine-"))
    return int(part["pid"] or 0)


# Rendering


def test_a_replica_is_an_engine_and_its_agent(tmp_path: Path) -> None:
    items = rendered(runtime(tmp_path, engine_python=Path("/engine/python"), simulator=False))
    assert list(items) == ["engine-tiny-0", "agent-tiny-0"]
    engine = " ".join(items["engine-tiny-0"].content["argv"])
    assert "-m serving.agent launch --run-dir" in engine
    assert "-- /engine/python -m vllm.entrypoints.openai.api_server --model /models/tiny" in engine
    for flag in ("--enable-lora", "--enforce-eager", "--max-lora-rank 64", "--max-model-len 2048"):
        assert flag in engine
    assert "{incarnation}.sock" in engine


def test_no_secret_stands_in_a_command_line(tmp_path: Path) -> None:
    key = engine_api_key(SECRET, "tiny-0")
    for item in rendered(runtime(tmp_path)).values():
        assert not any(key in word or SECRET.hex() in word for word in item.content["argv"])
        assert item.content["env"]["VLLM_API_KEY"] == key


def test_what_an_engine_compiles_is_kept_for_its_next_start(tmp_path: Path) -> None:
    local = runtime(tmp_path, engine_python=Path("/opt/engine/bin/python"), simulator=False)
    kept = rendered(local)["engine-tiny-0"].content["env"]["TORCHINDUCTOR_CACHE_DIR"]
    assert kept == "/opt/engine/compiled", "beside what it was compiled for, not in the run folder"


def test_sockets_lie_where_there_is_room_for_their_names(tmp_path: Path) -> None:
    local = runtime(tmp_path / "deep", run=tmp_path / "run")
    engine = rendered(local)["engine-tiny-0"].content
    assert engine["health"]["address"].startswith(f"unix:{tmp_path / 'run'}/e/")
    assert engine["quiet"], "its start alone is a hundred lines"


def test_rendering_again_is_the_same(tmp_path: Path) -> None:
    assert rendered(runtime(tmp_path)) == rendered(runtime(tmp_path))


def test_without_an_engine_it_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(EngineNotInstalled, match="make up"):
        runtime(tmp_path, simulator=False).render(SPEC)


def test_without_a_supervisor_it_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="make up"):
        runtime(tmp_path).observe()


# On a supervisor


def test_the_second_time_nothing_happens(stack: RunningStack) -> None:
    local = runtime(stack.folder)
    assert carry_out(local) == 2
    until(lambda: observed(local, Role.ENGINE), "an engine")
    pid = engine_pid(stack)
    assert carry_out(local) == 0
    assert engine_pid(stack) == pid


def test_an_engine_is_running_once_it_answers(stack: RunningStack) -> None:
    local = runtime(stack.folder)
    carry_out(local)

    def is_running() -> bool:
        engine = observed(local, Role.ENGINE)
        return engine is not None and engine.state is ItemState.RUNNING

    until(is_running, "the engine answers its health check")


def test_another_description_replaces_the_engine(stack: RunningStack) -> None:
    local = runtime(stack.folder)
    carry_out(local)
    until(lambda: engine_pid(stack), "an engine")
    before = engine_pid(stack)
    larger = replace(SPEC, context_tokens=4096)
    assert carry_out(local, larger) == 1
    until(lambda: engine_pid(stack) not in {0, before}, "another engine")
    assert not is_alive(before)
    assert carry_out(local, larger) == 0


def test_no_replicas_stop_everything(stack: RunningStack) -> None:
    local = runtime(stack.folder)
    carry_out(local)
    until(lambda: engine_pid(stack), "an engine")
    carry_out(local, replace(SPEC, replicas=()))
    until(lambda: not local.observe(), "nothing left")


def test_the_stacks_own_parts_are_not_ours(stack: RunningStack) -> None:
    assert runtime(stack.folder).observe() == ()


def test_changes_are_told_by_their_owner(stack: RunningStack) -> None:
    local, stop = runtime(stack.folder), Event()
    heard: list[str] = []
    listening = Thread(target=lambda: heard.extend(local.watch(stop)))
    listening.start()
    carry_out(local)
    until(lambda: engine_pid(stack), "an engine")
    stop.wait(1.5)
    stop.set()
    listening.join()
    assert set(heard) == {"tiny-0"}


# From a deployment to an engine that answers for it, with the stand-in engine


class Machine:
    """A deployment on a stack with a stand-in engine, reconciled by hand."""

    def __init__(self, stack: RunningStack, url: str) -> None:
        self.stack = stack
        self.local = runtime(stack.folder, control_url=url)

    def pool(self) -> UUID:
        with platform_scope():
            return Pool.objects.get().id

    def status(self) -> str:
        pool_reconcile(self.pool(), runtime_of=lambda _: self.local)
        with platform_scope():
            found = Deployment.objects.first()
        return found.status if found else "gone"

    def incarnation(self) -> str:
        return EngineReplica.objects.get().incarnation

    def endpoints(self) -> EndpointsDocument:
        document = documents("local")[0]
        assert isinstance(document, EndpointsDocument)
        return document


@pytest.mark.django_db(transaction=True)
def test_from_an_upload_to_an_engine_that_answers_and_back(
    live_server: LiveServer, tmp_path: Path
) -> None:
    uploads.base()
    client: Client = client_of(make_organization("acme"))
    made = deploy(client, version_of(client, ready_artifact(client, tmp_path)))
    with running_stack() as stack:
        machine = Machine(stack, live_server.url)
        until(lambda: machine.status() == "ready", "the deployment is ready")
        [endpoint] = machine.endpoints().endpoints
        assert len(endpoint.adapters) == 2  # the base model, and the one that was proven
        assert Path(endpoint.address.removeprefix("unix:")).is_socket()

        os.kill(engine_pid(stack), signal.SIGKILL)
        until(lambda: machine.incarnation() not in {"", endpoint.incarnation}, "another start")
        until(lambda: machine.status() == "ready", "the adapter is proven anew")
        assert machine.endpoints().endpoints[0].adapters == endpoint.adapters

        assert client.delete(f"/api/v1/deployments/{made['id']}").status_code == 202
        until(lambda: machine.status() == "gone", "the deployment is gone")
        assert len(machine.endpoints().endpoints[0].adapters) == 1


def test_engines_outlive_whoever_asked_for_them(stack: RunningStack) -> None:
    """A worker that ends takes no engine with it: they are the supervisor's children."""
    local = runtime(stack.folder)
    carry_out(local)
    until(lambda: engine_pid(stack), "an engine")
    parents = subprocess.run(
        ["ps", "-o", "ppid=", "-p", str(engine_pid(stack))],
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(parents.stdout) == stack.process.pid
