"""The command line, as the supervisor calls it: processes, files, signals."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import pytest

from serving.agent.launch import announce, socket_path
from serving.agent.tests.http_server import Answer, Request, serve
from serving.agent.tests.stand_ins import FakeEngine, eventually, wanted_adapter
from serving.contracts import AgentOrders, AgentReport, WantedAdapter


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    folder = tmp_path / "stored"
    folder.mkdir()
    (folder / "adapter_config.json").write_text("{}")
    return folder


class ControlPlane:
    """The control plane's three routes, over HTTP."""

    def __init__(self, adapter: WantedAdapter, folder: Path) -> None:
        self._adapter = adapter
        self._folder = folder
        self.reports: list[AgentReport] = []

    async def handle(self, request: Request) -> Answer:
        assert request.headers["authorization"] == "Bearer the-token"
        if request.path.endswith("/report"):
            self.reports.append(msgspec.json.decode(request.body, type=AgentReport))
            return Answer(204)
        if "/artifacts/" in request.path:
            return Answer(200, (self._folder / Path(request.path).name).read_bytes())
        if "etag=1" in request.target:
            await asyncio.sleep(1)
            return Answer(304)
        orders = AgentOrders(
            version=1, etag="1", replica="replica-1", base="tiny", adapters=(self._adapter,)
        )
        return Answer(200, msgspec.json.encode(orders))


async def start(
    command: str, url: str, folder: Path, *more: str, key: str | None = "engine-key"
) -> asyncio.subprocess.Process:
    token = folder / "token"
    token.write_text("the-token\n")
    environment = {name: value for name, value in os.environ.items() if name != "VLLM_API_KEY"}
    if key is not None:
        environment["VLLM_API_KEY"] = key
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "serving.agent", command, "--replica", "replica-1"),
        *("--control-url", url, "--token-file", str(token), "--cache", str(folder / "cache")),
        *more,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def test_fetch_fills_the_cache_and_ends(tmp_path: Path, stored: Path) -> None:
    adapter = wanted_adapter("one", stored)
    async with serve(ControlPlane(adapter, stored).handle) as url:
        process = await start("fetch", url, tmp_path)
        output, _ = await process.communicate()
    assert process.returncode == 0
    assert output.decode().strip() == str(tmp_path / "cache" / adapter.digest)
    assert (tmp_path / "cache" / adapter.digest / "adapter_config.json").read_text() == "{}"


async def test_fetch_says_what_is_in_its_way(tmp_path: Path) -> None:
    process = await start("fetch", "http://127.0.0.1:1", tmp_path)
    _, words = await process.communicate()
    assert process.returncode == 1
    assert words.decode().startswith("The control plane cannot be reached")


async def test_run_needs_the_engines_key(tmp_path: Path) -> None:
    process = await start(
        "run", "http://127.0.0.1:1", tmp_path, "--run-dir", str(tmp_path), key=None
    )
    _, words = await process.communicate()
    assert process.returncode == 1
    assert "VLLM_API_KEY" in words.decode()


async def test_run_proves_reports_and_stops_on_sigterm(tmp_path: Path, stored: Path) -> None:
    control = ControlPlane(wanted_adapter("one", stored), stored)
    with TemporaryDirectory(prefix="agent-") as folder:
        run_dir = Path(folder)
        announce(run_dir, "01")
        async with (
            serve(FakeEngine().handle, socket_path(run_dir, "01")),
            serve(control.handle) as url,
        ):
            process = await start("run", url, tmp_path, "--run-dir", folder)
            await eventually(
                lambda: (
                    bool(control.reports)
                    and control.reports[-1].adapters[:1] != ()
                    and control.reports[-1].adapters[0].state == "proven"
                )
            )
            process.send_signal(signal.SIGTERM)
            await process.communicate()
    assert process.returncode == 0
