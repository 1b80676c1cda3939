"""The door to the control plane: orders, artifact bytes, reports."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx2
import msgspec

from serving.agent.errors import ControlRefused, ControlUnavailable
from serving.contracts import READABLE_VERSIONS, AgentOrders, AgentReport

POLL_SECONDS = 25.0
ANSWER_SECONDS = 10.0
CONNECT_SECONDS = 5.0


class ControlPlane:
    """One replica's view of the control plane, with the token that belongs to that replica.

    Every failure leaves as ``ControlUnavailable`` or ``ControlRefused``; nothing is retried here.
    """

    def __init__(
        self,
        url: str,
        *,
        replica: str,
        token: str,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        self._client = httpx2.AsyncClient(
            base_url=f"{url.rstrip('/')}/agent/v1/replicas/{replica}",
            headers={"Authorization": f"Bearer {token}"},
            timeout=httpx2.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS),
            transport=transport,
            trust_env=False,
        )

    async def aclose(self) -> None:
        await self._client.aclose()

    async def orders(self, etag: str, *, wait_seconds: float = POLL_SECONDS) -> AgentOrders | None:
        """The orders, once they are others than those named ``etag``; ``None`` if they stay so."""
        timeout = httpx2.Timeout(wait_seconds + ANSWER_SECONDS, connect=CONNECT_SECONDS)
        params = {"etag": etag, "wait": f"{wait_seconds:g}"}
        with _translated():
            response = await self._client.get("/orders", params=params, timeout=timeout)
        if response.status_code == 304:
            return None
        _require_success(response)
        try:
            orders = msgspec.json.decode(response.content, type=AgentOrders)
        except msgspec.DecodeError as error:
            raise ControlUnavailable(f"The control plane sent no orders: {error}") from error
        if orders.version not in READABLE_VERSIONS:
            raise ControlUnavailable(f"Orders of version {orders.version} are not readable here.")
        return orders

    @asynccontextmanager
    async def artifact(self, digest: str, name: str) -> AsyncIterator[AsyncIterator[bytes]]:
        """The bytes of one file, as they arrive."""
        with _translated():
            async with self._client.stream("GET", f"/artifacts/{digest}/{name}") as response:
                _require_success(response)
                yield response.aiter_bytes()

    async def report(self, report: AgentReport) -> None:
        body = msgspec.json.encode(report)
        headers = {"Content-Type": "application/json"}
        with _translated():
            response = await self._client.post("/report", content=body, headers=headers)
        _require_success(response)


class _translated:  # noqa: N801 - reads as a statement
    """Lets no transport exception out."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, (httpx2.HTTPError, httpx2.StreamError)):
            reason = str(error) or type(error).__name__
            raise ControlUnavailable(f"The control plane cannot be reached: {reason}") from error


def _require_success(response: httpx2.Response) -> None:
    status = response.status_code
    if status in (200, 204):
        return
    where = response.request.url.path
    if 400 <= status < 500 and status not in (408, 425, 429):
        raise ControlRefused(f"The control plane answered {status} to {where}.", status=status)
    raise ControlUnavailable(f"The control plane answered {status} to {where}.")
