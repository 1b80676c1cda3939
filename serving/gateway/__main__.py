"""``python -m serving.gateway``: one process, on inherited sockets or on a port of its own."""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import os
import resource
import signal
import socket
import sys
from collections.abc import Mapping

import uvloop

from serving.gateway.listening import AlreadyRunning
from serving.gateway.main import Gateway
from serving.gateway.settings import Settings, SettingsError, settings_from
from serving.gateway.where import Fleet
from serving.journal.writer import JournalFull

_GC_THRESHOLD = (20_000, 20, 50)  # a request leaves few cycles behind: looking less often is enough


def main(fleet: Fleet | None = None) -> int:
    """``fleet`` chooses replicas in its own way, where given."""
    arguments = _arguments()
    logging.basicConfig(
        level=os.environ.get("LOG_LEVEL", "INFO"),
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    try:
        settings = settings_from(os.environ)
        sockets, index = _sockets(os.environ, arguments)
        metrics = _metrics_socket(os.environ, arguments)
    except (SettingsError, OSError) as error:
        sys.stderr.write(f"gateway: {error}\n")
        return 2
    _raise_descriptor_limit()
    try:
        return uvloop.run(_run(settings, sockets, index, metrics, fleet or Fleet()))
    except (AlreadyRunning, JournalFull) as error:
        sys.stderr.write(f"gateway: {error}\n")
        return 1


def _raise_descriptor_limit() -> None:
    """A stream takes two descriptors; many systems give a process 1,024 until it asks for more."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


async def _run(
    settings: Settings,
    sockets: list[socket.socket],
    index: int,
    metrics: socket.socket | None,
    fleet: Fleet,
) -> int:
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    gateway = Gateway(
        settings,
        sockets=sockets,
        index=index,
        metrics_socket=metrics,
        out=sys.stdout.buffer,
        fleet=fleet,
    )
    await gateway.start()
    # What exists now lives as long as the process: the collector need not look at it again.
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLD)
    host, port = sockets[index].getsockname()[:2]
    sys.stderr.write(f"gateway {index} listening on {host}:{port}\n")
    await _first(stopping, gateway.failed)
    await gateway.drain()
    await gateway.close()
    return 1 if gateway.failed.is_set() else 0


async def _first(*events: asyncio.Event) -> None:
    waiting = [asyncio.ensure_future(event.wait()) for event in events]
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    for task in waiting:
        task.cancel()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m serving.gateway")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, help="listen here instead of on inherited sockets")
    parser.add_argument("--metrics-port", type=int, help="health and metrics, on loopback")
    return parser.parse_args()


def _sockets(
    environment: Mapping[str, str], arguments: argparse.Namespace
) -> tuple[list[socket.socket], int]:
    if arguments.port is not None:
        return [socket.create_server((arguments.host, arguments.port))], 0
    inherited = environment.get("TESSERA_LISTEN_FDS", "")
    if not inherited:
        raise SettingsError("TESSERA_LISTEN_FDS is not set; give --port to run one process alone.")
    sockets = [socket.socket(fileno=int(descriptor)) for descriptor in inherited.split(",")]
    index = int(environment.get("TESSERA_LISTEN_INDEX", "0"))
    if not 0 <= index < len(sockets):
        raise SettingsError("TESSERA_LISTEN_INDEX is not an index into TESSERA_LISTEN_FDS.")
    return sockets, index


def _metrics_socket(
    environment: Mapping[str, str], arguments: argparse.Namespace
) -> socket.socket | None:
    if arguments.metrics_port is not None:
        return socket.create_server(("127.0.0.1", arguments.metrics_port))
    descriptor = environment.get("TESSERA_METRICS_FD", "")
    return socket.socket(fileno=int(descriptor)) if descriptor else None


if __name__ == "__main__":
    sys.exit(main())
