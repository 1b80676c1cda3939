"""The whole agent between a stand-in control plane and a stand-in engine."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx2
import pytest

from serving.agent.agent import Agent
from serving.agent.engine import Engine
from serving.agent.errors import ControlUnavailable
from serving.agent.fetch import AdapterCache
from serving.agent.launch import announce, socket_path
from serving.agent.metrics_socket import metrics_path
from serving.agent.pace import Pace
from serving.agent.tests.http_server import serve
from serving.agent.tests.stand_ins import FakeControlPlane, FakeEngine, eventually
from serving.contracts import AgentOrders

QUICK = Pace(
    look_seconds=0.05,
    health_seconds=0.05,
    probe_seconds=0.3,  # several health checks lie between two tokens, as in earnest
    sweep_seconds=0.05,
    withdraw_seconds=0.5,
)


@pytest.fixture
def run_dir() -> Iterator[Path]:
    with TemporaryDirectory(prefix="agent-") as folder:
        yield Path(folder)


@pytest.fixture
def control() -> FakeControlPlane:
    return FakeControlPlane()


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter_config.json").write_text("{}")
    (folder / "adapter_model.safetensors").write_bytes(os.urandom(1000))
    return folder


@asynccontextmanager
async def running_agent(control: FakeControlPlane, run_dir: Path) -> AsyncIterator[Agent]:
    agent = Agent(
        replica="replica-1",
        run_dir=run_dir,
        control=control,
        cache=AdapterCache(run_dir / "cache"),
        connect=lambda address: Engine(address, key="key"),
        pace=QUICK,
    )
    task = asyncio.create_task(agent.run())
    try:
        yield agent
        assert not task.done(), task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def started(engine: FakeEngine, run_dir: Path, incarnation: str) -> AsyncIterator[None]:
    announce(run_dir, incarnation)
    async with serve(engine.handle, socket_path(run_dir, incarnation)):
        yield
    socket_path(run_dir, incarnation).unlink(missing_ok=True)


async def test_an_ordered_adapter_is_proven_and_its_path_is_its_digest(
    control: FakeControlPlane, engine: FakeEngine, run_dir: Path, adapter: Path
) -> None:
    control.order({"one": adapter})
    async with started(engine, run_dir, "01"), running_agent(control, run_dir):
        await eventually(lambda: control.states() == {"one": "proven"})
    report = control.last
    assert (report.incarnation, report.state) == ("01", "ready")
    assert report.address == f"unix:{run_dir}/01.sock"
    assert Path(engine.loaded["one"]).name == report.adapters[0].digest


async def test_an_adapter_without_effect_is_never_proven_and_leaves_the_engine(
    control: FakeControlPlane, engine: FakeEngine, run_dir: Path, adapter: Path
) -> None:
    engine.without_effect.add("zeros")
    control.order({"zeros": adapter})
    async with started(engine, run_dir, "01"), running_agent(control, run_dir):
        await eventually(lambda: control.states() == {"zeros": "no_effect"})
        await eventually(lambda: engine.loaded == {})
    assert "proven" not in control.every_state_of("zeros")


async def test_an_adapter_that_computes_no_numbers_fails(
    control: FakeControlPlane, engine: FakeEngine, run_dir: Path, adapter: Path
) -> None:
    engine.not_a_number.add("nan")
    control.order({"nan": adapter})
    async with started(engine, run_dir, "01"), running_agent(control, run_dir):
        await eventually(lambda: control.states() == {"nan": "failed"})
    assert "NaN" in control.reason_of("nan")


async def test_a_new_incarnation_starts_from_nothing_and_is_proven_again(
    control: FakeControlPlane, run_dir: Path, adapter: Path
) -> None:
    control.order({"one": adapter})
    async with running_agent(control, run_dir):
        async with started(FakeEngine(), run_dir, "01"):
            await eventually(lambda: control.states() == {"one": "proven"})
        await eventually(lambda: control.last.state == "gone")
        second = FakeEngine()
        announce(run_dir, "02")
        await eventually(lambda: control.last.incarnation == "02")
        assert (control.last.state, control.last.adapters) == ("starting", ())
        async with started(second, run_dir, "02"):
            await eventually(lambda: control.states() == {"one": "proven"})
        assert "one" in second.loaded
    assert control.downloads == 2


async def test_what_the_engine_lost_is_loaded_again(
    control: FakeControlPlane, engine: FakeEngine, run_dir: Path, adapter: Path
) -> None:
    control.order({"one": adapter})
    async with started(engine, run_dir, "01"), running_agent(control, run_dir):
        await eventually(lambda: control.states() == {"one": "proven"})
        engine.loaded.clear()
        await eventually(lambda: "one" in engine.loaded)
        await eventually(lambda: control.states() == {"one": "proven"})


async def test_what_nobody_ordered_is_unloaded(
    control: FakeControlPlane, engine: FakeEngine, run_dir: Path
) -> None:
    engine.loaded["stranger"] = "/somewhere"
    control.order({})
    async with started(engine, run_dir, "01"), running_agent(control, run_dir):
        await eventually(lambda: engine.loaded == {})


async def test_a_withdrawn_adapter_is_reported_gone_before_it_is_unloaded(
    control: FakeControlPlane, engine: FakeEngine, run_dir: Path, adapter: Path
) -> None:
    control.order({"one": adapter})
    async with started(engine, run_dir, "01"), running_agent(control, run_dir):
        await eventually(lambda: control.states() == {"one": "proven"})
        control.order({})
        await eventually(lambda: control.states() == {})
        assert "one" in engine.loaded
        await eventually(lambda: engine.loaded == {})


async def test_an_engine_that_gives_no_tokens_is_failing_until_it_does(
    control: FakeControlPlane, engine: FakeEngine, run_dir: Path
) -> None:
    """Health routes answer long after the model stopped moving; a token is the better witness."""
    control.order({})
    async with started(engine, run_dir, "01"), running_agent(control, run_dir):
        await eventually(lambda: bool(control.reports) and control.last.state == "ready")
        engine.gives_tokens = False
        await eventually(lambda: control.last.state == "failing")
        assert control.last.reason
        engine.gives_tokens = True
        await eventually(lambda: control.last.state == "ready")


async def test_a_refused_adapter_says_why_and_the_others_go_on(
    control: FakeControlPlane, engine: FakeEngine, run_dir: Path, adapter: Path, tmp_path: Path
) -> None:
    control.order({"gone": tmp_path / "adapter"})
    engine.refuses_loads = True
    async with started(engine, run_dir, "01"), running_agent(control, run_dir):
        await eventually(lambda: control.states() == {"gone": "failed"})
        assert "No such adapter" in control.reason_of("gone")
        engine.refuses_loads = False
        control.order({"fine": adapter})
        await eventually(lambda: control.states() == {"fine": "proven"})


class AwayControlPlane(FakeControlPlane):
    async def orders(self, etag: str) -> AgentOrders | None:
        raise ControlUnavailable("The control plane cannot be reached: away.")


async def test_an_agent_restarted_without_control_plane_goes_on_with_its_last_orders(
    control: FakeControlPlane, engine: FakeEngine, run_dir: Path, adapter: Path
) -> None:
    control.order({"one": adapter})
    async with started(engine, run_dir, "01"), running_agent(control, run_dir):
        await eventually(lambda: control.states() == {"one": "proven"})
    away = AwayControlPlane()
    async with started(FakeEngine(), run_dir, "02"), running_agent(away, run_dir):
        await eventually(lambda: away.states() == {"one": "proven"})


async def test_an_agent_restarted_beside_a_running_engine_proves_what_is_loaded(
    control: FakeControlPlane, engine: FakeEngine, run_dir: Path, adapter: Path
) -> None:
    control.order({"one": adapter})
    async with started(engine, run_dir, "01"):
        for _ in range(2):
            control.reports.clear()
            async with running_agent(control, run_dir):
                await eventually(lambda: control.states() == {"one": "proven"})


async def asked_for_metrics(run_dir: Path) -> httpx2.Response:
    transport = httpx2.AsyncHTTPTransport(uds=str(metrics_path(run_dir)))
    async with httpx2.AsyncClient(transport=transport, base_url="http://agent") as client:
        return await client.get("/metrics", timeout=5)


async def test_the_engines_metrics_are_passed_on_with_the_agents_own(
    control: FakeControlPlane, engine: FakeEngine, run_dir: Path, adapter: Path
) -> None:
    control.order({"one": adapter})
    async with running_agent(control, run_dir):
        await eventually(metrics_path(run_dir).exists)
        answer = await asked_for_metrics(run_dir)
        assert (answer.status_code, answer.text) == (503, "The engine was not started yet.\n")
        async with started(engine, run_dir, "01"):
            await eventually(lambda: control.states() == {"one": "proven"})
            answer = await asked_for_metrics(run_dir)
            of = 'replica="replica-1",incarnation="01"'
            assert answer.status_code == 200
            assert f"tessera_agent_engine_ready{{{of}}} 1\n" in answer.text
            assert f'tessera_agent_adapters{{{of},state="proven"}} 1\n' in answer.text
            assert answer.content.endswith(engine.metrics)
            engine.metrics_status = 500
            assert (await asked_for_metrics(run_dir)).status_code == 503
        answer = await asked_for_metrics(run_dir)
        assert answer.status_code == 503
        assert answer.text.startswith("The engine does not answer /metrics")
