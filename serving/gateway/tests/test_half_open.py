"""F17: an engine's machine vanishes and says nothing: no FIN, no RST, no ICMP.

In a network namespace of its own, whose only link goes down while a connection stands.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import sys
import time

import pytest
import uvloop

from serving.contracts import Endpoint
from serving.gateway.answers import PlainAnswer
from serving.gateway.connection import Cut, NotReached
from serving.gateway.upstream import DEAD_PEER_SECONDS, Upstream

ALONE = ["unshare", "--net", "--"]
SECONDS = 2


def needs_a_network_of_its_own() -> str:
    """Why not, where it cannot be had."""
    if not (shutil.which("unshare") and shutil.which("ip")):
        return "unshare and ip (util-linux, iproute2) are not installed"
    if subprocess.run([*ALONE, "true"], capture_output=True, check=False).returncode:
        return "a network namespace needs root"
    return ""


async def test_the_kernel_is_told_how_soon_to_notice_a_machine_that_vanished() -> None:
    assert DEAD_PEER_SECONDS * 5 / 4 <= 30
    upstream = Upstream(engine_key=b"k" * 32)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        connection = await upstream.connect(_endpoint(listening))
        made = connection._transport.get_extra_info("socket")
        tcp = socket.IPPROTO_TCP
        assert made.getsockopt(tcp, socket.TCP_USER_TIMEOUT) == DEAD_PEER_SECONDS * 1000
        assert made.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert made.getsockopt(tcp, socket.TCP_KEEPIDLE) == DEAD_PEER_SECONDS // 4
        upstream.close()
        await asyncio.sleep(0.01)  # the loop closes it


@pytest.mark.parametrize("sends", ["nothing", "a request"])
def test_a_connection_to_a_machine_that_vanished_is_cut(sends: str) -> None:
    """While it waits for an answer (keepalive), and with a request that nobody acknowledges."""
    if reason := needs_a_network_of_its_own():
        pytest.skip(reason)
    done = subprocess.run(
        [*ALONE, sys.executable, "-m", __name__, sends],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=os.environ,
    )
    assert done.returncode == 0, done.stderr
    took, outcome, reached = done.stdout.split()
    assert outcome == Cut.__name__
    assert SECONDS / 2 <= float(took) <= SECONDS * 2.5
    assert reached == NotReached.__name__, "and no new connection is waited for"


async def _vanish(sends: str) -> None:
    """Runs in the namespace: prints how long it took, and what the gateway's side said."""
    _link("up")
    listening = socket.create_server(("127.0.0.1", 0))
    endpoint = _endpoint(listening)
    upstream = Upstream(engine_key=b"k" * 32, dead_peer_seconds=SECONDS)
    connection = await upstream.connect(endpoint)
    answer = PlainAnswer()
    request = upstream.request(endpoint, "/v1/completions", b"{}", request_id="x")
    if sends == "nothing":
        connection.send(request, answer, is_stream=False, first_seconds=60, idle_seconds=60)
        await asyncio.sleep(0.2)
        _link("down")
    else:
        _link("down")
        connection.send(request, answer, is_stream=False, first_seconds=60, idle_seconds=60)
    begun = time.monotonic()
    outcome: BaseException | None = None
    try:
        await answer.finished
    except Cut as error:
        outcome = error
    took = time.monotonic() - begun
    try:
        await upstream.connect(endpoint)
    except NotReached as error:
        print(took, type(outcome).__name__, type(error).__name__)


def _endpoint(listening: socket.socket) -> Endpoint:
    """Whose kernel takes connections and requests, and who says nothing."""
    port = listening.getsockname()[1]
    return Endpoint(
        pool="p", replica="r", incarnation="i", address=f"http://127.0.0.1:{port}",
        slots=1, adapters=(),
    )  # fmt: skip


def _link(state: str) -> None:
    subprocess.run(["ip", "link", "set", "lo", state], check=True)


if __name__ == "__main__":
    uvloop.run(_vanish(sys.argv[1]))
