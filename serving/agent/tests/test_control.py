"""The door to the control plane, against a server in this process."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest

from serving.agent.control import ControlPlane
from serving.agent.errors import ControlRefused, ControlUnavailable, FetchFailed
from serving.agent.fetch import AdapterCache
from serving.agent.tests.http_server import Answer, Request, serve
from serving.contracts import AgentOrders, AgentReport, WantedAdapter

ORDERS = AgentOrders(version=1, etag="7", replica="replica-1", base="tiny", adapters=())
REPORT = AgentReport(
    version=1, replica="replica-1", incarnation="01", address="unix:/x", state="ready"
)


def control_at(url: str) -> ControlPlane:
    return ControlPlane(url, replica="replica-1", token="secret-token")


async def ask_with(answer: Answer, requests: list[Request] | None = None) -> AgentOrders | None:
    async def handler(request: Request) -> Answer:
        if requests is not None:
            requests.append(request)
        return answer

    async with serve(handler) as url:
        control = control_at(url)
        try:
            return await control.orders("6", wait_seconds=3)
        finally:
            await control.aclose()


async def test_orders_are_asked_for_with_token_etag_and_patience() -> None:
    requests: list[Request] = []
    orders = await ask_with(Answer(200, msgspec.json.encode(ORDERS)), requests)
    assert orders == ORDERS
    assert requests[0].target == "/agent/v1/replicas/replica-1/orders?etag=6&wait=3"
    assert requests[0].headers["authorization"] == "Bearer secret-token"


async def test_unchanged_orders_are_none() -> None:
    assert await ask_with(Answer(304)) is None


@pytest.mark.parametrize("status", [500, 502, 503, 429])
async def test_a_control_plane_in_trouble_is_unavailable(status: int) -> None:
    with pytest.raises(ControlUnavailable, match=str(status)):
        await ask_with(Answer(status))


@pytest.mark.parametrize("status", [401, 403, 404])
async def test_a_no_is_a_refusal(status: int) -> None:
    with pytest.raises(ControlRefused) as caught:
        await ask_with(Answer(status))
    assert caught.value.status == status
    assert caught.value.lasting


@pytest.mark.parametrize("body", [b"", b"<html>", b'{"version": 1}', b"[]"])
async def test_what_is_no_orders_is_not_believed(body: bytes) -> None:
    with pytest.raises(ControlUnavailable):
        await ask_with(Answer(200, body))


async def test_orders_of_a_later_contract_are_not_believed() -> None:
    later = msgspec.structs.replace(ORDERS, version=99)
    with pytest.raises(ControlUnavailable, match="version 99"):
        await ask_with(Answer(200, msgspec.json.encode(later)))


async def test_nobody_there_is_unavailable() -> None:
    control = control_at("http://127.0.0.1:1")
    with pytest.raises(ControlUnavailable):
        await control.orders("", wait_seconds=0)
    with pytest.raises(ControlUnavailable):
        await control.report(REPORT)
    await control.aclose()


async def test_a_report_arrives_as_json() -> None:
    requests: list[Request] = []

    async def handler(request: Request) -> Answer:
        requests.append(request)
        return Answer(204)

    async with serve(handler) as url:
        control = control_at(url)
        await control.report(REPORT)
        await control.aclose()
    assert requests[0].path == "/agent/v1/replicas/replica-1/report"
    assert msgspec.json.decode(requests[0].body, type=AgentReport) == REPORT


WANTED = WantedAdapter(name="one", digest="a" * 64, files={"adapter_config.json": "0" * 64})


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (Answer(404), ControlRefused),
        (Answer(500), ControlUnavailable),
        (Answer(200, b"{}"), FetchFailed),  # other bytes than ordered
        (Answer(200, b"{}", promised=1000), ControlUnavailable),  # cut
    ],
)
async def test_a_file_that_does_not_come_leaves_nothing(
    tmp_path: Path, answer: Answer, error: type[Exception]
) -> None:
    async def handler(_request: Request) -> Answer:
        return answer

    cache = AdapterCache(tmp_path / "cache")
    async with serve(handler) as url:
        control = control_at(url)
        with pytest.raises(error):
            await cache.ensure(WANTED, control)
        await control.aclose()
    assert list(cache.folder.iterdir()) == []


async def test_cancelling_a_fetch_leaves_nothing(tmp_path: Path) -> None:
    asked = asyncio.Event()

    async def handler(_request: Request) -> Answer:
        asked.set()
        await asyncio.sleep(60)
        return Answer(200)

    cache = AdapterCache(tmp_path / "cache")
    async with serve(handler) as url:
        control = control_at(url)
        fetching = asyncio.create_task(cache.ensure(WANTED, control))
        await asked.wait()
        fetching.cancel()
        await asyncio.gather(fetching, return_exceptions=True)
        await control.aclose()
    assert list(cache.folder.iterdir()) == []
