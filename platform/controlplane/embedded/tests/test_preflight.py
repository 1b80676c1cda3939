from __future__ import annotations

import socket
from pathlib import Path

import pytest

from controlplane.embedded.environment import Ports
from controlplane.embedded.preflight import (
    NEEDED_BYTES,
    MachineUnfit,
    require_ports,
    require_space,
)
from supervisor.errors import PortTaken


def test_a_full_disk_is_said_before_anything_is_written(tmp_path: Path) -> None:
    require_space(tmp_path, free_bytes=NEEDED_BYTES)
    with pytest.raises(MachineUnfit, match=r"has 12 MB left and Tessera needs 1000 MB\. Free"):
        require_space(tmp_path, free_bytes=12_000_000)


def test_a_taken_port_is_named_with_its_variable() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        sentence = f"Port {taken} on 127.0.0.1 is taken.*TESSERA_PORTAL_PORT={taken + 1}"
        with pytest.raises(PortTaken, match=sentence):
            require_ports(Ports(portal=taken, gateway=1, metrics=1, gateway_processes=1))
