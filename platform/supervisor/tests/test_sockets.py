"""Sockets that outlive the process that accepts on them."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

import pytest

from supervisor.errors import PortTaken
from supervisor.parts import Listeners
from supervisor.sockets import OwnedSockets, open_sockets, require_free
from supervisor.tests.stacks import python, supervised, until

SERVER = """
import os, socket
listener = socket.socket(fileno=int(os.environ["TESSERA_LISTEN_FDS"].split(",")[0]))
listener.setblocking(True)
while True:
    connection, _ = listener.accept()
    connection.sendall(str(os.getpid()).encode())
    connection.close()
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def opened(port: int = 0, count: int = 2) -> OwnedSockets:
    return open_sockets(Listeners(host="127.0.0.1", port=port, count=count, metrics_port=0))


def test_all_sockets_share_one_port_and_all_are_told() -> None:
    owned = opened(count=3)
    assert len({one.getsockname() for one in owned.gateways}) == 1
    told = owned.environment(1)
    assert told["TESSERA_LISTEN_FDS"].split(",") == [str(one.fileno()) for one in owned.gateways]
    assert (told["TESSERA_LISTEN_INDEX"], told["TESSERA_METRICS_FD"]) == (
        "1",
        str(owned.metrics.fileno()),
    )
    owned.close()


def test_a_second_stack_on_the_port_is_refused_although_both_would_share() -> None:
    owned = opened()
    port = owned.gateways[0].getsockname()[1]
    with pytest.raises(PortTaken, match=rf"Port {port} .* is taken .* TESSERA_GATEWAY_PORT"):
        opened(port)
    owned.close()
    opened(port).close()


def test_a_stranger_s_listener_is_seen_too() -> None:
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", 0))
        stranger.listen()
        with pytest.raises(PortTaken):
            require_free("127.0.0.1", stranger.getsockname()[1])


def test_connections_that_fade_away_do_not_count() -> None:
    owned = opened(count=1)
    address = owned.gateways[0].getsockname()
    with socket.create_connection(address) as client:
        owned.gateways[0].accept()[0].close()
        assert client.recv(1) == b""
    owned.close()
    opened(address[1], count=1).close()


def test_a_port_that_may_not_be_bound_is_one_sentence() -> None:
    with pytest.raises(PortTaken, match=r"Cannot listen on 192.0.2.1 port 80"):
        require_free("192.0.2.1", 80)


def test_a_restarted_process_answers_who_waited_meanwhile(tmp_path: Path) -> None:
    address = ("127.0.0.1", free_port())
    listeners = {"host": address[0], "port": address[1], "count": 1, "metrics_port": 0}
    gateway = python("gateway", SERVER, listen_index=0)
    with supervised(tmp_path, gateway, listeners=listeners) as stack:
        first = stack.wait("gateway", "running")["pid"]
        os.kill(first, signal.SIGSTOP)
        waiting = [socket.create_connection(address) for _ in range(5)]
        os.kill(first, signal.SIGKILL)
        answers = {int(connection.recv(20)) for connection in waiting}
        for connection in waiting:
            connection.close()
        until(lambda: stack.part("gateway")["state"] == "running", "it is back")
        assert answers == {stack.part("gateway")["pid"]}
        assert first not in answers
