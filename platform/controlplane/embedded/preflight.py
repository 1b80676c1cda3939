"""What is wrong with this machine, found before anything starts, and the way out."""

from __future__ import annotations

import shutil
from pathlib import Path

from controlplane.embedded.environment import Ports
from controlplane.engine.environment import EngineUnavailable, engine_python, require_fit_machine
from kernel.errors import Unavailable
from supervisor.sockets import require_free

NEEDED_BYTES = 1_000_000_000
NOT_INSTALLED = (
    "The engine is not installed, so no model will answer; everything else starts. "
    "Install it with `make engine`, or use a stand-in with `make up SIMULATOR=1`."
)


class MachineUnfit(Unavailable):
    code = "machine_unfit"


def require_space(folder: Path, *, free_bytes: int | None = None) -> None:
    free = shutil.disk_usage(folder).free if free_bytes is None else free_bytes
    if free < NEEDED_BYTES:
        raise MachineUnfit(
            f"The disk that holds {folder} has {free // 1_000_000} MB left and Tessera needs "
            f"{NEEDED_BYTES // 1_000_000} MB. Free some space, or let TESSERA_HOME name a folder "
            "on a larger disk."
        )


def require_ports(ports: Ports) -> None:
    """Raises the supervisor's ``PortTaken``. The supervisor asks again when it binds."""
    for port in (ports.portal, ports.gateway, ports.metrics):
        require_free("127.0.0.1", port)


def engine_notes(*, simulator: bool) -> list[str]:
    """What somebody should know about the engine, if anything."""
    if simulator:
        return ["SIMULATOR=1: a stand-in answers instead of the engine; its texts mean nothing."]
    try:
        note = require_fit_machine()
    except EngineUnavailable as error:
        return [error.message]
    if engine_python() is None:
        return [NOT_INSTALLED]
    return [note] if note else []
