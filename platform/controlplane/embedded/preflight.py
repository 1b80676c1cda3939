"""What is wrong with this machine, found before anything starts, and the way out."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from controlplane.embedded.environment import Ports
from controlplane.engine.base import demo_base
from controlplane.engine.environment import EngineUnavailable
from controlplane.engine.install import install_engine
from kernel.errors import Unavailable
from supervisor.sockets import require_free

NEEDED_BYTES = 1_000_000_000
SIMULATED = "A simulator answers instead of the engine: its texts mean nothing."
WITHOUT_ENGINE = (
    "Without the engine no model answers; everything else starts. "
    "`make up SIMULATOR=1` starts a stand-in for it."
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
    for variable, port in ports.by_variable().items():
        require_free("127.0.0.1", port, variable=variable)


def provide_engine(say: Callable[[str], None], *, simulator: bool) -> None:
    """Install engine and base model where they are missing; where that fails, say so and go on."""
    if simulator:
        say(SIMULATED)
        return
    try:
        install_engine(say)
        demo_base(say)
    except EngineUnavailable as error:
        say(f"{error.message}\n{WITHOUT_ENGINE}")
